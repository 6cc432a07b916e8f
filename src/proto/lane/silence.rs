//! What a lane's silence means on its own: how late a frame may be, how long the lane may owe
//! before it is suspect, and how long until it is given up. `lanes::silence` weighs it against the
//! other lanes.

use std::time::{Duration, Instant};

use super::{Lane, Task};

/// A frame is late when its acknowledgement is this much later than forecast, or four times the
/// lane's usual lateness, but never more than a round trip: a lane that has become slow must not
/// get used to being late.
const LATE_MIN: Duration = Duration::from_millis(20);
/// The time that the peer may take to acknowledge comes on top.
const ACK_DELAY_USUAL: Duration = Duration::from_millis(10);

/// How many time-outs of a suspect lane pass before it is given up.
const TIMEOUTS_UNTIL_LOST: u32 = 3;

/// A lane is not given up sooner than this: TCP repairs most losses within it.
const LOST_AFTER_MIN: Duration = Duration::from_secs(1);

/// On a slow path someone else's queue may stand ahead of what it owes: as much as routers have for
/// such links (128 KiB). The lane is allowed the time that takes, twice: what is lost at a full
/// queue is sent again behind it.
const FOREIGN_QUEUE_BYTES: f64 = 2.0 * 128.0 * 1024.0;

/// How long a kernel that was asked for its figures has to answer.
const ANSWER_TIME: Duration = Duration::from_millis(20);
/// Figures up to this old count as an answer: the kernel is asked no more often.
const ANSWER_FRESH: Duration = Duration::from_millis(10);

/// On an extremely slow path, lanes given up before their first frame can get through would be
/// redialled for ever: the next one gets twice the time, up to 32 times.
const UNANSWERED_MAX: u32 = 5;

/// The shortest time-out: below it, delayed acknowledgements and a busy machine look like death.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);

impl Lane {
    /// How much later than forecast an acknowledgement may be, deliberate delay included.
    pub fn slack(&self) -> Duration {
        let usual = self.estimate.lateness(self.signs.progress_at).saturating_mul(4);
        let ack_delay = ACK_DELAY_USUAL.max(self.estimate.ack_gap());
        usual.min(self.estimate.rtt_min()).max(LATE_MIN).saturating_add(ack_delay)
    }

    /// How long after its forecast arrival a frame counts as late: its acknowledgement has to come.
    pub fn late_after(&self) -> Duration {
        self.estimate.way_back().saturating_add(self.slack())
    }

    /// How much later than its rate and queue explain the lane usually delivers, as when TCP
    /// repairs one loss after another: it is given bytes from that much further back.
    pub fn lateness(&self, now: Instant) -> Duration {
        self.estimate.lateness(now).saturating_sub(ACK_DELAY_USUAL)
    }

    /// Whether it recently owed nothing, made progress, or its peer's kernel acknowledged anything.
    pub fn answers(&self, now: Instant) -> bool {
        self.answered_until().is_some_and(|until| now < until)
    }

    /// When it will have been silent for too long to count as answering.
    pub fn answered_until(&self) -> Option<Instant> {
        self.answered_at().checked_add(self.slack())
    }

    /// When it last owed nothing, made progress, or its peer's kernel acknowledged anything.
    pub fn answered_at(&self) -> Instant {
        self.estimate
            .kernel_heard_at()
            .map_or(self.signs.progress_at, |at| at.max(self.signs.progress_at))
    }

    /// How long the lane may owe without making progress before it is suspect.
    pub fn timeout(&self) -> Duration {
        self.estimate.timeout().max(TIMEOUT_MIN).max(self.drain_time())
    }

    /// How long its path may take to answer, whatever waits at this end or for lost packets.
    pub fn path_timeout(&self) -> Duration {
        self.estimate.path_timeout().max(TIMEOUT_MIN).max(self.drain_time())
    }

    /// On a slow path, round trips can multiply within one of them: how long what is in flight
    /// takes.
    fn drain_time(&self) -> Duration {
        if !self.estimate.is_slow() {
            return Duration::ZERO;
        }
        let in_flight = self.estimate.slow_time(self.ledger.in_flight() as f64);
        let round_trip = self.estimate.rtt_min().saturating_add(self.estimate.ack_gap());
        in_flight.saturating_add(round_trip)
    }

    /// How long until it is given up.
    pub fn lost_after(&self) -> Duration {
        let silence = self.timeout().saturating_mul(TIMEOUTS_UNTIL_LOST).max(LOST_AFTER_MIN);
        let silence = silence.max(self.estimate.slow_time(FOREIGN_QUEUE_BYTES));
        // An acknowledgement shows that frames get through.
        let unanswered = if self.ledger.acked_position() == 0 { self.signs.unanswered } else { 0 };
        silence.saturating_mul(1 << unanswered.min(UNANSWERED_MAX))
    }

    /// Whether something is expected of it: an acknowledgement, or room in its full buffer. A lane
    /// that only receives is owed no acknowledgement; that bytes arrive on it does not show that
    /// any leave.
    pub fn owes(&self) -> bool {
        self.ledger.owes() || self.task == Task::Writing
    }

    /// When the lane becomes suspect if it stays silent.
    pub fn suspect_at(&self) -> Option<Instant> {
        (self.owes() && !self.is_suspect())
            .then(|| self.signs.progress_at.checked_add(self.timeout()))
            .flatten()
    }

    /// Since when the lane has been silent though it should not be: what was sent is not
    /// acknowledged, or a PING does not leave because its buffer stays full. Not while its kernel
    /// learns that more has arrived: once all has, the peer is silent, not the path.
    pub fn silent_since(&self) -> Option<Instant> {
        let since = if self.owes() {
            self.signs.progress_at
        } else if let Task::Woken(at) = self.task {
            // It may never ask: its buffer may be full of what needs no acknowledgement.
            at
        } else if self.signs.ping_due {
            self.signs.heard_at
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
    pub fn silent_at(&self) -> Option<Instant> {
        self.answered_at().checked_add(self.path_timeout())
    }

    /// When to act on silence that falls due at `due`: not before its kernel has answered.
    pub fn decided_at(&self, due: Instant) -> Instant {
        self.signs.asked_until.map_or(due, |until| until.max(due))
    }

    /// A decision on its silence has been due since `due`. Whether to ask its kernel first: nobody
    /// has while nothing came on the lane and nothing could be written.
    pub fn ask_kernel(&mut self, now: Instant, due: Instant) -> bool {
        let Some(answered_at) = self.estimate.kernel_at() else { return false };
        let fresh = answered_at.checked_add(ANSWER_FRESH).is_none_or(|until| until >= due);
        if fresh || self.signs.asked_until.is_some() {
            return false;
        }
        self.signs.asked_until = now.checked_add(ANSWER_TIME);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ids::{Dir, LaneId, Side, StreamId};
    use crate::proto::lane::{Carried, Condition, Forecast};
    use crate::proto::link::KernelSample;
    use crate::proto::testing;

    fn forecast(eta: Instant) -> Forecast {
        Forecast { eta, lateness: Duration::ZERO, busy: true }
    }

    /// A lane whose frame was acknowledged half a second late.
    fn late_lane(condition: Condition) -> Lane {
        let start = testing::start();
        let ms = Duration::from_millis;
        let mut lane = Lane::new(LaneId::FIRST, start, Some(ms(20)));
        let id = StreamId::new(Side::Client, Dir::Bi, 0);
        for end in [1000, 2000] {
            let carried = Carried::Data { id, range: end - 1000..end, fin: false };
            lane.ledger.record(start, carried, 1000, forecast(start + ms(10)));
        }
        lane.condition = condition;
        // The second frame's acknowledgement comes once the first's has made the lane good again.
        for (at, position) in [(500, 1000), (510, 2000)] {
            assert!(lane.on_ack(start + ms(at), position, drop));
        }
        lane
    }

    /// A lane that owes since `start`, on a path its kernel reports on.
    fn owing(rate: u64, start: Instant) -> Lane {
        let ms = Duration::from_millis;
        let mut lane = Lane::new(LaneId::FIRST, start, Some(ms(100)));
        let id = StreamId::new(Side::Client, Dir::Bi, 0);
        let carried = Carried::Data { id, range: 0..1000, fin: false };
        lane.ledger.record(start, carried, 1000, forecast(start + ms(10)));
        let silence = Some(Duration::ZERO);
        let metrics =
            KernelSample { silence, delivered_bytes: Some(0), ..testing::kernel(rate, ms(100)) };
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
            let metrics = KernelSample { silence, delivered_bytes: Some(bytes), ..kernel };
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
        lane.signs.asked_until = None;
        lane.estimate.on_metrics(due, testing::kernel(1_000_000, ms(100)));
        assert!(!lane.ask_kernel(due, due), "it has just answered");
        let mut silent = Lane::new(LaneId::FIRST, start, None);
        assert!(!silent.ask_kernel(due, due), "there is none that tells");
    }

    #[test]
    fn an_outage_is_not_the_rule() {
        let now = testing::start() + Duration::from_millis(510);
        let lateness = |condition| late_lane(condition).estimate.lateness(now);
        assert!(lateness(Condition::Good) > Duration::from_millis(50));
        assert_eq!(lateness(Condition::Suspect), Duration::ZERO);
    }
}
