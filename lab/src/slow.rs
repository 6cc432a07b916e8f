//! Cells with one slow link: a download and an echo beside it, with a short queue and a long one.

use super::cell::{Better, Cell, Goal};
use super::load::{Direction, Job};
use super::topology::PathSpec;
use super::workload::bulk;

/// Long enough to see more than a connection's first packets, which take such a link some seconds.
const BULK_MS: u64 = 40_000;
const RTT_MS: f64 = 100.0;
const KBIT: [u32; 4] = [64, 96, 128, 256];
/// In kilobytes. At 64 kbit/s the longest is 16 s.
const QUEUES: [(&str, f64); 3] = [("", 16.0), ("-short", 8.0), ("-deep", 128.0)];

/// A cell for each rate and queue.
#[must_use]
pub fn cells() -> Vec<Cell> {
    let of_rate = |kbit| QUEUES.map(|(suffix, queue_kb)| cell(kbit, suffix, queue_kb));
    KBIT.into_iter().flat_map(of_rate).collect()
}

fn cell(kbit: u32, suffix: &str, queue_kb: f64) -> Cell {
    let path = PathSpec { queue_kb, ..PathSpec::new(f64::from(kbit) / 1e3, RTT_MS) };
    let about = format!("{kbit} kbit/s, {RTT_MS} ms, {queue_kb} kB of queue: download and echo");
    let echo = Job::Echo { bytes: 50, interval_ms: 500, at_ms: 1000, duration_ms: BULK_MS - 2000 };
    Cell::new(&format!("slow{kbit}{suffix}"), &about, vec![path])
        .step("down", bulk(Direction::Down, 1, BULK_MS, 0))
        .step("echo", echo)
        .goal(Goal::shown("down.share", "", Better::Higher))
        .goal(Goal::shown("echo.p50", "ms", Better::Lower))
        .goal(Goal::shown("echo.max", "ms", Better::Lower))
        .goal(Goal::at_most("down.given_up", 0.0, ""))
}
