//! BBR, version 1 (draft-cardwell-iccrg-bbr-congestion-control-00), as in Linux: how much may be in
//! flight and how fast it leaves follow from the largest rate and the smallest round trip seen
//! lately.
//!
//! Everything here is known to a sender: what was acknowledged or found lost, and when. Left out
//! are the allowance for bursts of acknowledgements, as here they come one by one; the round trip
//! of packet conservation after a loss; the time-out's window of one segment; and policer
//! detection.

use std::collections::VecDeque;

use super::tcp::INITIAL_WINDOW;
use super::{MS, MSS, SECOND, Time};
use crate::rng::Rng;

/// Start-up's gain, 2 / ln 2: the least that doubles the rate each round trip.
const STARTUP_GAIN: f64 = 2.885;
/// The window over what fills the pipe, once its rate is known: acknowledgements may be late.
const WINDOW_GAIN: f64 = 2.0;
/// Pacing as a fraction of the rate, each for a round trip: probe for more, drain the queue that
/// caused, then keep the pipe just full.
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
/// Linux paces this much below the measured rate, lest a queue build up.
const PACING_MARGIN: f64 = 0.99;

/// How many round trips a rate is believed.
const RATE_ROUNDS: u64 = 10;
/// Start-up ends after this many round trips in a row without a quarter more.
const FULL_ROUNDS: u32 = 3;
const FULL_GROWTH: f64 = 1.25;
/// How long a smallest round trip is believed.
const MIN_RTT_LIFETIME: Time = 10 * SECOND;
/// How long next to nothing is in flight, to measure a new smallest round trip.
const PROBE_RTT_TIME: Time = 200 * MS;
/// The least in flight, so that acknowledgements keep coming.
const WINDOW_MIN: f64 = 4.0 * MSS;

/// Linux hands its interface bursts of a millisecond of the rate (`sk_pacing_shift`).
const BURSTS_A_SECOND: f64 = 1_024.0;
/// The smallest burst: two segments, or one below 1.2 Mbit/s; a `sk_buff` bounds the largest.
const BURST_MIN: f64 = 2.0 * MSS;
const BURST_MIN_SLOW: f64 = MSS;
const SLOW: f64 = 150_000.0;
const BURST_MAX: f64 = 45.0 * MSS;
/// How many bursts may wait, at both ends, on top of what fills the pipe.
const BURSTS_WAITING: f64 = 3.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    /// In this phase of the cycle, since then.
    ProbeBw {
        phase: usize,
        since: Time,
    },
    /// Until then, once little enough is in flight, plus a round trip.
    ProbeRtt {
        until: Option<Time>,
        round_done: bool,
    },
}

/// What an acknowledgement reveals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) now: Time,
    /// Bytes it acknowledges.
    pub(super) bytes: u64,
    /// Bytes acknowledged in all, now and when the segment was sent.
    pub(super) delivered: u64,
    pub(super) delivered_then: u64,
    /// Still in flight.
    pub(super) in_flight: u64,
    /// Only for a segment sent once.
    pub(super) rtt: Option<Time>,
    /// Bytes a second since the previous acknowledgement, likewise.
    pub(super) rate: Option<f64>,
    /// The sender ran out of data.
    pub(super) app_limited: bool,
    /// A loss was found since the previous one.
    pub(super) losing: bool,
}

/// One sender's model of its path, and what follows from it.
#[derive(Debug)]
pub(super) struct Bbr {
    mode: Mode,
    // The model.
    rates: MaxRate,
    min_rtt: Time,
    min_rtt_at: Time,
    // Round trips: one ends when something sent after its start is acknowledged.
    round: u64,
    round_ends_at: u64,
    // Whether the pipe is full.
    full_rate: f64,
    full_rounds: u32,
    is_full: bool,
    /// Until this much is delivered, rates are app-limited.
    app_limited_until: Option<u64>,
    /// Nothing was in flight, for lack of data.
    restarted: bool,
    // What follows.
    window: f64,
    window_before_probe: f64,
    pacing_rate: f64,
    pacing_max: f64,
    /// When the next segment may leave.
    paced_until: Time,
}

impl Bbr {
    /// The handshake took `rtt`.
    pub(super) fn new(now: Time, rtt: Time) -> Self {
        Self {
            mode: Mode::Startup,
            rates: MaxRate::default(),
            min_rtt: rtt,
            min_rtt_at: now,
            round: 0,
            round_ends_at: 0,
            full_rate: 0.0,
            full_rounds: 0,
            is_full: false,
            app_limited_until: None,
            restarted: false,
            window: INITIAL_WINDOW,
            window_before_probe: 0.0,
            pacing_rate: STARTUP_GAIN * INITIAL_WINDOW / seconds(rtt.max(MS)),
            pacing_max: f64::INFINITY,
            paced_until: 0,
        }
    }

    /// What may be in flight.
    pub(super) fn window(&self) -> f64 {
        self.window
    }

    /// Bytes a second.
    pub(super) fn pacing_rate(&self) -> f64 {
        self.pacing_rate.min(self.pacing_max)
    }

    pub(super) fn paced_until(&self) -> Time {
        self.paced_until
    }

    pub(super) fn is_app_limited(&self) -> bool {
        self.app_limited_until.is_some()
    }

    /// Caps the rate from now on.
    pub(super) fn limit_pacing(&mut self, bytes_a_second: f64) {
        self.pacing_max = bytes_a_second;
    }

    /// More is written while nothing waits to be sent.
    pub(super) fn on_ran_dry(&mut self, delivered: u64, in_flight: u64) {
        if (in_flight as f64) < self.window {
            self.app_limited_until = Some(delivered + in_flight);
        }
    }

    /// `bytes` leave; `alone`: nothing else is in flight.
    pub(super) fn on_sent(&mut self, now: Time, bytes: u64, alone: bool, rng: &mut Rng) {
        if alone && self.is_app_limited() {
            self.restarted = true;
            match self.mode {
                // Not at the gain being tried when data ran out.
                Mode::ProbeBw { .. } => self.pace_at(1.0),
                Mode::ProbeRtt { .. } => self.end_probe_rtt(now, rng),
                Mode::Startup | Mode::Drain => {}
            }
        }
        let time = bytes as f64 / self.pacing_rate() * SECOND as f64;
        self.paced_until = self.paced_until.max(now) + time as Time;
    }

    /// The segments that end the socket wait for nothing.
    pub(super) fn reopen(&mut self) {
        self.window = self.window.max(INITIAL_WINDOW);
        self.paced_until = 0;
    }

    pub(super) fn on_ack(&mut self, sample: &Sample, rng: &mut Rng) {
        let round_starts = self.count_round(sample);
        self.learn_rate(sample);
        self.turn_cycle(sample);
        if round_starts && !sample.app_limited {
            self.look_whether_full();
        }
        self.drain(sample, rng);
        self.learn_min_rtt(sample);
        self.probe_rtt(sample, round_starts, rng);
        self.restarted = false;
        self.pace_at(self.pacing_gain());
        self.set_window(sample);
    }

    fn count_round(&mut self, sample: &Sample) -> bool {
        let starts = sample.delivered_then >= self.round_ends_at;
        if starts {
            self.round_ends_at = sample.delivered;
            self.round += 1;
        }
        starts
    }

    fn learn_rate(&mut self, sample: &Sample) {
        if self.app_limited_until.is_some_and(|until| sample.delivered > until) {
            self.app_limited_until = None;
        }
        // From a sender that ran out of data, only rates above the known one count.
        let rate = sample.rate.filter(|rate| !sample.app_limited || *rate >= self.rates.max());
        if let Some(rate) = rate {
            self.rates.add(self.round, rate);
        }
    }

    /// Each phase of the cycle takes a round trip: longer until more is in flight or too much,
    /// shorter once the queue is gone.
    fn turn_cycle(&mut self, sample: &Sample) {
        let Mode::ProbeBw { phase, since } = self.mode else { return };
        let over = sample.now - since > self.min_rtt;
        let before = (sample.in_flight + sample.bytes) as f64;
        let gain = CYCLE[phase];
        let turn = if gain > 1.0 {
            over && (sample.losing || before >= self.room(gain))
        } else if gain < 1.0 {
            over || before <= self.room(1.0)
        } else {
            over
        };
        if turn {
            self.mode = Mode::ProbeBw { phase: (phase + 1) % CYCLE.len(), since: sample.now };
        }
    }

    fn look_whether_full(&mut self) {
        if self.is_full {
            return;
        }
        if self.rates.max() >= self.full_rate * FULL_GROWTH {
            self.full_rate = self.rates.max();
            self.full_rounds = 0;
            return;
        }
        self.full_rounds += 1;
        self.is_full = self.full_rounds >= FULL_ROUNDS;
    }

    /// Start-up ends; its queue drains.
    fn drain(&mut self, sample: &Sample, rng: &mut Rng) {
        if self.mode == Mode::Startup && self.is_full {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && sample.in_flight as f64 <= self.room(1.0) {
            self.probe_bw(sample.now, rng);
        }
    }

    /// The cycle begins in any phase but the draining one, so that senders sharing a path do not
    /// all probe at once.
    fn probe_bw(&mut self, now: Time, rng: &mut Rng) {
        let phase = match rng.range(0..=CYCLE.len() as u64 - 2) as usize {
            0 => 0,
            other => other + 1,
        };
        self.mode = Mode::ProbeBw { phase, since: now };
    }

    fn learn_min_rtt(&mut self, sample: &Sample) {
        let expired = sample.now > self.min_rtt_at + MIN_RTT_LIFETIME;
        if let Some(rtt) = sample.rtt.filter(|rtt| expired || *rtt < self.min_rtt) {
            self.min_rtt = rtt;
            self.min_rtt_at = sample.now;
        }
        let probing = matches!(self.mode, Mode::ProbeRtt { .. });
        // After a pause it has no queue of its own: the sample is as good as any.
        if expired && !self.restarted && !probing {
            self.window_before_probe = self.window;
            self.mode = Mode::ProbeRtt { until: None, round_done: false };
        }
    }

    fn probe_rtt(&mut self, sample: &Sample, round_starts: bool, rng: &mut Rng) {
        let Mode::ProbeRtt { until, round_done } = self.mode else { return };
        // It sends less than it could, so its rate says nothing.
        self.app_limited_until = Some(sample.delivered + sample.in_flight);
        if until.is_none() && sample.in_flight as f64 <= WINDOW_MIN {
            self.round_ends_at = sample.delivered;
            let until = Some(sample.now + PROBE_RTT_TIME);
            self.mode = Mode::ProbeRtt { until, round_done: false };
        } else if until.is_some() {
            let round_done = round_done || round_starts;
            self.mode = Mode::ProbeRtt { until, round_done };
            if round_done {
                self.end_probe_rtt(sample.now, rng);
            }
        }
    }

    /// Resumes as before once the time is up.
    fn end_probe_rtt(&mut self, now: Time, rng: &mut Rng) {
        let Mode::ProbeRtt { until: Some(until), .. } = self.mode else { return };
        if now <= until {
            return;
        }
        self.min_rtt_at = now;
        self.window = self.window.max(self.window_before_probe);
        if self.is_full {
            self.probe_bw(now, rng);
        } else {
            self.mode = Mode::Startup;
        }
    }

    fn set_window(&mut self, sample: &Sample) {
        let (acked, room) = (sample.bytes as f64, self.room(self.window_gain()));
        if self.is_full {
            self.window = (self.window + acked).min(room);
        } else if self.window < room || (sample.delivered as f64) < INITIAL_WINDOW {
            self.window += acked;
        }
        self.window = self.window.max(WINDOW_MIN);
        if matches!(self.mode, Mode::ProbeRtt { .. }) {
            self.window = WINDOW_MIN;
        }
    }

    fn pace_at(&mut self, gain: f64) {
        let rate = self.rates.max() * gain * PACING_MARGIN;
        // Until the pipe is full, a lower rate just means a lack of data or time.
        if rate > 0.0 && (self.is_full || rate > self.pacing_rate) {
            self.pacing_rate = rate;
        }
    }

    fn pacing_gain(&self) -> f64 {
        match self.mode {
            Mode::Startup => STARTUP_GAIN,
            Mode::Drain => 1.0 / STARTUP_GAIN,
            Mode::ProbeBw { phase, .. } => CYCLE[phase],
            Mode::ProbeRtt { .. } => 1.0,
        }
    }

    fn window_gain(&self) -> f64 {
        match self.mode {
            Mode::Startup | Mode::Drain => STARTUP_GAIN,
            Mode::ProbeBw { .. } => WINDOW_GAIN,
            Mode::ProbeRtt { .. } => 1.0,
        }
    }

    /// What is in flight when the pipe is `gain` times full.
    fn room(&self, gain: f64) -> f64 {
        let pacing = self.pacing_rate();
        let least = if pacing < SLOW { BURST_MIN_SLOW } else { BURST_MIN };
        let burst = (pacing / BURSTS_A_SECOND).clamp(least, BURST_MAX);
        self.rates.max() * seconds(self.min_rtt) * gain + BURSTS_WAITING * burst
    }
}

/// The largest rate of the last `RATE_ROUNDS` round trips that had any. Keeps only rates that fall
/// from oldest to newest: no other can still become the largest.
#[derive(Debug, Default)]
struct MaxRate(VecDeque<(u64, f64)>);

impl MaxRate {
    fn max(&self) -> f64 {
        self.0.front().map_or(0.0, |(_, rate)| *rate)
    }

    fn add(&mut self, round: u64, rate: f64) {
        while self.0.back().is_some_and(|(_, before)| *before <= rate) {
            self.0.pop_back();
        }
        // Within one round, the first is the largest.
        if self.0.back().is_none_or(|(of, _)| *of < round) {
            self.0.push_back((round, rate));
        }
        while self.0.front().is_some_and(|(of, _)| of + RATE_ROUNDS < round) {
            self.0.pop_front();
        }
    }
}

fn seconds(time: Time) -> f64 {
    time as f64 / SECOND as f64
}
