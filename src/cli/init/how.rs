//! What setting up a server and a client have in common.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::ask::{Question, Questions, yes_or_no};
use super::files::{self, Files, Staged, failure};
use super::unit::{self, Service};
use crate::cli::args::file_of;
use crate::cli::config::Task;
use crate::cli::exit::{Exit, Failure};

/// How all of it is done.
pub(super) struct How {
    pub(super) home: PathBuf,
    /// Whether to write a unit, if that was said.
    pub(super) unit: Option<bool>,
    pub(super) force: bool,
    pub(super) print: bool,
}

impl How {
    /// Whether there is to be a unit.
    pub(super) async fn wants_unit(
        &self,
        questions: &mut Questions,
        service: &Service,
    ) -> Result<bool, Failure> {
        let place = service.place().map_err(|why| failure(&why));
        let shown = place.as_ref().map_or_else(|_| String::new(), |it| it.display().to_string());
        let question = Question {
            text: &format!("Write a systemd unit, {shown}? yes or no"),
            proposed: Some(if place.is_ok() && unit::runs_here() { "yes" } else { "no" }),
            flags: "--unit or --no-unit",
        };
        let unit = questions.ask(self.unit, &question, yes_or_no).await?;
        if unit == Some(true) {
            place?;
        }
        Ok(unit == Some(true))
    }

    /// The file that equals a command line of `imux`, what it asks for, and the unit with it.
    pub(super) fn files(
        &self,
        words: &[String],
        service: &Service,
        unit: bool,
    ) -> Result<(Files, Task), Failure> {
        let (text, task) = file_of(words, &self.home)
            .map_err(|why| Failure::message(Exit::Usage, format!("{why}; nothing was written")))?;
        let mut files = Files::new(self.force);
        files.add(service.file().to_owned(), text, files::PRIVATE);
        if unit {
            let place = service.place().map_err(|why| failure(&why))?;
            files.add(place, service.unit().map_err(|why| failure(&why))?, files::PUBLIC);
        }
        Ok((files, task))
    }

    /// What to tell once all is written.
    pub(super) fn told(
        &self,
        written: &[PathBuf],
        service: &Service,
        unit: bool,
    ) -> Zeroizing<String> {
        let mut told = String::from("Written:\n");
        for path in written {
            told.push_str(&format!("    {}\n", path.display()));
        }
        told.push_str(&service.how_to_start(unit));
        Zeroizing::new(told)
    }
}

/// Puts the files in their places once `last`, which cannot be undone, has been done.
pub(super) async fn finish<T>(
    staged: Staged,
    last: impl Future<Output = Result<T, Failure>>,
) -> Result<(Vec<PathBuf>, T), Failure> {
    let done = last.await?;
    Ok((staged.put()?, done))
}
