//! Cells with paths like radio links: delay and rate vary, and nothing tells the sender.
//!
//! A path does not reorder: after a drop in delay packets arrive in a burst, after a rise with a
//! gap.

use super::cell::{Action, Better, Cell, Event, Goal};
use super::emu::Change;
use super::load::{Direction, Job};
use super::stream::Rng;
use super::topology::PathSpec;
use super::workload::bulk;

const BULK_MS: u64 = 8000;
const MBIT: f64 = 50.0;
/// The round trip is drawn from this range, this often.
const RTT_MS: [f64; 2] = [20.0, 60.0];
const DELAY_STEP_MS: u64 = 50;
/// The rate is drawn from this range of shares of its mean, this often.
const RATE: [f64; 2] = [0.2, 1.8];
const RATE_STEP_MS: u64 = 200;

/// One cell whose paths' delays vary, and one whose rates do too.
#[must_use]
pub fn cells() -> Vec<Cell> {
    let cell = |name: &str, about: &str| {
        let path = PathSpec::new(MBIT, (RTT_MS[0] + RTT_MS[1]) / 2.0);
        let about = format!("2 x {MBIT} Mbit/s, {about}; bulk and an echo");
        let echo =
            Job::Echo { bytes: 200, interval_ms: 20, at_ms: 1000, duration_ms: BULK_MS - 1000 };
        Cell::new(name, &about, vec![path; 2])
            .step("down", bulk(Direction::Down, 1, BULK_MS, 0))
            .step("echo", echo)
            .goal(Goal::shown("down.share", "", Better::Higher))
            .goal(Goal::shown("down.gap", "ms", Better::Lower))
            .goal(Goal::shown("echo.p50", "ms", Better::Lower))
            .goal(Goal::shown("echo.p99", "ms", Better::Lower))
    };
    let delays = format!("{} to {} ms, drawn every {DELAY_STEP_MS} ms", RTT_MS[0], RTT_MS[1]);
    let rates = format!("{delays}, {} to {} of the rate every {RATE_STEP_MS} ms", RATE[0], RATE[1]);
    let jitter = (0..2).fold(cell("jitter", &delays), varying_delay);
    let radio = (0..2).fold(cell("radio", &rates), varying_delay);
    vec![jitter, (0..2).fold(radio, varying_rate)]
        .into_iter()
        .map(|mut cell| {
            cell.events.sort_by_key(|event| event.at_ms);
            cell
        })
        .collect()
}

fn varying_delay(mut cell: Cell, path: usize) -> Cell {
    let mut rng = Rng::new(path as u64);
    cell.events.extend((1..BULK_MS / DELAY_STEP_MS).map(|step| {
        let rtt_ms = RTT_MS[0] + rng.unit() * (RTT_MS[1] - RTT_MS[0]);
        Event {
            at_ms: step * DELAY_STEP_MS,
            path,
            action: Action::Link(Change::Delay(rtt_ms / 2.0)),
        }
    }));
    cell
}

/// The mean stays the path's rate, so that shares are of what could be carried.
fn varying_rate(mut cell: Cell, path: usize) -> Cell {
    let mut rng = Rng::new(100 + path as u64);
    let drawn: Vec<f64> =
        (1..BULK_MS / RATE_STEP_MS).map(|_| RATE[0] + rng.unit() * (RATE[1] - RATE[0])).collect();
    let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
    cell.events.extend((1..).zip(drawn).map(|(step, share)| Event {
        at_ms: step * RATE_STEP_MS,
        path,
        action: Action::Link(Change::Rate(share / mean * cell.paths[path].mbit * 1e6)),
    }));
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean of a path's rate over the cell, in Mbit/s.
    fn mean_rate(cell: &Cell, path: usize) -> f64 {
        let (mut rate, mut since, mut carried) = (cell.paths[path].mbit, 0, 0.0);
        for event in cell.events.iter().filter(|event| event.path == path) {
            if let Action::Link(Change::Rate(bps)) = event.action {
                carried += rate * (event.at_ms - since) as f64;
                (rate, since) = (bps / 1e6, event.at_ms);
            }
        }
        (carried + rate * (BULK_MS - since) as f64) / BULK_MS as f64
    }

    #[test]
    fn paths_vary_apart_around_their_mean() {
        for cell in cells() {
            assert!(cell.events.is_sorted_by_key(|event| event.at_ms), "{}", cell.name);
            let of = |path| {
                let on = |event: &&Event| event.path == path;
                cell.events.iter().filter(on).map(|event| event.action).collect::<Vec<_>>()
            };
            assert!(of(0).len() > 100, "{}", cell.name);
            assert_ne!(of(0), of(1), "{}", cell.name);
            for path in 0..2 {
                let mean = mean_rate(&cell, path);
                assert!((mean - MBIT).abs() < 1e-6, "{} path {path}: {mean}", cell.name);
            }
        }
    }
}
