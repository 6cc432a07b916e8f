//! The receiving half of a lane: how much of it has arrived, and when to acknowledge that.

use std::time::{Duration, Instant};

use super::part::part;
use crate::proto::count::{end_of, span};

/// Acknowledge at once after this much: eight thousand times a second at 1 GB/s, which is cheap; at
/// 10 Mbit/s the timer decides instead.
const ACK_EVERY_BYTES: u64 = 128 * 1024;

/// Otherwise acknowledge after this fraction of the round trip, to keep the sender up to date.
const ACK_DELAY_FRACTION: u32 = 8;
/// Acknowledge no more often than a timer can resolve.
const ACK_DELAY_MIN: Duration = Duration::from_millis(1);
/// Acknowledge no later than this, unless a packet takes longer: the sender's time-outs start at
/// 100 ms.
const ACK_DELAY_MAX: Duration = Duration::from_millis(10);

/// Cumulative position and the acknowledgements owed for it: one on the lane itself, to show that
/// it is alive; and one on a faster lane, if there is one.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Bytes of frames received.
    position: u64,
    /// The position in the last ACK sent.
    acked: u64,
    /// When the ACK on the lane itself has to leave, if one is owed.
    due: Option<Instant>,
    /// When the ACK on a faster lane has to leave, if one is owed.
    due_elsewhere: Option<Instant>,
}

/// What acknowledgements of a lane have before them.
#[derive(Clone, Copy, Debug)]
pub struct WayBack {
    /// The lane's round trip.
    pub rtt: Duration,
    /// How long one packet takes, if the lane's path is slow.
    pub slow_packet: Duration,
    /// Another lane gets them there sooner.
    pub faster_elsewhere: bool,
}

impl Inbound {
    /// Bytes of frames received on the lane.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Counts a batch of frames, any of them `eliciting` an acknowledgement.
    pub fn receive(&mut self, now: Instant, bytes: u64, eliciting: bool, way_back: WayBack) {
        let WayBack { rtt, slow_packet, faster_elsewhere } = way_back;
        self.position = end_of(self.position, bytes);
        if !eliciting {
            return;
        }
        let delay = part::<ACK_DELAY_FRACTION>(rtt).clamp(ACK_DELAY_MIN, ACK_DELAY_MAX);
        let delay = delay.max(slow_packet);
        let full = span(self.acked, self.position) >= ACK_EVERY_BYTES;
        let due = if full { now } else { now.checked_add(delay).unwrap_or(now) };
        let sooner = |owed: Option<Instant>| Some(owed.map_or(due, |already| already.min(due)));
        self.due = sooner(self.due);
        if faster_elsewhere {
            self.due_elsewhere = sooner(self.due_elsewhere);
        }
    }

    /// When an ACK has to be sent on the lane itself.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// When an ACK has to be sent on a faster lane.
    pub fn due_elsewhere(&self) -> Option<Instant> {
        self.due_elsewhere
    }

    /// The position for an ACK that is about to be sent on the lane itself, if one is owed.
    pub fn take_ack(&mut self) -> Option<u64> {
        self.due.take()?;
        self.acked = self.position;
        Some(self.position)
    }

    /// The position for an ACK that is about to be sent on a faster lane, if one is owed.
    pub fn take_ack_elsewhere(&mut self) -> Option<u64> {
        self.due_elsewhere.take()?;
        self.acked = self.position;
        Some(self.position)
    }
}
