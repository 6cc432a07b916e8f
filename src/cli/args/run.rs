//! `imux run` and `imux check`: several servers and clients in one process, by a file.

use std::ops::Range;
use std::path::PathBuf;

use clap::Args;

use super::file::Problem;
use crate::cli::address::Endpoint;
use crate::cli::config::{
    ClientConfig, FileConfig, Invocation, Origin, ServerConfig, SessionConfig, Task,
};
use crate::cli::logging;

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  imux run -c /etc/imux/imux.toml
A file of one client over two links; every long option is a key (docs/CONFIG.md):
  [[client]]
  dial = \"server.example:443\"
  forward = [\"5432:db.example:5432\"]
  bind = [\"dev:eth0\", { link = \"dev:wwan0\", tier = \"metered\" }]
The file that equals a command line:
  imux client --listen localhost:2222 --dial server.example:443 --print-config > imux.toml";

pub(super) const CHECK_EXAMPLES: &str = "\
Examples:
  imux check /etc/imux/imux.toml";

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The file, in TOML
    #[arg(long, short, value_name = "FILE")]
    pub(super) config: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The file, in TOML
    #[arg(value_name = "FILE")]
    pub(super) file: PathBuf,
}

/// The tables of a file as one process, with their places.
pub(super) fn together(
    origin: Origin,
    found: Vec<(Invocation, Range<usize>)>,
) -> Result<Invocation, Problem> {
    check(&found)?;
    let talks = |it: &&(Invocation, _)| !is_stdio(&it.0.task);
    let loud = found.iter().find(talks).or(found.first());
    let level = loud.map_or(logging::Level::Normal, |(it, _)| it.logging.level);
    let (mut servers, mut clients) = (Vec::new(), Vec::new());
    let mut logging = logging::Options { level, json: false, audit: None };
    let mut notices = Vec::new();
    for (invocation, _) in found {
        logging.json |= invocation.logging.json;
        logging.audit = logging.audit.or(invocation.logging.audit);
        notices.extend(invocation.notices);
        match invocation.task {
            Task::Server(config) => servers.push(config),
            Task::Client(config) => clients.push(config),
            _ => {}
        }
    }
    notices.dedup();
    let all = FileConfig { origin, logging: logging.clone(), servers, clients };
    Ok(Invocation { task: Task::File(all), logging, notices })
}

fn is_stdio(task: &Task) -> bool {
    matches!(task, Task::Client(ClientConfig { stdio: Some(_), .. }))
}

fn session(task: &Task) -> Option<&SessionConfig> {
    match task {
        Task::Server(ServerConfig { session, .. }) | Task::Client(ClientConfig { session, .. }) => {
            Some(session)
        }
        _ => None,
    }
}

/// The places here that it takes connections or lanes at.
fn places(task: &Task) -> Vec<Endpoint> {
    match task {
        Task::Server(config) => vec![Endpoint::Network(config.listen.clone())],
        Task::Client(config) => config.forwards.iter().map(|it| it.listen.clone()).collect(),
        _ => Vec::new(),
    }
}

/// Finds what one process cannot be together.
fn check(found: &[(Invocation, Range<usize>)]) -> Result<(), Problem> {
    for (number, (one, at)) in found.iter().enumerate() {
        let wrong = |what: String| Err(Problem { at: at.clone(), what });
        for (other, _) in &found[..number] {
            let of_other = places(&other.task);
            let taken = places(&one.task)
                .into_iter()
                .find(|place| of_other.iter().any(|other| other.is_same_place(place)));
            if let Some(place) = taken {
                return wrong(format!("another table of this file listens at {place} as well"));
            }
            if is_stdio(&one.task) || is_stdio(&other.task) {
                return wrong(
                    "`stdio` goes with no other table: both would end with it".to_owned(),
                );
            }
            let differ = |one: &Option<_>, other: &Option<_>| {
                one.is_some() && other.is_some() && one != other
            };
            if differ(&one.logging.audit, &other.logging.audit) {
                return wrong(
                    "one process has one audit trail: give all `audit` the same file".to_owned(),
                );
            }
            let memory = |task| session(task).and_then(|it| it.memory);
            let (ours, theirs) = (memory(&one.task), memory(&other.task));
            if ours.is_some() && theirs.is_some() && ours != theirs {
                return wrong(
                    "`memory` is for the whole process: say the same in all tables".to_owned(),
                );
            }
        }
    }
    Ok(())
}
