//! What a flow's reader may see of what its sender sent: each datagram at most once, unchanged, in
//! order, and not after its deadline by more than the transit of one lane. And what it has to see:
//! all that has come, in time and soon, but for what the core says that it dropped, and why.

use std::collections::{BTreeMap, BTreeSet};

use imux::proto::wire::{Datagram, Frame, StreamKind};
use imux::proto::{FlowStats, Side, StreamId};

use crate::net::{MS, Time};

/// The core looks at its flows no more often than this.
const CHECK_EVERY: Time = 2 * MS;

/// What has come is kept for a reader this long, however little is left of its deadline.
const READ_WITHIN: Time = 2 * MS;

/// A datagram waits for those before it no longer than this, nor than a quarter of the deadline.
const HOLD_MAX: Time = 50 * MS;

/// A datagram that was there at once is read this long after it has come, where timers are `late`.
fn read_by(deadline: Time, late: Time) -> Time {
    HOLD_MAX.min(deadline / 4) + CHECK_EVERY + late
}

/// Bytes of a datagram that say which it is.
pub const NUMBER_BYTES: usize = 8;

/// The number in a datagram's first bytes.
pub fn number_of(data: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*data.first_chunk::<NUMBER_BYTES>()?))
}

/// One direction of a flow.
#[derive(Debug, Default)]
pub struct Truth {
    /// When each datagram was sent, by number.
    sent: Vec<Time>,
    /// By number on the wire: which datagram it is.
    given: BTreeMap<u64, u64>,
    /// When a lane was first given each.
    given_at: BTreeMap<u64, Time>,
    /// The last that was read.
    last: Option<u64>,
    pub read: u64,
}

impl Truth {
    /// The sender sends one; returns its number.
    pub fn on_send(&mut self, now: Time) -> u64 {
        self.sent.push(now);
        self.sent.len() as u64 - 1
    }

    pub fn sent(&self) -> u64 {
        self.sent.len() as u64
    }

    /// A lane was given a datagram, or a part of one.
    pub fn on_given(
        &mut self,
        now: Time,
        datagram: &Datagram,
        deadline: Time,
    ) -> Result<(), String> {
        if datagram.offset == 0 {
            let number = number_of(&datagram.data).ok_or("a datagram was never sent")?;
            if self.given.insert(datagram.number, number).is_some_and(|before| before != number) {
                return Err(format!("two datagrams have number {}", datagram.number));
            }
        }
        let number = self.given.get(&datagram.number).ok_or("a part comes before the first")?;
        let sent = self.sent.get(*number as usize).ok_or("a datagram was never sent")?;
        self.given_at.entry(*number).or_insert(now);
        if now - sent > deadline {
            let age = (now - sent) / MS;
            return Err(format!("datagram {number} is {age} ms old when a lane is given it"));
        }
        Ok(())
    }

    /// The reader reads one, which has that content; `arrived`: when all of it had.
    pub fn on_read(
        &mut self,
        now: Time,
        number: u64,
        deadline: Time,
        arrived: Option<Time>,
        late: Time,
    ) -> Result<(), String> {
        let sent = *self.sent.get(number as usize).ok_or("a datagram was never sent")?;
        if self.last.is_some_and(|last| last >= number) {
            return Err(format!("datagram {number} is read after {:?}", self.last));
        }
        (self.last, self.read) = (Some(number), self.read + 1);
        let arrived = arrived.ok_or(format!("datagram {number} has not arrived"))?;
        let given = self.given_at.get(&number).copied().unwrap_or(arrived);
        let until = sent + deadline + (arrived - given) + CHECK_EVERY + late;
        if now > until {
            let (age, waited) = ((now - sent) / MS, (now - arrived) / MS);
            return Err(format!(
                "datagram {number} is read after {age} ms, {waited} ms after it arrived"
            ));
        }
        if now - arrived > read_by(deadline, late) {
            let waited = (now - arrived) / MS;
            return Err(format!("datagram {number} is read {waited} ms after it arrived"));
        }
        Ok(())
    }
}

/// Which datagrams have arrived at one end of a flow, and when: by number on the wire.
#[derive(Debug, Default)]
pub struct Arrivals {
    known: BTreeMap<u64, Arrival>,
    /// How many were whole of those that are forgotten.
    forgotten: u64,
    /// How long each that was whole had waited for its lane.
    waited: Vec<Time>,
}

#[derive(Debug, Default)]
struct Arrival {
    number: Option<u64>,
    parts: BTreeMap<usize, usize>,
    whole_at: Option<Time>,
}

impl Arrivals {
    pub fn on_arrival(&mut self, now: Time, datagram: &Datagram) {
        let arrival = self.known.entry(datagram.number).or_default();
        if datagram.offset == 0 {
            arrival.number = number_of(&datagram.data);
        }
        arrival.parts.insert(datagram.offset, datagram.data.len());
        // The core may have given up the first parts before the last came: then copies of them, on
        // another lane, make it whole.
        if arrival.parts.values().sum::<usize>() == datagram.total {
            arrival.whole_at = Some(now);
            self.waited.push(datagram.waited_ms * MS);
        }
    }

    /// When all of it had arrived, by its last part or copy; what came before it is forgotten.
    pub fn whole_at(&mut self, number: u64) -> Option<Time> {
        let (wire, at) = self.known.iter().find_map(|(wire, arrival)| {
            (arrival.number == Some(number)).then_some((*wire, arrival.whole_at))
        })?;
        let later = self.known.split_off(&wire);
        let before = std::mem::replace(&mut self.known, later);
        self.forgotten +=
            before.values().filter(|arrival| arrival.whole_at.is_some()).count() as u64;
        at
    }

    /// What has come was read, unless the core says why it was dropped; the reader reads at once.
    pub fn check(
        &self,
        now: Time,
        read: u64,
        stats: &FlowStats,
        deadline: Time,
        late: Time,
    ) -> Result<(), String> {
        let soon = read_by(deadline, late);
        let is_tight = |waited: &&Time| deadline.saturating_sub(**waited) + READ_WITHIN < soon;
        let tight = self.waited.iter().filter(is_tight).count() as u64;
        if stats.unread > tight {
            let unread = stats.unread;
            return Err(format!("{unread} datagrams dropped as unread, {tight} came late"));
        }
        let settled = |arrival: &&Arrival| arrival.whole_at.is_some_and(|at| at + soon < now);
        let come = self.forgotten + self.known.values().filter(settled).count() as u64;
        if come > read + stats.dropped() {
            return Err(format!("{come} datagrams have come, {read} were read: {stats:?}"));
        }
        Ok(())
    }
}

/// The flows of which an end has got the OPEN.
#[derive(Debug)]
pub struct Openings {
    own: Side,
    come: BTreeSet<StreamId>,
}

impl Openings {
    pub fn new(own: Side) -> Self {
        Self { own, come: BTreeSet::new() }
    }

    /// No datagram comes before the OPEN of its flow, as nothing would know it.
    pub fn on_frame(&mut self, frame: &Frame) -> Result<(), String> {
        match frame {
            Frame::Open { id, kind: StreamKind::Flow { .. } } => {
                self.come.insert(*id);
                Ok(())
            }
            Frame::Datagram(datagram)
                if datagram.id.initiator() != self.own && !self.come.contains(&datagram.id) =>
            {
                let (id, number) = (datagram.id, datagram.number);
                Err(format!("datagram {number} of flow {id} comes before its OPEN"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use imux::proto::{Dir, Side, StreamId};

    use super::*;

    const DEADLINE: Time = 100 * MS;

    fn datagram(wire: u64, number: u64) -> Datagram {
        let data = Bytes::copy_from_slice(&number.to_be_bytes());
        let id = StreamId::new(Side::Client, Dir::Bi, 0);
        Datagram { id, number: wire, waited_ms: 0, total: data.len(), offset: 0, data }
    }

    #[test]
    fn what_is_given_to_a_lane_was_sent_and_is_not_too_old() {
        let mut truth = Truth::default();
        assert_eq!((truth.on_send(0), truth.on_send(50 * MS)), (0, 1));
        assert_eq!(truth.on_given(DEADLINE, &datagram(0, 0), DEADLINE), Ok(()));
        assert_eq!(truth.on_given(DEADLINE, &datagram(0, 0), DEADLINE), Ok(()), "twice");
        truth.on_given(DEADLINE + 1, &datagram(0, 0), DEADLINE).unwrap_err();
        truth.on_given(DEADLINE, &datagram(0, 1), DEADLINE).unwrap_err();
        truth.on_given(DEADLINE, &datagram(1, 2), DEADLINE).unwrap_err();
    }

    #[test]
    fn what_is_read_is_in_order_once_and_in_time() {
        let read = |truth: &mut Truth, now, number, arrived| {
            truth.on_read(now, number, DEADLINE, Some(arrived), 0)
        };
        let mut truth = Truth::default();
        for number in 0..5 {
            assert_eq!(truth.on_send(0), number);
            truth.on_given(5 * MS, &datagram(number, number), DEADLINE).unwrap();
        }
        assert_eq!(read(&mut truth, 10 * MS, 1, 10 * MS), Ok(()));
        read(&mut truth, 10 * MS, 1, 10 * MS).unwrap_err();
        read(&mut truth, 10 * MS, 0, 10 * MS).unwrap_err();
        assert_eq!(read(&mut truth, 117 * MS, 2, 92 * MS), Ok(()), "it waited for others");
        read(&mut truth, 118 * MS, 3, 20 * MS).unwrap_err();
        assert_eq!(read(&mut truth, 900 * MS, 4, 900 * MS), Ok(()), "the lane took so long");
        read(&mut truth, 900 * MS, 5, 900 * MS).unwrap_err();
    }

    #[test]
    fn a_datagram_has_arrived_with_its_last_part() {
        let mut arrivals = Arrivals::default();
        let whole = datagram(7, 3);
        let part = |offset, to| Datagram {
            offset,
            data: whole.data.slice(offset..to),
            total: 8,
            ..whole.clone()
        };
        arrivals.on_arrival(1, &Datagram { total: 9, ..part(0, 8) });
        assert_eq!(arrivals.whole_at(3), None);
        arrivals.on_arrival(2, &Datagram { total: 9, offset: 8, ..part(0, 1) });
        assert_eq!(arrivals.whole_at(3), Some(2));
        arrivals.on_arrival(5, &Datagram { total: 9, ..part(0, 8) });
        assert_eq!(arrivals.whole_at(3), Some(5), "a copy");
    }

    #[test]
    fn what_has_come_in_time_is_read_or_dropped_for_a_reason() {
        let stats = |unread, behind| {
            let mut stats = FlowStats::default();
            (stats.unread, stats.behind) = (unread, behind);
            stats
        };
        let mut arrivals = Arrivals::default();
        arrivals.on_arrival(0, &datagram(0, 0));
        let check = |arrivals: &Arrivals, now, read, stats: &FlowStats| {
            arrivals.check(now, read, stats, DEADLINE, 0)
        };
        // A quarter of the deadline, and a look at the flows.
        assert_eq!(check(&arrivals, 27 * MS, 0, &stats(0, 0)), Ok(()));
        check(&arrivals, 28 * MS, 0, &stats(0, 0)).unwrap_err();
        assert_eq!(check(&arrivals, 28 * MS, 1, &stats(0, 0)), Ok(()));
        assert_eq!(check(&arrivals, 28 * MS, 0, &stats(0, 1)), Ok(()));
        check(&arrivals, 28 * MS, 0, &stats(1, 0)).unwrap_err();
        // Of this one too little was left.
        let waited_ms = 80;
        arrivals.on_arrival(0, &Datagram { waited_ms, ..datagram(1, 1) });
        assert_eq!(check(&arrivals, 28 * MS, 1, &stats(1, 0)), Ok(()));
        // What was read is known no more, but counted.
        assert_eq!(arrivals.whole_at(1), Some(0));
        check(&arrivals, 28 * MS, 1, &stats(0, 0)).unwrap_err();
    }

    #[test]
    fn a_datagram_that_comes_before_its_opening_is_found() {
        let frame = || Frame::Datagram(datagram(0, 0));
        let mut openings = Openings::new(Side::Server);
        openings.on_frame(&frame()).unwrap_err();
        let (id, kind) = (datagram(0, 0).id, Box::new(StreamKind::Raw));
        let open = Frame::Open { id, kind: StreamKind::Flow { deadline_ms: 9, kind } };
        assert_eq!(openings.on_frame(&open), Ok(()));
        assert_eq!(openings.on_frame(&frame()), Ok(()));
        assert_eq!(Openings::new(Side::Client).on_frame(&frame()), Ok(()), "its own flow");
    }
}
