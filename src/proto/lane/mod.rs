//! One lane as the core sees it: what is in flight on it, how fast it is, whether it answers. Knows
//! nothing of streams beyond the records in its ledger.

mod estimate;
mod handshake;
mod inbound;
mod kernel;
mod lateness;
mod ledger;
mod part;
mod round_trip;
mod silence;

pub use estimate::Estimate;
pub use inbound::{Inbound, WayBack};
pub use ledger::{Carried, Entry, Forecast, Ledger};

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::count::{end_of, span};
use super::ids::LaneId;
use super::link::{Candidate, LaneSample, WindowSample};
use super::policy::{LanePolicy, Tier};

/// How a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Carries whatever the scheduler gives it.
    Good,
    /// Owes bytes and has not answered for too long: what it owes goes elsewhere too, and it gets
    /// nothing new until it answers.
    Suspect,
}

/// How well a lane answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Good,
    /// What it carries is overdue, and nothing was acknowledged for a while: others are preferred.
    Late,
    /// It owes and does not answer: others carry what it owes, and it gets nothing new.
    Suspect,
}

impl Condition {
    pub fn health(self) -> Health {
        match self {
            Self::Good | Self::Late => Health::Good,
            Self::Suspect => Health::Suspect,
        }
    }
}

/// What the driver's task for a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// It writes what it was given, and will ask for more.
    Writing,
    /// It asked, and there was nothing for it: it has to be woken.
    Asleep,
    /// The driver was told then to wake it, and it has not asked yet.
    Woken(Instant),
}

/// A lane that is up.
#[derive(Debug)]
pub struct Lane {
    pub id: LaneId,
    pub policy: LanePolicy,
    pub ledger: Ledger,
    pub inbound: Inbound,
    pub estimate: Estimate,
    pub task: Task,
    pub condition: Condition,
    pub signs: Signs,
    /// The link's active lanes fill its path without it: it carries no bulk.
    pub standby: bool,
    /// Data of redundant streams that another lane was given first.
    pub copies: VecDeque<Carried>,
    /// When what was given to it will have left this end, at the estimated rate.
    pub leaves_at: Option<Instant>,
    pub payload: Payload,
    /// It was given the CLOSE.
    pub close_sent: bool,
}

/// When a lane was heard, and what is done to hear from it.
#[derive(Debug)]
pub struct Signs {
    /// When anything last arrived on it, or it was last pinged: the answer may come on another
    /// lane.
    pub heard_at: Instant,
    /// The last time it owed nothing, made progress, or had room for more.
    pub progress_at: Instant,
    /// A PING has to be sent, to see whether the lane is alive.
    pub ping_due: bool,
    /// Its kernel was asked because the lane is silent: its answer is awaited until then.
    pub asked_until: Option<Instant>,
    /// How many lanes before it were given up unanswered: its time-out is doubled that many times.
    pub unanswered: u32,
}

/// Stream payload that a lane has carried, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Payload {
    pub sent: u64,
    /// The part of `sent` that another lane had been given before.
    pub resent: u64,
    pub received: u64,
    /// What all lanes together had been given when this one was last given any.
    pub given_at: u64,
}

impl Lane {
    /// Whether it has to be woken when there is anything for it.
    pub fn is_asleep(&self) -> bool {
        self.task == Task::Asleep
    }

    /// Whether bulk is left to others.
    pub fn is_urgent_only(&self) -> bool {
        self.standby || self.policy.tier == Tier::Express
    }

    pub fn new(id: LaneId, now: Instant, rtt: Option<Duration>) -> Self {
        Self {
            id,
            policy: LanePolicy::default(),
            ledger: Ledger::default(),
            inbound: Inbound::default(),
            estimate: Estimate::new(rtt),
            task: Task::Writing,
            condition: Condition::Good,
            signs: Signs {
                heard_at: now,
                progress_at: now,
                ping_due: false,
                asked_until: None,
                unanswered: 0,
            },
            standby: false,
            copies: VecDeque::new(),
            leaves_at: None,
            payload: Payload::default(),
            close_sent: false,
        }
    }

    /// What the lane's link needs to know of it.
    pub fn sample(&self) -> LaneSample {
        let estimate = &self.estimate;
        let kernel = estimate.end_to_end_kernel();
        LaneSample {
            active: !self.standby,
            in_flight: self.ledger.in_flight(),
            acked_bytes: self.ledger.acked_position(),
            answered_at: self.answered_at(),
            rate: estimate.rate(),
            peak_rate: estimate.peak_rate(kernel),
            pacing_rate: estimate.pacing_rate(kernel),
            rtt_min: estimate.rtt_min(),
            is_slow: estimate.is_slow(),
            path_by_handshake: estimate.path_by_handshake(),
            is_full: estimate.is_full(),
            kernel: kernel.copied(),
        }
    }

    /// What its window depends on: a part of the sample, needed far more often.
    pub fn window_sample(&self) -> WindowSample {
        let estimate = &self.estimate;
        WindowSample {
            acked_bytes: self.ledger.acked_position(),
            rate: estimate.rate(),
            rtt_min: estimate.rtt_min(),
            is_slow: estimate.is_slow(),
            cwnd_bytes: estimate.end_to_end_kernel().map_or(0, |kernel| kernel.cwnd_bytes),
        }
    }

    pub fn is_suspect(&self) -> bool {
        self.condition == Condition::Suspect
    }

    /// The lane as one that its link may make active.
    pub fn candidate(&self) -> Candidate {
        Candidate { id: self.id, active: !self.standby, rate: self.estimate.rate() }
    }

    /// Takes an acknowledgement; passes what it settles to `settle`. `false`: it acknowledges what
    /// was never sent.
    pub fn on_ack(&mut self, now: Instant, position: u64, settle: impl FnMut(Entry)) -> bool {
        if position > self.ledger.sent_position() {
            return false;
        }
        if position <= self.ledger.acked_position() {
            return true; // overtaken by a later one on another lane
        }
        let estimate = &mut self.estimate;
        let way_back = estimate.way_back();
        if self.condition == Condition::Suspect {
            estimate.on_return(self.ledger.sent_position());
        }
        let mut settle = settle;
        let mut newest = None;
        let delivered = self.ledger.ack(position, |entry| {
            newest =
                Some((entry.sent_at, entry.delivered_then, entry.delivered_at_then, entry.busy));
            // Forecasts for control frames ignore the queue ahead of them.
            let forecast = matches!(entry.carried, Carried::Data { .. } | Carried::Datagrams);
            if forecast && estimate.counts_lateness(entry.end) {
                let expected = entry.eta.checked_add(way_back).unwrap_or(entry.eta);
                let now_and_usual = now.checked_add(entry.lateness).unwrap_or(now);
                estimate.on_lateness(now, now_and_usual.saturating_duration_since(expected));
            }
            settle(entry);
        });
        if let Some((sent_at, delivered_then, delivered_at_then, busy)) = newest {
            estimate.on_rtt(now, now.saturating_duration_since(sent_at));
            let since = delivered_at_then.unwrap_or(sent_at);
            estimate.on_delivery(
                now,
                span(delivered_then, delivered),
                now.saturating_duration_since(since),
                busy,
            );
        }
        self.ledger.delivered_at = Some(now);
        self.correct_departure(now);
        self.signs.progress_at = now;
        self.condition = Condition::Good;
        true
    }

    /// Notes a frame of `bytes` bytes that the lane was given. `expected`: in how many seconds it
    /// arrives, and how much of that is the lane's usual lateness, if that was forecast.
    pub fn on_sent(
        &mut self,
        now: Instant,
        carried: Carried,
        bytes: u64,
        expected: Option<(f64, Duration)>,
    ) {
        if !self.ledger.owes() {
            self.signs.progress_at = now; // it owed nothing until now
        }
        let rate = self.estimate.rate().max(1.0);
        let seconds = |s: f64| Duration::from_secs_f64(s.clamp(0.0, 3600.0));
        let leaves = self.leaves_at.map_or(now, |at| at.max(now));
        self.leaves_at = leaves.checked_add(seconds(bytes as f64 / rate));
        let arrival = expected.map_or(self.estimate.delay(), |(arrival, _)| seconds(arrival));
        let eta = now.checked_add(arrival).unwrap_or(now);
        let in_flight = end_of(self.ledger.in_flight(), bytes) as f64;
        let busy = in_flight >= self.estimate.bandwidth_delay_bytes();
        let lateness = expected.map_or(Duration::ZERO, |(_, lateness)| lateness);
        self.ledger.record(now, carried, bytes, Forecast { eta, lateness, busy });
    }

    /// What was acknowledged left the bottleneck at least a round trip ago; the rest follows it at
    /// the lane's rate.
    fn correct_departure(&mut self, now: Instant) {
        let rest = self.ledger.in_flight() as f64 / self.estimate.rate().max(1.0);
        let queue = (rest - self.estimate.rtt_min().as_secs_f64()).clamp(0.0, 3600.0);
        let latest = now.checked_add(Duration::from_secs_f64(queue));
        self.leaves_at = self.leaves_at.min(latest);
    }
}
