//! What a flow's reader may see of what its sender sent: each datagram at most once, unchanged, in
//! order, and not after its deadline by more than the transit of one lane.

use std::collections::BTreeMap;

use imux::proto::wire::Datagram;

use crate::net::{MS, Time};

/// The core looks at its flows no more often than this.
const CHECK_EVERY: Time = 2 * MS;

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
        Ok(())
    }
}

/// When datagrams have arrived at one end: of each flow, by number on the wire.
#[derive(Debug, Default)]
pub struct Arrivals(BTreeMap<u64, Arrival>);

#[derive(Debug, Default)]
struct Arrival {
    number: Option<u64>,
    parts: BTreeMap<usize, usize>,
    whole_at: Option<Time>,
}

impl Arrivals {
    pub fn on_arrival(&mut self, now: Time, datagram: &Datagram) {
        let arrival = self.0.entry(datagram.number).or_default();
        if datagram.offset == 0 {
            arrival.number = number_of(&datagram.data);
        }
        arrival.parts.insert(datagram.offset, datagram.data.len());
        // The core may have given up the first parts before the last came: then copies of them, on
        // another lane, make it whole.
        if arrival.parts.values().sum::<usize>() == datagram.total {
            arrival.whole_at = Some(now);
        }
    }

    /// When all of it had arrived, by its last part or copy; what came before it is forgotten.
    pub fn whole_at(&mut self, number: u64) -> Option<Time> {
        let (wire, at) = self.0.iter().find_map(|(wire, arrival)| {
            (arrival.number == Some(number)).then_some((*wire, arrival.whole_at))
        })?;
        self.0 = self.0.split_off(&wire);
        at
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
        assert_eq!(read(&mut truth, 117 * MS, 2, 20 * MS), Ok(()), "it waited for others");
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
}
