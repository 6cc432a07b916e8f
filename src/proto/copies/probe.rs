//! Finds out whether an unused lane has become faster.
//!
//! A lane believed to be slow gets nothing while the others would finish sooner, and with nothing
//! to carry it cannot show that it was misjudged: its handshake met a loss, or its path has
//! improved. So now and then it is given copies of what others carry: nobody waits for them.

use std::ops::Range;

use super::Copies;
use crate::proto::count::{end_of, span};
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::lane::{Carried, Lane};
use crate::proto::lanes::Lanes;
use crate::proto::link::INITIAL_WINDOW_BYTES;
use crate::proto::policy::Tier;
use crate::proto::stream::Chunk;
use crate::proto::streams::Streams;

/// A lane is probed once others were given this many times as much since it last carried anything.
const CARRIED_PER_PROBED: u64 = 256;
/// A probe is twice what the lane is believed to have in flight, as in TCP's slow start, and never
/// fewer frames than this.
const FRAMES_MIN: u64 = 2;
/// A probe never exceeds an initial window: what a kernel sends at once on an unknown path.
const FRAMES_MAX: u64 = 8;
const FRAME_PAYLOAD: u64 = 1_800;

impl Copies {
    /// What the lane should carry to show its rate, if it got no bulk for long, bulk still waits,
    /// and the result could matter.
    pub fn probe(&self, lanes: &Lanes, streams: &Streams, id: LaneId) -> Vec<(StreamId, Chunk)> {
        let bulk = streams.bulk_waits();
        let Some(lane) = lanes.get(id).filter(|_| bulk) else { return Vec::new() };
        let frames = probe_frames(lane);
        let bytes = frames.saturating_mul(FRAME_PAYLOAD);
        let passed = span(lane.payload.given_at, lanes.totals.sent_payload);
        let due = passed >= bytes.saturating_mul(CARRIED_PER_PROBED)
            && !lane.ledger.owes()
            && !lane.is_urgent_only()
            && lane.policy.tier != Tier::Metered
            && lane.estimate.bandwidth_delay_bytes() < INITIAL_WINDOW_BYTES
            && self.budget.unreserved() >= bytes;
        if due { newest_elsewhere(lanes, streams, id, frames) } else { Vec::new() }
    }
}

/// Up to `count` of the newest frames on the lane, other than `id`, with the most in flight;
/// small ones, so that each arrival is progress.
fn newest_elsewhere(
    lanes: &Lanes,
    streams: &Streams,
    id: LaneId,
    count: u64,
) -> Vec<(StreamId, Chunk)> {
    let others = lanes.values().filter(|lane| lane.id != id);
    let busiest = others.max_by_key(|lane| lane.ledger.payload_in_flight());
    let entries = busiest.into_iter().flat_map(|lane| lane.ledger.entries().rev());
    let data = entries.filter_map(|entry| match &entry.carried {
        Carried::Data { id, range, .. } => Some((*id, range.clone())),
        _ => None,
    });
    let frames = data.flat_map(|(id, range)| pieces(range).map(move |range| (id, range)));
    let owed = frames.filter_map(|(id, range)| {
        let stream = streams.get(id)?;
        Some((id, stream.send.still_owed(&Chunk { range, fin: false })?))
    });
    owed.take(count as usize).collect()
}

fn probe_frames(lane: &Lane) -> u64 {
    let twice = 2.0 * lane.estimate.bandwidth_delay_bytes() / FRAME_PAYLOAD as f64;
    (twice.ceil() as u64).clamp(FRAMES_MIN, FRAMES_MAX)
}

/// The range cut into probe frames' payloads; the remainder at its end is left out.
fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let count = span(range.start, range.end) / FRAME_PAYLOAD;
    (0..count).map(move |nth| {
        let start = end_of(range.start, nth.saturating_mul(FRAME_PAYLOAD));
        start..end_of(start, FRAME_PAYLOAD)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::proto::testing::pair::{CLIENT, Pair, Path, SERVER, pattern};
    use crate::proto::{Config, LaneId, LanePolicy, Tier};

    const SLOW: LaneId = LaneId::new(1);

    /// Two lanes, the second believed hopelessly slow: its handshake met a loss.
    fn misjudged(policy: LanePolicy, path: Path) -> Pair {
        let mut pair = Pair::new(Config::default(), &[Path::new(80.0, 1), path]);
        let now = pair.now;
        let session = &mut pair.ends[CLIENT].session;
        session.handle_lane_policy(now, SLOW, policy);
        let estimate = &mut session.lanes_mut().get_mut(SLOW).unwrap().estimate;
        estimate.on_delivery(now, 1_400, Duration::from_millis(200), true);
        pair
    }

    /// Payload given to the slow lane, and how much of it was sent again, in eight seconds of bulk.
    fn carried(mut pair: Pair) -> (u64, u64) {
        let bytes = 120_000_000;
        let id = pair.open(CLIENT, pattern(bytes, 1));
        pair.drive(Duration::from_secs(8));
        let read = &pair.ends[SERVER].read[&id].0;
        assert_eq!(pattern(bytes, 1)[..read.len()], read[..]);
        let stats = pair.ends[CLIENT].session.stats();
        let lane = stats.lanes.iter().find(|lane| lane.id == SLOW).unwrap();
        (lane.sent_bytes, lane.resent_bytes)
    }

    #[test]
    fn a_lane_that_was_misjudged_shows_what_it_can_do() {
        let (sent, _) = carried(misjudged(LanePolicy::default(), Path::new(20.0, 100)));
        assert!(sent > 10_000_000, "{sent} bytes of at most 20,000,000");
    }

    #[test]
    fn a_lane_that_was_judged_rightly_costs_little() {
        let (sent, resent) = carried(misjudged(LanePolicy::default(), Path::new(0.05, 100)));
        assert!(resent > 0, "it was probed");
        assert!(sent < 80_000, "{sent} bytes are more than its path carries");
    }

    #[test]
    fn what_costs_money_is_not_probed() {
        for tier in [Tier::Backup, Tier::Metered, Tier::Express] {
            let policy = LanePolicy { tier, ..LanePolicy::default() };
            let (sent, _) = carried(misjudged(policy, Path::new(20.0, 100)));
            assert_eq!(sent, 0, "{tier:?}");
        }
    }
}
