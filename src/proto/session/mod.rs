//! The session: dispatch and sequencing. Streams, lanes, the scheduler and the wire each have their
//! own modules; this one only connects them.

mod acks;
mod busy;
mod copies;
mod express;
mod flows;
mod handles;
mod lanes;
mod memory;
mod plan;
mod pull;
mod receive;
mod transmit;
mod wake;

pub use super::streams::{Allowance, MemoryUse};
pub use flows::Flow;
pub use handles::{RecvStream, SendStream};
pub use transmit::Transmit;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use self::busy::BusyBudget;
use super::config::Config;
use super::copies::Copies;
use super::error::{Code, SessionError, Undelivered};
use super::event::Event;
use super::flows::Flows;
use super::ids::{LaneId, Side, StreamId};
use super::lanes::Lanes;
use super::limits::NEXT_KEY_BYTES;
use super::scheduler::LaneView;
use super::stats::{CreditStats, LaneStats, SessionStats, StreamStats};
use super::streams::Streams;
use super::timer::Timer;
use super::wire::Params;

/// One end of a session: streams over lanes, without IO, clock, tasks or threads.
///
/// Four kinds of method:
/// - *getters* (`side`, `stats`, `lane_count`, ...) change nothing;
/// - *input*: `handle_lane_up`, `handle_lane_policy`, `handle_lane_metrics`, `handle_frames`,
///   `handle_lane_down`, `handle_timeout` report what happened outside;
/// - *commands*: `open`, `open_flow`, `accept`, `send_stream`, `recv_stream`, `flow`, `drain`,
///   `announce_next_key`, `close`;
/// - *output*: `poll_event`, `poll_wake`, `poll_transmit`, `poll_timeout`.
///
/// After any input or command the driver drains `poll_event`, wakes every lane that `poll_wake`
/// names, and re-arms its timer from `poll_timeout`. A lane that can take bytes calls
/// `poll_transmit`; if it gets none it sleeps until `poll_wake` names it.
///
/// Invariant: nothing here reads a clock, and two sessions given the same calls do the same things.
#[derive(Debug)]
pub struct Session {
    side: Side,
    config: Arc<Config>,
    state: State,
    streams: Streams,
    flows: Flows,
    lanes: Lanes,
    notices: Notices,
    busy: BusyBudget,
    copies: Copies,
    random: u64,
    /// Space for snapshots of the lanes, so that a pull allocates nothing.
    view_space: Vec<LaneView>,
}

/// Where the session stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Over; a CLOSE with this code and reason may still have to be sent on the lanes.
    Closed {
        tell: Option<(Code, &'static str)>,
        /// What had not arrived.
        lost: Undelivered,
    },
}

/// What this end tells the peer about the session itself.
#[derive(Debug, Default)]
struct Notices {
    due: NoticesDue,
    /// This server's next key.
    next_key: Option<Bytes>,
    /// An express lane would help, and whoever dials has been told.
    express_wanted: bool,
}

/// Control frames about the session that wait to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NoticesDue {
    drain: bool,
    next_key: bool,
    express: bool,
}

impl Session {
    /// A session with no lane yet. `peer` holds the parameters the other end gave when the session
    /// was created; `seed` is the source of all its randomness.
    pub fn new(side: Side, config: Arc<Config>, peer: Params, seed: u64, now: Instant) -> Self {
        Self {
            side,
            state: State::Open,
            streams: Streams::new(side, config.clone(), peer),
            flows: Flows::new(side, peer.flows_max),
            lanes: Lanes::new(config.clone(), now),
            notices: Notices::default(),
            busy: BusyBudget::new(now),
            copies: Copies::new(config.duplicate_share),
            random: seed | 1,
            view_space: Vec::new(),
            config,
        }
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether one end accepts no more streams.
    pub fn is_draining(&self) -> bool {
        self.streams.is_draining()
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.state != State::Open
    }

    /// Whether every remaining lane has been given the CLOSE: the driver may let go.
    pub fn is_close_sent(&self) -> bool {
        self.is_closed() && self.lanes.values().all(|lane| lane.close_sent)
    }

    /// How many lanes are up.
    pub fn lane_count(&self) -> usize {
        self.lanes.len()
    }

    /// Since when the session has had no lane; `None` while it has one.
    pub fn alone_since(&self) -> Option<Instant> {
        self.lanes.alone_since()
    }

    /// How many streams are open, in either direction.
    pub fn stream_count(&self) -> usize {
        self.streams.len()
    }

    /// Bytes kept for the peer: received but unread, and sent but unacknowledged; of datagrams,
    /// those that wait at this end.
    pub fn memory(&self) -> u64 {
        self.streams.memory().saturating_add(self.flows.bytes())
    }

    /// What was written or finished and may not have arrived; once the session is over, what was
    /// lost.
    pub fn undelivered(&self) -> Undelivered {
        if let State::Closed { lost, .. } = self.state {
            return lost;
        }
        self.streams.undelivered()
    }

    /// Whether everything written and finished has arrived.
    pub fn is_delivered(&self) -> bool {
        self.streams.held() == 0 && self.undelivered().is_none()
    }

    /// Current figures of the session and its lanes.
    pub fn stats(&self) -> SessionStats {
        let (sums, totals) = (self.streams.sums(), self.lanes.totals);
        let (credit, window) = (self.streams.credit(), self.streams.window());
        SessionStats {
            sent_bytes: totals.sent_payload,
            resent_bytes: totals.resent_payload,
            received_bytes: sums.received.get(),
            duplicate_bytes: sums.duplicate.get(),
            pending_bytes: sums.pending.get(),
            held_bytes: sums.held.get(),
            held_bytes_max: sums.held_peak,
            reorder_bytes: sums.reorder.cost(),
            reorder_bytes_max: sums.reorder_peak,
            lanes_lost: totals.lost,
            lanes_suspected: totals.suspected,
            credit: CreditStats {
                sent: credit.used(),
                sent_max: credit.max(),
                received: window.received(),
                consumed: window.consumed(),
                announced: window.announced(),
            },
            streams: self.streams.len(),
            flows: self.flows.len(),
            datagrams: self.flows.sums(),
            lanes: self.lanes.values().map(LaneStats::of).collect(),
        }
    }

    /// Current figures of one lane; `None` if it is not up.
    pub fn lane_stats(&self, id: LaneId) -> Option<LaneStats> {
        self.lanes.get(id).map(LaneStats::of)
    }

    /// Current figures of the open streams with higher numbers than `after`, in order; without it,
    /// of all.
    pub fn stream_stats(&self, after: Option<StreamId>) -> impl Iterator<Item = StreamStats> {
        let full = self.streams.credit().left() == 0;
        self.streams.after(after).map(move |(id, stream)| match self.flows.get(id) {
            Some(flow) => StreamStats::of_flow(id, flow),
            None => StreamStats::of(id, stream, full),
        })
    }

    /// Lets the open streams finish and refuses new ones from the peer.
    pub fn drain(&mut self) {
        self.notices.due.drain |= self.streams.drain();
    }

    /// Announces this server's next key (`limits::NEXT_KEY_BYTES`).
    pub fn announce_next_key(&mut self, announcement: Bytes) {
        debug_assert!(self.side == Side::Server && announcement.len() == NEXT_KEY_BYTES);
        self.notices.next_key = Some(announcement);
        self.notices.due.next_key = true;
    }

    /// Ends the session at once, and tells the peer why.
    pub fn close(&mut self, code: Code) {
        if self.state == State::Open {
            self.end(SessionError::Closed(code), Some((code, "")));
        }
    }

    /// The next event, oldest first.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.streams.events.pop_front()
    }

    /// When to call `handle_timeout`, and why.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        if self.is_closed() {
            return None;
        }
        let alone = self.lanes.alone_since().and_then(|since| since.checked_add(self.config.grace));
        let grace = alone.map(|at| (at, Timer::Grace));
        let paced = self.lanes.paced_until.map(|at| (at, Timer::Paced));
        let flows = self.flows.timeout().map(|at| (at, Timer::Flow));
        let answering = self.lanes.answering();
        let lanes = self.lanes.values().filter_map(|lane| {
            let late = self.copies.late_at(&self.lanes, lane, answering);
            self.lanes.timeout(lane, answering, late)
        });
        lanes.chain(grace).chain(paced).chain(flows).min_by_key(|(at, _)| *at)
    }

    /// Time has passed: call at or after the instant `poll_timeout` named.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        // `poll_wake` decides what happens next.
        self.lanes.paced_until = self.lanes.paced_until.filter(|at| *at > now);
        self.check_lanes(now);
        self.check_flows(now);
        let grace_over = self
            .lanes
            .alone_since()
            .is_some_and(|since| now.saturating_duration_since(since) >= self.config.grace);
        if grace_over {
            self.end(SessionError::GraceExpired, None);
        }
    }

    /// The peer broke a rule: the session ends with a code and a reason.
    fn misbehaved(&mut self, code: Code, detail: &'static str) {
        if self.state == State::Open {
            let error = SessionError::PeerMisbehaved { code, detail };
            self.end(error, Some((code, detail)));
        }
    }

    fn end(&mut self, error: SessionError, tell: Option<(Code, &'static str)>) {
        self.state = State::Closed { tell, lost: self.undelivered() };
        self.lanes.dead.clear();
        self.flows.clear();
        self.streams.end(matches!(error, SessionError::ClosedByPeer { .. }));
        self.tell(Event::Closed(error));
    }

    #[cfg(test)]
    pub(in crate::proto) fn streams(&self) -> &Streams {
        &self.streams
    }

    #[cfg(test)]
    pub(in crate::proto) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    #[cfg(test)]
    pub(in crate::proto) fn lanes_mut(&mut self) -> &mut Lanes {
        &mut self.lanes
    }

    /// An event that is not about streams.
    fn tell(&mut self, event: Event) {
        self.streams.events.push_back(event);
    }

    /// A number from the session's own source (xorshift; Marsaglia 2003).
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
