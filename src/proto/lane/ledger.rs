//! What a lane was given to carry and has not been acknowledged: position on the lane to what
//! stands there.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::proto::count::{Count, end_of, span};
use crate::proto::ids::{LaneId, StreamId};

use super::part::part;

/// What a frame carried, as far as it matters if the frame is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    Data {
        id: StreamId,
        range: Range<u64>,
        fin: bool,
    },
    Open(StreamId),
    Reset(StreamId),
    Stop(StreamId),
    MaxStreamData(StreamId),
    MaxData,
    MaxStreams,
    EarlyStreams,
    LaneClosed(LaneId),
    Drain,
    NextKey,
    Express,
    Ping,
    /// Datagrams: what is lost of them is not sent again.
    Datagrams,
}

/// One frame in flight.
#[derive(Clone, Debug)]
pub struct Entry {
    pub carried: Carried,
    /// Where the frame ends on the lane.
    pub end: u64,
    pub sent_at: Instant,
    /// When it should arrive at the peer, as estimated when it was sent.
    pub eta: Instant,
    /// The part of that allowed for the lane's usual lateness.
    pub lateness: Duration,
    /// Another lane was given the same bytes after this one.
    pub duplicated: bool,
    /// The lane had more to send than it could then: the delivery measures its rate.
    pub busy: bool,
    /// The lane's acknowledged position when this was sent, and when that was reached.
    pub delivered_then: u64,
    pub delivered_at_then: Option<Instant>,
}

/// What is expected of a frame as it is sent: the fields of its entry.
#[derive(Clone, Copy, Debug)]
pub struct Forecast {
    pub eta: Instant,
    pub lateness: Duration,
    pub busy: bool,
}

/// On a path that a lane shares with others of its link, a forecast may be wrong by this fraction
/// of the time it looks ahead: the lane's queue drains at whatever rate the others leave it.
const FORECAST_ERROR: u32 = 2;

impl Entry {
    /// When it should have arrived, allowing for the largest forecast error.
    pub fn expected_by(&self, path_shared: bool) -> Instant {
        let ahead = self.eta.saturating_duration_since(self.sent_at);
        let error = if path_shared { part::<FORECAST_ERROR>(ahead) } else { Duration::ZERO };
        self.eta.checked_add(error).unwrap_or(self.eta)
    }
}

/// Invariant: acked <= sent; entries are in order of `end`, all above `acked`.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: VecDeque<Entry>,
    sent: u64,
    acked: u64,
    pub delivered_at: Option<Instant>,
    /// Payload bytes in `entries`.
    payload: Count,
}

impl Ledger {
    /// Bytes of frames given to the lane.
    pub fn sent_position(&self) -> u64 {
        self.sent
    }

    /// Bytes of frames the peer has acknowledged.
    pub fn acked_position(&self) -> u64 {
        self.acked
    }

    /// Bytes in flight. None if no acknowledgement is due: bytes that need none are never reported
    /// as arrived, and a lane that only answers for days would fill up with its answers.
    pub fn in_flight(&self) -> u64 {
        if self.owes() { span(self.acked, self.sent) } else { 0 }
    }

    /// Stream payload in flight.
    pub fn payload_in_flight(&self) -> u64 {
        self.payload.get()
    }

    /// Frames in flight that matter if they are lost.
    pub fn frames(&self) -> usize {
        self.entries.len()
    }

    /// Whether an acknowledgement is due to come.
    pub fn owes(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Notes bytes that need no acknowledgement.
    pub fn pass(&mut self, bytes: u64) {
        self.sent = end_of(self.sent, bytes);
    }

    /// Notes a frame of `bytes` bytes.
    pub fn record(&mut self, now: Instant, carried: Carried, bytes: u64, forecast: Forecast) {
        let Forecast { eta, lateness, busy } = forecast;
        // After idling, the rate is measured from this frame on, not from the last one's arrival.
        if self.entries.is_empty() {
            self.delivered_at = Some(now);
        }
        self.sent = end_of(self.sent, bytes);
        // Datagrams that were given together are remembered together.
        if carried == Carried::Datagrams
            && let Some(last) = self.entries.back_mut()
            && (&last.carried, last.sent_at) == (&carried, now)
        {
            (last.end, last.eta) = (self.sent, eta);
            return;
        }
        self.payload.add(payload(&carried));
        self.entries.push_back(Entry {
            carried,
            end: self.sent,
            sent_at: now,
            eta,
            lateness,
            duplicated: false,
            busy,
            delivered_then: self.acked,
            delivered_at_then: self.delivered_at,
        });
    }

    /// Settles everything up to `position`; returns the position. The caller has checked that it
    /// was sent.
    pub fn ack(&mut self, position: u64, mut settle: impl FnMut(Entry)) -> u64 {
        self.acked = self.acked.max(position.min(self.sent));
        while let Some(entry) = self.entries.front() {
            if entry.end > self.acked {
                break;
            }
            if let Some(entry) = self.entries.pop_front() {
                self.payload.take(payload(&entry.carried));
                settle(entry);
            }
        }
        self.acked
    }

    /// What is in flight, oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The same, mutable, for marking.
    pub fn entries_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut Entry> {
        self.entries.iter_mut()
    }

    /// The one that ends at `end`.
    pub fn entry_mut(&mut self, end: u64) -> Option<&mut Entry> {
        let nth = self.entries.binary_search_by_key(&end, |entry| entry.end).ok()?;
        self.entries.get_mut(nth)
    }

    /// Forgets what is in flight.
    pub fn drain(&mut self) -> impl Iterator<Item = Entry> + use<> {
        self.payload = Count::ZERO;
        std::mem::take(&mut self.entries).into_iter()
    }
}

fn payload(carried: &Carried) -> u64 {
    match carried {
        Carried::Data { range, .. } => span(range.start, range.end),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing;

    #[test]
    fn datagrams_given_at_once_are_one_entry() {
        let now = testing::start();
        let mut ledger = Ledger::default();
        let mut record = |carried, at| {
            let forecast = Forecast { eta: at, lateness: Duration::ZERO, busy: false };
            ledger.record(at, carried, 10, forecast);
        };
        record(Carried::Datagrams, now);
        record(Carried::Datagrams, now);
        record(Carried::Ping, now);
        record(Carried::Datagrams, now);
        record(Carried::Datagrams, now + Duration::from_millis(1));
        let ends: Vec<_> = ledger.entries().map(|entry| entry.end).collect();
        assert_eq!(ends, [20, 30, 40, 50]);
    }

    #[test]
    fn what_needs_no_acknowledgement_is_not_in_flight_by_itself() {
        let now = testing::start();
        let mut ledger = Ledger::default();
        ledger.pass(7);
        assert_eq!(ledger.in_flight(), 0);
        let forecast = Forecast { eta: now, lateness: Duration::ZERO, busy: false };
        ledger.record(now, Carried::Ping, 2, forecast);
        assert_eq!((ledger.in_flight(), ledger.sent_position()), (9, 9));
    }
}
