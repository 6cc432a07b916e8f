//! Many seeds, on all cores: failures, counts, and the figures of the batch.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::net::SECOND;
use crate::swarm;
use crate::world::{self, Outcome};

/// A seed that takes this long is looping: simulated time would have ended it otherwise.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// What must happen now and then, or the simulation does not test what it claims to.
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
    "backup carried",
    "metered carried",
    "capped carried",
    "redundant stream",
    "copy sent",
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

/// The result of one seed.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    /// The rule that was broken, if one was.
    pub failure: Option<String>,
    /// What happened, and how often.
    pub counts: BTreeMap<&'static str, u64>,
    /// Hash of everything that happened.
    pub hash: u64,
    pub events: u64,
    /// Simulated.
    pub time: Duration,
}

impl From<&Outcome> for Tried {
    fn from(outcome: &Outcome) -> Self {
        Self {
            failure: outcome.failure.clone(),
            counts: outcome.counts.clone(),
            hash: outcome.hash,
            events: outcome.events,
            time: Duration::from_nanos(outcome.ended_at),
        }
    }
}

/// One swarm run of the core.
pub fn try_seed(seed: u64) -> Tried {
    let options = swarm::draw(seed);
    caught(|| Tried::from(&world::run(&options, seed, false)))
}

/// A panic counts as a broken rule.
fn caught(run: impl FnOnce() -> Tried) -> Tried {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no words");
        Tried { failure: Some(format!("panic: {text}")), ..Tried::default() }
    })
}

/// A seed that broke a rule, and which.
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
    fn add(&mut self, seed: u64, tried: Tried) {
        self.seeds += 1;
        self.events += tried.events;
        self.time += tried.time;
        for (what, count) in tried.counts {
            *self.counts.entry(what).or_default() += count;
        }
        self.failures.extend(tried.failure.map(|why| Failure { seed, why }));
    }

    /// What should have happened at least once but has not.
    pub fn missing(&self, sometimes: &[&'static str]) -> Vec<&'static str> {
        sometimes.iter().filter(|what| !self.counts.contains_key(*what)).copied().collect()
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let real = self.took.as_secs_f64().max(1e-9);
        write!(
            f,
            "{} seeds ({} of them twice), {} failures; {:.1} s, {:.1} seeds/s, {:.1} simulated hours, {:.0} x real time, {:.1} M events",
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

/// What a batch should do.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// Runs one seed.
    pub run: &'a (dyn Fn(u64) -> Tried + Sync),
    pub from: u64,
    pub seeds: u64,
    pub jobs: usize,
    /// Stops after this many failures.
    pub failures_max: usize,
    pub progress: bool,
    /// One in this many seeds is run twice and the traces compared; 0: none.
    pub twice_every: u64,
}

impl std::fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} seeds from {})", self.seeds, self.from)
    }
}

/// Runs a batch.
pub fn soak(batch: Batch<'_>) -> Sum {
    let work = Work::new(batch);
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..batch.jobs.max(1)).map(|_| scope.spawn(|| work.run_seeds())).collect();
        work.watch(&|| workers.iter().all(std::thread::ScopedJoinHandle::is_finished));
    });
    let mut sum = work.sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.took = clock().duration_since(work.started);
    sum.failures.sort_by_key(|failure| failure.seed);
    sum
}

#[allow(clippy::disallowed_methods, reason = "how long a batch takes; no run depends on it")]
fn clock() -> Instant {
    Instant::now()
}

/// State shared by a batch's threads.
struct Work<'a> {
    batch: Batch<'a>,
    next: AtomicU64,
    stop: AtomicBool,
    sum: Mutex<Sum>,
    /// Running seeds, and since when.
    running: Mutex<BTreeMap<u64, Instant>>,
    started: Instant,
}

impl<'a> Work<'a> {
    fn new(batch: Batch<'a>) -> Self {
        Self {
            batch,
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            sum: Mutex::default(),
            running: Mutex::default(),
            started: clock(),
        }
    }

    fn run_seeds(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.batch.seeds {
                return;
            }
            let seed = self.batch.from.wrapping_add(index);
            lock(&self.running).insert(seed, clock());
            let twice = self.batch.twice_every > 0 && index.is_multiple_of(self.batch.twice_every);
            let mut tried = (self.batch.run)(seed);
            if twice {
                let again = (self.batch.run)(seed);
                if tried.failure.is_none() && tried.hash != again.hash {
                    let why = format!("two runs differ: {:x} and {:x}", tried.hash, again.hash);
                    tried.failure = Some(why);
                }
            }
            lock(&self.running).remove(&seed);
            let mut sum = lock(&self.sum);
            sum.twice += u64::from(twice);
            sum.add(seed, tried);
            if sum.failures.len() >= self.batch.failures_max {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Shows progress, and ends the program if a seed never ends.
    fn watch(&self, over: &dyn Fn() -> bool) {
        let shown = self.batch.progress && std::io::stderr().is_terminal();
        loop {
            let over = over();
            if shown {
                self.show(over);
            }
            if over {
                return;
            }
            if let Some(seed) = self.stuck(clock()) {
                eprintln!("seed {seed} has not ended after {STUCK_AFTER:?}: it turns in circles");
                std::process::exit(1);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stuck(&self, now: Instant) -> Option<u64> {
        let running = lock(&self.running);
        let is_stuck = |since: &Instant| now.duration_since(*since) > STUCK_AFTER;
        running.iter().find(|(_, since)| is_stuck(since)).map(|(seed, _)| *seed)
    }

    fn show(&self, over: bool) {
        let (done, failures) = {
            let sum = lock(&self.sum);
            (sum.seeds, sum.failures.len())
        };
        let filled = (done * 30 / self.batch.seeds.max(1)) as usize;
        let _ = write!(
            std::io::stderr(),
            "\r[{}{}] {done}/{} seeds, {:.1}/s, {failures} failures {}",
            "#".repeat(filled),
            ".".repeat(30usize.saturating_sub(filled)),
            self.batch.seeds,
            done as f64 / self.started.elapsed().as_secs_f64(),
            if over { "\n" } else { "" },
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Simulated time in seconds.
pub fn seconds(time: u64) -> f64 {
    time as f64 / SECOND as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(run: &(dyn Fn(u64) -> Tried + Sync)) -> Batch<'_> {
        Batch {
            run,
            from: 100,
            seeds: 50,
            jobs: 2,
            failures_max: usize::MAX,
            progress: false,
            twice_every: 10,
        }
    }

    fn seeds_that_failed(sum: &Sum) -> Vec<u64> {
        sum.failures.iter().map(|failure| failure.seed).collect()
    }

    #[test]
    fn every_seed_is_tried_and_some_twice() {
        let runs = AtomicU64::new(0);
        let sum = soak(batch(&|seed| {
            runs.fetch_add(1, Ordering::Relaxed);
            let counts = BTreeMap::from([("seen", seed % 2)]);
            Tried { hash: seed, counts, events: 3, ..Tried::default() }
        }));
        assert_eq!((sum.seeds, sum.twice, sum.events), (50, 5, 150));
        assert_eq!(runs.into_inner(), 55);
        assert_eq!(sum.counts["seen"], 25);
        assert!(sum.failures.is_empty());
    }

    #[test]
    fn a_run_that_does_not_repeat_is_told_of() {
        let seen = Mutex::new(BTreeMap::new());
        let sum = soak(batch(&|seed| {
            let mut seen = lock(&seen);
            let runs: &mut u64 = seen.entry(seed).or_default();
            *runs += 1;
            // The lie: two of the seeds run twice go differently the second time.
            let another = matches!(seed, 110 | 140) && *runs == 2;
            Tried { hash: seed + u64::from(another), ..Tried::default() }
        }));
        assert_eq!(seeds_that_failed(&sum), [110, 140]);
        assert!(sum.failures[0].why.contains("two runs differ"), "{:?}", sum.failures);
    }

    #[test]
    fn a_broken_rule_and_a_panic_are_told_of() {
        let lie = |seed| {
            caught(|| {
                assert!(seed != 120, "seed {seed} is no good");
                let failure = (seed == 105).then(|| "broken".to_owned());
                Tried { failure, ..Tried::default() }
            })
        };
        let sum = soak(batch(&lie));
        assert_eq!(seeds_that_failed(&sum), [105, 120]);
        assert_eq!(sum.failures[1].why, "panic: seed 120 is no good");
        let sum = soak(Batch { failures_max: 1, jobs: 1, ..batch(&lie) });
        assert_eq!((seeds_that_failed(&sum), sum.seeds), (vec![105], 6), "it stops there");
    }

    #[test]
    fn what_never_happened_is_told_of() {
        let sum = soak(batch(&|_| Tried {
            counts: BTreeMap::from([("fault: reset", 1)]),
            ..Tried::default()
        }));
        assert_eq!(sum.missing(&["fault: reset", "no lanes"]), ["no lanes"]);
        assert!(sum.missing(&["fault: reset"]).is_empty());
        assert_eq!(sum.missing(SOMETIMES).len(), SOMETIMES.len() - 1);
    }

    #[test]
    fn a_seed_that_does_not_end_is_told_of() {
        let work = Work::new(batch(&|_| Tried::default()));
        lock(&work.running).insert(7, work.started);
        assert_eq!(work.stuck(work.started + STUCK_AFTER), None);
        assert_eq!(work.stuck(work.started + STUCK_AFTER + Duration::from_secs(1)), Some(7));
    }
}
