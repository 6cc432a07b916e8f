//! `imux-sim lab …`

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::error::LabError;

/// The lab's arguments.
#[derive(Args, Debug)]
pub struct LabArgs {
    #[command(subcommand)]
    command: LabCommand,
}

#[derive(Subcommand, Debug)]
enum LabCommand {
    /// CPU and memory per gigabyte on loopback: imux beside TLS pairs of haproxy and stunnel
    Cpu(CpuArgs),
    /// Helper process: sends and measures; reads its plan from standard input
    #[command(hide = true)]
    Load,
    /// Helper process: receives, checks and answers
    #[command(hide = true)]
    Sink {
        /// Address to listen on; port 0 takes a free one
        #[arg(long)]
        listen: std::net::SocketAddr,
        /// Accept MPTCP
        #[arg(long)]
        mptcp: bool,
    },
}

/// Arguments of `lab cpu`.
#[derive(Args, Debug, Clone)]
pub struct CpuArgs {
    /// Contenders, comma-separated: direct, haproxy, stunnel, imux
    #[arg(long, value_delimiter = ',', default_value = "direct,haproxy,stunnel,imux")]
    pub peers: Vec<String>,
    /// Streams x lanes of each case, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "1x1,1x8,8x8")]
    pub cases: Vec<String>,
    /// Megabytes moved in each run, all streams together
    #[arg(long, default_value_t = 2000)]
    pub megabytes: u64,
    /// up, down, or both one after the other
    #[arg(long, default_value = "up")]
    pub direction: String,
    /// Runs of each contender and case; contenders take turns
    #[arg(long, default_value_t = 5)]
    pub runs: u32,
    /// The imux program; by default the one beside this program, then the one on PATH
    #[arg(long)]
    pub imux: Option<std::path::PathBuf>,
    /// Where to write the figures as JSON
    #[arg(long)]
    pub json: Option<std::path::PathBuf>,
}

/// Runs the command; problems go to standard error, the kind of problem into the exit code.
#[must_use]
pub fn main(args: LabArgs) -> ExitCode {
    match dispatch(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("imux-sim: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

#[cfg(target_os = "linux")]
fn dispatch(command: LabCommand) -> Result<(), LabError> {
    use super::{cpu, load, sink};
    match command {
        LabCommand::Cpu(args) => cpu::run(&args),
        LabCommand::Load => load::run().map_err(|e| LabError::Run(format!("load: {e}"))),
        LabCommand::Sink { listen, mptcp } => {
            sink::run(listen, mptcp).map_err(|e| LabError::Run(format!("sink: {e}")))
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn dispatch(_: LabCommand) -> Result<(), LabError> {
    Err(LabError::Unsupported("it needs Linux (namespaces, TUN devices, /proc)".to_owned()))
}
