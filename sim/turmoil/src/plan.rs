//! What a run is made of, drawn from its seed: each run leaves out much, so that what is left meets
//! often (swarm testing; Groce et al., ISSTA 2012). Times are in milliseconds of virtual time,
//! sizes in bytes.

use imux_sim::options::{HalfPlan, SessionOptions, StreamPlan};
use imux_sim::rng::Rng;
use serde::Serialize;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub seed: u64,
    pub paths: Vec<PathPlan>,
    /// Client's, server's.
    pub sessions: [SessionOptions; 2],
    pub streams: Vec<StreamPlan>,
    pub faults: Vec<Fault>,
    /// From here on nothing is broken any more: all has to be delivered, and every lane to come
    /// back.
    pub faults_end_ms: u64,
    /// The client closes its session while the server is sending as fast as it can; else when all
    /// is quiet.
    pub close_amid_data: bool,
}

/// One path: a relay between the client and the server, and the lanes over it.
#[derive(Clone, Debug, Serialize)]
pub struct PathPlan {
    /// One way: from the client to the relay, from there to the server.
    pub latency_ms: [u64; 2],
    /// Added by chance to each segment.
    pub jitter_ms: u64,
    /// What the relay lets through each way.
    pub mbit: f64,
    /// The relay passes on as much at once.
    pub piece_bytes: usize,
    /// What a socket takes at once.
    pub segment_bytes: usize,
    pub lanes: u16,
}

/// Something that goes wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    pub at_ms: u64,
    pub kind: FaultKind,
}

/// A direction is 0 towards the server, 1 back.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum FaultKind {
    /// The network holds everything back between the client and the relay (leg 0), or the relay and
    /// the server (1).
    Hold { path: usize, leg: usize, for_ms: u64 },
    /// It does so everywhere.
    Outage { for_ms: u64 },
    /// The relay dies and comes back; `silent`: nobody hears of it before.
    Crash { path: usize, for_ms: u64, silent: bool },
    /// The relay resets its connections.
    Reset { path: usize },
    /// The relay closes its connections, in the middle of whatever they carry.
    Cut { path: usize },
    /// The relay ends one direction of its connections.
    HalfClose { path: usize, direction: usize },
    /// Its connections swallow one direction from now on, for good; or both.
    Swallow { path: usize, directions: [bool; 2] },
    /// The relay stops reading one direction.
    Stall { path: usize, direction: usize, for_ms: u64 },
    /// The relay flips a bit of what each connection carries next.
    Corrupt { path: usize, direction: usize },
    /// The relay's rate from now on.
    Rate { path: usize, mbit: f64 },
    /// The latency of each leg from now on.
    Latency { path: usize, ms: u64 },
    /// The server dies and comes back with the same key and no memory; `silent` as above.
    Restart { for_ms: u64, silent: bool },
}

impl FaultKind {
    /// For counts and traces.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hold { .. } => "fault: hold",
            Self::Outage { .. } => "fault: outage",
            Self::Crash { silent: false, .. } => "fault: relay crash",
            Self::Crash { silent: true, .. } => "fault: relay crash, unheard",
            Self::Reset { .. } => "fault: reset",
            Self::Cut { .. } => "fault: cut",
            Self::HalfClose { .. } => "fault: half-close",
            Self::Swallow { directions: [true, true], .. } => "fault: silent",
            Self::Swallow { .. } => "fault: one way silent",
            Self::Stall { .. } => "fault: stall",
            Self::Corrupt { .. } => "fault: corrupt",
            Self::Rate { .. } => "fault: rate",
            Self::Latency { .. } => "fault: latency",
            Self::Restart { silent: false, .. } => "fault: server restart",
            Self::Restart { silent: true, .. } => "fault: server restart, unheard",
        }
    }
}

impl Plan {
    /// The run of `seed`.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x7475_726d_6f69_6c00);
        let paths = draw_paths(&mut rng);
        let sessions = draw_sessions(&mut rng);
        let faults_end_ms = rng.log_range(500.0, 12_000.0) as u64;
        let faults = draw_faults(&mut rng, paths.len() as u64, faults_end_ms);
        let streams = draw_streams(&mut rng, &paths, &sessions, faults_end_ms);
        let close_amid_data = rng.chance(0.5);
        Self { seed, paths, sessions, streams, faults, faults_end_ms, close_amid_data }
    }

    /// Whether a session may be lost for want of a lane.
    #[must_use]
    pub fn grace_is_short(&self) -> bool {
        self.sessions.iter().any(|session| session.grace_ms < 60_000)
    }

    /// How many lanes there are when all is well.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.paths.iter().map(|path| usize::from(path.lanes)).sum()
    }

    /// Whether a second run does the same to the last event. A host that dies lets go of its
    /// sockets in an order that follows from tokio's task numbers, which go on from run to run.
    #[must_use]
    pub fn repeats(&self) -> bool {
        let kills = |kind| matches!(kind, FaultKind::Crash { .. } | FaultKind::Restart { .. });
        !self.faults.iter().any(|fault| kills(fault.kind))
    }

    /// How long after the faults a lane may still seem alive that is dead: what was on its way has
    /// come by then, and who heard nothing has asked.
    #[must_use]
    pub fn doubt_ms(&self) -> u64 {
        let silences = |fault: &Fault| {
            matches!(
                fault.kind,
                FaultKind::Swallow { .. }
                    | FaultKind::HalfClose { .. }
                    | FaultKind::Crash { silent: true, .. }
                    | FaultKind::Restart { silent: true, .. }
            )
        };
        if !self.faults.iter().any(silences) {
            return 2_000;
        }
        let keepalive = self.sessions.iter().map(|session| session.keepalive_ms).max();
        keepalive.unwrap_or(0) + 6_000
    }

    /// When the run has to be over, in milliseconds: after the faults everything travels once more,
    /// by the slowest path, at half its rate and in the smallest windows; and some lanes are
    /// just being dialled in vain.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        let slowest = self.paths.iter().map(|path| path.mbit).fold(f64::INFINITY, f64::min);
        let rtt = self.paths.iter().map(|path| 2 * path.latency_ms.iter().sum::<u64>()).max();
        let rtt = rtt.unwrap_or(0) as f64 + 50.0;
        let window = self.sessions.iter().map(|s| s.stream_window.min(s.session_window)).min();
        let halves = || self.streams.iter().flat_map(|stream| &stream.halves);
        let bytes: u64 = halves().map(|half| half.bytes).sum();
        let travel = bytes as f64 * 8.0 / (slowest * 1e3) * 2.0;
        let rounds = bytes as f64 / window.unwrap_or(1).max(1) as f64 * rtt * 4.0;
        let paced = halves().map(pace_ms).fold(0.0, f64::max);
        let begun = self.streams.iter().map(|stream| stream.at_ms).fold(0.0, f64::max);
        self.faults_end_ms.max(begun as u64) + (travel + rounds + paced) as u64 + 80_000
    }
}

/// How long a half takes by its users' own doing.
fn pace_ms(half: &HalfPlan) -> f64 {
    let of = |piece: u64, every: f64| {
        if piece == 0 { 0.0 } else { half.bytes as f64 / piece as f64 * (every + 1.0) }
    };
    of(half.write_bytes, half.write_every_ms) + of(half.read_bytes, half.read_every_ms)
}

fn draw_paths(rng: &mut Rng) -> Vec<PathPlan> {
    let count = *rng.pick(&[1, 1, 2, 2, 2, 3, 4]);
    let many = rng.chance(0.2);
    let jitter = rng.chance(0.3);
    (0..count)
        .map(|_| PathPlan {
            latency_ms: [rng.log_range(1.0, 80.0) as u64, rng.log_range(1.0, 80.0) as u64],
            jitter_ms: if jitter { rng.range(1..=20) } else { 0 },
            mbit: rng.log_range(1.0, 400.0),
            piece_bytes: rng.log_range(500.0, 65_536.0) as usize,
            segment_bytes: rng.log_range(1_000.0, 65_536.0) as usize,
            lanes: if many { rng.range(1..=4) as u16 } else { 1 },
        })
        .collect()
}

fn draw_sessions(rng: &mut Rng) -> [SessionOptions; 2] {
    let scheduler = *rng.pick(&["imux", "imux", "imux", "imux", "roundrobin", "minrtt", "ecf"]);
    let grace_ms = if rng.chance(0.15) { rng.range(300..=4_000) } else { 120_000 };
    [0, 1].map(|_| {
        let small = rng.chance(0.3);
        let stream_window =
            if small { rng.log_range(2_000.0, 100_000.0) as u64 } else { 512 << 10 };
        let session_window =
            if rng.chance(0.3) { rng.log_range(4_000.0, 500_000.0) as u64 } else { 128 << 20 };
        SessionOptions {
            stream_window,
            stream_window_max: stream_window * rng.range(1..=16),
            session_window,
            send_buffer_max: rng.log_range(1_000.0, 1e7) as u64,
            streams_max: if rng.chance(0.3) { rng.range(2..=5) } else { 1_024 },
            grace_ms,
            keepalive_ms: if rng.chance(0.8) { rng.range(200..=3_000) } else { 15_000 },
            scheduler: scheduler.to_owned(),
            ..SessionOptions::default()
        }
    })
}

fn draw_streams(
    rng: &mut Rng,
    paths: &[PathPlan],
    sessions: &[SessionOptions; 2],
    end_ms: u64,
) -> Vec<StreamPlan> {
    let slowest = paths.iter().map(|path| path.mbit).fold(f64::INFINITY, f64::min);
    let window = sessions.iter().map(|s| s.stream_window.min(s.session_window)).min().unwrap_or(1);
    // At most some seconds of the slowest path, so that a run stays short.
    let bytes_max = (window as f64 * 40.0).min(slowest * 500_000.0).clamp(1_000.0, 4e6);
    let count = rng.log_range(1.0, 10.0) as usize;
    let resets = if rng.chance(0.4) { 0.3 } else { 0.0 };
    let stops = if rng.chance(0.4) { 0.3 } else { 0.0 };
    let paced = if rng.chance(0.5) { 0.4 } else { 0.0 };
    let half = |rng: &mut Rng| {
        let bytes = match rng.range(0..=9) {
            0 => 0,
            1..=3 => rng.log_range(1.0, 4_000.0) as u64,
            _ => rng.log_range(100.0, bytes_max) as u64,
        };
        let slow_writer = rng.chance(paced);
        let slow_reader = rng.chance(paced);
        HalfPlan {
            bytes,
            write_bytes: if slow_writer { (bytes / rng.range(1..=40)).max(1) } else { 0 },
            write_every_ms: if slow_writer { rng.log_range(1.0, 200.0) } else { 0.0 },
            reset_at: rng.chance(resets).then(|| rng.range(0..=bytes)),
            read_bytes: if slow_reader { (bytes / rng.range(1..=40)).max(1) } else { 0 },
            read_every_ms: if slow_reader { rng.log_range(1.0, 200.0) } else { 0.0 },
            stop_at: rng.chance(stops).then(|| rng.range(0..=bytes)),
            ..HalfPlan::default()
        }
    };
    (0..count)
        .map(|_| {
            let halves = [half(rng), half(rng)];
            let at_ms = (rng.unit() * rng.unit() * end_ms as f64).floor();
            let from_server = rng.chance(0.4);
            StreamPlan { at_ms, from_server, halves, redundant: rng.chance(0.1) }
        })
        .collect()
}

fn draw_faults(rng: &mut Rng, paths: u64, end_ms: u64) -> Vec<Fault> {
    if rng.chance(0.1) {
        return Vec::new();
    }
    let kinds: Vec<u64> = (0..12).filter(|_| rng.chance(0.35)).collect();
    if kinds.is_empty() {
        return Vec::new();
    }
    let count = rng.log_range(1.0, 12.0) as usize;
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| {
            let at_ms = (rng.unit() * end_ms as f64) as u64;
            Fault { at_ms, kind: draw_fault(rng, &kinds, paths) }
        })
        .collect();
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

fn draw_fault(rng: &mut Rng, kinds: &[u64], paths: u64) -> FaultKind {
    let path = rng.range(0..=paths - 1) as usize;
    let direction = rng.range(0..=1) as usize;
    let for_ms = rng.log_range(20.0, 6_000.0) as u64;
    match *rng.pick(kinds) {
        0 => FaultKind::Hold { path, leg: direction, for_ms },
        1 => FaultKind::Outage { for_ms },
        2 => FaultKind::Crash { path, for_ms, silent: rng.chance(0.5) },
        3 => FaultKind::Reset { path },
        4 => FaultKind::Cut { path },
        5 => FaultKind::HalfClose { path, direction },
        6 => {
            let one = [direction == 0, direction == 1];
            let directions = if rng.chance(0.5) { [true; 2] } else { one };
            FaultKind::Swallow { path, directions }
        }
        7 => FaultKind::Stall { path, direction, for_ms },
        8 => FaultKind::Corrupt { path, direction },
        9 => FaultKind::Rate { path, mbit: rng.log_range(1.0, 400.0) },
        10 => FaultKind::Latency { path, ms: rng.log_range(1.0, 300.0) as u64 },
        _ => FaultKind::Restart { for_ms, silent: rng.chance(0.5) },
    }
}
