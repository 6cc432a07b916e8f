//! Published rules, for comparison on the same networks.

use super::{Grant, LaneView};

/// The lane is used only while no lane with a smaller round trip has room.
pub(super) fn min_rtt<'a>(
    lane: &LaneView,
    mut others: impl Iterator<Item = &'a LaneView>,
    chunk: f64,
) -> Grant {
    let better = others.any(|other| other.rtt < lane.rtt && other.has_room(chunk));
    if better { Grant::Nothing } else { Grant::Skip(0) }
}

/// The lane with the smallest round trip, if it is not `lane` itself. Of equals always the same
/// one, in whatever order they are told: a lane that is woken must find the choice it was woken
/// for, or it is woken for ever.
fn fastest<'a>(
    lane: &LaneView,
    others: impl Iterator<Item = &'a LaneView>,
) -> Option<&'a LaneView> {
    others
        .filter(|other| other.rtt < lane.rtt)
        .min_by(|a, b| a.rtt.total_cmp(&b.rtt).then(a.id.cmp(&b.id)))
}

/// BLEST: with r = RTTs/RTTf, the fast lane sends X = (CWNDf + (r-1)/2) r segments while the slow
/// one's are under way; the slow lane is skipped if that exceeds what the window leaves.
pub(super) fn blest<'a>(
    lane: &LaneView,
    others: impl Iterator<Item = &'a LaneView>,
    waiting: f64,
    chunk: f64,
) -> Grant {
    let Some(fast) = fastest(lane, others) else { return Grant::Skip(0) };
    if fast.has_room(chunk) {
        return Grant::Nothing;
    }
    let ratio = lane.rtt / fast.rtt.max(1e-6);
    let segments = fast.window / chunk.max(1.0);
    let meanwhile = (segments + (ratio - 1.0) / 2.0) * ratio * chunk;
    let blocks = meanwhile > waiting - (lane.in_flight + chunk);
    if blocks { Grant::Nothing } else { Grant::Skip(0) }
}

/// ECF with its published beta of 0.25.
pub(super) fn ecf<'a>(
    lane: &LaneView,
    others: impl Iterator<Item = &'a LaneView>,
    waiting: f64,
    chunk: f64,
) -> Grant {
    const BETA: f64 = 0.25;
    let Some(fast) = fastest(lane, others) else { return Grant::Skip(0) };
    if fast.has_room(chunk) {
        return Grant::Nothing;
    }
    let margin = lane.rtt_var.max(fast.rtt_var);
    let rounds_fast = waiting / fast.window.max(chunk);
    let rounds_slow = waiting / lane.window.max(chunk);
    let waits = (1.0 + rounds_fast) * fast.rtt < (1.0 + BETA) * (lane.rtt + margin)
        && rounds_slow * lane.rtt >= 2.0 * fast.rtt + margin;
    if waits { Grant::Nothing } else { Grant::Skip(0) }
}
