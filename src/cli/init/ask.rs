//! Questions to the person at the terminal, with what is proposed to them.

use crate::cli::exit::{Exit, Failure};
use crate::cli::prompt::Terminal;
use crate::cli::text::escape;

/// How often somebody may mistype.
const TRIES_MAX: usize = 20;

/// Something to be known, and how to say it without being asked.
pub(super) struct Question<'a> {
    pub(super) text: &'a str,
    /// The answer of whoever presses Enter alone.
    pub(super) proposed: Option<&'a str>,
    pub(super) flags: &'static str,
}

/// Who is asked: a person, or nobody.
pub(super) struct Questions {
    terminal: Option<Terminal>,
    /// What is proposed counts.
    takes_proposals: bool,
    /// The flags of those that nobody has answered.
    missing: Vec<&'static str>,
}

impl Questions {
    pub(super) fn new(takes_proposals: bool) -> Self {
        Self { terminal: Terminal::of_process(), takes_proposals, missing: Vec::new() }
    }

    /// The answer, if it is not given already; `None` if there is nobody to ask, which
    /// [`all_answered`](Self::all_answered) makes an error of.
    pub(super) async fn ask<T>(
        &mut self,
        given: Option<T>,
        question: &Question<'_>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Failure> {
        if given.is_some() {
            return Ok(given);
        }
        match (self.takes_proposals, question.proposed, self.terminal) {
            (true, Some(proposed), _) => read(proposed).map(Some).map_err(|why| unusable(&why)),
            (_, _, Some(terminal)) => ask(terminal, question, read).await.map(Some),
            _ => {
                self.missing.push(question.flags);
                Ok(None)
            }
        }
    }

    /// Whether somebody can be asked.
    pub(super) fn has_person(&self) -> bool {
        self.terminal.is_some()
    }

    /// # Errors
    /// There were questions, and nobody to ask.
    pub(super) fn all_answered(&self) -> Result<(), Failure> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let flags = self.missing.join(", ");
        Err(unusable(&format!(
            "there is no terminal to ask on: give {flags}, or --yes for what would be proposed"
        )))
    }
}

async fn ask<T>(
    terminal: Terminal,
    question: &Question<'_>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Failure> {
    let mut shown = format!("{}\n", question.text);
    for _ in 0..TRIES_MAX {
        shown.push_str(
            &question.proposed.map(|it| format!("[{}] ", escape(it))).unwrap_or_default(),
        );
        shown.push_str("> ");
        let line = terminal.line(shown).await;
        let line = line.map_err(|error| unusable(&format!("cannot read an answer: {error}")))?;
        let Some(line) = line else { return Err(unusable("there was no answer")) };
        let said = match (line.trim(), question.proposed) {
            ("", Some(proposed)) => proposed,
            (said, _) => said,
        };
        match read(said) {
            Ok(answer) => return Ok(answer),
            Err(why) => shown = format!("{why}\n"),
        }
    }
    Err(unusable("none of these was an answer"))
}

fn unusable(why: &str) -> Failure {
    Failure::message(Exit::Usage, format!("{why}; nothing was written"))
}

pub(super) fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        "n" | "no" => Ok(false),
        _ => Err("Write yes or no.".to_owned()),
    }
}
