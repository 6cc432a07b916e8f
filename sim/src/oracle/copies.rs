//! What one end sends twice: copies of redundant streams, each exactly once; anything else within
//! its budget; and nothing twice on metered lanes. Judged from outside, by what pulls yield.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use imux::proto::limits::FRAME_BYTES_MAX;
use imux::proto::range_set::RangeSet;
use imux::proto::wire::Frame;
use imux::proto::{Health, LaneId, LaneStats, SessionStats, StreamId, Tier};

/// What may be sent twice to save time at first: the core's initial budget.
const BUDGET_INITIAL: u64 = 128 * 1024;
/// A lane with less than this in flight has room for more: three packets on a slow link, half an
/// initial window of TCP on any other, however many lanes its link has.
const ROOM_BELOW: u64 = 4_500;

/// A pull, and the lanes just before it.
#[derive(Clone, Copy, Debug)]
pub struct Pull<'a> {
    pub lane: LaneId,
    /// With their true tiers.
    pub lanes: &'a [LaneStats],
    pub frames: &'a [Frame],
}

/// One stream's half at its sender.
#[derive(Debug, Default)]
struct Sent {
    once: RangeSet,
    twice: RangeSet,
    /// Reached the other end, whatever happened to it there.
    arrived: RangeSet,
}

impl Sent {
    /// How much of the range is given to a lane for the first time, and for the third or later.
    fn give(&mut self, range: &Range<u64>) -> (u64, u64) {
        let fresh = self.once.gaps_in(range.clone());
        let mut again = RangeSet::new();
        again.insert(range.clone());
        for range in fresh {
            again.remove(range);
        }
        let new_twice: u64 = again.iter().map(|range| self.twice.insert(range)).sum();
        let first = self.once.insert(range.clone());
        (first, range.end - range.start - first - new_twice)
    }
}

/// A copy that only one lane can carry.
#[derive(Debug)]
struct Owed {
    id: StreamId,
    range: Range<u64>,
    by: LaneId,
}

/// Payload given to a lane, in bytes, and how much of it a lane had been given before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    pub sent: u64,
    pub again: u64,
}

/// What is in flight on a lane.
#[derive(Debug, Default)]
struct Flight {
    payload: Payload,
    given: u64,
    arrived: u64,
    /// The lane's byte at which it may start: it counts as arrived with the first of its pull.
    data: VecDeque<(u64, StreamId, Range<u64>)>,
}

/// The accounts of one end.
#[derive(Debug)]
pub struct Copies {
    /// The share of first-time bytes that may be sent again to save time.
    share: f64,
    streams: BTreeMap<StreamId, Sent>,
    flights: BTreeMap<LaneId, Flight>,
    owed: Vec<Owed>,
    /// Payload given to lanes: in all; for the first time; again, by frame; and again without
    /// being a redundant stream's copy, by byte.
    sent: u64,
    first: u64,
    resent: u64,
    beyond: u64,
    on_metered: u64,
    copied: bool,
}

impl Copies {
    pub fn new(share: f64) -> Self {
        Self {
            share,
            streams: BTreeMap::new(),
            flights: BTreeMap::new(),
            owed: Vec::new(),
            sent: 0,
            first: 0,
            resent: 0,
            beyond: 0,
            on_metered: 0,
            copied: false,
        }
    }

    /// A lane was given something, `bytes` in all.
    pub fn on_pull(
        &mut self,
        pull: Pull<'_>,
        bytes: u64,
        is_redundant: impl Fn(StreamId) -> bool,
    ) -> Option<&'static str> {
        if !pull.lanes.iter().any(|lane| lane.id == pull.lane && stands_best(lane)) {
            self.excuse(pull.lane);
        }
        for frame in pull.frames {
            match frame {
                Frame::Stream { id, offset, data, .. } => {
                    let range = *offset..*offset + data.len() as u64;
                    self.on_data(pull, *id, &range, is_redundant(*id));
                }
                Frame::Reset { id, .. } => self.owed.retain(|owed| owed.id != *id),
                _ => {}
            }
        }
        self.flights.entry(pull.lane).or_default().given += bytes;
        std::mem::take(&mut self.copied).then_some("copy sent")
    }

    fn on_data(&mut self, pull: Pull<'_>, id: StreamId, range: &Range<u64>, redundant: bool) {
        let len = range.end - range.start;
        let sent = self.streams.entry(id).or_default();
        let again = sent.once.contains(range.start);
        let (first, third) = sent.give(range);
        let copied = if redundant { len - first - third } else { 0 };
        self.sent += len;
        self.first += first;
        self.resent += if again { len } else { 0 };
        self.beyond += len - first - copied;
        self.copied |= copied > 0;
        let metered = |lane: &LaneStats| lane.id == pull.lane && lane.tier == Tier::Metered;
        if pull.lanes.iter().any(metered) {
            self.on_metered += len - first;
        }
        let flight = self.flights.entry(pull.lane).or_default();
        flight.payload.sent += len;
        flight.payload.again += len - first;
        flight.data.push_back((flight.given, id, range.clone()));
        if redundant
            && !again
            && let Some(by) = only_other(pull)
        {
            self.owed.push(Owed { id, range: range.clone(), by });
        }
    }

    /// Bytes have come out at a lane's other end.
    pub fn on_arrive(&mut self, lane: LaneId, bytes: u64) {
        let flight = self.flights.entry(lane).or_default();
        flight.arrived += bytes;
        while let Some((_, id, range)) = flight.data.front().filter(|d| d.0 < flight.arrived) {
            self.streams.entry(*id).or_default().arrived.insert(range.clone());
            flight.data.pop_front();
        }
    }

    /// The lane is suspect, late or gone: forgets the copies it owed.
    pub fn excuse(&mut self, lane: LaneId) {
        self.owed.retain(|owed| owed.by != lane);
    }

    /// Whether it matters that the lane is idle.
    pub fn owes(&self, lane: LaneId) -> bool {
        self.owed.iter().any(|owed| owed.by == lane)
    }

    /// A lane without a cap asked for something to carry and got nothing.
    pub fn on_idle(&mut self, lane: LaneId, lanes: &[LaneStats]) -> Result<(), String> {
        let has_room = |lane: &LaneStats| stands_best(lane) && lane.in_flight_bytes < ROOM_BELOW;
        if lanes.iter().any(|stats| stats.id == lane && has_room(stats)) {
            for owed in self.owed.iter().filter(|owed| owed.by == lane) {
                let Some(sent) = self.streams.get(&owed.id) else { continue };
                let mut missing = sent.twice.gaps_in(owed.range.clone()).into_iter();
                if missing.any(|range| !sent.arrived.gaps_in(range).is_empty()) {
                    return Err(format!("no copy was sent: {owed:?}"));
                }
            }
        }
        self.excuse(lane);
        Ok(())
    }

    /// What each lane was given.
    pub fn payload(&self, lane: LaneId) -> Payload {
        self.flights.get(&lane).map(|flight| flight.payload).unwrap_or_default()
    }

    /// At any time: checks what the session reports against what it was allowed.
    pub fn check(&self, stats: &SessionStats) -> Result<(), String> {
        if stats.sent_bytes != self.sent || stats.resent_bytes != self.resent {
            return Err(format!(
                "{} bytes were sent, {} of them again; the session says {} and {}",
                self.sent, self.resent, stats.sent_bytes, stats.resent_bytes
            ));
        }
        if stats.lanes_lost + stats.lanes_suspected > 0 {
            // What such a lane owed is sent again without limit.
            return Ok(());
        }
        let initial = if self.share > 0.0 { BUDGET_INITIAL + FRAME_BYTES_MAX as u64 } else { 0 };
        let budget = initial + (self.first as f64 * self.share) as u64;
        if self.beyond > budget {
            return Err(format!("{} bytes were sent twice, {budget} may be", self.beyond));
        }
        if self.on_metered > 0 {
            return Err(format!("{} bytes went again on metered lanes", self.on_metered));
        }
        Ok(())
    }
}

/// No lane gets work before this one.
fn stands_best(lane: &LaneStats) -> bool {
    lane.health == Health::Good && !lane.late && lane.tier == Tier::Primary
}

/// The lane that must carry a copy of what this one was given, if only one can. Which streams an
/// express lane carries, and therefore copies, cannot be seen from outside.
fn only_other(pull: Pull<'_>) -> Option<LaneId> {
    if pull.lanes.iter().any(|lane| lane.tier == Tier::Express) {
        return None;
    }
    let mut best = pull.lanes.iter().filter(|lane| stands_best(lane));
    let (one, two, more) = (best.next()?, best.next()?, best.next());
    match more {
        None if one.id == pull.lane => Some(two.id),
        None if two.id == pull.lane => Some(one.id),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use imux::proto::{Code, CreditStats, Dir, Side};

    use super::*;
    use crate::oracle::lane;

    const ONE: LaneId = LaneId::new(1);
    const TWO: LaneId = LaneId::new(2);

    fn two(tier: Tier) -> [LaneStats; 2] {
        [lane(ONE, tier), lane(TWO, tier)]
    }

    fn stream() -> StreamId {
        StreamId::new(Side::Client, Dir::Bi, 0)
    }

    fn data(offset: u64, len: usize) -> Frame {
        Frame::Stream { id: stream(), offset, fin: false, data: Bytes::from(vec![0; len]) }
    }

    fn give(copies: &mut Copies, id: LaneId, lanes: &[LaneStats], frame: Frame, redundant: bool) {
        let pull = Pull { lane: id, lanes, frames: &[frame] };
        copies.on_pull(pull, 10_000, |_| redundant);
    }

    fn stats(sent_bytes: u64, resent_bytes: u64) -> SessionStats {
        SessionStats {
            sent_bytes,
            resent_bytes,
            received_bytes: 0,
            duplicate_bytes: 0,
            pending_bytes: 0,
            reorder_bytes: 0,
            reorder_bytes_max: 0,
            held_bytes: 0,
            held_bytes_max: 0,
            lanes_lost: 0,
            lanes_suspected: 0,
            credit: CreditStats::default(),
            streams: 0,
            flows: 0,
            datagrams: imux::proto::FlowStats::default(),
            lanes: Vec::new(),
        }
    }

    #[test]
    fn a_copy_that_is_not_sent_is_told_of() {
        let lanes = two(Tier::Primary);
        let mut copies = Copies::new(0.0);
        give(&mut copies, ONE, &lanes, data(0, 100), true);
        assert!(copies.owes(TWO) && !copies.owes(ONE));
        let why = copies.on_idle(TWO, &lanes).unwrap_err();
        assert!(why.contains("no copy was sent"), "{why}");
        give(&mut copies, TWO, &lanes, data(0, 99), true);
        copies.on_idle(TWO, &lanes).unwrap_err();
        give(&mut copies, TWO, &lanes, data(99, 1), true);
        assert_eq!(copies.on_idle(TWO, &lanes), Ok(()));
        assert_eq!(copies.check(&stats(200, 100)), Ok(()));
    }

    #[test]
    fn a_copy_may_be_left_out_for_a_reason() {
        let lanes = two(Tier::Primary);
        let begun = || {
            let mut copies = Copies::new(0.0);
            give(&mut copies, ONE, &lanes, data(0, 100), true);
            copies
        };
        // It arrived; the stream was reset; the lane could not carry it; the lane is full.
        let mut copies = begun();
        copies.on_arrive(TWO, 10_000);
        copies.on_idle(TWO, &lanes).unwrap_err();
        let mut copies = begun();
        copies.on_arrive(ONE, 1);
        assert_eq!(copies.on_idle(TWO, &lanes), Ok(()));
        let mut copies = begun();
        let reset = Frame::Reset { id: stream(), code: Code::NONE, final_size: 100 };
        give(&mut copies, ONE, &lanes, reset, true);
        assert_eq!(copies.on_idle(TWO, &lanes), Ok(()));
        let mut copies = begun();
        copies.excuse(TWO);
        assert_eq!(copies.on_idle(TWO, &lanes), Ok(()));
        let full = [lanes[0], LaneStats { in_flight_bytes: ROOM_BELOW, ..lanes[1] }];
        assert_eq!(begun().on_idle(TWO, &full), Ok(()));
        // Nobody asked for one; there is no other lane, or it is late.
        let mut copies = Copies::new(0.0);
        give(&mut copies, ONE, &lanes, data(0, 100), false);
        give(&mut copies, ONE, &lanes[..1], data(100, 100), true);
        let late = [lanes[0], LaneStats { late: true, ..lanes[1] }];
        give(&mut copies, ONE, &late, data(200, 100), true);
        assert!(!copies.owes(TWO));
    }

    #[test]
    fn wrong_sums_are_told_of() {
        let lanes = two(Tier::Primary);
        let mut copies = Copies::new(0.0);
        give(&mut copies, ONE, &lanes, data(0, 100), true);
        give(&mut copies, TWO, &lanes, data(0, 100), true);
        assert_eq!(copies.check(&stats(200, 100)), Ok(()));
        for (sent, resent) in [(200, 0), (200, 200), (100, 100), (300, 100)] {
            copies.check(&stats(sent, resent)).unwrap_err();
        }
    }

    #[test]
    fn more_than_one_copy_is_told_of_and_so_is_one_of_what_is_not_redundant() {
        let lanes = two(Tier::Primary);
        for (redundant, times) in [(true, 2), (false, 1)] {
            let mut copies = Copies::new(0.0);
            let mut sums = stats(0, 0);
            for time in 0..=times {
                give(&mut copies, ONE, &lanes, data(0, 100), redundant);
                sums.sent_bytes += 100;
                sums.resent_bytes += if time > 0 { 100 } else { 0 };
                assert_eq!(copies.check(&sums).is_ok(), time < times, "{redundant} {time}");
            }
            // A lane that was lost excuses everything.
            assert_eq!(copies.check(&SessionStats { lanes_lost: 1, ..sums }), Ok(()));
        }
    }

    #[test]
    fn the_budget_is_held() {
        let lanes = two(Tier::Primary);
        let mut copies = Copies::new(0.5);
        give(&mut copies, ONE, &lanes, data(0, 1_000_000), false);
        let budget = BUDGET_INITIAL + FRAME_BYTES_MAX as u64 + 500_000;
        give(&mut copies, TWO, &lanes, data(0, budget as usize), false);
        assert_eq!(copies.check(&stats(1_000_000 + budget, budget)), Ok(()));
        give(&mut copies, TWO, &lanes, data(0, 1), false);
        let why = copies.check(&stats(1_000_001 + budget, budget + 1)).unwrap_err();
        assert!(why.contains("were sent twice"), "{why}");
    }

    #[test]
    fn a_copy_on_a_metered_lane_is_told_of() {
        let lanes = two(Tier::Metered);
        let mut copies = Copies::new(0.5);
        give(&mut copies, ONE, &lanes, data(0, 100), true);
        assert!(!copies.owes(TWO));
        give(&mut copies, TWO, &lanes, data(0, 100), true);
        let why = copies.check(&stats(200, 100)).unwrap_err();
        assert!(why.contains("metered"), "{why}");
    }
}
