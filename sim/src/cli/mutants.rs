//! Bugs planted in the core, and whether the swarm finds them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, ensure};
use clap::Args;

use crate::planted;

#[derive(Debug, Args)]
pub struct Mutants {
    /// Seeds within which each has to be found.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Only the one of this name.
    #[arg(long)]
    only: Option<String>,
}

pub(super) fn run(args: &Mutants, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let names = planted::bugs()?.into_iter().map(|bug| bug.name);
    let names: Vec<String> =
        names.filter(|name| args.only.as_ref().is_none_or(|only| only == name)).collect();
    ensure!(!names.is_empty(), "there is no bug of that name");
    let program = build()?;
    let mut found = 0;
    for name in &names {
        match first_failure(&program, Some(name), args.seeds)? {
            Some((seed, why)) => {
                found += 1;
                let why: String = why.chars().take(90).collect();
                writeln!(out, "{name:<32} seed {seed:>4}: {why}")?;
            }
            None => writeln!(out, "{name:<32} SURVIVED {} seeds", args.seeds)?,
        }
    }
    writeln!(out, "{found} of {} found", names.len())?;
    Ok(if found == names.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// This program, built from a copy of the source with all bugs in it.
fn build() -> anyhow::Result<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no repository")?;
    let place = repository.join("target/mutants");
    let copy = place.join("copy");
    planted::make_copy(repository, &copy)?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--locked", "--quiet", "--profile", "sim", "-p", "imux-sim"])
        .arg("--target-dir")
        .arg(&place)
        .current_dir(&copy)
        .status()
        .context("cannot run cargo")?;
    ensure!(built.success(), "the source with the bugs in it is not built: {built}");
    Ok(place.join("sim/imux-sim"))
}

/// The first seed that fails with that bug, and why.
fn first_failure(
    program: &Path,
    bug: Option<&str>,
    seeds: u64,
) -> anyhow::Result<Option<(u64, String)>> {
    let ran = Command::new(program)
        .args(["soak", "--failures", "1", "--seeds", &seeds.to_string()])
        .envs(bug.map(|bug| (planted::VARIABLE, bug)))
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let failure = |line: &str| {
        let (seed, why) = line.strip_prefix("seed ")?.split_once(": ")?;
        Some((seed.parse().ok()?, why.to_owned()))
    };
    Ok(String::from_utf8_lossy(&ran.stdout).lines().find_map(failure))
}
