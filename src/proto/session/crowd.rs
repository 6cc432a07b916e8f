//! Lanes that fill a path together each believe what they had when the others had less: if each sent at that, the path would be
//! overfilled all the time. (BBR's known weakness; ten lanes lost 18 % of their packets to a queue of one bandwidth-delay
//! product.) So they are held to what the path carries, as far as a queue stands on it.

use std::time::{Duration, Instant};

use crate::proto::lane::{Lane, PACING_HEADROOM, PACKET_BYTES, SLOW_RATE};

/// They are held to what the path carries once a queue stands on it that is longer than this part of the smallest round trip,
/// and than a task may have to wait ...
const QUEUE_PART: f64 = 1.0 / 16.0;
const QUEUE_MIN: f64 = 0.001;
/// ... wholly so when it is this much longer yet. In between they come to rest.
const QUEUE_RANGE: f64 = 1.5;
/// An acknowledgement waits for a second packet (RFC 9293, 3.8.6.3), which takes a slow lane long: on average so many.
const ACK_WAIT_PACKETS: f64 = 0.25;
/// A lane has room for as much on its path if it is to go on when a packet is lost, and to find out whether there is more; BBR
/// has never less than a quarter of it on the way.
const LANE_BYTES: f64 = 16.0 * PACKET_BYTES;
/// With less than this BBR works badly: it never has less than half of it on the way, however little a lane's part of the path is.
const LANE_BYTES_MIN: f64 = 8.0 * PACKET_BYTES;
/// On a slow path more than one lane works only while round trips are not this many times the smallest: at the start of a long
/// one, which may still turn out to be fast.
const QUEUE_SLOW: f64 = 2.0;
/// A lane fills a path only if it answered within so long: half of the time that a path has to be full before its rate is told.
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// What they send beyond it, all together: while a queue stands there is little to find out, but who is held to what is
/// delivered can never deliver more.
const HEADROOM: f64 = 1.02;
/// But never less than this part of what each believes: round trips that are long for another reason than a queue would
/// hold them to what they happen to deliver, and they would deliver less and less.
const PART_MIN: f64 = 0.25;

/// How much less than each of its lanes believes the path can deliver to all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Crowding {
    /// From none, if no queue stands on the path, to one.
    pressure: f64,
    /// What they deliver, in parts of what they believe they can.
    part: f64,
}

impl Crowding {
    pub(super) const NONE: Self = Self { pressure: 0.0, part: 1.0 };

    /// What a lane can expect, in parts of what it believes it can.
    pub(super) fn share(&self) -> f64 {
        1.0 + self.pressure * (self.part - 1.0)
    }

    /// Whether a queue stands on the path, though they are held to what it carries.
    pub(super) fn is_queued(&self) -> bool {
        self.pressure >= 1.0
    }

    /// What it may send at, in the same parts.
    pub(super) fn headroom(&self) -> f64 {
        PACING_HEADROOM + self.pressure * (self.part * HEADROOM - PACING_HEADROOM)
    }
}

/// Those lanes of a link that keep its path full.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    pub(super) lanes: usize,
    /// Whether any lane does that answers, whatever its kernel tells: what was lost with a silent one fills nothing.
    pub(super) fills: bool,
    /// What each believes it can deliver, in bytes a second.
    believed: f64,
    /// The shortest round trip without a queue, in seconds: all go the same way.
    rtt_min: f64,
}

impl Crowd {
    /// Without lanes of which the kernel tells nothing, or not yet.
    pub(super) fn of<'a>(now: Instant, lanes: impl Iterator<Item = &'a Lane>) -> Self {
        let filling = |lane: &&Lane| {
            !lane.resting && lane.ledger.in_flight() as f64 >= lane.estimate.bandwidth_delay_bytes()
        };
        let mut crowd = Self { rtt_min: f64::INFINITY, ..Self::default() };
        for lane in lanes.filter(filling) {
            crowd.fills |= now.saturating_duration_since(lane.answered_at()) < ANSWER_TIME;
            let Some(path) = lane.estimate.end_to_end_kernel() else { continue };
            crowd.lanes = crowd.lanes.saturating_add(1);
            crowd.believed += lane.estimate.rate().max(1.0);
            crowd.rtt_min = crowd.rtt_min.min(path.rtt_min.as_secs_f64());
        }
        crowd
    }

    /// Whether one lane would do, since the path carries little (`path_rate`, in bytes a second) and what is in flight waits before it: round trips take `rtt`
    /// seconds. What a kernel has on the way at least is most of a second of such a path, for each lane.
    pub(super) fn fills_slow_path(&self, rtt: f64, path_rate: Option<f64>) -> bool {
        let slow = path_rate.is_some_and(|rate| rate < SLOW_RATE);
        self.lanes > 0 && slow && rtt > QUEUE_SLOW * self.rtt_min
    }

    /// What it means to each of them that the path has `carried` so many bytes a second, after round trips of `rtt` seconds, which
    /// may be longer than usual by `wander` seconds without a queue.
    pub(super) fn crowding(&self, rtt: f64, carried: f64, wander: f64) -> Crowding {
        if self.lanes < 2 {
            return Crowding::NONE;
        }
        let part = (carried / self.believed).clamp(PART_MIN, 1.0);
        Crowding { pressure: self.pressure(rtt, carried, wander), part }
    }

    /// How many lanes are tried if a queue stands on the path all the time: three quarters of them, which have enough on the way
    /// to keep it full if it was as much as fits into a queue of a bandwidth-delay product; or only as many as the path has room
    /// for, if it has `carried` so many bytes a second.
    pub(super) fn needed(&self, carried: f64) -> usize {
        let room = carried * self.rtt_min / LANE_BYTES;
        let most = self.lanes.saturating_mul(3).checked_div(4).unwrap_or_default();
        (room.ceil() as usize).clamp(1, most.max(1))
    }

    /// Whether a path that has `carried` so many bytes a second is too short for them: a queue of a few packets overflows, and
    /// hardly makes round trips longer.
    pub(super) fn is_cramped(&self, carried: f64) -> bool {
        self.lanes as f64 * LANE_BYTES_MIN > carried * self.rtt_min
    }

    /// Round trips of the usual length say nothing of a queue, nor do those of a path where they wander so far.
    fn pressure(&self, rtt: f64, carried: f64, wander: f64) -> f64 {
        let ack_delay = ACK_WAIT_PACKETS * PACKET_BYTES * self.lanes as f64 / carried.max(1.0);
        let usual = QUEUE_PART * self.rtt_min + QUEUE_MIN + wander;
        let queue = rtt - ack_delay - self.rtt_min - usual;
        (queue / (QUEUE_RANGE * usual)).clamp(0.0, 1.0)
    }
}
