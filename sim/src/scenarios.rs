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
    let (paths, faults) = network(name)?;
    let streams = streams(name, &paths);
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

/// The paths of a named scenario, and what happens to them.
fn network(name: &str) -> Option<(Vec<PathOptions>, Vec<Fault>)> {
    let with = |other: PathOptions| vec![path(50.0, 10.0), other];
    let equal = || with(path(50.0, 10.0));
    let twice = |path: PathOptions| vec![path.clone(), path];
    let network = match name {
        "single" => (vec![path(50.0, 10.0)], vec![]),
        "equal" | "echo" | "echo-bulk" => (equal(), vec![]),
        "tail" => (with(path(10.0, 50.0)), vec![]),
        "rate10" => (with(path(5.0, 10.0)), vec![]),
        "rtt10" => (vec![path(50.0, 5.0), path(50.0, 50.0)], vec![]),
        "loss1" | "loss1-cubic" => {
            let control = if name == "loss1" { Congestion::Bbr } else { Congestion::Cubic };
            (twice(PathOptions { loss: 0.01, control, ..path(40.0, 10.0) }), vec![])
        }
        "cubic" => (twice(PathOptions { control: Congestion::Cubic, ..path(50.0, 10.0) }), vec![]),
        "three" => (vec![path(50.0, 10.0), path(10.0, 40.0), path(2.0, 80.0)], vec![]),
        "step-down" => (equal(), vec![fault(2_000.0, 1, FaultKind::Rate { mbit: 5.0 })]),
        "step-up" => {
            let low = PathOptions { queue_bytes: 125_000.0, ..path(5.0, 10.0) };
            (with(low), vec![fault(2_000.0, 1, FaultKind::Rate { mbit: 50.0 })])
        }
        "backup" => {
            let backup = PathOptions { tier: "backup".to_owned(), ..path(50.0, 10.0) };
            (with(backup), vec![fault(2_000.0, 0, FaultKind::Silent)])
        }
        "metered" => {
            let metered = PathOptions { tier: "metered".to_owned(), ..path(50.0, 10.0) };
            (with(metered), vec![fault(2_000.0, 0, FaultKind::Down { for_ms: 3_000.0 })])
        }
        "capped" => (with(PathOptions { cap_mbit: 10.0, ..path(50.0, 10.0) }), vec![]),
        "redundant" => (twice(PathOptions { loss: 0.03, ..path(50.0, 10.0) }), vec![]),
        "silent-death" => (equal(), vec![fault(2_000.0, 1, FaultKind::Silent)]),
        "reset" => (equal(), vec![fault(2_000.0, 1, FaultKind::Reset)]),
        "flap" => {
            let down = || FaultKind::Down { for_ms: 300.0 };
            (equal(), vec![fault(2_000.0, 1, down()), fault(4_000.0, 1, down())])
        }
        "total-outage" => (equal(), vec![fault(2_000.0, 0, FaultKind::Outage { for_ms: 3_000.0 })]),
        "many-lanes" => (twice(PathOptions { lanes: 10, ..path(50.0, 10.0) }), vec![]),
        _ => return None,
    };
    Some(network)
}

/// What is sent in a named scenario: six seconds of bulk, if nothing else is said here.
fn streams(name: &str, paths: &[PathOptions]) -> Vec<StreamPlan> {
    let six = bulk(6.0, paths.iter().map(|path| path.mbit[0]).sum());
    let echoes = || (0..200).map(|n| echo(500.0 + 30.0 * f64::from(n)));
    match name {
        "tail" => {
            let transfer = |n: u64| {
                let half = HalfPlan { bytes: 262_144 << (n % 5), ..HalfPlan::default() };
                let at_ms = 2_400.0 + 1_500.0 * n as f64;
                StreamPlan { at_ms, halves: [half, HalfPlan::default()], ..StreamPlan::default() }
            };
            // Warm lanes: something was sent before.
            [bulk(1.0, 60.0)].into_iter().chain((0..20).map(transfer)).collect()
        }
        "echo" => echoes().collect(),
        "redundant" => echoes().map(|echo| StreamPlan { redundant: true, ..echo }).collect(),
        "backup" | "metered" => vec![bulk(6.0, 50.0)],
        "capped" => vec![bulk(6.0, 60.0)],
        "echo-bulk" => {
            let beside = (0..200).map(|n| echo(1_000.0 + 23.0 * f64::from(n)));
            [six].into_iter().chain(beside).collect()
        }
        _ => vec![six],
    }
}

/// The same options with another scheduler at both ends.
#[must_use]
pub fn with_scheduler(mut options: Options, scheduler: SchedulerKind) -> Options {
    for session in &mut options.sessions {
        session.scheduler = scheduler.to_string();
    }
    options
}
