//! Options of a run, drawn from its seed: each run leaves out much, so that the rest often
//! interacts (swarm testing; Groce et al., ISSTA 2012).

use imux::proto::SchedulerKind;

use crate::net::MS;
use crate::options::{
    AllowanceOptions, Congestion, DriverOptions, Ending, Fault, FaultKind, FlowPlan, HalfPlan,
    Options, PathOptions, SessionOptions, StreamPlan,
};
use crate::oracle::lanes::SLOW_MBIT;
use crate::oracle::liveness;
use crate::rng::Rng;

/// The options of swarm run `seed`.
pub fn draw(seed: u64) -> Options {
    let mut rng = Rng::new(seed ^ 0x7377_6172_6d00_0000);
    let scattered = rng.chance(0.1);
    let (paths, sessions) = if scattered {
        draw_scattered(&mut rng)
    } else {
        (draw_paths(&mut rng), draw_sessions(&mut rng))
    };
    let faults_end_ms = rng.log_range(100.0, 8_000.0);
    let mut paths = paths;
    // A separate random stream: the rest of a seed's meaning does not change with it.
    let mut policy = Rng::new(seed ^ 0x706f_6c69_6379_0000);
    let alike = !scattered && policy.chance(0.35) && draw_policies(&mut policy, &mut paths);
    let usable = paths.iter().map(|p| p.usable_mbit(0).min(p.usable_mbit(1)));
    let slowest = usable.fold(f64::INFINITY, f64::min);
    let mut options = Options {
        name: format!("swarm {seed}"),
        faults: draw_faults(&mut rng, &paths, faults_end_ms),
        streams: draw_streams(&mut rng, &sessions, faults_end_ms, slowest),
        flows: Vec::new(),
        endings: draw_endings(&mut rng, faults_end_ms),
        driver: draw_driver(&mut rng),
        paths,
        sessions,
        faults_end_ms,
        stop_ms: 0.0,
    };
    if !scattered && policy.chance(if alike { 0.7 } else { 0.2 }) {
        options.streams.iter_mut().for_each(|stream| stream.redundant = policy.chance(0.6));
    }
    // Likewise.
    let mut resets = Rng::new(seed ^ 0x7265_7365_7473_0000);
    for half in options.streams.iter_mut().flat_map(|stream| &mut stream.halves) {
        half.in_order = half.reset_at.is_some() && resets.chance(0.5);
    }
    // Likewise.
    let mut narrow = Rng::new(seed ^ 0x6e61_7272_6f77_0000);
    if narrow.chance(0.06) {
        draw_narrow(&mut narrow, &mut options);
    }
    // Likewise.
    let mut paused = Rng::new(seed ^ 0x7061_7573_6564_0000);
    if !scattered && paused.chance(0.06) {
        draw_paused(&mut paused, &mut options, slowest);
    }
    // Likewise.
    let mut slow = Rng::new(seed ^ 0x736c_6f77_0000_0000);
    if !scattered && slow.chance(0.06) {
        draw_slow(&mut slow, &mut options);
    }
    // Likewise.
    let mut express = Rng::new(seed ^ 0x6578_7072_6573_7300);
    if !scattered && express.chance(0.4) {
        draw_express(&mut express, &mut options.paths);
    }
    // Likewise.
    let mut memory = Rng::new(seed ^ 0x6d65_6d6f_7279_0000);
    if memory.chance(0.25) {
        for session in &mut options.sessions {
            session.allowances = draw_allowances(&mut memory, faults_end_ms);
        }
    }
    // Likewise.
    if seed % 10 == SEEDS_WITH_FLOWS {
        let mut flows = Rng::new(seed ^ 0x666c_6f77_7300_0000);
        options.flows =
            (0..flows.range(1..=5)).map(|_| draw_flow(&mut flows, options.faults_end_ms)).collect();
    }
    options
}

/// Every tenth seed has flows.
const SEEDS_WITH_FLOWS: u64 = 7;

/// A voice, a game, a tunnel in the tunnel, or a flood.
fn draw_flow(rng: &mut Rng, end_ms: f64) -> FlowPlan {
    if rng.chance(0.05) {
        return draw_flood(rng, end_ms);
    }
    let count = rng.log_range(1.0, 400.0) as u64;
    let at_ms = rng.unit() * end_ms;
    let every_ms = rng.log_range(0.02, 60.0).min(end_ms / count as f64);
    let most = *rng.pick(&[100.0, 1_500.0, 1_500.0, 5_000.0, 65_507.0]);
    let [one, other] = [(); 2].map(|()| rng.log_range(8.0, most) as u64);
    FlowPlan {
        at_ms,
        from_server: rng.chance(0.4),
        redundant: rng.chance(0.3),
        deadline_ms: *rng.pick(&[1, 20, 200, 200, 200, 1_000, 20_000]),
        idle_ms: if rng.chance(0.1) { rng.log_range(1.0, 300.0) } else { 0.0 },
        count,
        every_ms,
        bytes: [one.min(other), one.max(other)],
        echo: rng.chance(0.5),
    }
}

/// Far more at once than flows may keep, for long.
fn draw_flood(rng: &mut Rng, end_ms: f64) -> FlowPlan {
    FlowPlan {
        at_ms: rng.unit() * end_ms,
        from_server: rng.chance(0.4),
        redundant: rng.chance(0.3),
        deadline_ms: *rng.pick(&[200, 1_000, 20_000]),
        idle_ms: 0.0,
        count: rng.range(250..=400),
        every_ms: rng.log_range(0.005, 0.1),
        bytes: [40_000, 65_507],
        echo: rng.chance(0.2),
    }
}

/// From a session's minimum upwards; enough in the end.
fn draw_allowances(rng: &mut Rng, end_ms: f64) -> Vec<AllowanceOptions> {
    let little = rng.log_range(16e3, 8e6);
    let from_the_beginning = rng.chance(0.6);
    let mut allowances: Vec<AllowanceOptions> = (0..rng.range(1..=8))
        .map(|nth| AllowanceOptions {
            at_ms: if nth == 0 && from_the_beginning { 0.0 } else { rng.unit() * end_ms },
            receive: rng.log_range(8e3, little) as u64,
            send: rng.log_range(8e3, little) as u64,
        })
        .collect();
    allowances.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
    let [receive, send] = [0, 1].map(|_| rng.log_range(1e6, 3e8) as u64);
    allowances.push(AllowanceOptions { at_ms: end_ms, receive, send });
    allowances
}

/// Many streams, only one or two at once, on lanes that fail all the time: no frame that raises the
/// stream limit may be lost.
fn draw_narrow(rng: &mut Rng, options: &mut Options) {
    let streams_max = rng.range(1..=2);
    options.sessions.iter_mut().for_each(|session| session.streams_max = streams_max);
    let (end_ms, from_server) = (options.faults_end_ms, rng.chance(0.5));
    options.streams = (0..rng.range(20..=60))
        .map(|_| {
            let half = HalfPlan { bytes: rng.range(0..=200), ..HalfPlan::default() };
            let halves = [half, HalfPlan::default()];
            StreamPlan { at_ms: rng.unit() * end_ms, from_server, halves, redundant: false }
        })
        .collect();
    let paths = options.paths.len() as u64;
    let resets = (0..rng.range(20..=60)).map(|_| {
        let path = rng.range(0..=paths - 1) as usize;
        let kind = match rng.chance(0.7) {
            true => FaultKind::Reset,
            false => FaultKind::ResetOneEnd { server: rng.chance(0.5), told: true },
        };
        Fault { at_ms: rng.unit() * end_ms, path, kind }
    });
    options.faults.extend(resets);
    options.faults.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
}

/// Paused readers, with more data than the session has room for, beside a few streams whose readers
/// read: these must finish before the others read on, and nothing breaks meanwhile.
fn draw_paused(rng: &mut Rng, options: &mut Options, slowest_mbit: f64) {
    let most = (slowest_mbit * 250_000.0).clamp(40_000.0, 4e6);
    let session_window = rng.log_range(30_000.0, most) as u64;
    for session in &mut options.sessions {
        session.session_window = session_window;
        session.session_window_initial = session_window;
        session.stream_window = (session_window as f64 / rng.log_range(1.0, 60.0)) as u64;
        session.stream_window_max = session.stream_window * rng.range(1..=16);
        session.streams_max = 1024;
    }
    (options.faults, options.endings) = (Vec::new(), Vec::new());
    let window = options.sessions.iter().map(|session| session.stream_window).max().unwrap_or(1);
    let (count, each) = (rng.range(2..=120), (window * 2).min(3 * session_window / 4));
    let filling = HalfPlan {
        bytes: each.min(4 * session_window / count),
        unread: true,
        ..HalfPlan::default()
    };
    let held = (0..count).map(|_| {
        let both = [filling.clone(), HalfPlan { unread: true, ..HalfPlan::default() }];
        let [up, down] = both;
        let halves = if rng.chance(0.5) { [up, down] } else { [down, up] };
        StreamPlan {
            at_ms: 20.0 + rng.unit() * 500.0,
            from_server: rng.chance(0.3),
            halves,
            redundant: false,
        }
    });
    let mut streams: Vec<_> = held.collect();
    // They open first, and are still at work when all others are held.
    let moving = (0..rng.range(1..=3)).map(|_| {
        let bytes = rng.log_range(1_000.0, most) as u64;
        let write_bytes = bytes / rng.range(10..=40) + 1;
        let half = HalfPlan { bytes, write_bytes, write_every_ms: 50.0, ..HalfPlan::default() };
        let echo = if rng.chance(0.5) { half.clone() } else { HalfPlan::default() };
        StreamPlan {
            at_ms: 0.0,
            from_server: rng.chance(0.3),
            halves: [half, echo],
            redundant: false,
        }
    });
    streams.extend(moving);
    options.streams = streams;
    options.faults_end_ms = (1_000 + liveness::bound(options) / MS) as f64;
}

/// Slow links that always carry: none of their lanes may be given up, however long their queues.
fn draw_slow(rng: &mut Rng, options: &mut Options) {
    let control = *rng.pick(&[Congestion::Pipe, Congestion::Bbr, Congestion::Cubic]);
    let path = |rng: &mut Rng| PathOptions {
        mbit: [(); 2].map(|()| rng.log_range(0.064, SLOW_MBIT)),
        delay_ms: [rng.log_range(0.5, 150.0); 2],
        queue_bytes: rng.log_range(8_000.0, 128_000.0),
        lanes: rng.range(1..=4) as usize,
        control,
        ..PathOptions::default()
    };
    options.paths = (0..*rng.pick(&[1, 1, 1, 2])).map(|_| path(rng)).collect();
    (options.faults, options.endings) = (Vec::new(), Vec::new());
    options.sessions = [(); 2].map(|()| SessionOptions::default());
    (options.driver.metrics, options.driver.unsent_bytes) = (true, 0);
    options.faults_end_ms = 20_000.0;
    let bulk = HalfPlan { bytes: rng.log_range(20_000.0, 400_000.0) as u64, ..HalfPlan::default() };
    let small = (0..rng.range(1..=20)).map(|_| {
        let half = HalfPlan { bytes: rng.range(1..=2_000), ..HalfPlan::default() };
        let halves = [half.clone(), half];
        StreamPlan { at_ms: rng.unit() * 20_000.0, from_server: false, halves, redundant: false }
    });
    let mut streams: Vec<_> = small.collect();
    let halves = match rng.range(0..=2) {
        0 => [bulk, HalfPlan::default()],
        1 => [HalfPlan::default(), bulk],
        _ => [bulk.clone(), bulk],
    };
    streams.push(StreamPlan { at_ms: 0.0, from_server: false, halves, redundant: false });
    options.streams = streams;
}

/// Tiers, caps, or both. `true`: no tier is better than the others, and none is primary.
fn draw_policies(rng: &mut Rng, paths: &mut [PathOptions]) -> bool {
    let tiers = rng.chance(0.7);
    let caps = !tiers || rng.chance(0.5);
    let alike = tiers && rng.chance(0.2);
    let tier_of_all = *rng.pick(&["backup", "metered", "metered"]);
    for path in paths {
        if tiers {
            let tier = *rng.pick(&["primary", "primary", "backup", "metered"]);
            path.tier = (if alike { tier_of_all } else { tier }).to_owned();
        }
        if caps && rng.chance(0.6) {
            path.cap_mbit = rng.log_range(0.1, path.mbit[0] * 1.5).max(0.064);
        }
    }
    alike
}

/// Express lanes beside a path's others, or nothing but them.
fn draw_express(rng: &mut Rng, paths: &mut [PathOptions]) {
    let everywhere = rng.chance(0.6);
    for path in paths.iter_mut().filter(|path| path.tier == "primary") {
        path.express = everywhere || rng.chance(0.5);
        if rng.chance(0.1) {
            "express".clone_into(&mut path.tier);
        }
    }
}

fn draw_paths(rng: &mut Rng) -> Vec<PathOptions> {
    let count = *rng.pick(&[1, 1, 2, 2, 2, 3, 4, 6]);
    let symmetric = rng.chance(0.6);
    let control = *rng.pick(&[Congestion::Pipe, Congestion::Bbr, Congestion::Cubic]);
    let losses = rng.chance(0.3);
    let many = rng.chance(0.15);
    (0..count)
        .map(|_| {
            let mbit = rng.log_range(0.2, 300.0);
            let delay_ms = rng.log_range(0.05, 150.0);
            let factor = |rng: &mut Rng| if symmetric { 1.0 } else { rng.log_range(0.1, 1.0) };
            let pipe_bytes = mbit * 250.0 * delay_ms;
            PathOptions {
                mbit: [mbit, (mbit * factor(rng)).max(0.1)],
                delay_ms: [delay_ms, delay_ms / factor(rng).max(0.3)],
                queue_bytes: (pipe_bytes * rng.log_range(0.5, 6.0)).max(15_000.0),
                loss: if losses { rng.log_range(0.0005, 0.03) } else { 0.0 },
                lanes: if many { rng.range(1..=6) as usize } else { 1 },
                control,
                ..PathOptions::default()
            }
        })
        .collect()
}

/// Several unequal lanes that may send much twice, with nothing else to slow them: the same bytes
/// travel in frames of different sizes and arrive in any order.
fn draw_scattered(rng: &mut Rng) -> (Vec<PathOptions>, [SessionOptions; 2]) {
    let paths = (0..rng.range(3..=5)).map(|_| {
        let mbit = rng.log_range(1.0, 100.0);
        let delay_ms = rng.log_range(1.0, 100.0);
        PathOptions {
            mbit: [mbit; 2],
            delay_ms: [delay_ms; 2],
            queue_bytes: (mbit * 250.0 * delay_ms).max(30_000.0),
            loss: rng.log_range(0.001, 0.05),
            ..PathOptions::default()
        }
    });
    let session = SessionOptions { duplicate_share: 1.0, ..SessionOptions::default() };
    (paths.collect(), [session.clone(), session])
}

fn draw_sessions(rng: &mut Rng) -> [SessionOptions; 2] {
    let scheduler = *rng.pick(&[
        SchedulerKind::Imux,
        SchedulerKind::Imux,
        SchedulerKind::Imux,
        SchedulerKind::RoundRobin,
        SchedulerKind::MinRtt,
        SchedulerKind::Blest,
        SchedulerKind::Ecf,
    ]);
    let grace_ms = if rng.chance(0.1) { rng.range(200..=3_000) } else { 120_000 };
    [0, 1].map(|_| {
        let small = rng.chance(0.4);
        let stream_window = if small { rng.log_range(1.0, 60_000.0) as u64 } else { 1024 * 1024 };
        let session_window =
            if rng.chance(0.4) { rng.log_range(1.0, 200_000.0) as u64 } else { 128 * 1024 * 1024 };
        SessionOptions {
            stream_window: stream_window.max(1),
            stream_window_max: stream_window.max(1) * rng.range(1..=16),
            session_window: session_window.max(1),
            session_window_initial: session_window.max(1),
            send_buffer_max: rng.log_range(1.0, 1e7) as u64,
            streams_max: if rng.chance(0.4) { rng.range(1..=6) } else { 1024 },
            grace_ms,
            keepalive_ms: if rng.chance(0.3) { rng.range(100..=2_000) } else { 15_000 },
            scheduler: scheduler.to_string(),
            duplicate_share: *rng.pick(&[0.02, 0.02, 0.0, 0.5]),
            allowances: Vec::new(),
        }
    })
}

fn draw_driver(rng: &mut Rng) -> DriverOptions {
    let low = if rng.chance(0.2) { 1 } else { rng.log_range(1.0, 65_536.0) as u64 };
    let high = low.max(rng.log_range(1.0, 65_536.0) as u64);
    DriverOptions {
        // One byte at a time is worth trying but slow: rarely, and not for whole runs.
        read_bytes: if rng.chance(0.05) { [1, high.min(64)] } else { [low, high.max(2_048)] },
        unsent_bytes: if rng.chance(0.5) { 0 } else { rng.log_range(1.0, 400_000.0) as u64 },
        wake_us_max: if rng.chance(0.3) { 0 } else { rng.log_range(1.0, 20_000.0) as u64 },
        timer_us_max: if rng.chance(0.3) { 0 } else { rng.log_range(1.0, 20_000.0) as u64 },
        metrics: rng.chance(0.4),
        // With every pull: what changes more often is seen in more states.
        metrics_every_ms: 0.0,
        redial_ms: rng.log_range(1.0, 500.0),
    }
}

fn draw_streams(
    rng: &mut Rng,
    sessions: &[SessionOptions; 2],
    end_ms: f64,
    slowest_mbit: f64,
) -> Vec<StreamPlan> {
    // Small windows and slow paths make bytes expensive: fewer of them keep a run short.
    let window = sessions.iter().map(|s| s.stream_window.min(s.session_window)).min().unwrap_or(1);
    let most = if rng.chance(0.05) { 6e6 } else { 600_000.0 };
    let bytes_max = (window as f64 * 60.0).min(slowest_mbit * 250_000.0).clamp(50.0, most);
    // Many short ones, or a few long ones.
    let churn = rng.chance(0.2);
    let count = if churn { rng.range(10..=50) } else { rng.log_range(1.0, 12.0) as u64 };
    let bytes_max = if churn { 200.0 } else { bytes_max };
    let resets = if rng.chance(0.4) { 0.3 } else { 0.0 };
    let stops = if rng.chance(0.4) { 0.3 } else { 0.0 };
    let unread = if rng.chance(0.25) { 0.4 } else { 0.0 };
    let paced = if rng.chance(0.4) { 0.4 } else { 0.0 };
    let half = |rng: &mut Rng| {
        let bytes = match rng.range(0..=9) {
            0 => 0,
            1..=4 => rng.log_range(1.0, bytes_max.min(4_000.0)) as u64,
            _ => rng.log_range(20.0, bytes_max) as u64,
        };
        let slow_writer = rng.chance(paced);
        let slow_reader = rng.chance(paced);
        HalfPlan {
            bytes,
            write_bytes: if slow_writer { (bytes / rng.range(1..=20)).max(1) } else { 0 },
            write_every_ms: if slow_writer { rng.log_range(0.1, 60.0) } else { 0.0 },
            until_ms: 0.0,
            after_bytes: 0,
            reset_at: rng.chance(resets).then(|| rng.range(0..=bytes)),
            in_order: false,
            read_bytes: if slow_reader { (bytes / rng.range(1..=20)).max(1) } else { 0 },
            read_every_ms: if slow_reader { rng.log_range(0.1, 60.0) } else { 0.0 },
            stop_at: rng.chance(stops).then(|| rng.range(0..=bytes)),
            unread: rng.chance(unread),
        }
    };
    (0..count)
        .map(|_| {
            let halves = [half(rng), half(rng)];
            StreamPlan {
                at_ms: rng.unit() * end_ms,
                from_server: rng.chance(0.4),
                halves,
                redundant: false,
            }
        })
        .collect()
}

fn draw_faults(rng: &mut Rng, paths: &[PathOptions], end_ms: f64) -> Vec<Fault> {
    if rng.chance(0.15) {
        return Vec::new();
    }
    let kinds: Vec<u64> = (0..10).filter(|_| rng.chance(0.4)).collect();
    if kinds.is_empty() {
        return Vec::new();
    }
    let count = rng.log_range(1.0, 16.0) as usize;
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let path = rng.range(0..=paths.len() as u64 - 1) as usize;
            let kind = match *rng.pick(&kinds) {
                0 => FaultKind::Reset,
                1 => FaultKind::ResetOneEnd { server: rng.chance(0.5), told: rng.chance(0.7) },
                2 => FaultKind::HalfClose { server: rng.chance(0.5) },
                3 => FaultKind::Silent,
                4 => FaultKind::OneWay { to_server: rng.chance(0.5) },
                5 => FaultKind::Down { for_ms: rng.log_range(5.0, 4_000.0) },
                6 => FaultKind::Outage { for_ms: rng.log_range(5.0, 6_000.0) },
                7 => FaultKind::Rate { mbit: paths[path].mbit[0] * rng.log_range(0.05, 4.0) },
                8 => FaultKind::Delay { delay_ms: rng.log_range(0.1, 300.0) },
                _ => FaultKind::Loss { loss: rng.log_range(0.001, 0.2) },
            };
            Fault { at_ms: rng.unit() * end_ms, path, kind }
        })
        .collect();
    faults.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
    faults
}

fn draw_endings(rng: &mut Rng, end_ms: f64) -> Vec<Ending> {
    let mut endings = Vec::new();
    if rng.chance(0.1) {
        let at_ms = end_ms * rng.unit();
        endings.push(Ending { at_ms, server: rng.chance(0.5), close: false });
    }
    if rng.chance(0.07) {
        let at_ms = end_ms * (0.3 + rng.unit());
        endings.push(Ending { at_ms, server: rng.chance(0.5), close: true });
    }
    endings
}
