//! What the documents say is so: each command of the README and the guide is run, each option
//! exists, each link leads somewhere, the chart is of the table, and the table of constants is that
//! of the source.

#![cfg(feature = "cli")]

mod chart;
mod commands;
mod constants;
mod machines;
mod markdown;
mod schema;
mod units;
mod words;

#[path = "../support/mod.rs"]
mod support;
