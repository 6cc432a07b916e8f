//! The command line: raw arguments -> validated configuration -> run -> exit code.
//!
//! Nothing here knows how bytes travel; nothing below here knows that a command line exists.
//! Arguments are checked completely before anything starts: once [`parse`] has returned, only the
//! world (files, sockets, peers) can still fail, never the spelling of an option.
#![allow(unreachable_pub, reason = "a program has no API")]

mod address;
mod args;
mod bind;
mod config;
mod connect;
mod control;
mod date;
mod demo;
mod descriptors;
mod exit;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gateway;
mod go_style;
mod identity;
mod init;
mod keys;
mod links;
mod listening;
mod logging;
mod own_key;
mod part;
mod prompt;
mod reload;
mod report;
mod reverse;
mod routes;
mod run;
mod serve;
mod several;
mod signals;
mod status;
mod stdio;
mod stopping;
mod taking;
mod text;
mod top;
mod trust;
mod units;
mod web;

pub use args::parse;
pub use run::run;
