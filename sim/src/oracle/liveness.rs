//! Every run must end: everything drains within a bound once faults are over, a drained session is
//! quiet, and nothing loops.

use imux::proto::LanePolicy;

use crate::app::patience;
use crate::net::{MS, SECOND, Time, ms};
use crate::options::{Options, PathOptions, StreamPlan};

/// How long finished sessions are watched: idle ones must do next to nothing.
const IDLE_WATCH: Time = 40 * SECOND;
/// After one end closes the session, the other must know within its grace and this.
const CLOSED_WATCH: Time = 60 * SECOND;
/// More events than any honest run has: something is looping.
const EVENTS_MAX: u64 = 30_000_000;
/// The same within one instant.
const EVENTS_AT_ONCE_MAX: u64 = 200_000;

/// Counts how often something happens at one instant.
#[derive(Clone, Copy, Debug)]
pub struct AtOnce {
    most: u64,
    at: Time,
    count: u64,
}

impl AtOnce {
    pub const fn new(most: u64) -> Self {
        Self { most, at: 0, count: 0 }
    }

    /// It happened again. `true`: too often.
    #[must_use]
    pub fn again(&mut self, now: Time) -> bool {
        let count = if self.at == now { self.count + 1 } else { 0 };
        *self = Self { at: now, count, ..*self };
        count > self.most
    }
}

/// How far a run has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is still running.
    Busy,
    /// Everything planned has just been done.
    Drained,
    /// Nothing more will happen.
    Over,
}

/// The deadlines a run is held to.
#[derive(Debug)]
pub struct Liveness {
    faults_end: Time,
    deadline: Time,
    /// The longer grace of the two ends.
    grace: Time,
    drained_at: Option<Time>,
    closed_at: Option<Time>,
    pub events: u64,
    at_once: AtOnce,
}

impl Liveness {
    pub fn new(options: &Options) -> Self {
        let faults_end = ms(options.faults_end_ms);
        let grace = options.sessions.iter().map(|s| s.grace_ms).max().unwrap_or(0);
        Self {
            faults_end,
            deadline: faults_end + bound(options),
            grace: grace * MS,
            drained_at: None,
            closed_at: None,
            events: 0,
            at_once: AtOnce::new(EVENTS_AT_ONCE_MAX),
        }
    }

    pub fn drained_at(&self) -> Option<Time> {
        self.drained_at
    }

    /// One more event. An error: they never end.
    pub fn on_event(&mut self, now: Time) -> Result<(), String> {
        self.events += 1;
        let too_often = self.at_once.again(now);
        if too_often || self.events > EVENTS_MAX {
            return Err("no end of events".into());
        }
        Ok(())
    }

    /// One end's session has ended.
    pub fn on_closed(&mut self, now: Time) {
        self.closed_at.get_or_insert(now);
    }

    /// How far the run has got. An error: it should have got further.
    pub fn phase(&mut self, now: Time, is_done: impl FnOnce() -> bool) -> Result<Phase, String> {
        if let Some(closed_at) = self.closed_at {
            // The other end is told, is refused, or gives up after its grace.
            if now > closed_at.max(self.faults_end) + self.grace + CLOSED_WATCH {
                return Err(
                    "one end closed the session long ago, the other does not know".to_owned()
                );
            }
            return Ok(Phase::Busy);
        }
        if let Some(drained_at) = self.drained_at {
            return Ok(if now > drained_at + IDLE_WATCH { Phase::Over } else { Phase::Busy });
        }
        if now > self.faults_end && is_done() {
            self.drained_at = Some(now);
            return Ok(Phase::Drained);
        }
        if now > self.deadline {
            let seconds = (now - self.faults_end) / SECOND;
            return Err(format!("not drained {seconds} s after the faults ended"));
        }
        Ok(Phase::Busy)
    }
}

/// When the stream must be done although other streams' readers have paused: in a run without
/// faults, within the time all streams together may take. `None`: it need not be.
pub fn due(options: &Options, plan: &StreamPlan) -> Option<Time> {
    let paused = plan.halves.iter().any(|half| half.unread);
    let breaks = !options.faults.is_empty() || !options.endings.is_empty();
    (!paused && !breaks).then(|| ms(plan.at_ms) + bound(options))
}

/// How long everything planned may take once faults are over.
pub fn bound(options: &Options) -> Time {
    let bytes: u64 = options.streams.iter().flat_map(|s| &s.halves).map(|h| h.bytes).sum();
    let rate = sure_rate(options, 0).min(sure_rate(options, 1)).max(1_000.0);
    let delay = |path: &PathOptions| path.delay_ms[0] + path.delay_ms[1];
    let round_trip = ms(options.paths.iter().map(delay).fold(300.0, f64::max)) + 50 * MS;
    let windows = options.sessions.iter();
    let window = windows.map(|s| s.stream_window.min(s.session_window)).min().unwrap_or(1);
    // Credit comes back in quarters of a window, and pieces may be a byte each.
    let turns = 8 * bytes / window.max(1) + 40 * options.streams.len() as u64;
    let lazy = options.driver.wake_us_max + options.driver.timer_us_max;
    let slowest_read = options.streams.iter().flat_map(|s| &s.halves);
    let slowest_read = slowest_read.map(|h| ms(h.read_every_ms)).max().unwrap_or(0);
    let patience: Time = options.streams.iter().map(patience).sum();
    30 * SECOND
        + (20.0 * bytes as f64 / rate * SECOND as f64) as Time
        + turns * (round_trip + 4_000 * lazy + slowest_read)
        + patience
}

/// What the paths surely carry one way, in bytes a second.
fn sure_rate(options: &Options, way: usize) -> f64 {
    let paths = &options.paths;
    let rates = paths.iter().map(|path| path.usable_mbit(way) * 125_000.0);
    // If not all paths are used at once, the one in use may be the slowest.
    if paths.iter().any(|path| path.policy(0) != LanePolicy::default()) {
        rates.fold(f64::INFINITY, f64::min)
    } else {
        rates.fold(0.0, f64::max)
    }
}

/// An idle end only keeps its lanes alive: `fired` timers in `watched`.
pub fn check_idle(fired: u64, watched: Time, lanes: u64, keepalive: Time) -> Result<(), String> {
    // Both ends' pings and their acknowledgements.
    let intervals = watched / keepalive.max(1) + 2;
    if fired > 16 * lanes * intervals + 200 {
        return Err(format!("idles with {fired} timers in {} ms", watched / MS));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios;

    fn liveness() -> Liveness {
        let mut options = scenarios::named("reset").unwrap();
        options.faults_end_ms = 1_000.0;
        options.sessions.iter_mut().for_each(|session| session.grace_ms = 5_000);
        Liveness::new(&options)
    }

    #[test]
    fn a_run_that_does_not_drain_is_told_of() {
        let mut run = liveness();
        let deadline = run.deadline;
        assert_eq!(run.phase(deadline, || false), Ok(Phase::Busy));
        let why = run.phase(deadline + 1, || false).unwrap_err();
        assert!(why.contains("not drained"), "{why}");
        // The bound is finite: one of the two paths alone would take 12 s.
        assert!(deadline < 500 * SECOND, "{deadline}");
    }

    #[test]
    fn what_has_drained_is_watched_for_a_while() {
        let mut run = liveness();
        assert_eq!(run.phase(SECOND, || true), Ok(Phase::Busy), "faults may still come");
        assert_eq!(run.phase(SECOND + 1, || true), Ok(Phase::Drained));
        assert_eq!(run.phase(SECOND + 1 + IDLE_WATCH, || true), Ok(Phase::Busy));
        assert_eq!(run.phase(SECOND + 2 + IDLE_WATCH, || true), Ok(Phase::Over));
    }

    #[test]
    fn an_end_that_does_not_hear_of_the_close_is_told_of() {
        let mut run = liveness();
        run.on_closed(3 * SECOND);
        let patience = 3 * SECOND + 5 * SECOND + CLOSED_WATCH;
        assert_eq!(run.phase(patience, || true), Ok(Phase::Busy));
        let why = run.phase(patience + 1, || true).unwrap_err();
        assert!(why.contains("does not know"), "{why}");
    }

    #[test]
    fn streams_whose_readers_read_are_due_where_nothing_breaks() {
        let mut options = scenarios::named("reset").unwrap();
        let mut plan = options.streams[0].clone();
        plan.at_ms = 5.0;
        assert_eq!(due(&options, &plan), None, "a lane is reset");
        options.faults.clear();
        assert_eq!(due(&options, &plan), Some(bound(&options) + 5 * MS));
        plan.halves[1].unread = true;
        assert_eq!(due(&options, &plan), None);
    }

    #[test]
    fn circles_are_told_of() {
        let mut run = liveness();
        let circle = (0..=EVENTS_AT_ONCE_MAX + 1).map(|_| run.on_event(7)).find(Result::is_err);
        assert_eq!(circle, Some(Err("no end of events".to_owned())));
        let mut run = liveness();
        run.events = EVENTS_MAX - 1;
        assert_eq!(run.on_event(8), Ok(()));
        run.on_event(9).unwrap_err();
        let mut spins = AtOnce::new(2);
        assert_eq!([5, 5, 5, 6, 6, 6].map(|at| spins.again(at)), [false; 6]);
        assert!(spins.again(6));
    }

    #[test]
    fn an_idle_end_that_is_busy_is_told_of() {
        let watched = 40 * SECOND;
        assert_eq!(check_idle(4 * 16 * 2 + 200, watched, 2, 15 * SECOND), Ok(()));
        check_idle(4 * 16 * 2 + 201, watched, 2, 15 * SECOND).unwrap_err();
        check_idle(1_000_000, watched, 64, SECOND).unwrap_err();
    }
}
