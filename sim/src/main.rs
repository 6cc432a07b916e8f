//! `imux-sim`: the proving ground of imux.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Proves imux on simulated networks.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Sim(imux_sim::cli::Command),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Sim(command) => imux_sim::cli::run(command),
    }
}
