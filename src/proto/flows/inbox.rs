//! What has arrived for a flow: put in order, and kept until it is read.
//!
//! A datagram that is ahead waits a while for those before it; then it goes on without them, and
//! they are late if they come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::cost::cost;
use super::parts::{Part, Parts};
use super::stats::FlowStats;
use crate::proto::count::Count;
use crate::proto::limits::DATAGRAMS_HELD_MAX;
use crate::proto::wire::Datagram;

/// A datagram waits no longer than this for those before it: lanes differ by no more.
const HOLD_MAX: Duration = Duration::from_millis(50);
/// ... nor longer than this fraction of the deadline.
const HOLD_PART: u32 = 4;

/// What is as old as the deadline is not too old.
const INSTANT: Duration = Duration::from_nanos(1);

#[derive(Debug, Default)]
pub struct Inbox {
    /// All lower numbers were delivered, or given up.
    next: u64,
    /// What is ahead, by number: none below `next`.
    held: BTreeMap<u64, Held>,
    /// Until when each of these waits. In order, so that no peer makes a datagram cost a walk.
    due: BTreeSet<(Instant, u64)>,
    /// In order, and when each came to be.
    ready: VecDeque<(Instant, Bytes)>,
    /// What keeping all of it costs.
    bytes: Count,
}

#[derive(Debug)]
struct Held {
    until: Instant,
    what: Arriving,
}

#[derive(Debug)]
enum Arriving {
    Whole(Bytes),
    Parts(Parts),
}

impl Arriving {
    fn cost(&self) -> u64 {
        match self {
            Self::Whole(data) => cost(data),
            Self::Parts(parts) => parts.cost(),
        }
    }
}

impl Inbox {
    /// What keeping all of it costs.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether there is anything to read.
    pub fn is_readable(&self) -> bool {
        !self.ready.is_empty()
    }

    /// A datagram has come, or a part of one. No more than `room` is kept.
    pub fn receive(
        &mut self,
        now: Instant,
        datagram: Datagram,
        deadline: Duration,
        room: u64,
        stats: &mut FlowStats,
    ) {
        let number = datagram.number;
        let known = self.held.get(&number).map(|held| &held.what);
        if number < self.next || matches!(known, Some(Arriving::Whole(_))) {
            stats.behind = stats.behind.saturating_add(1);
            return;
        }
        if !self.make_room(cost(&datagram.data), room, stats) {
            stats.crowded = stats.crowded.saturating_add(1);
            return;
        }
        let hold = hold(deadline, datagram.waited_ms);
        if datagram.is_whole() && number == self.next && self.held.is_empty() {
            self.next = number.saturating_add(1);
            return self.make_ready(now, datagram.data); // most come in order
        }
        if datagram.is_whole() {
            self.forget(number, stats); // parts of the same number contradict it
            self.hold(number, now, hold, Arriving::Whole(datagram.data));
        } else {
            self.add_part(now, datagram, deadline, hold, stats);
        }
        self.release(now, stats);
    }

    fn add_part(
        &mut self,
        now: Instant,
        datagram: Datagram,
        deadline: Duration,
        hold: Duration,
        stats: &mut FlowStats,
    ) {
        let Datagram { number, total, offset, data, .. } = datagram;
        if !self.held.contains_key(&number) {
            self.hold(number, now, deadline, Arriving::Parts(Parts::new(total)));
        }
        let Some(Held { what: Arriving::Parts(parts), .. }) = self.held.get_mut(&number) else {
            return;
        };
        match parts.add(total, offset, data) {
            Part::New(cost) => self.bytes.add(cost),
            Part::Again => stats.behind = stats.behind.saturating_add(1),
            Part::Contradicts => return self.forget(number, stats),
        }
        if let Some(whole) = parts.join() {
            self.take_held(number);
            self.hold(number, now, hold, Arriving::Whole(whole));
        }
    }

    fn hold(&mut self, number: u64, now: Instant, time: Duration, what: Arriving) {
        let until = now.checked_add(time).unwrap_or(now);
        self.bytes.add(what.cost());
        self.held.insert(number, Held { until, what });
        self.due.insert((until, number));
    }

    fn take_held(&mut self, number: u64) -> Option<Held> {
        let held = self.held.remove(&number)?;
        self.due.remove(&(held.until, number));
        self.bytes.take(held.what.cost());
        Some(held)
    }

    fn forget(&mut self, number: u64, stats: &mut FlowStats) {
        if self.take_held(number).is_some() {
            stats.incomplete = stats.incomplete.saturating_add(1);
        }
    }

    /// Drops what was there longest and nobody has read; `false`: there is not enough of it.
    fn make_room(&mut self, bytes: u64, room: u64, stats: &mut FlowStats) -> bool {
        while self.bytes.get().saturating_add(bytes) > room {
            let Some((_, data)) = self.ready.pop_front() else { return false };
            self.bytes.take(cost(&data));
            stats.crowded = stats.crowded.saturating_add(1);
        }
        true
    }

    /// Makes ready what is in order, and what has waited long enough for what is not.
    fn release(&mut self, now: Instant, stats: &mut FlowStats) {
        self.release_in_order(now, stats);
        if self.held.len() > DATAGRAMS_HELD_MAX
            && let Some((&first, _)) = self.held.first_key_value()
        {
            self.skip_to(now, first, stats);
        }
        let is_over = |(until, _): &&(Instant, u64)| *until <= now;
        let over: Vec<u64> = self.due.iter().take_while(is_over).map(|(_, n)| *n).collect();
        let is_whole = |number: &u64| {
            matches!(self.held.get(number), Some(Held { what: Arriving::Whole(_), .. }))
        };
        if let Some(last) = over.iter().copied().filter(is_whole).max() {
            self.skip_to(now, last, stats);
        }
        over.into_iter().for_each(|number| self.forget(number, stats));
    }

    fn release_in_order(&mut self, now: Instant, stats: &mut FlowStats) {
        while let Some((&first, held)) = self.held.first_key_value()
            && first == self.next
            && matches!(held.what, Arriving::Whole(_))
        {
            self.deliver(now, first, stats);
        }
    }

    /// Goes on with `number`: of those before, what is whole is delivered, the rest given up.
    fn skip_to(&mut self, now: Instant, number: u64, stats: &mut FlowStats) {
        while let Some((&first, _)) = self.held.first_key_value()
            && first <= number
        {
            self.deliver(now, first, stats);
        }
        self.release_in_order(now, stats);
    }

    fn deliver(&mut self, now: Instant, number: u64, stats: &mut FlowStats) {
        let missing = number.saturating_sub(self.next);
        stats.missing = stats.missing.saturating_add(missing);
        self.next = number.saturating_add(1);
        match self.take_held(number).map(|held| held.what) {
            Some(Arriving::Whole(data)) => self.make_ready(now, data),
            Some(Arriving::Parts(_)) => stats.incomplete = stats.incomplete.saturating_add(1),
            None => {}
        }
    }

    fn make_ready(&mut self, now: Instant, data: Bytes) {
        self.bytes.add(cost(&data));
        self.ready.push_back((now, data));
    }

    /// Time has passed: drops what nobody has read within the deadline.
    pub fn expire(&mut self, now: Instant, deadline: Duration, stats: &mut FlowStats) {
        self.release(now, stats);
        let old = |at: &Instant| now.saturating_duration_since(*at) > deadline;
        while self.ready.front().is_some_and(|(at, _)| old(at)) {
            self.read();
            stats.unread = stats.unread.saturating_add(1);
        }
    }

    /// When to call `expire`.
    pub fn expires_at(&self, deadline: Duration) -> Option<Instant> {
        let too_old = |at: &Instant| at.checked_add(deadline)?.checked_add(INSTANT);
        let unread = self.ready.front().and_then(|(at, _)| too_old(at));
        let due = self.due.first().map(|(until, _)| *until);
        [unread, due].into_iter().flatten().min()
    }

    /// The next in order.
    pub fn read(&mut self) -> Option<Bytes> {
        let (_, data) = self.ready.pop_front()?;
        self.bytes.take(cost(&data));
        Some(data)
    }
}

/// How long a datagram may wait for those before it, so that it is not delivered after its deadline
/// for that.
fn hold(deadline: Duration, waited_ms: u64) -> Duration {
    let left = deadline.saturating_sub(Duration::from_millis(waited_ms));
    left.min(deadline.checked_div(HOLD_PART).unwrap_or_default()).min(HOLD_MAX)
}

#[cfg(test)]
mod tests;
