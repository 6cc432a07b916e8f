//! `imux-turmoil`: many simulated networks for the driver, or one of them again.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use imux_sim::cli::{jobs, report, tell};
use imux_sim::soak::{Batch, soak};
use imux_turmoil::book::Outcome;
use imux_turmoil::plan::Plan;
use imux_turmoil::run::{Watch, run, try_seed};

/// Every so many seeds one is run twice, and the traces compared.
const TWICE_EVERY: u64 = 20;
/// A batch of at least this many must have seen everything of `SOMETIMES`.
const SOMETIMES_FROM: u64 = 100;
const SELDOM_FROM: u64 = 1_000;

/// What has to happen now and then, or the runs do not try what they say they try.
const SOMETIMES: &[&str] = &[
    "fault: hold",
    "fault: outage",
    "fault: relay crash",
    "fault: relay crash, unheard",
    "fault: reset",
    "fault: cut",
    "fault: half-close",
    "fault: silent",
    "fault: one way silent",
    "fault: stall",
    "fault: corrupt",
    "fault: rate",
    "fault: latency",
    "fault: server restart",
    "fault: server restart, unheard",
    "lane failed",
    "lane suspect",
    "lane down: timed out",
    "lane down: cut",
    "lane down: reset",
    "lane down: corrupt",
    "join refused",
    "no lanes",
    "resumed from no lanes",
    "resent",
    "duplicate received",
    "reordered",
    "finished",
    "reset",
    "stopped",
    "session over: closed by peer",
];
/// What has to happen in a batch of `SELDOM_FROM`, too: in one of a hundred it is missing now and
/// then.
const SELDOM: &[&str] = &[
    "connect failed",
    "cut off",
    "handshake timed out",
    "lane down: told of corruption",
    "session over: grace expired",
];

/// Simulates the driver, real TLS included, over networks that fail
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; 0: one for each core
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Stop after as many failures
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// Run the one seed --seed: print its plan, what the driver logs, and what came of it
    #[arg(long)]
    replay: bool,
    /// With --replay: write what happened to this file, as JSON lines
    #[arg(long, requires = "replay")]
    trace: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let out = &mut std::io::stdout();
    let ran = if cli.replay { replay(&cli, out) } else { run_many(&cli, out) };
    ran.unwrap_or_else(|error| report(&error))
}

fn run_many(cli: &Cli, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let sum = soak(Batch {
        run: &try_seed,
        from: cli.seed,
        seeds: cli.seeds,
        jobs: jobs(cli.jobs),
        failures_max: cli.failures,
        progress: true,
        twice_every: TWICE_EVERY,
    });
    let mut expected = Vec::new();
    for (from, what) in [(SOMETIMES_FROM, SOMETIMES), (SELDOM_FROM, SELDOM)] {
        if sum.seeds >= from {
            expected.extend_from_slice(what);
        }
    }
    let again = |seed| format!("cargo run --release -- --replay --seed {seed}");
    Ok(tell(out, &sum, &expected, &again)?)
}

fn replay(cli: &Cli, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let seed = cli.seed;
    let plan = Plan::draw(seed);
    writeln!(out, "{}", serde_json::to_string_pretty(&plan)?)?;
    let (outcome, took) = run(&plan, Watch { trace: true, log: true });
    if let Some(path) = &cli.trace {
        let cannot = || format!("cannot write {}", path.display());
        let file = std::fs::File::create(path).with_context(cannot)?;
        let mut file = std::io::BufWriter::new(file);
        outcome.trace.write_to(&mut file).with_context(cannot)?;
        std::io::Write::flush(&mut file).with_context(cannot)?;
    }
    for (what, count) in &outcome.counts {
        writeln!(out, "  {what:<32} {count}")?;
    }
    tell_difference(&plan, &outcome, out)?;
    writeln!(
        out,
        "seed {seed}: {:.3} virtual s, trace {:016x}",
        took.as_secs_f64(),
        outcome.trace.hash()
    )?;
    match outcome.failure {
        None => writeln!(out, "no rule was broken")?,
        Some(why) => {
            writeln!(out, "FAILED: {why}")?;
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs it once more, and says where that went another way.
fn tell_difference(plan: &Plan, first: &Outcome, out: &mut impl Write) -> io::Result<()> {
    if !plan.repeats() {
        return Ok(());
    }
    let (second, _) = run(plan, Watch { trace: true, log: false });
    let differ = first.trace.records().iter().zip(second.trace.records()).find(|(a, b)| a != b);
    if let Some((a, b)) = differ {
        writeln!(out, "a second run went another way, at first in this: {a:?}, then {b:?}")?;
    }
    Ok(())
}
