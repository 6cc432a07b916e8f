//! The commands of the simulator.

mod mutants;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use imux::proto::SchedulerKind;

use crate::options::Options;
use crate::report::{Report, quantile};
use crate::soak::{self, Batch, Sum};
use crate::world::Outcome;
use crate::{picture, scenarios, swarm, world};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run one scenario and say how well it went.
    Run(Run),
    /// Run scenarios with several schedulers on the same seeds.
    Compare(Compare),
    /// Run many random networks and look for a broken rule.
    Soak(Soak),
    /// Run one seed of a soak again.
    Replay(Replay),
    /// Plant bugs in the core, one at a time, and show that each is found.
    Mutants(mutants::Mutants),
}

#[derive(Debug, Args)]
pub struct Run {
    /// A scenario's name (see `--list`), or a file of options in JSON.
    #[arg(long, default_value = "equal")]
    scenario: String,
    /// List the scenarios there are.
    #[arg(long)]
    list: bool,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Another scheduler than the scenario's: roundrobin, minrtt, blest, ecf or imux.
    #[arg(long)]
    scheduler: Option<SchedulerKind>,
    /// Print the options of the run: a file of them is a scenario.
    #[arg(long)]
    options: bool,
    #[command(flatten)]
    files: Files,
}

#[derive(Debug, Args)]
pub struct Compare {
    /// Schedulers, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "imux,minrtt,blest,ecf,roundrobin")]
    scheduler: Vec<SchedulerKind>,
    /// Scenarios, separated by commas.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "equal,rate10,rtt10,loss1,three,silent-death"
    )]
    scenario: Vec<String>,
    /// Seeds of each; the table has their means.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
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
    #[command(flatten)]
    files: Files,
}

/// Where a run is written down.
#[derive(Debug, Args)]
struct Files {
    /// Write what happened to this file, as JSON lines.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Draw what each lane carried when into this file, as SVG.
    #[arg(long)]
    picture: Option<PathBuf>,
}

impl Files {
    /// Whether the run must be observed for them.
    fn any(&self) -> bool {
        self.trace.is_some() || self.picture.is_some()
    }

    fn write(&self, options: &Options, outcome: &Outcome, title: &str) -> anyhow::Result<()> {
        if let Some(path) = &self.trace {
            let file = std::fs::File::create(path);
            let file = file.with_context(|| format!("cannot write {}", path.display()))?;
            let mut file = std::io::BufWriter::new(file);
            outcome.trace.write_to(&mut file)?;
            std::io::Write::flush(&mut file)?;
        }
        if let Some(path) = &self.picture {
            std::fs::write(path, picture::draw(options, outcome.trace.records(), title))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Runs a command, which prints to `out`.
pub fn run(command: Command, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run_scenario(&args, out),
        Command::Compare(args) => compare(&args, out),
        Command::Soak(args) => Ok(run_soak(&args, out)?),
        Command::Replay(args) => replay(&args, out),
        Command::Mutants(args) => mutants::run(&args, out),
    }
}

/// The exit code of a program killed by SIGPIPE, as shells show it.
const OUTPUT_CLOSED: u8 = 128 + 13;

/// Reports an error and returns its exit code. If the reader has had enough (`| head`), there is
/// nothing to report, but that is no success either.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let is_closed = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(is_closed) {
        return ExitCode::from(OUTPUT_CLOSED);
    }
    eprintln!("Error: {error:?}");
    ExitCode::FAILURE
}

/// A built-in scenario, or the options in a file.
fn load(name: &str) -> anyhow::Result<Options> {
    if let Some(options) = scenarios::named(name) {
        return Ok(options);
    }
    let names: Vec<&str> = scenarios::ALL.iter().map(|(name, _)| *name).collect();
    let text = std::fs::read_to_string(name).with_context(|| {
        format!("{name:?} is neither a scenario ({}) nor a file that can be read", names.join(", "))
    })?;
    let options: Options = serde_json::from_str(&text)
        .with_context(|| format!("{name} does not hold the options of a run"))?;
    anyhow::ensure!(!options.paths.is_empty(), "{name} names no paths");
    Ok(options)
}

fn run_scenario(args: &Run, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    if args.list {
        for (name, what) in scenarios::ALL {
            writeln!(out, "{name:<14} {what}")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut options = load(&args.scenario)?;
    if let Some(scheduler) = args.scheduler {
        options = scenarios::with_scheduler(options, scheduler);
    }
    if args.options {
        writeln!(out, "{}", serde_json::to_string_pretty(&options)?)?;
    }
    let outcome = world::run(&options, args.seed, true);
    let title = format!(
        "{}, seed {}, scheduler {}",
        options.name,
        args.seed,
        options.sessions[0].scheduler()
    );
    writeln!(out, "{title}\n{}", Report::new(&options, &outcome))?;
    args.files.write(&options, &outcome, &title)?;
    Ok(verdict(&outcome, out)?)
}

fn verdict(outcome: &Outcome, out: &mut impl Write) -> io::Result<ExitCode> {
    match &outcome.failure {
        None => {
            writeln!(out, "no rule was broken")?;
            Ok(ExitCode::SUCCESS)
        }
        Some(why) => {
            writeln!(out, "FAILED: {why}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn compare(args: &Compare, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    writeln!(
        out,
        "{:<14} {:<11} {:>7} {:>8} {:>8} {:>9} {:>9} {:>7} {:>9}",
        "scenario",
        "scheduler",
        "goodput",
        "x alone",
        "gap ms",
        "order p99",
        "dup %",
        "tail x",
        "answer99"
    )?;
    for name in &args.scenario {
        let options = load(name)?;
        for scheduler in &args.scheduler {
            let options = scenarios::with_scheduler(options.clone(), *scheduler);
            let reports: Vec<Report> = (args.seed..args.seed + args.seeds)
                .map(|seed| Report::new(&options, &world::run(&options, seed, true)))
                .collect();
            let mean = |of: &dyn Fn(&Report) -> f64| {
                reports.iter().map(of).sum::<f64>() / reports.len().max(1) as f64
            };
            writeln!(
                out,
                "{name:<14} {:<11} {:>7.3} {:>8.2} {:>8.1} {:>9.1} {:>9.2} {:>7.2} {:>9.2}{}",
                scheduler.name(),
                mean(&Report::goodput_share),
                mean(&Report::over_alone),
                mean(&|r| r.longest_gap as f64 / 1e6),
                mean(&|r| quantile(&r.order_delays, 0.99) as f64 / 1e6),
                mean(&|r| r.duplicate_share * 100.0),
                mean(&|r| quantile(&r.ratios, 0.5)),
                mean(&|r| quantile(&r.answers, 0.99) as f64 / 1e6),
                if reports.iter().any(|r| r.failure.is_some()) { "  FAILED" } else { "" },
            )?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One in this many seeds is run twice.
const TWICE_EVERY: u64 = 100;
/// A batch of at least this many must see everything that happens sometimes.
const SOMETIMES_FROM: u64 = 1_000;

fn run_soak(args: &Soak, out: &mut impl Write) -> io::Result<ExitCode> {
    let sum = soak::soak(Batch {
        run: &soak::try_seed,
        from: args.from,
        seeds: args.seeds,
        jobs: jobs(args.jobs),
        failures_max: args.failures,
        progress: true,
        twice_every: TWICE_EVERY,
    });
    let sometimes = if sum.seeds < SOMETIMES_FROM { &[] } else { soak::SOMETIMES };
    tell(out, &sum, sometimes, &|seed| format!("imux-sim replay {seed}"))
}

/// Threads for a batch; 0 means one for each core.
pub fn jobs(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// Prints a batch's result, and how to see a failure `again`.
pub fn tell(
    out: &mut impl Write,
    sum: &Sum,
    sometimes: &[&'static str],
    again: &dyn Fn(u64) -> String,
) -> io::Result<ExitCode> {
    writeln!(out, "{sum}")?;
    for (what, count) in &sum.counts {
        writeln!(out, "  {what:<28} {count}")?;
    }
    for failure in &sum.failures {
        writeln!(out, "seed {}: {}", failure.seed, failure.why)?;
        writeln!(out, "  again: {}", again(failure.seed))?;
    }
    let missing = sum.missing(sometimes);
    if !missing.is_empty() {
        writeln!(out, "never happened in {} seeds: {}", sum.seeds, missing.join(", "))?;
    }
    let fine = sum.failures.is_empty() && missing.is_empty();
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn replay(args: &Replay, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let options = swarm::draw(args.seed);
    if args.options {
        writeln!(out, "{}", serde_json::to_string_pretty(&options)?)?;
    }
    let outcome = world::run(&options, args.seed, args.files.any());
    args.files.write(&options, &outcome, &options.name)?;
    writeln!(
        out,
        "seed {}: {:.3} simulated s, {} events, trace {:016x}",
        args.seed,
        soak::seconds(outcome.ended_at),
        outcome.events,
        outcome.hash,
    )?;
    Ok(verdict(&outcome, out)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::soak::Failure;

    #[test]
    fn a_batch_fails_for_a_failure_and_for_what_never_happened() {
        let told = |sum: &Sum| {
            let mut out = Vec::new();
            let code = tell(&mut out, sum, &["no lanes"], &|seed| format!("replay {seed}"));
            (code.unwrap(), String::from_utf8(out).unwrap())
        };
        let fine = || Sum { counts: BTreeMap::from([("no lanes", 1)]), ..Sum::default() };
        assert_eq!(told(&fine()).0, ExitCode::SUCCESS);
        let (code, words) = told(&Sum::default());
        assert_eq!(code, ExitCode::FAILURE);
        assert!(words.contains("never happened in 0 seeds: no lanes"), "{words}");
        let failures = vec![Failure { seed: 8, why: "lost bytes".to_owned() }];
        let (code, words) = told(&Sum { failures, ..fine() });
        assert_eq!(code, ExitCode::FAILURE);
        assert!(words.contains("seed 8: lost bytes\n  again: replay 8"), "{words}");
    }
}
