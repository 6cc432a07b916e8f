//! One lane as the core sees it: what is in flight on it, how fast it is, whether it answers.
//! No knowledge of what streams are beyond the records in its ledger.

mod estimate;
mod inbound;
mod ledger;

pub(in crate::proto) use estimate::Estimate;
pub(in crate::proto) use inbound::Inbound;
pub(in crate::proto) use ledger::{Carried, Entry, Ledger};

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::ids::LaneId;
use super::link::{Candidate, KernelSample, LaneSample};
use super::policy::{LanePolicy, Tier};

/// What the kernel knows of a lane, where it tells (on Linux, `TCP_INFO`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LaneMetrics {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Mean deviation of it.
    pub rtt_var: Duration,
    /// Smallest seen of late.
    pub rtt_min: Duration,
    /// Most recent delivery rate in bytes a second, where one was measured.
    pub delivery_rate: Option<u64>,
    /// The rate was limited by what there was to send: it is a lower bound then.
    pub app_limited: bool,
    /// What the kernel would send at now, in bytes a second, where it paces.
    pub pacing_rate: Option<u64>,
    /// Its congestion window in bytes.
    pub cwnd_bytes: u64,
    /// Bytes that have arrived since the lane came up, in order or not, where that is known.
    pub delivered_bytes: Option<u64>,
    /// How long ago the peer's kernel last acknowledged anything, where that is known.
    pub silence: Option<Duration>,
}

/// How a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Carries whatever the scheduler gives it.
    Good,
    /// Owes bytes and has not answered for longer than it should: what it owes travels elsewhere
    /// too, and it gets nothing new until it answers.
    Suspect,
}

/// What the driver's task for a lane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto) enum Task {
    /// It writes what it was given, and will ask for more.
    Writing,
    /// It asked, and there was nothing for it: it has to be woken.
    Asleep,
    /// The driver was told then to wake it, and it has not come yet.
    Woken(Instant),
}

/// A lane that is up.
#[derive(Debug)]
pub(in crate::proto) struct Lane {
    pub(in crate::proto) id: LaneId,
    pub(in crate::proto) ledger: Ledger,
    pub(in crate::proto) inbound: Inbound,
    pub(in crate::proto) estimate: Estimate,
    pub(in crate::proto) health: Health,
    pub(in crate::proto) policy: LanePolicy,
    /// Data of redundant streams that another lane was given first.
    pub(in crate::proto) copies: VecDeque<Carried>,
    pub(in crate::proto) task: Task,
    /// The link's active lanes fill its path without it: it carries no bulk.
    pub(in crate::proto) standby: bool,
    /// A PING has to be sent, to see whether the lane is alive.
    pub(in crate::proto) ping_due: bool,
    /// What it carries is overdue and nothing was acknowledged for a while.
    pub(in crate::proto) late: bool,
    /// How many lanes before it were given up without a sign of life: so many times its patience
    /// is doubled.
    pub(in crate::proto) unanswered: u32,
    /// Its kernel was asked how it is, because it is silent: the answer is waited for until then.
    pub(in crate::proto) asked_until: Option<Instant>,
    /// The CLOSE was given to it.
    pub(in crate::proto) close_sent: bool,
    /// When anything last arrived on it, or it was last asked for a sign of life: the answer may
    /// come on another lane.
    pub(in crate::proto) heard_at: Instant,
    /// The last time it owed nothing, made progress, or had room for more.
    pub(in crate::proto) progress_at: Instant,
    /// What ends here or before was on its way while the lane was suspect: how late it was is not
    /// the rule.
    pub(in crate::proto) excused: u64,
    /// When what was given to it will have left this end, at the estimated rate.
    pub(in crate::proto) leaves_at: Option<Instant>,
    /// Payload of streams given to it and received from it.
    pub(in crate::proto) sent_payload: u64,
    pub(in crate::proto) received_payload: u64,
    /// What all lanes together had been given when it last was given payload.
    pub(in crate::proto) given_at_payload: u64,
    /// Payload given to it that another lane was given as well, before it.
    pub(in crate::proto) resent_payload: u64,
}

/// A frame is late when its acknowledgement is this much later than forecast, or four times the
/// forecast's usual error, but never more than a round trip: a lane that has become slow must not
/// get used to being late ...
const LATE_MIN: Duration = Duration::from_millis(20);
/// ... and what the peer may take to acknowledge.
const ACK_DELAY_USUAL: Duration = Duration::from_millis(10);

/// How often a suspect lane's time-out passes before the lane is given up.
const TIMEOUTS_UNTIL_LOST: u32 = 3;

/// A lane is not given up sooner than this: TCP repairs most losses within it.
const LOST_AFTER_MIN: Duration = Duration::from_secs(1);

/// On a slow path somebody else's queue may stand before what it owes: as much as routers have for
/// such links (128 KiB). What that takes a lane is waited for, and as long again: what is lost
/// before a full queue is sent again behind it.
const FOREIGN_QUEUE_BYTES: f64 = 2.0 * 128.0 * 1024.0;

/// A kernel that was asked for its figures has this long to be heard ...
const ANSWER_TIME: Duration = Duration::from_millis(20);
/// ... and what it said not longer before is as good: nobody asks it more often.
const ANSWER_FRESH: Duration = Duration::from_millis(10);

/// Lanes that are given up before their first frame can be through, on a path that is slow beyond
/// all expectation, would be dialled for ever: the next one gets twice the time, up to 32 times.
const UNANSWERED_MAX: u32 = 5;

/// The shortest time-out: below it, delayed acknowledgements and a busy machine look like death.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);

impl Lane {
    /// Whether it has to be woken if there is anything for it.
    pub(in crate::proto) fn is_asleep(&self) -> bool {
        self.task == Task::Asleep
    }

    /// Whether bulk is left to others.
    pub(in crate::proto) fn is_kept_free(&self) -> bool {
        self.standby || self.policy.tier == Tier::Express
    }

    pub(in crate::proto) fn new(id: LaneId, now: Instant, rtt: Option<Duration>) -> Self {
        Self {
            id,
            ledger: Ledger::default(),
            inbound: Inbound::default(),
            estimate: Estimate::new(rtt),
            health: Health::Good,
            policy: LanePolicy::default(),
            copies: VecDeque::new(),
            task: Task::Writing,
            standby: false,
            ping_due: false,
            late: false,
            unanswered: 0,
            asked_until: None,
            close_sent: false,
            heard_at: now,
            progress_at: now,
            excused: 0,
            leaves_at: None,
            sent_payload: 0,
            received_payload: 0,
            given_at_payload: 0,
            resent_payload: 0,
        }
    }

    /// What the lane's link asks of it.
    pub(in crate::proto) fn sample(&self) -> LaneSample {
        let estimate = &self.estimate;
        let kernel = estimate.end_to_end_kernel();
        LaneSample {
            active: !self.standby,
            in_flight: self.ledger.in_flight(),
            acked_bytes: self.ledger.acked_position(),
            answered_at: self.answered_at(),
            rate: estimate.rate(),
            kept_rate: estimate.kept_rate(kernel),
            pacing_rate: estimate.pacing_rate(kernel),
            rtt_min: estimate.rtt_min(),
            is_slow: estimate.is_slow(),
            path_by_handshake: estimate.path_by_handshake(),
            is_full: estimate.is_full(),
            kernel: kernel.map(|kernel| KernelSample {
                rtt_min: kernel.rtt_min,
                cwnd_bytes: kernel.cwnd_bytes,
            }),
        }
    }

    /// The lane as one that its link may make active.
    pub(in crate::proto) fn candidate(&self) -> Candidate {
        Candidate { id: self.id, active: !self.standby, rate: self.estimate.rate() }
    }

    /// Takes an acknowledgement; hands what it settles to `settle`. `false`: it acknowledges what
    /// was never sent.
    pub(in crate::proto) fn on_ack(
        &mut self,
        now: Instant,
        position: u64,
        settle: impl FnMut(Entry),
    ) -> bool {
        if position > self.ledger.sent_position() {
            return false;
        }
        if position <= self.ledger.acked_position() {
            return true; // overtaken by a later one on another lane
        }
        let estimate = &mut self.estimate;
        let way_back = estimate.way_back();
        if self.health != Health::Good {
            self.excused = self.ledger.sent_position();
            estimate.on_return();
        }
        let mut settle = settle;
        let mut newest = None;
        let delivered = self.ledger.ack(position, |entry| {
            newest =
                Some((entry.sent_at, entry.delivered_then, entry.delivered_at_then, entry.busy));
            // Control frames are forecast without the queue before them.
            if matches!(entry.carried, Carried::Data { .. }) && entry.end > self.excused {
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
                delivered.saturating_sub(delivered_then),
                now.saturating_duration_since(since),
                busy,
            );
        }
        self.ledger.delivered_at = Some(now);
        self.correct_departure(now);
        self.progress_at = now;
        self.health = Health::Good;
        self.late = false;
        true
    }

    /// What was acknowledged left the bottleneck a round trip ago at the latest; the rest follows
    /// it at the lane's rate.
    fn correct_departure(&mut self, now: Instant) {
        let rest = self.ledger.in_flight() as f64 / self.estimate.rate().max(1.0);
        let queue = (rest - self.estimate.rtt_min().as_secs_f64()).clamp(0.0, 3600.0);
        let latest = now.checked_add(Duration::from_secs_f64(queue));
        self.leaves_at = self.leaves_at.min(latest);
    }

    /// How much later than forecast an acknowledgement may be: it is delayed on purpose, too.
    pub(in crate::proto) fn slack(&self) -> Duration {
        let usual = self.estimate.lateness(self.progress_at).saturating_mul(4);
        let ack_delay = ACK_DELAY_USUAL.max(self.estimate.ack_gap());
        usual.min(self.estimate.rtt_min()).max(LATE_MIN).saturating_add(ack_delay)
    }

    /// How long after its forecast arrival a frame counts as late: its acknowledgement has to come.
    pub(in crate::proto) fn late_after(&self) -> Duration {
        self.estimate.way_back().saturating_add(self.slack())
    }

    /// How much later than its rate and its queue explain the lane delivers as a rule, as when TCP
    /// repairs one loss after another: what it is given has to stand that much further back.
    pub(in crate::proto) fn lateness(&self, now: Instant) -> Duration {
        self.estimate.lateness(now).saturating_sub(ACK_DELAY_USUAL)
    }

    /// Whether, of late, it owed nothing, made progress, or its peer's kernel acknowledged
    /// anything.
    pub(in crate::proto) fn answers(&self, now: Instant) -> bool {
        self.answered_until().is_some_and(|until| now < until)
    }

    /// When it will have been silent for too long to say that it answers.
    pub(in crate::proto) fn answered_until(&self) -> Option<Instant> {
        self.answered_at().checked_add(self.slack())
    }

    /// When it last owed nothing, made progress, or its peer's kernel acknowledged anything.
    pub(in crate::proto) fn answered_at(&self) -> Instant {
        self.estimate.kernel_heard_at().map_or(self.progress_at, |at| at.max(self.progress_at))
    }

    /// How long the lane may owe without making progress before it is suspect.
    pub(in crate::proto) fn timeout(&self) -> Duration {
        self.estimate.timeout().max(TIMEOUT_MIN).max(self.drain_time())
    }

    /// How long its path may take to answer, whatever waits at this end and for what was lost.
    pub(in crate::proto) fn path_timeout(&self) -> Duration {
        self.estimate.path_timeout().max(TIMEOUT_MIN).max(self.drain_time())
    }

    /// On a slow path round trips become many times as long within one of them: how long what is in
    /// flight takes.
    fn drain_time(&self) -> Duration {
        if !self.estimate.is_slow() {
            return Duration::ZERO;
        }
        let in_flight = self.estimate.slow_time(self.ledger.in_flight() as f64);
        let round_trip = self.estimate.rtt_min().saturating_add(self.estimate.ack_gap());
        in_flight.saturating_add(round_trip)
    }

    /// How long until it is given up.
    pub(in crate::proto) fn lost_after(&self) -> Duration {
        let silence = self.timeout().saturating_mul(TIMEOUTS_UNTIL_LOST).max(LOST_AFTER_MIN);
        let silence = silence.max(self.estimate.slow_time(FOREIGN_QUEUE_BYTES));
        // What was acknowledged shows that frames get through.
        let unanswered = if self.ledger.acked_position() == 0 { self.unanswered } else { 0 };
        silence.saturating_mul(1 << unanswered.min(UNANSWERED_MAX))
    }

    /// Whether something is expected of it: an acknowledgement, or that its buffer, which was full,
    /// takes more. Who only receives is owed no acknowledgement; that bytes arrive on the lane does
    /// not say that any leave.
    pub(in crate::proto) fn owes(&self) -> bool {
        self.ledger.owes() || self.task == Task::Writing
    }

    /// When the lane becomes suspect if it stays silent.
    pub(in crate::proto) fn suspect_at(&self) -> Option<Instant> {
        (self.owes() && self.health == Health::Good)
            .then(|| self.progress_at.checked_add(self.timeout()))
            .flatten()
    }

    /// Since when the lane is silent though it should not be: what was sent is not acknowledged, or
    /// what should be sent to see whether it is alive does not leave, because its buffer stays
    /// full. Not while its kernel learns that more has arrived: once all has, it is the peer
    /// that is silent, and not the path.
    pub(in crate::proto) fn silent_since(&self) -> Option<Instant> {
        let since = if self.owes() {
            self.progress_at
        } else if let Task::Woken(at) = self.task {
            // It may not come at all: its buffer may be full of what needs no acknowledgement.
            at
        } else if self.ping_due {
            self.heard_at
        } else {
            return None;
        };
        Some(self.estimate.kernel_delivered_at().map_or(since, |at| at.max(since)))
    }

    #[cfg(test)]
    fn lost_at(&self) -> Option<Instant> {
        self.silent_since()?.checked_add(self.lost_after())
    }

    /// When nothing will have been heard of it, by the peer's acknowledgements and its kernel's,
    /// for longer than its path may take.
    pub(in crate::proto) fn silent_at(&self) -> Option<Instant> {
        self.answered_at().checked_add(self.path_timeout())
    }

    /// When what follows from its silence, and is due at `due`, is done: not before its kernel was
    /// heard.
    pub(in crate::proto) fn decided_at(&self, due: Instant) -> Instant {
        self.asked_until.map_or(due, |until| until.max(due))
    }

    /// What follows from its silence is due since `due`. Whether its kernel has to be asked first:
    /// nobody has while nothing came on the lane and nothing could be written.
    pub(in crate::proto) fn ask_kernel(&mut self, now: Instant, due: Instant) -> bool {
        let Some(answered_at) = self.estimate.kernel_at() else { return false };
        let fresh = answered_at.checked_add(ANSWER_FRESH).is_none_or(|until| until >= due);
        if fresh || self.asked_until.is_some() {
            return false;
        }
        self.asked_until = now.checked_add(ANSWER_TIME);
        true
    }
}

/// A part of a duration; `duration / N` for a divisor that cannot be zero.
pub(in crate::proto) fn part<const N: u32>(duration: Duration) -> Duration {
    const { assert!(N > 0) };
    duration.checked_div(N).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ids::{Dir, Side, StreamId};
    use crate::proto::testing;

    /// A lane whose frame was acknowledged half a second late.
    fn late_lane(health: Health) -> Lane {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut lane = Lane::new(LaneId::FIRST, start, Some(ms(20)));
        let id = StreamId::new(Side::Client, Dir::Bi, 0);
        for end in [1000, 2000] {
            let carried = Carried::Data { id, range: end - 1000..end, fin: false };
            lane.ledger.record(carried, 1000, start, start + ms(10), Duration::ZERO, true);
        }
        lane.health = health;
        // The second frame's comes when the first one's has made the lane good again.
        for (at, position) in [(500, 1000), (510, 2000)] {
            assert!(lane.on_ack(start + ms(at), position, drop));
        }
        lane
    }

    /// A lane that owes since `start`, on a path of which the kernel tells.
    fn owing(rate: u64, start: Instant) -> Lane {
        let ms = Duration::from_millis;
        let mut lane = Lane::new(LaneId::FIRST, start, Some(ms(100)));
        let id = StreamId::new(Side::Client, Dir::Bi, 0);
        let carried = Carried::Data { id, range: 0..1000, fin: false };
        lane.ledger.record(carried, 1000, start, start + ms(10), Duration::ZERO, true);
        let silence = Some(Duration::ZERO);
        let metrics =
            LaneMetrics { silence, delivered_bytes: Some(0), ..testing::kernel(rate, ms(100)) };
        lane.estimate.on_metrics(start, metrics);
        lane
    }

    #[test]
    fn a_lane_whose_kernel_delivers_is_not_given_up_and_one_that_has_delivered_all_is() {
        let start = testing::start();
        let s = Duration::from_secs;
        let mut lane = owing(1_000_000, start);
        let lost_after = lane.lost_at().unwrap() - start;
        assert!(lost_after <= s(1), "as soon as ever: {lost_after:?}");
        let delivered = |lane: &mut Lane, at, bytes| {
            let kernel = testing::kernel(1_000_000, Duration::from_millis(100));
            let silence = Some(Duration::ZERO);
            let metrics = LaneMetrics { silence, delivered_bytes: Some(bytes), ..kernel };
            lane.estimate.on_metrics(start + at, metrics);
        };
        delivered(&mut lane, s(5), 500);
        assert_eq!(lane.lost_at(), Some(start + s(5) + lost_after), "it is slow, not dead");
        delivered(&mut lane, s(9), 500);
        assert_eq!(
            lane.lost_at(),
            Some(start + s(5) + lost_after),
            "its kernel hears, and no more"
        );
    }

    #[test]
    fn a_slow_lane_is_waited_for_as_long_as_a_routers_queue_takes() {
        let start = testing::start();
        let lost_after = |rate| owing(rate, start).lost_at().unwrap() - start;
        assert!(lost_after(8_000) >= Duration::from_secs(16), "64 kbit/s");
        assert!(lost_after(32_000) >= Duration::from_secs(4), "256 kbit/s");
        assert!(lost_after(125_000) <= Duration::from_secs(1), "1 Mbit/s");
    }

    #[test]
    fn a_kernel_is_asked_once_before_what_its_silence_leads_to() {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut lane = owing(1_000_000, start);
        let due = lane.lost_at().unwrap();
        assert!(lane.ask_kernel(due, due), "what it said is old");
        assert!(lane.decided_at(due) > due && lane.decided_at(due) < due + ms(100));
        assert!(!lane.ask_kernel(due + ms(50), due), "it does not answer");
        lane.asked_until = None;
        lane.estimate.on_metrics(due, testing::kernel(1_000_000, ms(100)));
        assert!(!lane.ask_kernel(due, due), "it has just answered");
        let mut silent = Lane::new(LaneId::FIRST, start, None);
        assert!(!silent.ask_kernel(due, due), "there is none that tells");
    }

    #[test]
    fn an_outage_is_not_the_rule() {
        let now = testing::start() + Duration::from_millis(510);
        let lateness = |health| late_lane(health).estimate.lateness(now);
        assert!(lateness(Health::Good) > Duration::from_millis(50));
        assert_eq!(lateness(Health::Suspect), Duration::ZERO);
    }
}
