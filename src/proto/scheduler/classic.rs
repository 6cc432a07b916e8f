//! Published rules, for comparison on the same networks.
//!
//! They are rules for TCP subflows: a path is full when its congestion window is. A lane's own
//! window is several of these, since bytes that wait for order at the other end are in flight for
//! us but no longer for the kernel; by that measure no path would ever be full, and the next one
//! never filled.

use super::{Grant, LaneView};

/// Whether the lane's congestion window has room.
fn has_room(lane: &LaneView, bytes: f64) -> bool {
    lane.in_flight + bytes <= lane.congestion_window
}

/// The lane is used only while no lane with a smaller round trip has room.
pub(super) fn min_rtt<'a>(
    lane: &LaneView,
    mut others: impl Iterator<Item = &'a LaneView>,
    chunk: f64,
) -> Grant {
    let better = others.any(|other| other.rtt < lane.rtt && has_room(other, chunk));
    if better { Grant::Nothing } else { Grant::Skip(0) }
}

/// The lane with the smallest round trip, unless that is `lane` itself. Among equals always the
/// same one, in whatever order they come: a woken lane must find the choice it was woken for, or it
/// is woken for ever.
fn fastest<'a>(
    lane: &LaneView,
    others: impl Iterator<Item = &'a LaneView>,
) -> Option<&'a LaneView> {
    others
        .filter(|other| other.rtt < lane.rtt)
        .min_by(|a, b| a.rtt.total_cmp(&b.rtt).then(a.id.cmp(&b.id)))
}

/// BLEST: with r = RTTs/RTTf, the fast lane sends X = (CWNDf + (r-1)/2) r segments while the slow
/// one's are in flight; the slow lane is skipped if that exceeds what the window leaves.
pub(super) fn blest<'a>(
    lane: &LaneView,
    others: impl Iterator<Item = &'a LaneView>,
    waiting: f64,
    chunk: f64,
) -> Grant {
    let Some(fast) = fastest(lane, others) else { return Grant::Skip(0) };
    if has_room(fast, chunk) {
        return Grant::Nothing;
    }
    let ratio = lane.rtt / fast.rtt.max(1e-6);
    let segments = fast.congestion_window / chunk.max(1.0);
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
    if has_room(fast, chunk) {
        return Grant::Nothing;
    }
    let margin = lane.rtt_var.max(fast.rtt_var);
    let rounds_fast = waiting / fast.congestion_window.max(chunk);
    let rounds_slow = waiting / lane.congestion_window.max(chunk);
    let waits = (1.0 + rounds_fast) * fast.rtt < (1.0 + BETA) * (lane.rtt + margin)
        && rounds_slow * lane.rtt >= 2.0 * fast.rtt + margin;
    if waits { Grant::Nothing } else { Grant::Skip(0) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::ids::LaneId;

    /// Two lanes with congestion windows of 50 kB, and own windows that are never full.
    fn lanes(in_flight: f64) -> (LaneView, LaneView) {
        let lane = |id, rtt, in_flight| LaneView {
            id,
            rate: 1e6,
            rtt,
            rtt_var: 0.0,
            delay: rtt / 2.0,
            lateness: Duration::ZERO,
            queue: 0.0,
            in_flight,
            window: 200_000.0,
            congestion_window: 50_000.0,
            measured: true,
            slow: false,
            urgent_only: false,
            idle: true,
        };
        (lane(LaneId::new(0), 0.05, in_flight), lane(LaneId::new(1), 0.06, 0.0))
    }

    #[test]
    fn the_next_path_is_filled_when_the_congestion_window_of_the_first_is_full() {
        for (in_flight, grant) in [(30_000.0, Grant::Nothing), (49_000.0, Grant::Skip(0))] {
            let (fast, slow) = lanes(in_flight);
            assert_eq!(min_rtt(&slow, [fast].iter(), 1_500.0), grant);
            assert_eq!(blest(&slow, [fast].iter(), 1e6, 1_500.0), grant);
            assert_eq!(ecf(&slow, [fast].iter(), 1e6, 1_500.0), grant);
        }
    }

    #[test]
    fn a_slow_path_is_left_out_of_what_the_fast_one_will_be_done_with_sooner() {
        let (fast, slow) = lanes(49_000.0);
        let slow = LaneView { rtt: 0.5, ..slow };
        assert_eq!(min_rtt(&slow, [fast].iter(), 1_500.0), Grant::Skip(0), "it does not ask");
        assert_eq!(ecf(&slow, [fast].iter(), 100_000.0, 1_500.0), Grant::Nothing);
        assert_eq!(ecf(&slow, [fast].iter(), 1e6, 1_500.0), Grant::Skip(0));
        assert_eq!(blest(&slow, [fast].iter(), 400_000.0, 1_500.0), Grant::Nothing);
        assert_eq!(blest(&slow, [fast].iter(), 1e6, 1_500.0), Grant::Skip(0));
    }
}
