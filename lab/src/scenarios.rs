//! The cells of the matrix, with imux's targets.

use super::cell::{Action, Better, Cell, Goal};
use super::emu::Change;
use super::load::{Direction, Job};
use super::radio;
use super::slow;
use super::topology::PathSpec;
use super::workload::{bulk, describe, ideal_ms};

/// Six seconds of bulk, start-up included, as the targets ask.
const BULK_MS: u64 = 6000;
/// A connection's rate on throttled paths: ten fill a path.
const THROTTLE_MBIT: f64 = 5.0;
/// When a failure strikes: start-up is over by then.
const STRIKE_MS: u64 = 3000;
/// Bulk around a failure, and how long the remainder may take to arrive.
const FAILURE_MS: u64 = 9000;
const DRAIN_MS: u64 = 6000;

/// All cells, in the order of the table.
#[must_use]
pub fn all() -> Vec<Cell> {
    let mut cells = bulk_cells();
    cells.extend(stream_cells());
    cells.extend(selftest_cells());
    cells.extend(transfer_cells());
    cells.extend(latency_cells());
    cells.extend(failure_cells());
    cells.extend(radio::cells());
    cells.extend(slow::cells());
    cells
}

/// The cell with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<Cell> {
    all().into_iter().find(|c| c.name == name)
}

fn equal() -> Vec<PathSpec> {
    vec![PathSpec::new(50.0, 20.0); 2]
}

fn bulk_cells() -> Vec<Cell> {
    let p = PathSpec::new;
    let mut cells = Vec::new();
    let mut add = |name: &str, about: &str, paths: Vec<PathSpec>, target: f64| {
        for (direction, end) in [(Direction::Down, "down"), (Direction::Up, "up")] {
            let cell = Cell::new(&format!("{name}-{end}"), about, paths.clone());
            let cell = cell.step(end, bulk(direction, 1, BULK_MS, 0));
            cells.push(cell.goal(Goal::at_least(&format!("{end}.share"), target, "")));
        }
    };
    add("equal", "2 x 50 Mbit/s, 20 ms", equal(), 0.97);
    add("equal4", "4 x 25 Mbit/s, 20 ms", vec![p(25.0, 20.0); 4], 0.97);
    add("fast", "3 x 100 Mbit/s, 20 ms", vec![p(100.0, 20.0); 3], 0.97);
    add("rate10", "80 + 8 Mbit/s, 20 ms", vec![p(80.0, 20.0), p(8.0, 20.0)], 0.95);
    add("rtt10", "2 x 50 Mbit/s, 10 and 100 ms", vec![p(50.0, 10.0), p(50.0, 100.0)], 0.95);
    let lossy = equal().into_iter().map(|p| p.with_loss(1.0)).collect();
    add("loss1", "2 x 50 Mbit/s, 20 ms, 1 % loss", lossy, 0.95);
    let throttled = equal().into_iter().map(|p| p.with_throttle(THROTTLE_MBIT)).collect::<Vec<_>>();
    let about = format!("2 x 50 Mbit/s, 20 ms, no more than {THROTTLE_MBIT} for a connection");
    cells.push(
        Cell::new("throttled-down", &about, throttled)
            .step("down", bulk(Direction::Down, 1, BULK_MS, 0))
            .goal(Goal::shown("down.share", "", Better::Higher)),
    );
    let both = Cell::new("equal-both", "2 x 50 Mbit/s, 20 ms, up and down at once", equal())
        .step("up", bulk(Direction::Up, 1, BULK_MS, 0))
        .step("down", bulk(Direction::Down, 1, BULK_MS, 0));
    // Each direction's acknowledgements take about 2.5 % of the other's rate.
    cells.push(both.goal(Goal::at_least("up.share", 0.94, "")).goal(Goal::at_least(
        "down.share",
        0.94,
        "",
    )));
    cells
}

fn stream_cells() -> Vec<Cell> {
    let cell = |streams: u32| {
        let about = format!("2 x 50 Mbit/s, 20 ms, {streams} bulk streams and an echo");
        let echo =
            Job::Echo { bytes: 200, interval_ms: 20, at_ms: 1000, duration_ms: BULK_MS - 1000 };
        Cell::new(&format!("streams{streams}"), &about, equal())
            .step("down", bulk(Direction::Down, streams, BULK_MS, 0))
            .step("echo", echo)
            .goal(Goal::at_least("down.share", 0.94, ""))
            .goal(Goal::at_least("down.jain", 0.9, ""))
            .goal(Goal::shown("echo.p50", "ms", Better::Lower))
            .goal(Goal::shown("echo.p99", "ms", Better::Lower))
    };
    vec![cell(8), cell(64)]
}

/// The shapes of the Linux kernel's own MPTCP test
/// (tools/testing/selftests/net/mptcp/simult_flows.sh): 16 MiB one way with 80 KiB the other way.
fn selftest_cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (fast, slow) in [(10.0, 10.0), (15.0, 5.0), (30.0, 10.0)] {
        for (first_ms, second_ms) in [(0.0, 0.0), (1.0, 25.0), (25.0, 1.0), (1.0, 50.0)] {
            // The test's delays apply to one direction only; here each way has half.
            let paths = vec![PathSpec::new(fast, first_ms), PathSpec::new(slow, second_ms)];
            let transfer = |direction, bytes| Job::Transfer {
                direction,
                bytes,
                count: 1,
                parallel: 1,
                at_ms: 0,
                pause_ms: 0,
            };
            let bytes = 16 << 20;
            let limit_ms = bytes as f64 * 8.0 / (0.9 * (fast + slow) * 1e6) * 1e3 + 450.0;
            let name = format!("simult-{fast}-{slow}-{first_ms}-{second_ms}");
            let about = format!(
                "16 MiB against 80 KiB, {fast} + {slow} Mbit/s, {first_ms} and {second_ms} ms"
            );
            cells.push(
                Cell::new(&name, &about, paths)
                    .step("down", transfer(Direction::Down, bytes))
                    .step("up", transfer(Direction::Up, 80 << 10))
                    .goal(Goal::at_most("down.ms_max", limit_ms, "ms")),
            );
        }
    }
    cells
}

fn transfer_cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    let settings = [
        ("equal", equal()),
        ("rtt10", vec![PathSpec::new(50.0, 10.0), PathSpec::new(50.0, 100.0)]),
        ("rate10", vec![PathSpec::new(80.0, 20.0), PathSpec::new(8.0, 20.0)]),
    ];
    for (setting, paths) in settings {
        for (size, bytes) in [("256k", 256_000), ("1m", 1_000_000), ("4m", 4_000_000)] {
            let name = format!("xfer-{size}-{setting}");
            let about = format!("{size} transfers over warm lanes, {}", describe(&paths));
            let transfer = |direction, at_ms| Job::Transfer {
                direction,
                bytes,
                count: 5,
                parallel: 1,
                at_ms,
                pause_ms: 100,
            };
            // Both directions are warmed up; uploads wait until the downloads must have finished.
            let warm = |direction| bulk(direction, 1, 1500, 0);
            let uploads_at = 2500 + 5 * (100 + (ideal_ms(bytes, &paths) * 3.0) as u64);
            cells.push(
                Cell::new(&name, &about, paths.clone())
                    .warm_up(warm(Direction::Down))
                    .warm_up(warm(Direction::Up))
                    .step("down", transfer(Direction::Down, 2500))
                    .step("up", transfer(Direction::Up, uploads_at))
                    .goal(Goal::at_most("down.ratio", 1.15, ""))
                    .goal(Goal::at_most("up.ratio", 1.15, ""))
                    .goal(Goal::shown("down.ms", "ms", Better::Lower)),
            );
        }
    }
    cells
}

fn latency_cells() -> Vec<Cell> {
    let rtt = 20.0;
    let echo = |at_ms| Job::Echo { bytes: 200, interval_ms: 10, at_ms, duration_ms: 5000 };
    let under = |name: &str, direction, label: &str| {
        Cell::new(name, "200-byte echo under bulk, 2 x 50 Mbit/s, 20 ms", equal())
            .step("echo", echo(1000))
            .step(label, bulk(direction, 1, BULK_MS, 0))
            .goal(Goal::at_most("echo.p99", rtt + 15.0, "ms"))
            .goal(Goal::at_most("echo.p50", rtt + 5.0, "ms"))
            .goal(Goal::at_least(&format!("{label}.share"), 0.94, ""))
    };
    let lossy = equal().into_iter().map(|p| p.with_loss(1.0)).collect();
    vec![
        Cell::new("setup", "new connection to first answered byte, 20 ms", equal())
            .step("setup", Job::Setup { count: 30, at_ms: 500, pause_ms: 50 })
            .goal(Goal::at_most("setup.p50", rtt + 0.5, "ms"))
            .goal(Goal::shown("setup.max", "ms", Better::Lower)),
        Cell::new("echo-idle", "200-byte echo, idle, 2 x 50 Mbit/s, 20 ms", equal())
            .step("echo", echo(200))
            .goal(Goal::at_most("echo.p50", rtt + 0.5, "ms"))
            .goal(Goal::shown("echo.p99", "ms", Better::Lower)),
        under("echo-up", Direction::Up, "up"),
        under("echo-down", Direction::Down, "down"),
        Cell::new("echo-loss1", "200-byte echo under bulk, 2 x 50 Mbit/s, 20 ms, 1 % loss", lossy)
            .step("echo", echo(1000))
            .step("down", bulk(Direction::Down, 1, BULK_MS, 0))
            .goal(Goal::at_most("echo.p50", rtt + 5.0, "ms"))
            // 2 % of the echoes are lost one way or the other, and TCP resends them.
            .goal(Goal::shown("echo.p99", "ms", Better::Lower))
            .goal(Goal::at_least("down.share", 0.94, "")),
    ]
}

/// Bulk one way while something befalls `paths`.
fn befallen(direction: Direction, name: &str, about: &str, paths: &[PathSpec]) -> Cell {
    let about = format!("{about}; {}", describe(paths));
    let label = if direction == Direction::Up { "up" } else { "down" };
    Cell::new(name, &about, paths.to_vec()).step(label, bulk(direction, 1, FAILURE_MS, DRAIN_MS))
}

/// How long the reader may wait, and how long it may take until the goodput is back.
fn survives(cell: Cell, gap_target: Option<f64>, recover_ms: f64) -> Cell {
    let label = cell.steps[0].label.clone().unwrap_or_default();
    let gap = format!("{label}.gap");
    let gap = match gap_target {
        Some(ms) => Goal::at_most(&gap, ms, "ms"),
        None => Goal::shown(&gap, "ms", Better::Lower),
    };
    cell.goal(gap)
        .goal(Goal::at_most(&format!("{label}.recover"), recover_ms, "ms"))
        .goal(Goal::at_most(&format!("{label}.undelivered"), 0.0, "B"))
        .goal(Goal::shown(&format!("{label}.share_after"), "", Better::Higher))
}

fn failure_cells() -> Vec<Cell> {
    use Action::{Interface, Link};
    let paths = equal();
    let rtt = 20.0;
    let cell = |name: &str, about: &str| befallen(Direction::Down, name, about, &paths);
    let silent = |on| Link(Change::Silent(on));
    let dead = Some(f64::max(100.0, 3.0 * rtt));
    let told = Some(50.0 + rtt);

    let death = cell("death", "path 0 falls silent").event(STRIKE_MS, silent(true));
    let up = befallen(Direction::Up, "death-up", "path 0 falls silent, upload", &paths)
        .event(STRIKE_MS, silent(true));
    let reset = cell("reset", "TCP resets on path 0").event(STRIKE_MS, Link(Change::Reset));
    let gone = cell("ifdown", "interface of path 0 down").event(STRIKE_MS, Interface(false));
    let flap = (0..3).fold(cell("flap", "path 0 down for 0.5 s, three times"), |cell, i| {
        let at = STRIKE_MS + i * 1500;
        cell.event(at, Interface(false)).event(at + 500, Interface(true))
    });
    let mut back = cell("return", "path 0 falls silent, and is back after 3 s")
        .event(STRIKE_MS, silent(true))
        .event(2 * STRIKE_MS, silent(false));
    // With two equal paths, 90 % of the returned one is 95 % of both, less what TLS and framing
    // take.
    back.recovered_share = 0.93;
    let lasting = [
        survives(death, dead, 2000.0),
        survives(up, dead, 2000.0),
        survives(reset, told, 2000.0),
        survives(gone, told, 2000.0),
        survives(flap, dead, 2000.0),
        survives(back, dead, 1000.0 + 10.0 * rtt),
    ];
    lasting.into_iter().chain(step_cells()).collect()
}

/// A path's rate or delay changes at once.
fn step_cells() -> [Cell; 3] {
    use Action::Link;
    let paths = equal();
    let slow = [PathSpec { mbit: 5.0, ..paths[0] }, paths[1]];
    let cell = |name: &str, about: &str, paths: &[PathSpec], change: Change| {
        befallen(Direction::Down, name, about, paths).event(STRIKE_MS, Link(change))
    };
    let rate = |mbit: f64| Change::Rate(mbit * 1e6);
    let stepped = Some(150.0);
    let down = cell("rate-down", "path 0 from 50 to 5 Mbit/s", &paths, rate(5.0));
    let up = cell("rate-up", "path 0 from 5 to 50 Mbit/s", &slow, rate(50.0));
    let delay = cell("delay-up", "path 0 from 20 to 100 ms", &paths, Change::Delay(50.0));
    [survives(down, stepped, 2000.0), survives(up, None, 2000.0), survives(delay, stepped, 2000.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_goals_name_measured_steps() {
        let cells = all();
        let names: BTreeSet<&str> = cells.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names.len(), cells.len());
        for cell in &cells {
            assert!(!cell.goals.is_empty(), "{}", cell.name);
            for goal in &cell.goals {
                let label = goal.figure.split('.').next();
                assert!(
                    cell.steps.iter().any(|s| s.label.as_deref() == label),
                    "{} {goal:?}",
                    cell.name
                );
            }
            assert!(cell.deadline_ms() < 120_000, "{}: {}", cell.name, cell.deadline_ms());
            assert!(cell.events.iter().all(|e| e.path < cell.paths.len()));
        }
    }

    #[test]
    fn ideal_of_the_equal_paths() {
        // 4 MB at 2 x 50 Mbit/s x 1448/1500: 331.5 ms, plus 10 ms of delay.
        assert!((ideal_ms(4_000_000, &equal()) - 341.5).abs() < 0.1);
    }
}
