//! What `imux-lab` does with its options.

use std::process::ExitCode;

use clap::Parser;

use super::args::{CellArgs, Command, Lab, MatrixArgs, RunArgs};
use super::error::LabError;
use super::matrix::{available, prepare, run_all};
use super::peers::{Peer, Programs};
use super::report::Report;
use super::runner::Settings;
use super::topology::PathSpec;
use super::{accuracy, cpu, datagrams, design, load, say, scenarios, sink, workload};

/// Runs the command; problems go to standard error, their kind into the exit code.
#[must_use]
pub fn main() -> ExitCode {
    match dispatch(Lab::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("imux-lab: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(command: Command) -> Result<(), LabError> {
    match command {
        Command::Cpu(args) => cpu::run(&args),
        Command::Cells => {
            for cell in scenarios::all() {
                say(format_args!("{:22} {}", cell.name, cell.about));
            }
            Ok(())
        }
        Command::Cell(args) => run_cell(&args),
        Command::Matrix(args) => run_matrix(&args),
        Command::Accuracy { paths, mbit, rtt, congestion } => {
            accuracy::run(paths, mbit, rtt, &congestion)
        }
        Command::Datagrams(args) => {
            prepare()?;
            datagrams::run(&args)
        }
        Command::DatagramEcho { listen } => {
            datagrams::echo(listen).map_err(|e| LabError::Run(format!("echo: {e}")))
        }
        Command::DatagramLoad => datagrams::load().map_err(|e| LabError::Run(format!("load: {e}"))),
        Command::Sweep => prepare(),
        Command::Load => load::run().map_err(|e| LabError::Run(format!("load: {e}"))),
        Command::Sink { listen, mptcp } => {
            sink::run(listen, mptcp).map_err(|e| LabError::Run(format!("sink: {e}")))
        }
    }
}

fn run_cell(args: &CellArgs) -> Result<(), LabError> {
    let cell = scenarios::by_name(&args.name);
    let mut cell =
        cell.or_else(|| design::by_name(&args.name, args.run.seed)).ok_or_else(|| {
            let name = &args.name;
            LabError::Usage(format!(
                "no cell `{name}`; `imux-lab cells` lists them, random1 is the first random setting"
            ))
        })?;
    if !args.paths.is_empty() {
        cell.paths = args.paths.iter().map(|p| parse_path(p)).collect::<Result<_, _>>()?;
        cell.about = format!("{}; here {}", cell.about, workload::describe(&cell.paths));
        if let Some(event) = cell.events.iter().find(|e| e.path >= cell.paths.len()) {
            return Err(LabError::Usage(format!("the cell changes path {}", event.path)));
        }
    }
    let (peers, settings) = prepare_run(&args.run)?;
    let save = |report: &Report| args.out.as_ref().map_or(Ok(()), |dir| report.write(dir));
    run_all(&[cell], 0, &peers, args.run.runs, &args.run.congestion, &settings, save).map(drop)
}

fn run_matrix(args: &MatrixArgs) -> Result<(), LabError> {
    let wanted =
        |name: &str| args.cells.is_empty() || args.cells.iter().any(|c| name.starts_with(c));
    let mut cells = scenarios::all();
    cells.retain(|c| !args.no_cells && wanted(&c.name));
    if cells.is_empty() && !args.no_cells {
        return Err(LabError::Usage(
            "no cell's name begins so; `imux-lab cells` lists them".to_owned(),
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
fn parse_path(text: &str) -> Result<PathSpec, LabError> {
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
        assert_eq!((path.mbit, path.rtt_ms, path.loss_pct, path.queue_kb), (50.0, 20.0, 1.0, 64.0));
        assert_eq!(parse_path("50,20,1,64,5").unwrap().throttle_mbit, Some(5.0));
        for bad in ["", "50", "0,20", "50,x", "50,20,1,64,0", "50,20,1,64,5,6", "inf,1", "-1,2"] {
            assert_eq!(parse_path(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
