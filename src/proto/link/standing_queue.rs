//! Whether a queue stands on a path that several lanes fill.
//!
//! Each lane believes it can deliver what it got while the others got less. If each sent at that
//! rate, they would constantly overfill the path. (BBR's known weakness: ten lanes lost 18 % of
//! their packets to a queue of one bandwidth-delay product.) So while a queue stands, lanes are
//! held to what the path carries.

use super::filling::Filling;
use super::path::PACKET_BYTES;

/// A queue stands if it exceeds this part of the smallest round trip plus this many seconds, which
/// a task may have to wait.
const QUEUE_PART: f64 = 1.0 / 16.0;
const QUEUE_MIN: f64 = 0.001;
/// Lanes are fully held to what the path carries once the queue exceeds that by this many times as
/// much. Up to there the limit falls in proportion, so that it settles.
const QUEUE_RANGE: f64 = 1.5;
/// An acknowledgement waits for a second packet (RFC 9293, 3.8.6.3), which takes a slow lane long.
/// The mean wait, in packets.
const ACK_WAIT_PACKETS: f64 = 0.25;
/// What all lanes together send beyond what is delivered: while a queue stands there is little to
/// gain, but lanes held to exactly what they deliver could never deliver more.
const HEADROOM: f64 = 1.02;
/// No lane is held to less than this part of what it believes. Where round trips are long for other
/// reasons than a queue, lanes held to what they happen to deliver would deliver less and less.
const PART_MIN: f64 = 0.25;

/// How much less the path can deliver to all its lanes than each believes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StandingQueue {
    /// Zero if no queue stands, up to one.
    pressure: f64,
    /// What the lanes deliver, as a fraction of what they are believed to.
    part: f64,
}

impl StandingQueue {
    pub(super) const NONE: Self = Self { pressure: 0.0, part: 1.0 };

    /// For a path that `carried` this many bytes a second, with round trips of `rtt` seconds, which
    /// may exceed the usual ones by `jitter` seconds without a queue.
    pub(super) fn of(filling: &Filling, rtt: f64, carried: f64, jitter: f64) -> Self {
        if filling.lanes < 2 {
            return Self::NONE;
        }
        let part = (carried / filling.believed).clamp(PART_MIN, 1.0);
        Self { pressure: pressure(filling, rtt, carried, jitter), part }
    }

    /// What a lane can expect, as a fraction of what it believes it can deliver.
    pub(super) fn share(&self) -> f64 {
        1.0 + self.pressure * (self.part - 1.0)
    }

    /// Whether a queue stands even though lanes are held to what the path carries.
    pub(super) fn is_standing(&self) -> bool {
        self.pressure >= 1.0
    }

    /// What a lane may send at, as a fraction of what it believes, given the fraction allowed
    /// without a queue, `free`.
    pub(super) fn headroom(&self, free: f64) -> f64 {
        free + self.pressure * (self.part * HEADROOM - free)
    }
}

fn pressure(filling: &Filling, rtt: f64, carried: f64, jitter: f64) -> f64 {
    let ack_delay = ACK_WAIT_PACKETS * PACKET_BYTES * filling.lanes as f64 / carried.max(1.0);
    let usual = QUEUE_PART * filling.rtt_min + QUEUE_MIN + jitter;
    let queue = rtt - ack_delay - filling.rtt_min - usual;
    (queue / (QUEUE_RANGE * usual)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: f64 = 1.3;

    /// Ten lanes believed to deliver 10 MB/s, on a path of 20 ms.
    fn queue(ms: f64, carried: f64, jitter: f64) -> StandingQueue {
        let ten = Filling { lanes: 10, answers: true, believed: 1e7, rtt_min: 0.02 };
        StandingQueue::of(&ten, 0.02 + ms / 1e3, carried, jitter)
    }

    fn near(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
    }

    #[test]
    fn lanes_that_overfill_their_path_are_held_to_what_it_carries() {
        let of = |ms| queue(ms, 8e6, 0.0);
        near(of(20.0).headroom(FREE), 0.8 * HEADROOM);
        near(of(20.0).share(), 0.8);
        assert!(of(20.0).is_standing());
        near(of(2.0).headroom(FREE), FREE);
        near(of(2.0).share(), 1.0);
        let between = of(5.0);
        assert!(between.headroom(FREE) > 0.9 && between.headroom(FREE) < FREE, "{between:?}");
        assert!(between.share() > 0.8 && between.share() < 1.0, "{between:?}");
        assert!(!between.is_standing());
    }

    #[test]
    fn lanes_whose_round_trips_are_long_are_not_held_to_next_to_nothing() {
        let trickle = queue(200.0, 1e5, 0.0);
        near(trickle.share(), PART_MIN);
        near(trickle.headroom(FREE), PART_MIN * HEADROOM);
    }

    #[test]
    fn jitter_is_no_queue() {
        near(queue(20.0, 8e6, 0.02).share(), 1.0);
        assert!(queue(200.0, 8e6, 0.02).is_standing());
    }

    #[test]
    fn one_lane_is_held_to_nothing() {
        let one = Filling { lanes: 1, answers: true, believed: 1e6, rtt_min: 0.02 };
        assert_eq!(StandingQueue::of(&one, 1.0, 1e5, 0.0), StandingQueue::NONE);
    }
}
