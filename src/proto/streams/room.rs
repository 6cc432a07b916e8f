//! Room: how much of what a peer sends this end may have to keep. What was announced cannot be
//! taken back, so it counts as promised until it is read: both to open streams and to those that
//! the peer may open. Only here is it decided whether a window grows.
//!
//! Invariant: the promises of all streams together are at most three quarters of the session's
//! window (unless that is too small). So streams that nobody reads leave at least a quarter of it,
//! and each stream that somebody reads goes on.

use std::time::{Duration, Instant};

use super::Streams;
use super::promises::share;
use crate::proto::count::{end_of, span};
use crate::proto::event::Event;
use crate::proto::ids::{Dir, Side, StreamId};
use crate::proto::stream::{ReceiveWindow, Stream};

/// Streams that a peer may open with the full first window within one round trip, where there is
/// room.
const EARLY_AHEAD_MAX: u64 = 8;

/// Streams are checked once per this many bytes received for each.
const CHECK_BYTES: u64 = 64;

impl Streams {
    /// Stream bytes that the peer may make this end keep: unread ones, and remaining credit,
    /// including that of streams not open yet.
    pub fn promised(&self) -> u64 {
        let firsts = self.streams_promised().saturating_mul(self.room.first);
        end_of(self.room.beyond.get(), firsts)
    }

    /// The part of it that open streams have.
    pub(super) fn promised_to_open(&self) -> u64 {
        let firsts = (self.table.len() as u64).saturating_mul(self.room.first);
        end_of(span(self.promised_early(), self.room.beyond.get()), firsts)
    }

    /// The part of it, beyond first windows, of streams that the peer has yet to open.
    pub(super) fn promised_early(&self) -> u64 {
        self.remote.early_unseen.get().saturating_mul(self.room.early_beyond())
    }

    /// Streams that are open, and those that the peer may open.
    fn streams_promised(&self) -> u64 {
        end_of(self.table.len() as u64, self.remote.unseen())
    }

    /// The most that may be promised.
    fn room_max(&self) -> u64 {
        let window = self.allowed_window();
        span(window / 4, window)
    }

    /// What may be promised beyond first windows: after those of streams that are open or may be
    /// (at least a quarter of the session's window), and of the next that either end may open.
    fn room_beyond(&self) -> u64 {
        let first = self.room.first;
        let ahead = self.config.streams_ahead(self.allowed_window()).saturating_mul(first);
        // Streams that the peer may open count as open: many may have closed since they were
        // allowed.
        let open = self.streams_promised().saturating_mul(first);
        let firsts = open.max(self.allowed_window() / 4).saturating_add(ahead.saturating_mul(2));
        self.room_max().saturating_sub(firsts)
    }

    /// The window of at most `wish` bytes for a stream of which little was read yet. All such
    /// streams share half of what is beyond first windows; the other half is for streams that move.
    fn grant_unread(&self, wish: u64, promised: u64) -> u64 {
        let max = self.config.stream_window.min(self.config.session_window);
        let used = self.used_by_others(promised);
        share(wish, self.room.first, max, used, self.room_beyond() / 2)
    }

    /// What was promised beyond first windows to all streams but one, which was `promised` this.
    fn used_by_others(&self, promised: u64) -> u64 {
        let own = promised.saturating_sub(self.room.first);
        span(own, self.room.beyond.get())
    }

    /// The window that a stream may have, up to its wish.
    fn grant_to(&self, stream: &Stream) -> u64 {
        let window = &stream.recv.window;
        let wish = window.wish();
        let read =
            window.wish() > self.config.stream_window || window.consumed() >= window.window();
        if !read {
            return self.grant_unread(wish, stream.promised);
        }
        let max = self.config.stream_window_max.min(self.config.session_window);
        // What is kept for streams yet to come makes the room smaller, but none of them is a
        // competitor to whom half of it is left.
        let early = self.promised_early();
        let used = span(early, self.used_by_others(stream.promised));
        share(wish, self.room.first, max, used, self.room_beyond().saturating_sub(early))
    }

    /// The receiving side of a new stream, opened by either end.
    pub(super) fn new_window(&self, id: StreamId) -> ReceiveWindow {
        let early = id.initiator() != self.side && id.index() < self.remote.early;
        let announced = if early { self.room.early } else { self.room.first };
        let wish_max = self.config.stream_window_max.min(self.config.session_window);
        let wish = self.config.stream_window.min(wish_max).max(announced);
        ReceiveWindow::new(announced, wish, wish_max)
    }

    /// A new stream: it takes over what was promised to it in advance.
    pub(super) fn on_new_stream(&mut self, id: StreamId) {
        let lent = std::mem::take(&mut self.memory.lent);
        if id.initiator() != self.side {
            self.remote.open.add(1);
            if id.index() < self.remote.early {
                self.remote.early_unseen.take(1);
                self.room.beyond.take(self.room.early_beyond());
            }
        } else if let Some(stream) = self.table.get(&id) {
            // The answer should not wait for credit: announce it along with the OPEN. By then more
            // is allowed than now.
            let more = lent || self.grant_to(stream) > self.room.first;
            if let Some(stream) = self.table.get_mut(&id) {
                stream.say.max_stream_data = more;
            }
        }
        self.count_promise(id);
        self.offer_streams();
    }

    /// A stream is gone.
    pub(super) fn on_stream_gone(&mut self, id: StreamId, stream: &Stream) {
        let beyond = stream.promised.saturating_sub(self.room.first);
        self.room.beyond.take(beyond);
        if id.initiator() != self.side {
            self.remote.open.take(1);
        }
        self.offer_streams();
    }

    /// Updates the totals after the stream's credit was used, returned or raised.
    fn count_promise(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        let first = self.room.first;
        let promised = stream.recv.promised();
        let before = std::mem::replace(&mut stream.promised, promised);
        let (before, now) = (before.saturating_sub(first), promised.saturating_sub(first));
        self.room.beyond.replace(before, now);
    }

    /// Bytes of the stream have arrived, or were read or dropped: credit may be due. Call `settle`
    /// afterwards.
    pub(super) fn heed_credit(&mut self, id: StreamId) {
        self.count_promise(id);
        self.due.max_data |= self.window.update_due(self.data_window());
        if self.local.blocked || self.remote.unseen() == 0 {
            self.offer_streams(); // somebody waits for room
        }
        let Some(stream) = self.table.get(&id) else { return };
        let window = &stream.recv.window;
        let may_be_due = window.update_due(window.wish()) && stream.recv.wants_credit();
        if !may_be_due || stream.say.max_stream_data {
            return;
        }
        let (grant, wish) = (self.grant_to(stream), window.wish());
        let due = window.update_due(grant);
        if let Some(stream) = self.table.get_mut(&id) {
            stream.say.max_stream_data = due;
        }
        if grant < wish.min(self.config.stream_window) {
            self.tell_of_paused_readers();
        }
    }

    /// Grows windows whose bytes are read as fast as they come.
    pub(super) fn tune_windows(&mut self, now: Instant, id: StreamId, round_trip: Duration) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        let had = stream.recv.window.wish();
        if !stream.recv.window.tune(now, round_trip) || !stream.recv.wants_credit() {
            return;
        }
        let wish = stream.recv.window.wish();
        stream.say.max_stream_data |= wish > had;
        // The session's window grows only for streams that are read as fast and lack room.
        let lacks = self.table.get(&id).is_some_and(|stream| self.grant_to(stream) < wish);
        if lacks && self.allowed_window() >= self.window.wish() {
            self.window.wish_for(self.window.wish().saturating_mul(2));
            self.due.max_data |= self.window.update_due(self.data_window());
        }
    }

    /// Grows a stream's window that is full of out-of-order data.
    pub(super) fn tune_reordered(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        let ready = stream.recv.ready_bytes();
        if stream.recv.wants_credit() && stream.recv.window.tune_reordered(ready) {
            stream.say.max_stream_data = true;
        }
    }

    /// The new limit to announce for a stream, if credit is still of use to the peer.
    pub fn announce_stream(&mut self, id: StreamId) -> Option<u64> {
        let stream = self.table.get(&id).filter(|stream| stream.recv.wants_credit())?;
        let grant = self.grant_to(stream);
        let max = self.table.get_mut(&id)?.recv.window.announce(grant);
        self.count_promise(id);
        Some(max)
    }

    /// The new limit to announce for the session.
    pub fn announce_data(&mut self) -> u64 {
        self.window.announce(self.data_window())
    }

    /// Whether this end may open one more stream: what the peer may send on it needs room.
    pub(super) fn has_room_for_stream(&self) -> bool {
        let promised = end_of(self.promised(), self.room.first);
        self.table.is_empty() || promised <= self.room_max()
    }

    /// Checks whether there is anything to offer to stream openers at either end.
    pub(super) fn offer_streams(&mut self) {
        self.grow_for_streams();
        let (target, known) = (self.streams_target(), self.remote.announced);
        let could = span(self.remote.seen.len(), target);
        self.due.max_streams |= span(known, target) >= (could / 4).max(1);
        self.due.early_streams |= self.early_due();
        if self.local.blocked && self.local.next < self.local.max && self.has_room_for_stream() {
            self.local.blocked = false;
            self.events.push_back(Event::OpenAvailable);
        }
    }

    /// Each stream that is open, or may be, adds its first window to the session's.
    fn grow_for_streams(&mut self) {
        let streams = self.streams_promised().saturating_mul(self.room.first);
        if streams > self.window.wish() / 4 {
            self.window.wish_for(streams.saturating_mul(4));
            self.due.max_data |= self.window.update_due(self.data_window());
        }
    }

    /// How many streams to announce in all that the peer may open.
    fn streams_target(&self) -> u64 {
        let left = span(self.remote.open.get(), self.config.streams_max);
        let ahead = self.config.streams_ahead(self.allowed_window());
        // Streams that it may open count as free room: what is promised to them is theirs anyway.
        let firsts = self.room.first.saturating_mul(self.table.len() as u64);
        let promised = end_of(self.room.beyond.get(), firsts);
        let free = self.room_max().saturating_sub(promised);
        let free = free.checked_div(self.room.first).unwrap_or(0);
        let free = if self.table.is_empty() { free.max(1) } else { free };
        // Leaves some for this end to open.
        let room = free.saturating_sub(ahead).max(free.min(1));
        let more = ahead.max(self.remote.open.get()).min(left).min(room);
        end_of(self.remote.seen.len(), more).max(self.remote.announced)
    }

    /// The new number of streams to announce.
    pub fn announce_streams(&mut self) -> u64 {
        self.remote.announced = self.streams_target();
        self.remote.announced
    }

    /// How many streams should get the full first window before they are opened: a server hardly
    /// opens any.
    fn early_ahead(&self) -> u64 {
        let most = (self.room_beyond() / 4).checked_div(self.room.early).unwrap_or(0);
        let most = most.clamp(1, EARLY_AHEAD_MAX);
        match self.side {
            Side::Server => most,
            Side::Client => most.min(self.remote.seen.len().max(1)),
        }
    }

    fn has_room_for_early(&self) -> bool {
        let early = self.room.early;
        let known = self.peer.early_max_stream_data > 0 && early > self.room.first;
        known && self.grant_unread(early, 0) >= early
    }

    fn early_due(&self) -> bool {
        let enough = self.early_ahead() / 2;
        self.remote.early < self.remote.announced
            && self.remote.early_unseen.get() <= enough
            && self.has_room_for_early()
    }

    /// The new number of streams to announce that start with the full first window. Those of them
    /// already open have it from now on.
    pub fn announce_early_streams(&mut self) -> u64 {
        let ahead = self.early_ahead();
        while self.remote.early < self.remote.announced
            && self.remote.early_unseen.get() < ahead
            && self.has_room_for_early()
        {
            let index = self.remote.early;
            self.remote.early = end_of(index, 1);
            if self.remote.seen.contains(index) {
                let id = StreamId::new(!self.side, Dir::Bi, index);
                if let Some(stream) = self.table.get_mut(&id) {
                    stream.recv.window.raise_to(self.room.early);
                }
                self.count_promise(id);
            } else {
                self.remote.early_unseen.add(1);
                self.room.beyond.add(self.room.early_beyond());
            }
        }
        self.remote.early
    }

    /// A stream got less than it wished: reports, once, if that is because others hold much that
    /// nobody reads.
    fn tell_of_paused_readers(&mut self) {
        let much = self.allowed_window() / 8;
        if self.room.told
            || self.window.unconsumed() < much
            || self.window.received() < self.room.check_at
        {
            return;
        }
        // This visits every stream: with a small allowance, bytes received pay for it.
        let streams = self.table.len() as u64;
        let step = (much / 4).max(streams.saturating_mul(CHECK_BYTES));
        self.room.check_at = end_of(self.window.received(), step);
        let paused = self.table.values().filter_map(|stream| {
            let unread = stream.recv.window.unconsumed();
            // Full, and nobody waits for what comes.
            let full = unread > 0 && unread >= stream.recv.promised() / 2;
            (full && !stream.recv.reader_waits).then_some(unread)
        });
        let (streams, bytes) = paused
            .fold((0usize, 0u64), |(n, sum), unread| (n.saturating_add(1), end_of(sum, unread)));
        if bytes >= much {
            self.room.told = true;
            self.events.push_back(Event::ReadersPaused { streams, bytes });
        }
    }
}

#[cfg(test)]
mod tests;
