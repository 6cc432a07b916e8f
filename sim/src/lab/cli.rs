//! `imux-sim lab …`

// The comments on options are help texts, in which brackets mean what may be left out.
#![allow(rustdoc::broken_intra_doc_links)]

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
    /// List the cells of the matrix
    Cells,
    /// Run one cell: emulated paths, load, figures beside their targets
    Cell(CellArgs),
    /// Run many cells and random settings; write tables, plots and all figures into a directory
    Matrix(MatrixArgs),
    /// Check the link emulator itself on this machine: rates and delays as measured against those set
    Accuracy {
        /// Emulated paths
        #[arg(long, default_value_t = 3)]
        paths: usize,
        /// Megabits per second of each
        #[arg(long, default_value_t = 100.0)]
        mbit: f64,
        /// Round-trip time of each in milliseconds
        #[arg(long, default_value_t = 20.0)]
        rtt: f64,
        /// System default congestion control
        #[arg(long, default_value = "bbr")]
        congestion: String,
    },
    /// Remove namespaces and processes that a crashed run has left behind
    Sweep,
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

/// What is common to all runs over emulated paths.
#[derive(Args, Debug, Clone)]
pub struct RunArgs {
    /// Contenders, comma-separated: tcp (best path), tcpN (path N), mptcp, agg, haproxy, stunnel,
    /// goimux[:LANES], imux[:LANES][@PROGRAM], sim[:LANES] (the simulator's imux: no root, no kernel)
    #[arg(long, value_delimiter = ',', default_value = "tcp,mptcp,agg,imux")]
    pub peers: Vec<String>,
    /// Runs of each contender; contenders take turns
    #[arg(long, default_value_t = 5)]
    pub runs: u32,
    /// System default congestion control of both ends; several, comma-separated, are run one after another
    #[arg(long, value_delimiter = ',', default_value = "bbr")]
    pub congestion: Vec<String>,
    /// Losses, bytes and random settings come from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The imux program; by default the one beside this program, then the one on PATH
    #[arg(long)]
    pub imux: Option<std::path::PathBuf>,
    /// Repeat a run up to so many times if the machine was too busy to emulate links well
    #[arg(long, default_value_t = 2)]
    pub repeats: u32,
    /// The original imux written in Go; by default `imux-go` on PATH
    #[arg(long)]
    pub go_imux: Option<std::path::PathBuf>,
    /// More arguments for every `imux client`, separated by blanks
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub imux_client_args: String,
    /// More arguments for every `imux server`, separated by blanks
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub imux_server_args: String,
}

/// Arguments of `lab cell`.
#[derive(Args, Debug, Clone)]
pub struct CellArgs {
    /// The cell, as `lab cells` lists them, or randomN: the N-th random setting of the seed
    pub name: String,
    #[command(flatten)]
    run: RunArgs,
    /// Other paths than the cell's own: MBIT,RTT_MS[,LOSS_PERCENT[,QUEUE_KB[,CONNECTION_MBIT]]];
    /// once per path. Targets stay those of the cell
    #[arg(long = "path")]
    pub paths: Vec<String>,
    /// Directory to write tables, plots and all figures to
    #[arg(long)]
    pub out: Option<std::path::PathBuf>,
}

/// Arguments of `lab matrix`.
#[derive(Args, Debug, Clone)]
pub struct MatrixArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Only cells whose name begins with one of these, comma-separated
    #[arg(long, value_delimiter = ',')]
    pub cells: Vec<String>,
    /// Random settings beside the cells; 0 for none
    #[arg(long, default_value_t = 40)]
    pub settings: u32,
    /// Only the random settings
    #[arg(long)]
    pub no_cells: bool,
    /// Directory to write tables, plots and all figures to
    #[arg(long)]
    pub out: std::path::PathBuf,
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
    use super::{accuracy, cpu, load, matrix, scenarios, sink};
    match command {
        LabCommand::Cpu(args) => cpu::run(&args),
        LabCommand::Cells => {
            for cell in scenarios::all() {
                super::say(format_args!("{:22} {}", cell.name, cell.about));
            }
            Ok(())
        }
        LabCommand::Cell(args) => run_cell(&args),
        LabCommand::Matrix(args) => run_matrix(&args),
        LabCommand::Accuracy { paths, mbit, rtt, congestion } => {
            accuracy::run(paths, mbit, rtt, &congestion)
        }
        LabCommand::Sweep => matrix::prepare(),
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

#[cfg(target_os = "linux")]
mod linux {
    use super::super::design;
    use super::super::error::LabError;
    use super::super::matrix::{available, prepare, run_all};
    use super::super::peers::{Peer, Programs};
    use super::super::report::Report;
    use super::super::runner::Settings;
    use super::super::say;
    use super::super::scenarios;
    use super::super::topology::PathSpec;
    use super::{CellArgs, MatrixArgs, RunArgs};

    pub(super) fn run_cell(args: &CellArgs) -> Result<(), LabError> {
        let cell = scenarios::by_name(&args.name);
        let mut cell = cell.or_else(|| design::by_name(&args.name, args.run.seed)).ok_or_else(|| {
            let name = &args.name;
            LabError::Usage(format!(
                "no cell `{name}`; `imux-sim lab cells` lists them, random1 is the first random setting"
            ))
        })?;
        if !args.paths.is_empty() {
            cell.paths = args.paths.iter().map(|p| parse_path(p)).collect::<Result<_, _>>()?;
            cell.about = format!("{}; here {}", cell.about, scenarios::describe(&cell.paths));
            if let Some(event) = cell.events.iter().find(|e| e.path >= cell.paths.len()) {
                return Err(LabError::Usage(format!("the cell changes path {}", event.path)));
            }
        }
        let (peers, settings) = prepare_run(&args.run)?;
        let save = |report: &Report| args.out.as_ref().map_or(Ok(()), |dir| report.write(dir));
        run_all(&[cell], 0, &peers, args.run.runs, &args.run.congestion, &settings, save).map(drop)
    }

    pub(super) fn run_matrix(args: &MatrixArgs) -> Result<(), LabError> {
        let wanted =
            |name: &str| args.cells.is_empty() || args.cells.iter().any(|c| name.starts_with(c));
        let mut cells = scenarios::all();
        cells.retain(|c| !args.no_cells && wanted(&c.name));
        if cells.is_empty() && !args.no_cells {
            return Err(LabError::Usage(
                "no cell's name begins so; `imux-sim lab cells` lists them".to_owned(),
            ));
        }
        let (peers, settings) = prepare_run(&args.run)?;
        let save = |report: &Report| report.write(&args.out);
        let runs = args.run.runs;
        run_all(&cells, args.settings, &peers, runs, &args.run.congestion, &settings, save)?;
        say(format_args!("written to {}", args.out.join("report.md").display()));
        Ok(())
    }

    fn prepare_run(args: &RunArgs) -> Result<(Vec<Peer>, Settings), LabError> {
        let peers = args.peers.iter().map(|p| p.parse()).collect::<Result<Vec<Peer>, _>>()?;
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let settings = Settings {
            congestion: String::new(),
            seed: args.seed,
            repeats: args.repeats,
            programs: Programs {
                imux: args.imux.clone(),
                go_imux: args.go_imux.clone(),
                imux_client_args: words(&args.imux_client_args),
                imux_server_args: words(&args.imux_server_args),
            },
        };
        if !peers.iter().all(Peer::is_simulated) {
            prepare()?;
        }
        Ok((available(&peers, &settings)?, settings))
    }

    /// `MBIT,RTT_MS[,LOSS_PERCENT[,QUEUE_KB[,CONNECTION_MBIT]]]`
    pub(super) fn parse_path(text: &str) -> Result<PathSpec, LabError> {
        let numbers: Option<Vec<f64>> = text
            .split(',')
            .map(|n| n.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0))
            .collect();
        match numbers.as_deref() {
            Some([mbit, rtt, more @ ..])
                if *mbit > 0.0 && more.len() <= 3 && more.get(2) != Some(&0.0) =>
            {
                let mut path = PathSpec::new(*mbit, *rtt);
                path.loss_pct = more.first().copied().unwrap_or(0.0).min(100.0);
                path.queue_kb = more.get(1).copied().unwrap_or(path.queue_kb);
                path.throttle_mbit = more.get(2).copied();
                Ok(path)
            }
            _ => Err(LabError::Usage(format!(
                "`{text}` is not a path; write MBIT,RTT_MS[,LOSS_PERCENT[,QUEUE_KB[,CONNECTION_MBIT]]], as 50,20,1"
            ))),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::parse_path;

        #[test]
        fn paths_are_checked() {
            let path = parse_path("50,20,1,64").unwrap();
            assert_eq!(
                (path.mbit, path.rtt_ms, path.loss_pct, path.queue_kb),
                (50.0, 20.0, 1.0, 64.0)
            );
            assert_eq!(parse_path("50,20,1,64,5").unwrap().throttle_mbit, Some(5.0));
            for bad in ["", "50", "0,20", "50,x", "50,20,1,64,0", "50,20,1,64,5,6", "inf,1", "-1,2"]
            {
                assert_eq!(parse_path(bad).unwrap_err().exit_code(), 2, "{bad}");
            }
        }
    }
}
#[cfg(target_os = "linux")]
use linux::{run_cell, run_matrix};
