//! The command line: raw arguments -> validated configuration -> run -> exit code.
//!
//! Nothing here knows how bytes travel; nothing below here knows that a command line exists.
//! An argument is checked completely before anything starts: once [`parse`] has returned, what
//! can still fail is the world (files, sockets, peers), never the spelling of an option.

// Until the three functions of `run` that meet the library use it all; then this line warns.
#![cfg_attr(not(test), expect(dead_code, reason = "run_server, run_client and run_demo use these"))]
#![cfg_attr(test, allow(dead_code, reason = "as above; tests use some of it already"))]

mod address;
mod args;
mod bind;
mod config;
mod exit;
mod go_style;
mod logging;
mod prompt;
mod report;
mod run;
mod text;
mod trust;
mod units;

pub(crate) use args::parse;
pub(crate) use run::run;
