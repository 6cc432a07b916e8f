//! Which lane carries what: pure choice over snapshots, without any session state.
//!
//! A lane *pulls* when it can take bytes. The scheduler decides whether it gets any and, if so, how
//! far into the waiting bytes its share begins: a slow lane takes bytes from further back, so that
//! they arrive when their turn comes. `fair` chooses among streams; `sizes` says how much a lane
//! takes at once.

mod classic;
mod fair;
mod forecast;
mod sizes;
mod soonest;
mod view;

pub use fair::FairQueue;
pub use sizes::{frame_room, pull_budget};
pub use soonest::is_soonest;
pub use view::{Grant, LaneView};

use std::fmt;
use std::str::FromStr;

/// Rules for dividing a stream among lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchedulerKind {
    /// Every lane that pulls takes what comes next.
    RoundRobin,
    /// The lane with the smallest round-trip time that has room; the old default of MPTCP.
    MinRtt,
    /// BLEST: the slow lane is skipped if it would block the send window
    /// (Ferlin et al., IFIP Networking 2016).
    Blest,
    /// ECF: the slow lane is skipped if waiting for the fast one completes earlier
    /// (Lim et al., CoNEXT 2017).
    Ecf,
    /// imux's own: predicted arrival, later bytes for slower lanes.
    #[default]
    Imux,
}

impl SchedulerKind {
    /// All rules, for comparisons.
    pub const ALL: [Self; 5] = [Self::RoundRobin, Self::MinRtt, Self::Blest, Self::Ecf, Self::Imux];

    /// The name to choose it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "roundrobin",
            Self::MinRtt => "minrtt",
            Self::Blest => "blest",
            Self::Ecf => "ecf",
            Self::Imux => "imux",
        }
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No scheduler has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no scheduler is called {0:?}; there are roundrobin, minrtt, blest, ecf and imux")]
pub struct UnknownScheduler(String);

impl FromStr for SchedulerKind {
    type Err = UnknownScheduler;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownScheduler(name.to_owned()))
    }
}

/// Whether `lane` should take `chunk` of the `waiting` bytes, where `others` could carry them as
/// well. `bulk`: no stream they belong to sent little lately.
pub fn decide<'a>(
    kind: SchedulerKind,
    lane: &LaneView,
    others: impl Iterator<Item = &'a LaneView> + Clone,
    waiting: u64,
    chunk: u64,
    bulk: bool,
) -> Grant {
    match kind {
        SchedulerKind::RoundRobin => Grant::Skip(0),
        SchedulerKind::MinRtt => classic::min_rtt(lane, others, chunk as f64),
        SchedulerKind::Blest => classic::blest(lane, others, waiting as f64, chunk as f64),
        SchedulerKind::Ecf => classic::ecf(lane, others, waiting as f64, chunk as f64),
        SchedulerKind::Imux => forecast::decide(lane, others, waiting as f64, chunk as f64, bulk),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::ids::LaneId;

    /// Three lanes with the same round trip, of which some have room, and a slower one.
    fn lanes() -> [LaneView; 4] {
        let in_flight = [50_000.0, 0.0, 20_000.0, 4_096.0];
        let lane = |nth: usize| LaneView {
            id: LaneId::new(nth as u64),
            rate: 150_000.0 + 40_000.0 * nth as f64,
            rtt: if nth == 3 { 0.094 } else { 0.069 },
            rtt_var: 0.02,
            delay: 0.034,
            lateness: Duration::ZERO,
            queue: in_flight[nth] / 150_000.0,
            in_flight: in_flight[nth],
            window: 31_000.0,
            congestion_window: 31_000.0,
            measured: true,
            slow: false,
            urgent_only: false,
            idle: true,
        };
        std::array::from_fn(lane)
    }

    #[test]
    fn the_order_in_which_the_other_lanes_are_told_decides_nothing() {
        let [a, b, c, own] = lanes();
        for kind in SchedulerKind::ALL {
            for waiting in [500, 70_962, 1_000_000] {
                let orders = [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]];
                let grant =
                    |others: &[LaneView; 3]| decide(kind, &own, others.iter(), waiting, 500, true);
                let grants = orders.map(|others| grant(&others));
                assert!(grants.iter().all(|grant| *grant == grants[0]), "{kind}: {grants:?}");
            }
        }
    }
}
