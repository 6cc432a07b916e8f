//! `imux status`, `imux sessions` and `imux lanes`: asks the running processes of this user.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use super::config::{StatusCommand, StatusConfig, require_home};
use super::control::{self, Change};
use super::exit::{Exit, Failure};
use super::text::print;
use snapshot::Status;

pub mod snapshot;
pub mod source;
pub mod text;

/// How often `--watch` and `top` look again.
pub const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Clears the terminal and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Does what is asked.
pub async fn run_status(config: StatusConfig) -> Result<Exit, Failure> {
    let home = require_home(config.home.as_deref())?;
    match config.command {
        StatusCommand::Show { json, watch } => loop {
            let status = look(home, config.process).await?;
            let terminal = std::io::stdout().is_terminal();
            let bold = terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
            let mut shown = match json {
                // What is made here can be written: no map has keys that are no text.
                true => serde_json::to_string(&status).unwrap_or_default() + "\n",
                false => text::status(&status, bold),
            };
            if watch && terminal && !json {
                shown.insert_str(0, CLEAR);
            }
            print(shown).await.map_err(|error| {
                Failure::message(Exit::Config, format!("cannot print the status: {error}"))
            })?;
            if !watch {
                return Ok(Exit::Ok);
            }
            tokio::time::sleep(WATCH_EVERY).await;
        },
        StatusCommand::Change(change) => {
            let said = make(home, config.process, &change).await?;
            print(format!("{said}\n")).await.map_err(|error| {
                Failure::message(Exit::Config, format!("cannot print the result: {error}"))
            })?;
            Ok(Exit::Ok)
        }
    }
}

/// What all processes of this home show, or the one with this id.
pub async fn look(home: &Path, process: Option<u32>) -> Result<Status, Failure> {
    let shown = control::ask_status(home, process).await;
    shown.map(Status::of).map_err(|error| cannot_ask(home, &error))
}

/// Has the one process that can do it do it.
pub async fn make(home: &Path, process: Option<u32>, change: &Change) -> Result<String, Failure> {
    let asked = control::ask_change(home, process, change).await;
    let mut answers = asked.map_err(|error| cannot_ask(home, &error))?;
    let refused = |why: String| Failure::message(Exit::Config, why);
    match answers.iter().filter(|answer| answer.said.is_ok()).count() {
        0 => {
            let why: Vec<_> = answers
                .drain(..)
                .filter_map(|answer| Some(format!("{}: {}", answer.name, answer.said.err()?)))
                .collect();
            Err(refused(match why.as_slice() {
                [] => format!("{}; nothing was changed", text::NOBODY),
                why => format!("nothing was changed: {}", why.join("; ")),
            }))
        }
        _ => Ok(answers
            .into_iter()
            .filter_map(|answer| Some(format!("{}: {}", answer.name, answer.said.ok()?)))
            .collect::<Vec<_>>()
            .join("\n")),
    }
}

fn cannot_ask(home: &Path, error: &std::io::Error) -> Failure {
    let home = home.display();
    let what = format!("cannot ask the processes with their keys in {home}: {error}");
    Failure::message(Exit::Config, what)
}
