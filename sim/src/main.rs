//! `imux-sim`: the core over simulated networks.

use std::process::ExitCode;

use clap::Parser;

/// Simulates imux: its core, over networks that follow from a seed
#[derive(Debug, Parser)]
#[command(name = "imux-sim", version, about)]
struct Cli {
    #[command(subcommand)]
    command: imux_sim::cli::Command,
}

fn main() -> ExitCode {
    let ran = imux_sim::cli::run(Cli::parse().command, &mut std::io::stdout().lock());
    ran.unwrap_or_else(|error| imux_sim::cli::report(&error))
}
