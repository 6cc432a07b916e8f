//! Room: how much of what a peer sends this end may have to keep. What was announced cannot be
//! taken back, so it is counted as promised from then on until it was read: to streams that are
//! open, and to those that the peer may open. Here, and nowhere else, it is decided whether a
//! window grows.
//!
//! Invariant: the promises of all streams together are at most three quarters of the session's
//! window (where it is not too small for that). So streams that nobody reads leave a quarter of it
//! at least, and each stream that somebody reads goes on.

use std::time::{Duration, Instant};

use super::Streams;
use super::promises::share;
use crate::proto::event::Event;
use crate::proto::ids::{Dir, Side, StreamId};
use crate::proto::stream::{ReceiveWindow, Stream};

/// Streams that a peer may open with the full first window within one round trip, where there is
/// room.
const EARLY_AHEAD_MAX: u64 = 8;

/// Streams are looked at once in as many times so many bytes.
const CHECK_BYTES: u64 = 64;

impl Streams {
    /// Bytes of streams that the peer may make this end keep: unread ones, and those its credit is
    /// left for, what streams that are not open yet may use included.
    pub fn promised(&self) -> u64 {
        let firsts = self.streams_promised().saturating_mul(self.room.first);
        self.room.beyond.get().saturating_add(firsts)
    }

    /// What of it open streams have.
    pub(super) fn promised_to_open(&self) -> u64 {
        let early = self.room.early.saturating_sub(self.room.first);
        let unseen = self.remote.early_unseen.saturating_mul(early);
        let firsts = (self.table.len() as u64).saturating_mul(self.room.first);
        self.room.beyond.get().saturating_sub(unseen).saturating_add(firsts)
    }

    /// Streams that are open, and those that the peer may open.
    fn streams_promised(&self) -> u64 {
        (self.table.len() as u64).saturating_add(self.remote.unseen())
    }

    /// What may be promised in all.
    fn room_max(&self) -> u64 {
        let window = self.allowed_window();
        window.saturating_sub(window / 4)
    }

    /// What may be promised beyond first windows. Those of streams that are open, or may be, come
    /// first (a quarter of the session's window at least), and those that either end may open next.
    fn room_beyond(&self) -> u64 {
        let first = self.room.first;
        let ahead = self.config.streams_ahead(self.allowed_window()).saturating_mul(first);
        // Streams that the peer may open count as open: many may have closed since they were
        // allowed.
        let open = self.streams_promised().saturating_mul(first);
        let firsts = open.max(self.allowed_window() / 4).saturating_add(ahead.saturating_mul(2));
        self.room_max().saturating_sub(firsts)
    }

    /// The window of at most `wish` bytes for a stream that nobody has read much of yet. All such
    /// streams share half of what there is beyond first windows; the other half is for those that
    /// move.
    fn grant_unread(&self, wish: u64, promised: u64) -> u64 {
        let max = self.config.stream_window.min(self.config.session_window);
        self.share(wish, max, promised, self.room_beyond() / 2)
    }

    fn share(&self, wish: u64, max: u64, promised: u64, room: u64) -> u64 {
        let own = promised.saturating_sub(self.room.first);
        share(wish, self.room.first, max, self.room.beyond.get().saturating_sub(own), room)
    }

    /// The window that a stream may have, of what it wishes for.
    fn grant_to(&self, stream: &Stream) -> u64 {
        let window = &stream.recv.window;
        let wish = window.wish();
        let read =
            window.wish() > self.config.stream_window || window.consumed() >= window.window();
        if !read {
            return self.grant_unread(wish, stream.promised);
        }
        let max = self.config.stream_window_max.min(self.config.session_window);
        self.share(wish, max, stream.promised, self.room_beyond())
    }

    /// The receiving side of a stream that is new: opened by this end, or by the peer.
    pub(super) fn new_window(&self, id: StreamId) -> ReceiveWindow {
        let early = id.initiator() != self.side && id.index() < self.remote.early;
        let announced = if early { self.room.early } else { self.room.first };
        let wish_max = self.config.stream_window_max.min(self.config.session_window);
        let wish = self.config.stream_window.min(wish_max).max(announced);
        ReceiveWindow::new(announced, wish, wish_max)
    }

    /// A stream is there that was not: it takes over what was promised to it before it came.
    pub(super) fn on_new_stream(&mut self, id: StreamId) {
        let lent = std::mem::take(&mut self.memory.lent);
        if id.initiator() != self.side {
            self.remote.open = self.remote.open.saturating_add(1);
            if id.index() < self.remote.early {
                let promised = self.room.early.saturating_sub(self.room.first);
                self.remote.early_unseen = self.remote.early_unseen.saturating_sub(1);
                self.room.beyond.take(promised);
            }
        } else if let Some(stream) = self.table.get(&id) {
            // The answer is not to wait for credit: it is told in the flight of the OPEN. By then
            // more is allowed than now.
            let more = lent || self.grant_to(stream) > self.room.first;
            if let Some(stream) = self.table.get_mut(&id) {
                stream.say.max_stream_data = more;
            }
        }
        self.count_promise(id);
        self.offer_streams();
    }

    /// A stream is no more.
    pub(super) fn on_stream_gone(&mut self, id: StreamId, stream: &Stream) {
        let beyond = stream.promised.saturating_sub(self.room.first);
        self.room.beyond.take(beyond);
        if id.initiator() != self.side {
            self.remote.open = self.remote.open.saturating_sub(1);
        }
        self.offer_streams();
    }

    /// Puts the books right after the stream's credit was used, given back or raised.
    fn count_promise(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        let first = self.room.first;
        let promised = stream.recv.promised();
        let before = std::mem::replace(&mut stream.promised, promised);
        let (before, now) = (before.saturating_sub(first), promised.saturating_sub(first));
        self.room.beyond.replace(before, now);
    }

    /// Bytes of the stream have arrived, or were read or dropped: the peer may have to be told that
    /// it may go on. `settle` has to follow.
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

    /// Lets windows grow whose bytes are taken as fast as they come.
    pub(super) fn tune_windows(&mut self, now: Instant, id: StreamId, round_trip: Duration) {
        let Some(stream) = self.table.get_mut(&id) else { return };
        let had = stream.recv.window.wish();
        if !stream.recv.window.tune(now, round_trip) || !stream.recv.wants_credit() {
            return;
        }
        let wish = stream.recv.window.wish();
        stream.say.max_stream_data |= wish > had;
        // The session's window grows for those alone whose bytes are read as fast, and who lack
        // room.
        let lacks = self.table.get(&id).is_some_and(|stream| self.grant_to(stream) < wish);
        if lacks && self.allowed_window() >= self.window.wish() {
            self.window.wish_for(self.window.wish().saturating_mul(2));
            self.due.max_data |= self.window.update_due(self.data_window());
        }
    }

    /// Lets the window of a stream grow that is full of data out of order.
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

    /// Whether this end may open one more stream: what the peer may send on it has to have room.
    pub(super) fn has_room_for_stream(&self) -> bool {
        let promised = self.promised().saturating_add(self.room.first);
        self.table.is_empty() || promised <= self.room_max()
    }

    /// Looks whether there is something to offer to whoever opens streams, at either end.
    pub(super) fn offer_streams(&mut self) {
        self.grow_for_streams();
        let (target, known) = (self.streams_target(), self.remote.announced);
        let could = target.saturating_sub(self.remote.seen.len());
        self.due.max_streams |= target.saturating_sub(known) >= (could / 4).max(1);
        self.due.early_streams |= self.early_due();
        if self.local.blocked && self.local.next < self.local.max && self.has_room_for_stream() {
            self.local.blocked = false;
            self.events.push_back(Event::OpenAvailable);
        }
    }

    /// Each stream that is open, and those that may be, bring the session's window what they begin
    /// with.
    fn grow_for_streams(&mut self) {
        let streams = self.streams_promised().saturating_mul(self.room.first);
        if streams > self.window.wish() / 4 {
            self.window.wish_for(streams.saturating_mul(4));
            self.due.max_data |= self.window.update_due(self.data_window());
        }
    }

    /// How many streams the peer shall know that it may have opened since the session began.
    fn streams_target(&self) -> u64 {
        let left = self.config.streams_max.saturating_sub(self.remote.open);
        let ahead = self.config.streams_ahead(self.allowed_window());
        // Those it may open count as open: what is promised to them is not free, and theirs all the
        // same.
        let firsts = self.room.first.saturating_mul(self.table.len() as u64);
        let promised = self.room.beyond.get().saturating_add(firsts);
        let free = self.room_max().saturating_sub(promised);
        let free = free.checked_div(self.room.first).unwrap_or(0);
        let free = if self.table.is_empty() { free.max(1) } else { free };
        // Some are left for this end to open.
        let room = free.saturating_sub(ahead).max(free.min(1));
        let more = ahead.max(self.remote.open).min(left).min(room);
        self.remote.seen.len().saturating_add(more).max(self.remote.announced)
    }

    /// The new number of streams to announce.
    pub fn announce_streams(&mut self) -> u64 {
        self.remote.announced = self.streams_target();
        self.remote.announced
    }

    /// How many streams shall have the full first window before they are opened: a client's server
    /// hardly opens any.
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
            && self.remote.early_unseen <= enough
            && self.has_room_for_early()
    }

    /// The new number of streams to announce that begin with the full first window. Those among
    /// them that are open already have it from now on.
    pub fn announce_early_streams(&mut self) -> u64 {
        let ahead = self.early_ahead();
        while self.remote.early < self.remote.announced
            && self.remote.early_unseen < ahead
            && self.has_room_for_early()
        {
            let index = self.remote.early;
            self.remote.early = index.saturating_add(1);
            if self.remote.seen.contains(index) {
                let id = StreamId::new(!self.side, Dir::Bi, index);
                if let Some(stream) = self.table.get_mut(&id) {
                    stream.recv.window.raise_to(self.room.early);
                }
                self.count_promise(id);
            } else {
                let promised = self.room.early.saturating_sub(self.room.first);
                self.remote.early_unseen = self.remote.early_unseen.saturating_add(1);
                self.room.beyond.add(promised);
            }
        }
        self.remote.early
    }

    /// A stream has got less than it would have: is it because others hold much that nobody reads?
    /// That is said once.
    fn tell_of_paused_readers(&mut self) {
        let much = self.allowed_window() / 8;
        if self.room.told
            || self.window.unconsumed() < much
            || self.window.received() < self.room.check_at
        {
            return;
        }
        // Every stream is visited: with little allowed that is paid for by what arrives.
        let streams = self.table.len() as u64;
        let step = (much / 4).max(streams.saturating_mul(CHECK_BYTES));
        self.room.check_at = self.window.received().saturating_add(step);
        let paused = self.table.values().filter_map(|stream| {
            let unread = stream.recv.window.unconsumed();
            // Full, and nobody waits for what comes.
            let full = unread > 0 && unread >= stream.recv.promised() / 2;
            (full && !stream.recv.reader_waits).then_some(unread)
        });
        let (streams, bytes) = paused.fold((0usize, 0u64), |(n, sum), unread| {
            (n.saturating_add(1), sum.saturating_add(unread))
        });
        if bytes >= much {
            self.room.told = true;
            self.events.push_back(Event::ReadersPaused { streams, bytes });
        }
    }
}

#[cfg(test)]
mod tests;
