//! `imux-sim`: everything that proves imux from the outside. One subcommand group per tool.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(
    name = "imux-sim",
    version,
    about = "Prove imux: simulate it, and measure it on real kernels"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Measure on real kernels: emulated paths, real TCP and MPTCP, other programs side by side
    Lab(imux_sim::lab::cli::LabArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Lab(args) => imux_sim::lab::cli::main(args),
    }
}
