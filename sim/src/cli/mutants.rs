//! Bugs planted in the core, and whether the swarm finds them.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

#[derive(Debug, Args)]
pub struct Mutants {
    /// Seeds within which each has to be found.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Only the one of this name.
    #[arg(long)]
    only: Option<String>,
}

#[cfg(not(imux_mutants))]
pub(super) fn run(args: &Mutants, _: &mut impl Write) -> anyhow::Result<ExitCode> {
    anyhow::bail!(
        "this program was built without the planted bugs (asked for {} seeds each, {}); build it \
         with RUSTFLAGS=\"--cfg imux_mutants\" and a target directory of its own",
        args.seeds,
        args.only.as_deref().unwrap_or("all"),
    )
}

#[cfg(imux_mutants)]
pub(super) fn run(args: &Mutants, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    use imux::proto::mutants::{ALL, switch_on};

    use super::jobs;
    use crate::soak::{self, Batch};

    let chosen = |name: &&&str| args.only.as_ref().is_none_or(|only| only == **name);
    let mut survivors = Vec::new();
    std::panic::set_hook(Box::new(|_| {}));
    for name in ALL.iter().filter(chosen) {
        let sum = soak::soak(Batch {
            run: &|seed| {
                switch_on(Some(name));
                soak::try_seed(seed)
            },
            from: 1,
            seeds: args.seeds,
            jobs: jobs(0),
            failures_max: 1,
            progress: false,
            twice_every: 0,
        });
        match sum.failures.first() {
            Some(failure) => {
                let why: String = failure.why.chars().take(90).collect();
                writeln!(out, "{name:<32} seed {:>4}: {why}", failure.seed)?;
            }
            None => {
                writeln!(out, "{name:<32} SURVIVED {} seeds", sum.seeds)?;
                survivors.push(*name);
            }
        }
    }
    writeln!(
        out,
        "{} of {} found",
        ALL.iter().filter(chosen).count() - survivors.len(),
        ALL.iter().filter(chosen).count()
    )?;
    Ok(if survivors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
