//! What the documents say is so: each command of the README and the guide is run, each option exists, each link leads somewhere,
//! and the chart is of the table.

#![cfg(feature = "cli")]

mod chart;
mod commands;
mod machines;
mod markdown;
mod words;

#[path = "../support/mod.rs"]
mod support;
