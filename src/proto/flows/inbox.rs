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

/// A reader has this long to come, however little is left of the deadline.
const READ_WITHIN: Duration = Duration::from_millis(2);

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
    /// In order, and until when each may be read.
    ready: VecDeque<(Instant, Bytes)>,
    /// What keeping all of it costs.
    bytes: Count,
}

#[derive(Debug)]
struct Held {
    until: Instant,
    /// Once it is ready: until when it may be read.
    readable_until: Instant,
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
        let left = deadline.saturating_sub(Duration::from_millis(datagram.waited_ms));
        let hold = hold(deadline, left);
        let readable_until = later(now, left.saturating_add(READ_WITHIN));
        if datagram.is_whole() && number == self.next && self.held.is_empty() {
            self.next = number.saturating_add(1);
            return self.make_ready(readable_until, datagram.data); // most come in order
        }
        if datagram.is_whole() {
            self.forget(number, stats); // parts of the same number contradict it
            let (until, what) = (later(now, hold), Arriving::Whole(datagram.data));
            self.hold(number, Held { until, readable_until, what });
        } else {
            let (given_up, until) = (later(now, deadline), later(now, hold));
            self.add_part(datagram, given_up, until, readable_until, stats);
        }
        self.release(now, stats);
    }

    /// `given_up`: when, if this is the first and others do not come; `until`: until when the whole
    /// waits for those before it, if this is the last.
    fn add_part(
        &mut self,
        datagram: Datagram,
        given_up: Instant,
        until: Instant,
        readable_until: Instant,
        stats: &mut FlowStats,
    ) {
        let Datagram { number, total, offset, data, .. } = datagram;
        if !self.held.contains_key(&number) {
            let what = Arriving::Parts(Parts::new(total));
            self.hold(number, Held { until: given_up, readable_until, what });
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
            self.hold(number, Held { until, readable_until, what: Arriving::Whole(whole) });
        }
    }

    fn hold(&mut self, number: u64, held: Held) {
        self.bytes.add(held.what.cost());
        self.due.insert((held.until, number));
        self.held.insert(number, held);
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
        self.release_in_order(stats);
        if self.held.len() > DATAGRAMS_HELD_MAX
            && let Some((&first, _)) = self.held.first_key_value()
        {
            self.skip_to(first, stats);
        }
        let is_over = |(until, _): &&(Instant, u64)| *until <= now;
        let over: Vec<u64> = self.due.iter().take_while(is_over).map(|(_, n)| *n).collect();
        let is_whole = |number: &u64| {
            matches!(self.held.get(number), Some(Held { what: Arriving::Whole(_), .. }))
        };
        if let Some(last) = over.iter().copied().filter(is_whole).max() {
            self.skip_to(last, stats);
        }
        over.into_iter().for_each(|number| self.forget(number, stats));
    }

    fn release_in_order(&mut self, stats: &mut FlowStats) {
        while let Some((&first, held)) = self.held.first_key_value()
            && first == self.next
            && matches!(held.what, Arriving::Whole(_))
        {
            self.deliver(first, stats);
        }
    }

    /// Goes on with `number`: of those before, what is whole is delivered, the rest given up.
    fn skip_to(&mut self, number: u64, stats: &mut FlowStats) {
        while let Some((&first, _)) = self.held.first_key_value()
            && first <= number
        {
            self.deliver(first, stats);
        }
        self.release_in_order(stats);
    }

    fn deliver(&mut self, number: u64, stats: &mut FlowStats) {
        let missing = number.saturating_sub(self.next);
        stats.missing = stats.missing.saturating_add(missing);
        self.next = number.saturating_add(1);
        match self.take_held(number) {
            Some(Held { what: Arriving::Whole(data), readable_until, .. }) => {
                self.make_ready(readable_until, data);
            }
            Some(_) => stats.incomplete = stats.incomplete.saturating_add(1),
            None => {}
        }
    }

    fn make_ready(&mut self, readable_until: Instant, data: Bytes) {
        self.bytes.add(cost(&data));
        self.ready.push_back((readable_until, data));
    }

    /// Time has passed: drops what nobody has read within the deadline.
    pub fn expire(&mut self, now: Instant, stats: &mut FlowStats) {
        self.release(now, stats);
        while self.ready.front().is_some_and(|(until, _)| *until < now) {
            self.take_ready();
            stats.unread = stats.unread.saturating_add(1);
        }
    }

    /// When to call `expire`.
    pub fn expires_at(&self) -> Option<Instant> {
        let unread = self.ready.front().and_then(|(until, _)| until.checked_add(INSTANT));
        let due = self.due.first().map(|(until, _)| *until);
        [unread, due].into_iter().flatten().min()
    }

    /// The next in order that is not too old by now.
    pub fn read(&mut self, now: Instant, stats: &mut FlowStats) -> Option<Bytes> {
        self.expire(now, stats);
        self.take_ready()
    }

    fn take_ready(&mut self) -> Option<Bytes> {
        let (_, data) = self.ready.pop_front()?;
        self.bytes.take(cost(&data));
        Some(data)
    }
}

/// How long a datagram may wait for those before it, so that it is not delivered after its deadline
/// for that.
fn hold(deadline: Duration, left: Duration) -> Duration {
    left.min(deadline.checked_div(HOLD_PART).unwrap_or_default()).min(HOLD_MAX)
}

fn later(now: Instant, time: Duration) -> Instant {
    now.checked_add(time).unwrap_or(now)
}

#[cfg(test)]
mod tests;
