//! Named networks, for inspection and comparison.

use imux::proto::SchedulerKind;

use crate::options::{Congestion, Fault, FaultKind, HalfPlan, Options, PathOptions, StreamPlan};

/// The name and what it shows.
pub const ALL: &[(&str, &str)] = &[
    ("single", "one path of 50 Mbit/s"),
    ("equal", "two equal paths"),
    ("rate10", "two paths, 10:1 in bandwidth"),
    ("rtt10", "two paths, 10:1 in round-trip time"),
    ("loss1", "two paths that lose 1 %, bbr"),
    ("loss1-cubic", "two paths that lose 1 %, cubic"),
    ("cubic", "two equal paths, cubic, queues of one BDP"),
    ("three", "three unlike paths"),
    ("step-down", "one of two paths falls to a tenth of its rate"),
    ("step-up", "one of two paths rises to ten times its rate"),
    ("silent-death", "one of two lanes swallows everything from 2 s on"),
    ("reset", "one of two lanes is reset at 2 s"),
    ("flap", "one of two paths is away for 300 ms, twice"),
    ("total-outage", "both paths are away for 3 s"),
    ("many-lanes", "two paths with ten lanes each"),
    ("tail", "transfers of 256 KB to 4 MB over unlike paths, one after another"),
    ("echo", "200-byte questions and answers, nothing else"),
    ("backup", "a primary path whose lane dies at 2 s and is dialled again, and a backup"),
    ("metered", "a primary path that is away from 2 s to 5 s, and a metered one"),
    ("capped", "two equal paths, one of which is to carry 10 Mbit/s at most"),
    ("redundant", "200-byte questions and answers on two lanes that lose 3 %, each sent twice"),
    ("echo-bulk", "200-byte questions and answers while bulk fills both paths"),
];

fn path(mbit: f64, delay_ms: f64) -> PathOptions {
    let queue_bytes = (mbit * 250.0 * delay_ms).max(30_000.0);
    PathOptions { mbit: [mbit; 2], delay_ms: [delay_ms; 2], queue_bytes, ..PathOptions::default() }
}

/// One stream towards the server, started when the lanes are up but still cold.
fn bulk(seconds: f64, mbit: f64) -> StreamPlan {
    let bytes = (seconds * mbit * 125_000.0) as u64;
    let half = HalfPlan { bytes, ..HalfPlan::default() };
    StreamPlan { at_ms: 400.0, halves: [half, HalfPlan::default()], ..StreamPlan::default() }
}

fn echo(at_ms: f64) -> StreamPlan {
    let question = HalfPlan { bytes: 200, ..HalfPlan::default() };
    let answer = HalfPlan { bytes: 200, after_bytes: 200, ..HalfPlan::default() };
    StreamPlan { at_ms, halves: [question, answer], ..StreamPlan::default() }
}

fn fault(at_ms: f64, path: usize, kind: FaultKind) -> Fault {
    Fault { at_ms, path, kind }
}

/// The options of a named scenario.
pub fn named(name: &str) -> Option<Options> {
    let two = |a: PathOptions, b: PathOptions| vec![a, b];
    let equal = || two(path(50.0, 10.0), path(50.0, 10.0));
    let six = |paths: &[PathOptions]| vec![bulk(6.0, paths.iter().map(|p| p.mbit[0]).sum())];
    let (paths, faults): (Vec<PathOptions>, Vec<Fault>) = match name {
        "single" => (vec![path(50.0, 10.0)], vec![]),
        "equal" | "tail" | "echo" | "echo-bulk" => (equal(), vec![]),
        "rate10" => (two(path(50.0, 10.0), path(5.0, 10.0)), vec![]),
        "rtt10" => (two(path(50.0, 5.0), path(50.0, 50.0)), vec![]),
        "loss1" | "loss1-cubic" => {
            let control = if name == "loss1" { Congestion::Bbr } else { Congestion::Cubic };
            let lossy = PathOptions { loss: 0.01, control, ..path(40.0, 10.0) };
            (two(lossy.clone(), lossy), vec![])
        }
        "cubic" => {
            let cubic = PathOptions { control: Congestion::Cubic, ..path(50.0, 10.0) };
            (two(cubic.clone(), cubic), vec![])
        }
        "three" => (vec![path(50.0, 10.0), path(10.0, 40.0), path(2.0, 80.0)], vec![]),
        "step-down" => (equal(), vec![fault(2_000.0, 1, FaultKind::Rate { mbit: 5.0 })]),
        "step-up" => {
            let low = PathOptions { queue_bytes: 125_000.0, ..path(5.0, 10.0) };
            let low = two(path(50.0, 10.0), low);
            (low, vec![fault(2_000.0, 1, FaultKind::Rate { mbit: 50.0 })])
        }
        "backup" => {
            let backup = PathOptions { tier: "backup".to_owned(), ..path(50.0, 10.0) };
            (two(path(50.0, 10.0), backup), vec![fault(2_000.0, 0, FaultKind::Silent)])
        }
        "metered" => {
            let metered = PathOptions { tier: "metered".to_owned(), ..path(50.0, 10.0) };
            let away = FaultKind::Down { for_ms: 3_000.0 };
            (two(path(50.0, 10.0), metered), vec![fault(2_000.0, 0, away)])
        }
        "capped" => {
            let capped = PathOptions { cap_mbit: 10.0, ..path(50.0, 10.0) };
            (two(path(50.0, 10.0), capped), vec![])
        }
        "redundant" => {
            let lossy = PathOptions { loss: 0.03, ..path(50.0, 10.0) };
            (two(lossy.clone(), lossy), vec![])
        }
        "silent-death" => (equal(), vec![fault(2_000.0, 1, FaultKind::Silent)]),
        "reset" => (equal(), vec![fault(2_000.0, 1, FaultKind::Reset)]),
        "flap" => {
            let down = || FaultKind::Down { for_ms: 300.0 };
            (equal(), vec![fault(2_000.0, 1, down()), fault(4_000.0, 1, down())])
        }
        "total-outage" => (equal(), vec![fault(2_000.0, 0, FaultKind::Outage { for_ms: 3_000.0 })]),
        "many-lanes" => {
            let many = PathOptions { lanes: 10, ..path(50.0, 10.0) };
            (two(many.clone(), many), vec![])
        }
        _ => return None,
    };
    let mut streams = six(&paths);
    let mut paths = paths;
    match name {
        "tail" => {
            paths = two(path(50.0, 10.0), path(10.0, 50.0));
            streams = (0..20u64)
                .map(|n| {
                    let bytes = 262_144 << (n % 5);
                    let half = HalfPlan { bytes, ..HalfPlan::default() };
                    let halves = [half, HalfPlan::default()];
                    StreamPlan {
                        at_ms: 2_400.0 + 1_500.0 * n as f64,
                        halves,
                        ..StreamPlan::default()
                    }
                })
                .collect();
            // Warm lanes: something was sent before.
            streams.insert(0, bulk(1.0, 60.0));
        }
        "echo" => streams = (0..200).map(|n| echo(500.0 + 30.0 * f64::from(n))).collect(),
        "redundant" => {
            streams = (0..200).map(|n| echo(500.0 + 30.0 * f64::from(n))).collect();
            streams.iter_mut().for_each(|stream| stream.redundant = true);
        }
        "backup" | "metered" => streams = vec![bulk(6.0, 50.0)],
        "capped" => streams = vec![bulk(6.0, 60.0)],
        "echo-bulk" => streams.extend((0..200).map(|n| echo(1_000.0 + 23.0 * f64::from(n)))),
        _ => {}
    }
    let faults_end_ms = if faults.is_empty() { 0.0 } else { 20_000.0 };
    Some(Options {
        name: name.to_owned(),
        paths,
        streams,
        faults,
        faults_end_ms,
        ..Options::default()
    })
}

/// The same options with another scheduler at both ends.
#[must_use]
pub fn with_scheduler(mut options: Options, scheduler: SchedulerKind) -> Options {
    for session in &mut options.sessions {
        session.scheduler = scheduler.to_string();
    }
    options
}
