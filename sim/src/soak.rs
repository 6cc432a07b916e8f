//! Many swarm runs, on all cores: failures, counts, and the figures of the batch.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::net::SECOND;
use crate::swarm;
use crate::world::{self, Outcome};

/// Every so many seeds one is run twice, and the traces compared.
const TWICE_EVERY: u64 = 100;
/// A batch of at least this many must have seen everything of `SOMETIMES`.
const SOMETIMES_FROM: u64 = 1_000;

/// What has to happen now and then, or the simulation does not try what it says it tries.
pub const SOMETIMES: &[&str] = &[
    "fault: reset",
    "fault: reset at one end",
    "fault: reset unheard",
    "fault: half-close",
    "fault: silent",
    "fault: one way silent",
    "fault: down",
    "fault: outage",
    "fault: rate",
    "fault: delay",
    "fault: loss",
    "lane suspect",
    "lane timed out",
    "lane lost",
    "no lanes",
    "resumed from no lanes",
    "grace expired",
    "join refused",
    "resent",
    "duplicate received",
    "reordered",
    "writer blocked",
    "writer stopped",
    "reset",
    "reset read",
    "stop",
    "open blocked",
    "open available",
    "open refused",
    "drain",
    "close",
];

/// A seed that broke a rule, and how.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub why: String,
}

/// The sum of a batch.
#[derive(Debug, Default)]
pub struct Sum {
    pub seeds: u64,
    pub twice: u64,
    pub failures: Vec<Failure>,
    pub counts: BTreeMap<&'static str, u64>,
    pub events: u64,
    /// Simulated.
    pub time: Duration,
    pub took: Duration,
}

impl Sum {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.time += Duration::from_nanos(outcome.ended_at);
        for (what, count) in &outcome.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    /// What should have happened at least once and has not.
    pub fn missing(&self) -> Vec<&'static str> {
        if self.seeds < SOMETIMES_FROM {
            return Vec::new();
        }
        SOMETIMES.iter().filter(|what| !self.counts.contains_key(*what)).copied().collect()
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let real = self.took.as_secs_f64().max(1e-9);
        write!(
            f,
            "{} seeds ({} of them twice), {} failures; {:.1} s, {:.0} seeds/s, {:.1} simulated hours, {:.0} x real time, {:.1} M events",
            self.seeds,
            self.twice,
            self.failures.len(),
            real,
            self.seeds as f64 / real,
            self.time.as_secs_f64() / 3600.0,
            self.time.as_secs_f64() / real,
            self.events as f64 / 1e6,
        )
    }
}

/// One seed; a panic of the core counts as a broken rule.
pub fn try_seed(seed: u64) -> Result<Outcome, String> {
    let options = swarm::draw(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| world::run(&options, seed, false)));
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        format!("panic: {text}")
    })
}

/// What a batch is told to do.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    pub from: u64,
    pub seeds: u64,
    pub jobs: usize,
    /// Stops after so many failures.
    pub failures_max: usize,
    pub progress: bool,
    /// Some seeds are run twice.
    pub twice: bool,
    /// The planted bug that is switched on, where there are any.
    pub mutant: Option<&'static str>,
}

/// Runs a batch.
pub fn soak(batch: Batch) -> Sum {
    let sum = Mutex::new(Sum::default());
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let started = clock();
    std::thread::scope(|scope| {
        for _ in 0..batch.jobs.max(1) {
            scope.spawn(|| work(batch, &next, &stop, &sum));
        }
        if batch.progress && std::io::stderr().is_terminal() {
            scope.spawn(|| show_progress(batch, &next, &stop, &sum, started));
        }
    });
    let mut sum = sum.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    sum.took = clock().duration_since(started);
    sum.failures.sort_by_key(|failure| failure.seed);
    sum
}

#[allow(clippy::disallowed_methods, reason = "how long a batch takes; no run depends on it")]
fn clock() -> Instant {
    Instant::now()
}

fn work(batch: Batch, next: &AtomicU64, stop: &AtomicBool, sum: &Mutex<Sum>) {
    #[cfg(imux_mutants)]
    imux::proto::mutants::switch_on(batch.mutant);
    while !stop.load(Ordering::Relaxed) {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= batch.seeds {
            return;
        }
        let seed = batch.from.wrapping_add(index);
        let mut result = try_seed(seed);
        let twice = batch.twice && index.is_multiple_of(TWICE_EVERY);
        if twice
            && let Ok(first) = &result
            && let Ok(second) = try_seed(seed)
            && first.hash != second.hash
        {
            result = Err(format!("two runs differ: {:x} and {:x}", first.hash, second.hash));
        }
        let mut sum = sum.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        sum.twice += u64::from(twice);
        let why = match &result {
            Ok(outcome) => {
                sum.add(outcome);
                outcome.failure.clone()
            }
            Err(why) => {
                sum.seeds += 1;
                Some(why.clone())
            }
        };
        if let Some(why) = why {
            sum.failures.push(Failure { seed, why });
            if sum.failures.len() >= batch.failures_max {
                stop.store(true, Ordering::Relaxed);
            }
        }
    }
}

fn show_progress(
    batch: Batch,
    next: &AtomicU64,
    stop: &AtomicBool,
    sum: &Mutex<Sum>,
    started: Instant,
) {
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let done = next.load(Ordering::Relaxed).min(batch.seeds);
        let took = clock().duration_since(started).as_secs_f64();
        let failures = sum.lock().map_or(0, |sum| sum.failures.len());
        let filled = (done * 30 / batch.seeds.max(1)) as usize;
        let _ = write!(
            std::io::stderr(),
            "\r[{}{}] {done}/{} seeds, {:.0}/s, {failures} failures ",
            "#".repeat(filled),
            ".".repeat(30 - filled),
            batch.seeds,
            done as f64 / took,
        );
        if done >= batch.seeds || stop.load(Ordering::Relaxed) {
            let _ = writeln!(std::io::stderr());
            return;
        }
    }
}

/// Simulated seconds of an outcome.
pub fn seconds(time: u64) -> f64 {
    time as f64 / SECOND as f64
}
