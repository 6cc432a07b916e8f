//! Building blocks for cells.

use super::load::{Direction, Job};
use super::stats::ideal_time;
use super::topology::PathSpec;

/// Bulk that starts with the load.
#[must_use]
pub fn bulk(direction: Direction, streams: u32, duration_ms: u64, drain_ms: u64) -> Job {
    Job::Bulk { direction, streams, at_ms: 0, duration_ms, drain_ms }
}

/// The least time in milliseconds for `bytes` over these paths, one way.
#[must_use]
pub fn ideal_ms(bytes: u64, paths: &[PathSpec]) -> f64 {
    let paths: Vec<(f64, f64)> = paths.iter().map(|p| (p.payload_rate(), p.rtt_ms / 2e3)).collect();
    ideal_time(bytes as f64, &paths).unwrap_or(f64::NAN) * 1e3
}

/// Paths in a few words.
#[must_use]
pub fn describe(paths: &[PathSpec]) -> String {
    let one = |p: &PathSpec| {
        let loss = if p.loss_pct > 0.0 { format!(" {:.1} %", p.loss_pct) } else { String::new() };
        format!("{:.0} Mbit/s {:.0} ms{loss}", p.mbit, p.rtt_ms)
    };
    paths.iter().map(one).collect::<Vec<_>>().join(" + ")
}
