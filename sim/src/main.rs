//! `imux-sim`: everything that proves imux from the outside. One subcommand group per tool.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Proves imux: simulates it, and measures it on real kernels
#[derive(Debug, Parser)]
#[command(name = "imux-sim", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Sim(imux_sim::cli::Command),
    /// Measure on real kernels: emulated paths, real TCP and MPTCP, other programs side by side
    Lab(imux_sim::lab::cli::LabArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Sim(command) => {
            let ran = imux_sim::cli::run(command, &mut std::io::stdout().lock());
            ran.unwrap_or_else(|error| imux_sim::cli::report(&error))
        }
        Command::Lab(args) => imux_sim::lab::cli::main(args),
    }
}
