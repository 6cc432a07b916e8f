//! How many lanes of a link are active; the others are on standby.
//!
//! Too many lanes on one path lengthen its queue: each has few packets in flight, and what one of
//! them loses holds up what all carry. So activate the fewest that fill the path. Where a network
//! polices each connection all of them are needed, and that shows: fewer carry less.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::sample::Candidate;

/// Try fewer lanes if at most this part of the active ones is needed.
const NEEDED_PART: f64 = 0.75;
/// A trial starts after more than this many samples in a row that call for it: a path that has just
/// become slower has a queue, too.
const EVIDENCE_SAMPLES: u32 = 8;
/// The same for a path too short for its lanes: enough samples to know what it carries.
const EVIDENCE_SAMPLES_SHORT: u32 = 4;
/// Settle this long before measuring, in windows of two round trips: by then the other lanes'
/// packets are gone, and BBR has found the spare capacity.
const SETTLING_WINDOWS: u32 = 8;
/// Measure this long, in the same windows.
const MEASURING_WINDOWS: u32 = 8;
/// After fewer lanes carried less, keep all active for at least this long; twice as long each time.
const WAIT_FEWER: Duration = Duration::from_secs(1);
/// After more lanes carried no more, do not try more for this long; twice as long each time.
const WAIT_MORE: Duration = Duration::from_secs(4);
/// A connection starts with ten packets (RFC 6928). A short path may hold fewer, and one lane soon
/// finds its rate: a link starts with one lane per this much round-trip time.
const ROUND_TRIP_OF_A_LANE: Duration = Duration::from_millis(10);
/// If lanes carry less than this part of what they have shown, and no queue stands, they may be
/// policed one by one. If the path has become slower instead, a queue shows it.
const POLICED_PART: f64 = 0.75;

/// What a link's path did in one window of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct PathSample {
    pub(super) now: Instant,
    /// The time between two samples, at least.
    pub(super) window: Duration,
    /// The link's lanes, not counting express lanes, and how many of them are active.
    pub(super) lanes: usize,
    pub(super) active: usize,
    /// How many would keep the path full without a queue.
    pub(super) needed: usize,
    /// There is enough data to fill the path.
    pub(super) busy: bool,
    /// A queue stands on the path.
    pub(super) queued: bool,
    /// The path is too short for its active lanes.
    pub(super) too_short: bool,
    /// Bytes carried since the last sample.
    pub(super) bytes: f64,
}

/// How many lanes of a link are active, and whether a different number is being tried.
#[derive(Debug)]
pub(super) struct ActiveSet {
    phase: Phase,
    path: Verdict,
    fewer: Backoff,
    more: Backoff,
}

/// What is being tested.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Nothing calls for a different number of lanes.
    Steady,
    /// The last samples called for a different number.
    Suspecting(Evidence),
    /// A different number is active, to see what it carries.
    Trial(Trial),
}

/// What trials have shown.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Unknown,
    /// The active lanes together carry all that the path does, in bytes a second.
    Shared(f64),
    /// Each lane carries the same, however many there are: connections are policed one by one.
    Policed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Fewer,
    More,
}

/// Samples in a row that called for the same change.
#[derive(Debug, Clone, Copy)]
struct Evidence {
    direction: Direction,
    samples: u32,
    /// The most lanes that any of them needed.
    needed: usize,
    carried: Throughput,
}

/// Fewer lanes than before must carry as much; more lanes must carry more.
#[derive(Debug, Clone, Copy)]
struct Trial {
    lanes_before: usize,
    rate_before: f64,
    /// More lanes carried more: now all are active, to confirm that each is policed.
    confirms: bool,
    settled_at: Option<Instant>,
    /// Since they have settled.
    carried: Option<Throughput>,
}

/// What was carried over some time.
#[derive(Debug, Clone, Copy)]
struct Throughput {
    since: Instant,
    bytes: f64,
}

impl Throughput {
    fn rate(&self, now: Instant) -> f64 {
        self.bytes / now.saturating_duration_since(self.since).as_secs_f64().max(1e-3)
    }
}

impl Default for ActiveSet {
    fn default() -> Self {
        Self {
            phase: Phase::Steady,
            path: Verdict::Unknown,
            fewer: Backoff::new(WAIT_FEWER),
            more: Backoff::new(WAIT_MORE),
        }
    }
}

impl ActiveSet {
    /// How many lanes a link with this round trip starts with.
    pub(super) fn begin(rtt: Duration) -> usize {
        (rtt.div_duration_f64(ROUND_TRIP_OF_A_LANE) as usize).max(1)
    }

    /// The path proved slow, and one lane fills it. More are tried after the longest wait.
    pub(super) fn on_slow(&mut self, now: Instant) {
        *self = Self::default();
        self.more.wait_longest(now);
    }

    /// How many lanes should be active from now on, if that changes.
    pub(super) fn on_sample(&mut self, sample: PathSample) -> Option<usize> {
        if let Phase::Trial(trial) = &mut self.phase {
            let rate = trial.on_sample(sample)?;
            let trial = *trial;
            self.phase = Phase::Steady;
            return self.conclude(trial, sample, rate);
        }
        let Some(evidence) = self.evidence(sample) else {
            self.phase = Phase::Steady;
            return None;
        };
        self.phase = Phase::Suspecting(evidence);
        let fewer = evidence.direction == Direction::Fewer;
        let short = fewer && sample.too_short;
        if evidence.samples <= if short { EVIDENCE_SAMPLES_SHORT } else { EVIDENCE_SAMPLES } {
            return None;
        }
        self.phase = Phase::Steady;
        let rate = evidence.carried.rate(sample.now);
        if fewer {
            self.phase = Phase::Trial(Trial::of_others(sample, rate));
            return Some(evidence.needed.max(1));
        }
        let twice = sample.active.saturating_mul(2).min(sample.lanes);
        if matches!(self.path, Verdict::Shared(shown) if rate < POLICED_PART * shown) {
            return Some(twice);
        }
        if !self.more.is_over(sample.now) {
            return None;
        }
        self.phase = Phase::Trial(Trial::of_others(sample, rate));
        Some(twice)
    }

    /// Whether connections are probably policed one by one: what all lanes carry together then says
    /// nothing about what one can.
    pub(super) fn is_policed(&self) -> bool {
        let confirming = matches!(self.phase, Phase::Trial(trial) if trial.confirms);
        confirming || self.path == Verdict::Policed
    }

    /// The samples in a row, including this one, that called for the same change, if this one does.
    fn evidence(&self, sample: PathSample) -> Option<Evidence> {
        let few_needed = sample.needed as f64 <= NEEDED_PART * sample.active as f64;
        let congested = sample.queued || sample.too_short;
        let direction = if congested && few_needed && self.fewer.is_over(sample.now) {
            Direction::Fewer
        } else if sample.busy && !sample.queued && sample.active < sample.lanes {
            Direction::More
        } else {
            return None;
        };
        let needed = sample.needed;
        Some(match self.phase {
            Phase::Suspecting(before) if before.direction == direction => Evidence {
                samples: before.samples.saturating_add(1),
                needed: before.needed.max(needed),
                carried: before.carried.with(sample.bytes),
                direction,
            },
            _ => Evidence { samples: 1, needed, carried: Throughput::none(sample.now), direction },
        })
    }

    /// How many lanes should be active after a trial in which they carried bytes at `rate`.
    fn conclude(&mut self, trial: Trial, sample: PathSample, rate: f64) -> Option<usize> {
        let more = sample.active > trial.lanes_before;
        if trial.shows_policing(sample.active, rate) {
            if more && sample.active < sample.lanes {
                let confirming = Trial { confirms: true, ..Trial::of_others(sample, rate) };
                self.phase = Phase::Trial(confirming);
                return Some(sample.lanes);
            }
            self.on_policed(sample.now, more);
            return Some(sample.lanes);
        }
        self.path = Verdict::Shared(rate);
        self.more.begin(sample.now);
        if trial.confirms {
            return None; // fewer than all may be enough: a queue shows how many
        }
        if more {
            return Some(trial.lanes_before);
        }
        self.fewer = Backoff::new(WAIT_FEWER);
        None
    }

    /// A trial has shown that each lane is policed: fewer lanes carried less, or `more` carried
    /// more. Fewer may have carried less by chance once, but not twice in a row.
    fn on_policed(&mut self, now: Instant, more: bool) {
        let was_policed = self.path == Verdict::Policed;
        let policed = was_policed || more || self.fewer.has_failed();
        self.path = if policed { Verdict::Policed } else { Verdict::Unknown };
        if more {
            self.fewer.wait_at_least(WAIT_MORE);
        }
        self.fewer.begin(now);
        self.more = Backoff::new(WAIT_MORE);
    }
}

impl Trial {
    /// A trial of different lanes from those that just carried bytes at `rate`.
    fn of_others(sample: PathSample, rate: f64) -> Self {
        Self {
            lanes_before: sample.active,
            rate_before: rate,
            confirms: false,
            settled_at: sample.now.checked_add(sample.window.saturating_mul(SETTLING_WINDOWS)),
            carried: None,
        }
    }

    /// What they carry, in bytes a second, once that is known.
    fn on_sample(&mut self, sample: PathSample) -> Option<f64> {
        if self.settled_at.is_some_and(|at| sample.now < at) {
            return None;
        }
        let carried = match self.carried {
            // Without enough data to send, nothing is learnt.
            Some(carried) if sample.busy => carried.with(sample.bytes),
            _ => Throughput::none(sample.now),
        };
        self.carried = Some(carried);
        let age = sample.now.saturating_duration_since(carried.since);
        let measured = age >= sample.window.saturating_mul(MEASURING_WINDOWS);
        measured.then(|| carried.rate(sample.now))
    }

    /// Whether each lane carries as much as before, rather than all of them together. If fewer
    /// carry still less, the path has become slower.
    fn shows_policing(&self, active: usize, rate: f64) -> bool {
        let part = active as f64 / self.lanes_before.max(1) as f64;
        // If many more lanes are active, fewer may be enough for all that the path carries.
        let in_between = self.rate_before * f64::midpoint(1.0, part.min(2.0));
        if active > self.lanes_before {
            return rate > in_between;
        }
        let each_as_before = self.rate_before * part;
        (each_as_before * POLICED_PART..in_between).contains(&rate)
    }
}

impl Throughput {
    fn none(since: Instant) -> Self {
        Self { since, bytes: 0.0 }
    }

    fn with(self, bytes: f64) -> Self {
        Self { bytes: self.bytes + bytes, ..self }
    }
}

/// Makes this many of a link's lanes active: first those that already are, then the fastest.
pub(super) fn choose(lanes: &mut [Candidate], active: usize) {
    lanes.sort_by(|a, b| b.active.cmp(&a.active).then(b.rate.total_cmp(&a.rate)));
    for (nth, lane) in lanes.iter_mut().enumerate() {
        lane.active = nth < active;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing;

    const WINDOW: Duration = Duration::from_millis(40);
    /// Enough for one trial.
    const TRIAL: u32 = EVIDENCE_SAMPLES + SETTLING_WINDOWS + MEASURING_WINDOWS + 4;

    /// A link of ten lanes, sampled once a window.
    struct Link {
        set: ActiveSet,
        now: Instant,
        active: usize,
    }

    impl Link {
        fn new() -> Self {
            Self::beginning(10)
        }

        fn beginning(active: usize) -> Self {
            Self { set: ActiveSet::default(), now: testing::start(), active }
        }

        /// Takes this many samples; given how many lanes are active, `path` returns whether a queue
        /// stands and what the path carries in a second.
        fn run(&mut self, samples: u32, path: impl Fn(usize) -> (bool, f64)) -> usize {
            for _ in 0..samples {
                let (queued, rate) = path(self.active);
                self.sample(|sample| PathSample {
                    queued,
                    bytes: rate * WINDOW.as_secs_f64(),
                    ..sample
                });
            }
            self.active
        }

        /// `path` changes a sample of a busy path without a queue that needs half of its lanes.
        fn sample(&mut self, path: impl FnOnce(PathSample) -> PathSample) {
            self.now += WINDOW;
            let active = self.active;
            let sample = PathSample {
                now: self.now,
                window: WINDOW,
                lanes: 10,
                active,
                needed: active.div_ceil(2),
                busy: true,
                queued: false,
                too_short: false,
                bytes: 0.0,
            };
            self.active = self.set.on_sample(path(sample)).unwrap_or(active);
        }
    }

    /// However many lanes there are, they fill the path.
    fn shared(_active: usize) -> (bool, f64) {
        (true, 1e6)
    }

    /// Each lane has a queue of its own.
    fn policed(active: usize) -> (bool, f64) {
        (true, active as f64 * 1e5)
    }

    #[test]
    fn lanes_that_are_not_needed_stand_by_one_trial_after_another() {
        let mut link = Link::new();
        assert_eq!(link.run(EVIDENCE_SAMPLES, shared), 10, "not yet sure");
        assert_eq!(link.run(1, shared), 5);
        assert_eq!(link.run(SETTLING_WINDOWS + MEASURING_WINDOWS, shared), 5, "on trial");
        assert_eq!(link.run(4 * TRIAL, shared), 1);
    }

    #[test]
    fn a_path_that_is_too_short_for_them_shows_it_without_a_queue_and_sooner() {
        let short = |sample| PathSample { needed: 1, too_short: true, bytes: 4e4, ..sample };
        let mut link = Link::new();
        (0..EVIDENCE_SAMPLES_SHORT).for_each(|_| link.sample(short));
        assert_eq!(link.active, 10, "not yet sure");
        link.sample(short);
        assert_eq!(link.active, 1);
        (0..20 * TRIAL).for_each(|_| link.sample(short));
        assert_eq!(link.active, 1, "it carries as much, and is too short for one, too");
    }

    #[test]
    fn lanes_that_are_policed_become_active_again_and_fewer_are_rarely_tried() {
        let mut link = Link::new();
        assert_eq!(link.run(EVIDENCE_SAMPLES + 1, policed), 5);
        assert_eq!(link.run(TRIAL, policed), 10);
        assert!(!link.set.is_policed(), "once may be chance");
        let samples = 120_000 / 40;
        let active: usize = (0..samples).map(|_| link.run(1, policed)).sum();
        assert!(active > 97 * samples / 10, "{active} in {samples} samples");
        assert!(link.set.is_policed());
    }

    #[test]
    fn a_short_path_begins_with_few() {
        let begin = |ms| ActiveSet::begin(Duration::from_millis(ms));
        assert_eq!([0, 9, 20, 39, 100].map(begin), [1, 1, 2, 3, 10]);
    }

    #[test]
    fn more_are_tried_and_stand_by_again_if_one_fills_the_path() {
        let mut link = Link::beginning(1);
        let filled = |active| (active > 1, 1e6);
        assert_eq!(link.run(EVIDENCE_SAMPLES + 1, filled), 2);
        assert_eq!(link.run(SETTLING_WINDOWS + MEASURING_WINDOWS + 1, filled), 1);
        let samples = 120_000 / 40;
        let active: usize = (0..samples).map(|_| link.run(1, filled)).sum();
        assert!(active as f64 <= 1.05 * samples as f64, "{active} in {samples} samples");
    }

    #[test]
    fn all_are_active_soon_where_each_is_policed() {
        let mut link = Link::beginning(1);
        let each = |active: usize| (false, active as f64 * 1e5);
        assert_eq!(link.run(EVIDENCE_SAMPLES + 1, each), 2);
        assert_eq!(link.run(SETTLING_WINDOWS + MEASURING_WINDOWS + 1, each), 10);
        assert!(link.set.is_policed(), "they are not held down while it is seen");
        assert_eq!(link.run(SETTLING_WINDOWS + MEASURING_WINDOWS + 1, each), 10);
        assert!(link.set.is_policed(), "nor later");
        let samples = 60_000 / 40;
        let active: usize = (0..samples).map(|_| link.run(1, policed)).sum();
        assert!(active > 97 * samples / 10, "{active} in {samples} samples");
    }

    #[test]
    fn all_are_active_where_fewer_than_all_would_be_enough() {
        let mut link = Link::beginning(2);
        let five_are_enough = |active: usize| (active > 5, active.min(5) as f64 * 1e5);
        assert_eq!(link.run(TRIAL, five_are_enough), 10, "four of them carried less");
        let few = link.run(20 * TRIAL, five_are_enough);
        assert!((5..10).contains(&few), "{few} carry as much");
        assert!(!link.set.is_policed());
    }

    #[test]
    fn more_that_carried_more_for_a_moment_are_held_to_the_path_again() {
        let mut link = Link::beginning(1);
        assert_eq!(link.run(EVIDENCE_SAMPLES + 1, |_| (false, 1e5)), 2);
        assert_eq!(link.run(SETTLING_WINDOWS + MEASURING_WINDOWS + 1, |_| (false, 2e5)), 10);
        assert_eq!(link.run(SETTLING_WINDOWS + MEASURING_WINDOWS + 1, |_| (true, 2e5)), 10);
        assert!(!link.set.is_policed());
        assert_eq!(link.run(4 * TRIAL, |_| (true, 2e5)), 1);
    }

    #[test]
    fn lanes_that_are_policed_later_become_active_again() {
        let mut link = Link::new();
        assert_eq!(link.run(5 * TRIAL, shared), 1);
        assert_eq!(link.run(TRIAL, |_| (true, 2e5)), 1, "a queue: the path is slower");
        assert_eq!(link.run(TRIAL, |_| (false, 9e5)), 1, "as fast as ever");
        let each = |active: usize| (false, active as f64 * 1e5);
        assert_eq!(link.run(EVIDENCE_SAMPLES + 1, each), 2);
        assert_eq!(link.run(3 * (EVIDENCE_SAMPLES + 1), each), 8, "0.8 of what one carried once");
        assert_eq!(link.run(TRIAL, each), 8);
    }

    #[test]
    fn lanes_that_share_a_path_that_is_slower_now_stand_by_again() {
        let mut link = Link::new();
        assert_eq!(link.run(5 * TRIAL, shared), 1);
        let slower = |active| (active > 1, 1e5);
        assert_eq!(link.run(EVIDENCE_SAMPLES + 1, slower), 2);
        assert_eq!(link.run(TRIAL, slower), 1);
        assert_eq!(link.run(10 * TRIAL, slower), 1, "that is what it carries");
    }

    #[test]
    fn a_path_that_becomes_slower_needs_no_more_lanes() {
        let mut link = Link::new();
        assert_eq!(link.run(EVIDENCE_SAMPLES + 1, shared), 5);
        assert!(link.run(TRIAL, |_| (true, 1e5)) <= 5);
    }

    #[test]
    fn nothing_is_judged_while_there_is_nothing_to_send() {
        let mut link = Link::new();
        assert_eq!(link.run(EVIDENCE_SAMPLES + 1, shared), 5);
        for _ in 0..200 {
            link.sample(|sample| PathSample { needed: 0, busy: false, bytes: 0.4, ..sample });
        }
        assert_eq!(link.active, 5);
        assert!(link.run(TRIAL, shared) <= 5);
    }
}
