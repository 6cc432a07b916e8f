//! The commands of the simulator.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::soak::{self, Batch};
use crate::{swarm, world};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run many random networks and look for a broken rule.
    Soak(Soak),
    /// Run one seed of a soak again.
    Replay(Replay),
}

#[derive(Debug, Args)]
pub struct Soak {
    /// How many seeds.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Threads; 0: one for each core.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Stop after as many failures.
    #[arg(long, default_value_t = 10)]
    failures: usize,
}

#[derive(Debug, Args)]
pub struct Replay {
    /// As `soak` printed it.
    seed: u64,
    /// Print the options the seed stands for.
    #[arg(long)]
    options: bool,
    /// Write what happened to this file, as JSON lines.
    #[arg(long)]
    trace: Option<std::path::PathBuf>,
}

/// Runs a command.
pub fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Soak(args) => Ok(run_soak(&args)),
        Command::Replay(args) => replay(&args),
    }
}

fn run_soak(args: &Soak) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let sum = soak::soak(Batch {
        from: args.from,
        seeds: args.seeds,
        jobs: if args.jobs == 0 { cores } else { args.jobs },
        failures_max: args.failures,
        progress: true,
        twice: true,
    });
    println!("{sum}");
    for (what, count) in &sum.counts {
        println!("  {what:<28} {count}");
    }
    for failure in &sum.failures {
        println!("seed {}: {}", failure.seed, failure.why);
        println!("  again: imux-sim replay {}", failure.seed);
    }
    let missing = sum.missing();
    if !missing.is_empty() {
        println!("never happened in {} seeds: {}", sum.seeds, missing.join(", "));
    }
    if sum.failures.is_empty() && missing.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn replay(args: &Replay) -> anyhow::Result<ExitCode> {
    let options = swarm::draw(args.seed);
    if args.options {
        println!("{}", serde_json::to_string_pretty(&options)?);
    }
    let outcome = world::run(&options, args.seed, args.trace.is_some());
    if let Some(path) = &args.trace {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        outcome.trace.write_to(&mut file)?;
    }
    println!(
        "seed {}: {:.3} simulated s, {} events, trace {:016x}",
        args.seed,
        soak::seconds(outcome.ended_at),
        outcome.events,
        outcome.hash,
    );
    Ok(match outcome.failure {
        None => {
            println!("no rule was broken");
            ExitCode::SUCCESS
        }
        Some(why) => {
            println!("FAILED: {why}");
            ExitCode::FAILURE
        }
    })
}
