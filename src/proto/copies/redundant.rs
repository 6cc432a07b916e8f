//! Streams that want latency at any price: what one lane is given, a second is given too.

use std::time::Instant;

use crate::proto::count::end_of;
use crate::proto::ids::{LaneId, StreamId};
use crate::proto::lane::Carried;
use crate::proto::lanes::Lanes;
use crate::proto::limits::FRAME_BYTES_MAX;
use crate::proto::policy::Tier;
use crate::proto::stream::Chunk;
use crate::proto::streams::{Streams, fit_payload};

/// Whether any lane has something to carry that another was given first.
pub fn any_wait(lanes: &Lanes) -> bool {
    lanes.values().any(|lane| !lane.copies.is_empty())
}

/// `lane` was given bytes of a redundant stream, or its opening, for the first time: queues
/// them for the lane that would deliver them next, over another link if there is one.
pub fn note(
    lanes: &mut Lanes,
    streams: &Streams,
    now: Instant,
    lane: LaneId,
    carried: Carried,
    urgent: bool,
) {
    let Some(link) = lanes.get(lane).map(|lane| lane.policy.link) else { return };
    let policy = |id: LaneId| lanes.get(id).map(|lane| lane.policy);
    let others = lanes.views_for_copies(now).filter_map(|view| {
        let policy = policy(view.id)?;
        let free = policy.tier != Tier::Metered;
        let free = free && (urgent || policy.tier != Tier::Express);
        let may = view.id != lane && free;
        may.then_some((policy.link == link, view.arrival(1.0), view.id))
    });
    let second = others.min_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let Some((_, _, second)) = second else { return };
    let Some(second) = lanes.get_mut(second) else { return };
    // What has arrived since need not wait here: this bounds the list by what is in flight.
    while second.copies.front().is_some_and(|copy| owed(streams, copy).is_none()) {
        second.copies.pop_front();
    }
    second.copies.push_back(carried);
}

/// A lane that gets nothing else gets no copies.
pub fn forget(lanes: &mut Lanes, id: LaneId) {
    if let Some(lane) = lanes.get_mut(id) {
        lane.copies.clear();
    }
}

/// Takes the first copy still worth sending, cut to a frame of `room` bytes. What the first
/// lane has lost since is also queued to be sent again; this does not wait for that.
pub fn next(lanes: &mut Lanes, streams: &Streams, id: LaneId, room: usize) -> Option<NextCopy> {
    let copies = &mut lanes.get_mut(id)?.copies;
    while let Some(copy) = copies.pop_front() {
        let Some(next) = owed(streams, &copy) else { continue };
        let NextCopy::Data(id, mut chunk) = next else { return Some(next) };
        let fits = fit_payload(id, chunk.range.start, room.min(FRAME_BYTES_MAX));
        let end = chunk.range.end.min(end_of(chunk.range.start, fits));
        chunk.fin &= end == chunk.range.end;
        chunk.range.end = end;
        if let Carried::Data { range, fin, .. } = copy
            && end < range.end
        {
            copies.push_front(Carried::Data { id, range: end..range.end, fin });
        }
        return Some(NextCopy::Data(id, chunk));
    }
    None
}

/// What a lane is given because another was given it first.
#[derive(Debug)]
pub enum NextCopy {
    Open(StreamId),
    Data(StreamId, Chunk),
}

/// The part of a copy that is still worth sending.
fn owed(streams: &Streams, copy: &Carried) -> Option<NextCopy> {
    match copy {
        Carried::Open(id) => streams.get(*id)?.opening.as_ref().map(|_| NextCopy::Open(*id)),
        Carried::Data { id, range, fin } => {
            let chunk = Chunk { range: range.clone(), fin: *fin };
            Some(NextCopy::Data(*id, streams.get(*id)?.send.not_arrived(&chunk)?))
        }
        _ => None,
    }
}
