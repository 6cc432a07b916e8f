//! The run itself: events in order of time, and nothing that is not among them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use imux::proto::{Code, LaneId, LanePolicy, SessionError, SessionStats, Side, StreamId};

use crate::app::{Truth, patience};
use crate::end::{End, Happened};
use crate::net::{Later, Link, MS, Parcel, Pipe, SECOND, TcpAck, Time, ms};
use crate::options::{Ending, FaultKind, Options};
use crate::policy::Policies;
use crate::rng::Rng;
use crate::trace::{Record, Trace};

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;
pub const NAMES: [&str; 2] = ["client", "server"];

/// A socket that does not connect is given up after this.
const CONNECT_TIMEOUT: Time = 5 * SECOND;
/// The longest wait before dialling again.
const REDIAL_MAX: Time = 5 * SECOND;
/// After all is done the sessions are watched for this long: idle ones do next to nothing.
const IDLE_WATCH: Time = 40 * SECOND;
/// More events than any honest run has: something is going round in circles.
const EVENTS_MAX: u64 = 30_000_000;
/// The same within one instant.
const EVENTS_AT_ONCE_MAX: u64 = 200_000;

/// What has come of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The rule that was broken, if one was.
    pub failure: Option<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub hash: u64,
    pub ended_at: Time,
    /// When everything had arrived.
    pub drained_at: Option<Time>,
    pub events: u64,
    pub trace: Trace,
    pub truths: Vec<[Truth; 2]>,
    pub stats: [SessionStats; 2],
    /// By path: payload bytes that arrived, towards the server and back.
    pub path_bytes: Vec<[u64; 2]>,
    /// Delays between arrival and being in order, in nanoseconds, of bytes that waited or not.
    pub order_delays: Vec<Time>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Net { lane: u64, direction: usize, later: Later },
    Wake { end: usize, lane: LaneId },
    Timer { end: usize },
    App { end: usize, stream: StreamId },
    Open { plan: usize },
    Fault { index: usize },
    PathUp { path: usize, down_since: Time },
    Ending { index: usize },
    Dial { slot: usize },
    Connected { slot: usize },
    ConnectTimeout { slot: usize },
    FaultsEnd,
}

/// One direction's network below a lane.
#[derive(Debug)]
struct Wire {
    path: usize,
    slot: usize,
    pipes: [Pipe; 2],
    /// An RST was answered with already.
    refused: bool,
}

/// A place for a lane on a path, dialled again whenever it is empty.
#[derive(Debug)]
struct Slot {
    path: usize,
    lane: Option<u64>,
    dialling: bool,
    failures: u32,
}

#[derive(Debug)]
pub struct World {
    options: Options,
    now: Time,
    base: Instant,
    rng: Rng,
    heap: BinaryHeap<Reverse<(Time, u64, Keyed)>>,
    sequence: u64,
    links: Vec<[Link; 2]>,
    wires: Vec<Wire>,
    slots: Vec<Slot>,
    ends: [End; 2],
    timer_at: [Option<Time>; 2],
    truths: Vec<[Truth; 2]>,
    opened: Vec<bool>,
    faults_end: Time,
    deadline: Time,
    drained_at: Option<Time>,
    idle_timers: [u64; 2],
    failure: Option<String>,
    counts: BTreeMap<&'static str, u64>,
    trace: Trace,
    events: u64,
    at_once: u64,
    path_bytes: Vec<[u64; 2]>,
    policies: Policies,
    later: Vec<(Time, Later)>,
    closed_at: Option<Time>,
}

/// An event that the heap's order never looks at.
#[derive(Debug)]
struct Keyed(Event);

impl PartialEq for Keyed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Keyed {}
impl PartialOrd for Keyed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Keyed {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

/// Runs `options` with `seed`. `observe`: keeps the trace and measures, at some cost.
pub fn run(options: &Options, seed: u64, observe: bool) -> Outcome {
    World::new(options.clone(), seed, observe).run()
}

#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made any other way")]
fn base() -> Instant {
    Instant::now()
}

impl World {
    fn new(options: Options, seed: u64, observe: bool) -> Self {
        let base = base();
        let configs = [0, 1].map(|end| options.sessions[end].config());
        let params = [0, 1].map(|end| configs[end].params());
        let [first, second] = configs;
        let client =
            End::new(Side::Client, first, params[SERVER], seed ^ 1, base, &options, observe);
        let server =
            End::new(Side::Server, second, params[CLIENT], seed ^ 2, base, &options, observe);
        let links =
            options.paths.iter().map(|path| [0, 1].map(|way| Link::new(path, way))).collect();
        let slots = options.paths.iter().enumerate().flat_map(|(path, o)| {
            (0..o.lanes.max(1)).map(move |_| Slot {
                path,
                lane: None,
                dialling: false,
                failures: 0,
            })
        });
        let mut world = Self {
            now: 0,
            base,
            rng: Rng::new(seed),
            heap: BinaryHeap::new(),
            sequence: 0,
            links,
            wires: Vec::new(),
            slots: slots.collect(),
            ends: [client, server],
            timer_at: [None; 2],
            truths: vec![[Truth::default(); 2]; options.streams.len()],
            opened: vec![false; options.streams.len()],
            faults_end: ms(options.faults_end_ms),
            deadline: Time::MAX,
            drained_at: None,
            idle_timers: [0; 2],
            failure: None,
            counts: BTreeMap::new(),
            trace: Trace::new(observe),
            events: 0,
            at_once: 0,
            path_bytes: vec![[0; 2]; options.paths.len()],
            policies: Policies::new(&options.paths),
            later: Vec::new(),
            closed_at: None,
            options,
        };
        world.deadline = world.faults_end + world.bound();
        world.begin();
        world
    }

    fn begin(&mut self) {
        for slot in 0..self.slots.len() {
            self.slots[slot].dialling = true;
            self.at(0, Event::Dial { slot });
        }
        for plan in 0..self.options.streams.len() {
            self.at(ms(self.options.streams[plan].at_ms), Event::Open { plan });
        }
        for index in 0..self.options.faults.len() {
            let at = ms(self.options.faults[index].at_ms).min(self.faults_end);
            self.at(at, Event::Fault { index });
        }
        for index in 0..self.options.endings.len() {
            self.at(ms(self.options.endings[index].at_ms), Event::Ending { index });
        }
        self.at(self.faults_end, Event::FaultsEnd);
    }

    /// How long all that was planned may take once nothing is broken any more.
    fn bound(&self) -> Time {
        let bytes: u64 = self.options.streams.iter().flat_map(|s| &s.halves).map(|h| h.bytes).sum();
        let paths = &self.options.paths;
        let mbit = |way: usize| paths.iter().map(move |path| path.usable_mbit(way));
        let unlike = paths.iter().any(|path| path.policy(0) != LanePolicy::default());
        // Of paths that are not all used at once, the one that is may be the slowest.
        let best = |way: usize| {
            let slowest = mbit(way).fold(f64::INFINITY, f64::min);
            let fastest = mbit(way).fold(0.0, f64::max);
            if unlike { slowest * 125_000.0 } else { fastest * 125_000.0 }
        };
        let rate = best(0).min(best(1)).max(1_000.0);
        let delay = |path: &crate::options::PathOptions| path.delay_ms[0] + path.delay_ms[1];
        let round_trip = ms(paths.iter().map(delay).fold(300.0, f64::max)) + 50 * MS;
        let windows = self.options.sessions.iter();
        let window = windows.map(|s| s.stream_window.min(s.session_window)).min().unwrap_or(1);
        // Credit comes back by quarters of a window, and pieces may be a byte each.
        let turns = 8 * bytes / window.max(1) + 40 * self.options.streams.len() as u64;
        let lazy = self.options.driver.wake_us_max + self.options.driver.timer_us_max;
        let slowest_read = self.options.streams.iter().flat_map(|s| &s.halves);
        let slowest_read = slowest_read.map(|h| ms(h.read_every_ms)).max().unwrap_or(0);
        let patience: Time = self.options.streams.iter().map(patience).sum();
        30 * SECOND
            + (20.0 * bytes as f64 / rate * SECOND as f64) as Time
            + turns * (round_trip + 4_000 * lazy + slowest_read)
            + patience
    }

    fn at(&mut self, time: Time, event: Event) {
        self.sequence += 1;
        self.heap.push(Reverse((time.max(self.now), self.sequence, Keyed(event))));
    }

    fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.now)
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn note(&mut self, what: &'static str, end: &'static str, id: u64, a: u64, b: u64) {
        self.trace.note(Record { t: self.now, what, end, id, a, b });
    }

    #[allow(clippy::needless_pass_by_value, reason = "every caller has just made it")]
    fn fail(&mut self, why: String) {
        if self.failure.is_none() {
            let seconds = self.now as f64 / SECOND as f64;
            self.failure = Some(format!("at {seconds:.6} s: {why}"));
        }
    }

    fn run(mut self) -> Outcome {
        while self.failure.is_none() {
            let Some(Reverse((time, _, Keyed(event)))) = self.heap.pop() else { break };
            self.events += 1;
            self.at_once = if time == self.now { self.at_once + 1 } else { 0 };
            if self.events > EVENTS_MAX || self.at_once > EVENTS_AT_ONCE_MAX {
                self.fail(format!("no end of events; the last is {event:?}"));
                break;
            }
            self.now = time;
            if self.is_over() {
                break;
            }
            self.dispatch(event);
            self.check();
        }
        self.finish()
    }

    fn is_over(&mut self) -> bool {
        let stop = ms(self.options.stop_ms);
        if stop > 0 && self.now >= stop {
            self.now = stop;
            return true;
        }
        if self.ends.iter().all(|end| end.session.is_closed()) {
            return true;
        }
        if let Some(closed_at) = self.closed_at {
            // The other end hears of it, is refused, or gives up after its grace.
            let grace = self.options.sessions.iter().map(|s| s.grace_ms).max().unwrap_or(0);
            if self.now > closed_at.max(self.faults_end) + grace * MS + 60 * SECOND {
                self.fail("one end closed the session long ago, the other does not know".into());
            }
            return self.failure.is_some();
        }
        if let Some(drained_at) = self.drained_at {
            return self.now > drained_at + IDLE_WATCH;
        }
        if self.now > self.faults_end && self.is_drained() {
            self.on_drained();
        } else if self.now > self.deadline {
            let what = self.undone();
            self.fail(format!(
                "not drained {} s after the faults ended: {what}",
                (self.now - self.faults_end) / SECOND
            ));
        }
        self.failure.is_some()
    }

    fn is_drained(&self) -> bool {
        let started = self.options.streams.iter().all(|plan| ms(plan.at_ms) < self.now);
        started
            && self.ends.iter().all(|end| {
                end.to_open.is_empty()
                    && end.apps_open == 0
                    && end.session.stream_count() == 0
                    && end.session.lane_count() > 0
            })
    }

    fn on_drained(&mut self) {
        self.drained_at = Some(self.now);
        self.note("drained", "net", 0, 0, 0);
        for end in [CLIENT, SERVER] {
            let session = &self.ends[end].session;
            let stats = session.stats();
            let credit = stats.credit;
            let theirs = self.ends[1 - end].session.stats().credit;
            if session.memory() + stats.pending_bytes + stats.reorder_bytes != 0 {
                self.fail(format!("{} keeps bytes of no stream: {stats:?}", NAMES[end]));
            } else if credit.sent != theirs.received || theirs.consumed != theirs.received {
                self.fail(format!("credit leaks: {} {credit:?}, peer {theirs:?}", NAMES[end]));
            }
            self.ends[end].idle_since_timers();
        }
    }

    /// What an unfinished run waits for.
    fn undone(&self) -> String {
        let mut parts = Vec::new();
        for (name, end) in NAMES.iter().zip(&self.ends) {
            let apps: Vec<String> = end
                .apps
                .values()
                .filter(|app| !app.is_over())
                .take(4)
                .map(|app| format!("plan {} {:?}/{:?}", app.plan, app.writer, app.reader))
                .collect();
            let stats = end.session.stats();
            parts.push(format!(
                "{name}: {} streams in the session, {} to open, {} lanes, users {apps:?}, pending {}, credit {:?}",
                stats.streams, end.to_open.len(), stats.lanes.len(), stats.pending_bytes, stats.credit,
            ));
        }
        parts.join("; ")
    }

    fn finish(mut self) -> Outcome {
        if self.failure.is_none()
            && let Some(drained_at) = self.drained_at
        {
            let watched = (self.now - drained_at) / MS;
            for end in [CLIENT, SERVER] {
                let fired = self.ends[end].timers_fired - self.idle_timers[end];
                let lanes = self.slots.len() as u64 * 2;
                // Pings of both ends and the acknowledgements for them.
                let keepalive = self.options.sessions.iter().map(|s| s.keepalive_ms).min();
                let intervals = watched / keepalive.unwrap_or(1).max(1) + 2;
                if fired > 8 * lanes * intervals + 200 {
                    self.fail(format!("{} idles with {fired} timers in {watched} ms", NAMES[end]));
                }
            }
        }
        let stats = [0, 1].map(|end: usize| self.ends[end].session.stats());
        let sums = [
            ("resent", stats.iter().any(|s| s.resent_bytes > 0)),
            ("duplicate received", stats.iter().any(|s| s.duplicate_bytes > 0)),
            ("reordered", stats.iter().any(|s| s.reorder_bytes_max > 0)),
        ];
        for (what, happened) in sums {
            if happened {
                self.count(what);
            }
        }
        Outcome {
            failure: self.failure,
            hash: self.trace.hash() ^ self.events,
            counts: self.counts,
            ended_at: self.now,
            drained_at: self.drained_at,
            events: self.events,
            trace: self.trace,
            truths: self.truths,
            stats,
            path_bytes: self.path_bytes,
            order_delays: self.ends.into_iter().flat_map(|end| end.order.delays).collect(),
        }
    }

    fn dispatch(&mut self, event: Event) {
        match event {
            Event::Net { lane, direction, later } => self.on_net(lane, direction, later),
            Event::Wake { end, lane } => {
                self.ends[end].wake(lane);
                self.serve(end);
            }
            Event::Timer { end } => self.on_timer(end),
            Event::App { end, stream } => {
                self.ends[end].todo.insert(stream);
                self.serve(end);
            }
            Event::Open { plan } => {
                let end = usize::from(self.options.streams[plan].from_server);
                self.opened[plan] = true;
                self.ends[end].to_open.push_back(plan);
                self.ends[end].try_open = true;
                self.serve(end);
            }
            Event::Fault { index } => self.on_fault(index),
            Event::PathUp { path, down_since } => self.on_path_up(path, down_since),
            Event::Ending { index } => self.on_ending(self.options.endings[index]),
            Event::Dial { slot } => self.on_dial(slot),
            Event::Connected { slot } => self.on_connected(slot),
            Event::ConnectTimeout { slot } => {
                self.slots[slot].failures += 1;
                self.redial(slot);
            }
            Event::FaultsEnd => self.on_faults_end(),
        }
    }

    fn check(&mut self) {
        for end in [CLIENT, SERVER] {
            let Some(broken) = self.ends[end].check() else { continue };
            self.fail(format!("{}: {broken}", NAMES[end]));
        }
    }
}

// Lanes and the network.
impl World {
    fn on_net(&mut self, lane: u64, direction: usize, later: Later) {
        match later {
            Later::Pump => self.pump(lane, direction),
            Later::Ack(ack) => self.on_tcp_ack(lane, direction, ack),
            Later::Arrive => self.on_arrive(lane, direction),
        }
    }

    fn pump(&mut self, lane: u64, direction: usize) {
        let wire = &mut self.wires[lane as usize];
        let links = &mut self.links[wire.path];
        let back = links[1 - direction].delay;
        let mut later = std::mem::take(&mut self.later);
        wire.pipes[direction].pump(
            self.now,
            &mut links[direction],
            back,
            &mut self.rng,
            &mut later,
        );
        self.schedule(lane, direction, &mut later);
        let end = direction;
        if self.ends[end].wants_to_write(LaneId::new(lane)) {
            self.pull(end, LaneId::new(lane));
        }
    }

    fn schedule(&mut self, lane: u64, direction: usize, later: &mut Vec<(Time, Later)>) {
        for (time, later) in later.drain(..) {
            self.at(time, Event::Net { lane, direction, later });
        }
        self.later = std::mem::take(later);
    }

    fn on_tcp_ack(&mut self, lane: u64, direction: usize, ack: TcpAck) {
        let wire = &mut self.wires[lane as usize];
        let down =
            self.links[wire.path][direction].down || self.links[wire.path][1 - direction].down;
        if wire.pipes[direction].on_ack(self.now, ack, down) {
            self.pump(lane, direction);
        }
    }

    fn on_arrive(&mut self, lane: u64, direction: usize) {
        let end = 1 - direction;
        loop {
            let wire = &mut self.wires[lane as usize];
            let down = self.links[wire.path][direction].down;
            let Some(parcel) = wire.pipes[direction].arrivals(self.now, down) else { return };
            let path = wire.path;
            match parcel {
                Parcel::Bytes(bytes) => {
                    self.path_bytes[path][direction] += bytes.len() as u64;
                    if !self.ends[end].has_lane(LaneId::new(lane)) {
                        self.refuse(end, lane);
                        continue;
                    }
                    self.note("arrive", NAMES[end], lane, bytes.len() as u64, 0);
                    let now = self.now;
                    let at = self.instant();
                    let rng = &mut self.rng;
                    if let Err(error) =
                        self.ends[end].receive(now, at, LaneId::new(lane), &bytes, rng)
                    {
                        self.fail(format!("{}: {error} on lane {lane}", NAMES[end]));
                    }
                    self.serve(end);
                }
                Parcel::Hello if end == SERVER => self.on_join(lane),
                Parcel::Hello => {}
                Parcel::Eof | Parcel::Reset => {
                    self.lane_failed(end, lane, true);
                }
            }
        }
    }

    /// Bytes came for a socket that is gone.
    fn refuse(&mut self, end: usize, lane: u64) {
        if !std::mem::replace(&mut self.wires[lane as usize].refused, true) {
            self.send_reset(end, lane);
        }
    }

    fn send_reset(&mut self, end: usize, lane: u64) {
        let pipe = &mut self.wires[lane as usize].pipes[end];
        pipe.abort();
        pipe.write(Parcel::Reset);
        self.pump(lane, end);
    }

    fn on_join(&mut self, lane: u64) {
        let path = self.wires[lane as usize].path;
        if self.ends[SERVER].session.is_closed() {
            self.count("join refused");
            self.note("refused", "server", lane, 0, 0);
            self.send_reset(SERVER, lane);
            // The client's driver learns that the session is gone.
            self.ends[CLIENT].closed_by_user = true;
            self.ends[CLIENT].session.close(Code::JOIN_REFUSED);
            self.serve(CLIENT);
            return;
        }
        let rtt = self.options.driver.metrics.then(|| self.round_trip(path));
        if !self.ends[SERVER].session.handle_lane_up(self.instant(), LaneId::new(lane), rtt) {
            self.fail(format!("the server does not take lane {lane}"));
            return;
        }
        let policy = self.policies.of(path);
        self.ends[SERVER].session.handle_lane_policy(self.instant(), LaneId::new(lane), policy);
        self.note("lane up", "server", lane, path as u64, 0);
        if self.ends[SERVER].session.lane_count() == 1 && lane > 0 {
            self.count("resumed from no lanes");
        }
        self.ends[SERVER].lane_up(LaneId::new(lane));
        self.wires[lane as usize].pipes[SERVER].write(Parcel::Hello);
        self.pump(lane, SERVER);
        self.serve(SERVER);
    }

    fn round_trip(&self, path: usize) -> Duration {
        Duration::from_nanos(self.links[path].iter().map(|link| link.delay).sum::<Time>() + 100_000)
    }

    /// The socket at `end` has failed or was closed; the driver closes it and tells its session.
    fn lane_failed(&mut self, end: usize, lane: u64, tell_peer: bool) {
        let id = LaneId::new(lane);
        if self.ends[end].has_lane(id) {
            self.note("lane down", NAMES[end], lane, 0, 0);
            let at = self.instant();
            self.ends[end].session.handle_lane_down(at, id, Code::NONE);
            self.drop_lane(end, lane, tell_peer);
            self.serve(end);
        }
    }

    /// The driver's half of a lane's end.
    fn drop_lane(&mut self, end: usize, lane: u64, tell_peer: bool) {
        self.ends[end].forget_lane(LaneId::new(lane));
        if tell_peer {
            self.send_reset(end, lane);
        } else {
            self.wires[lane as usize].pipes[end].abort();
        }
        if end == CLIENT {
            let slot = self.wires[lane as usize].slot;
            self.slots[slot].lane = None;
            self.redial(slot);
        }
        if self.ends[end].session.lane_count() == 0 {
            self.count("no lanes");
        }
    }

    fn redial(&mut self, slot: usize) {
        if self.ends[CLIENT].session.is_closed() {
            return;
        }
        let failures = self.slots[slot].failures.min(10);
        let wait = (ms(self.options.driver.redial_ms) << failures).clamp(MS, REDIAL_MAX);
        let wait = self.rng.range(wait / 2..=wait);
        self.slots[slot].dialling = true;
        self.at(self.now + wait, Event::Dial { slot });
    }

    fn on_dial(&mut self, slot: usize) {
        if self.ends[CLIENT].session.is_closed() {
            return;
        }
        let links = &self.links[self.slots[slot].path];
        let delay: Time = links.iter().map(|link| link.delay).sum();
        if links.iter().any(|link| link.down) {
            self.at(self.now + CONNECT_TIMEOUT.min(2 * SECOND), Event::ConnectTimeout { slot });
        } else {
            // TCP, then TLS.
            self.at(self.now + 2 * delay + MS, Event::Connected { slot });
        }
    }

    fn on_connected(&mut self, slot: usize) {
        let path = self.slots[slot].path;
        if self.ends[CLIENT].session.is_closed() {
            return;
        }
        if self.links[path].iter().any(|link| link.down) {
            self.at(self.now + 2 * SECOND, Event::ConnectTimeout { slot });
            return;
        }
        let lane = self.wires.len() as u64;
        let pipes = [Pipe::new(), Pipe::new()];
        self.wires.push(Wire { path, slot, pipes, refused: false });
        self.slots[slot] = Slot { path, lane: Some(lane), dialling: false, failures: 0 };
        let rtt = Some(self.round_trip(path));
        let id = LaneId::new(lane);
        if !self.ends[CLIENT].session.handle_lane_up(self.instant(), id, rtt) {
            self.fail(format!("the client does not take lane {lane}"));
            return;
        }
        self.ends[CLIENT].session.handle_lane_policy(self.instant(), id, self.policies.of(path));
        self.note("lane up", "client", lane, path as u64, 0);
        self.ends[CLIENT].lane_up(id);
        self.wires[lane as usize].pipes[CLIENT].write(Parcel::Hello);
        self.pump(lane, CLIENT);
        self.serve(CLIENT);
    }
}

// Faults.
impl World {
    /// A lane of the path, if one is up.
    fn lane_on(&mut self, path: usize) -> Option<u64> {
        let lanes: Vec<u64> =
            self.slots.iter().filter(|s| s.path == path).filter_map(|s| s.lane).collect();
        if lanes.is_empty() { None } else { Some(*self.rng.pick(&lanes)) }
    }

    fn on_fault(&mut self, index: usize) {
        let fault = self.options.faults[index].clone();
        let path = fault.path % self.links.len();
        self.note(fault.kind.name(), "net", path as u64, 0, 0);
        self.count(fault.kind.name());
        match fault.kind {
            FaultKind::Down { for_ms } => return self.path_down(path, ms(for_ms)),
            FaultKind::Outage { for_ms } => {
                return (0..self.links.len()).for_each(|path| self.path_down(path, ms(for_ms)));
            }
            FaultKind::Rate { mbit } => {
                let factor = mbit * 125_000.0 / self.links[path][0].rate;
                return self.links[path].iter_mut().for_each(|link| {
                    link.rate = (link.rate * factor).max(10_000.0);
                });
            }
            FaultKind::Delay { delay_ms } => {
                return self.links[path].iter_mut().for_each(|link| link.delay = ms(delay_ms));
            }
            FaultKind::Loss { loss } => {
                return self.links[path].iter_mut().for_each(|link| link.loss = loss);
            }
            _ => {}
        }
        let Some(lane) = self.lane_on(path) else { return };
        match fault.kind {
            FaultKind::Reset => {
                self.lane_failed(CLIENT, lane, false);
                self.lane_failed(SERVER, lane, false);
            }
            FaultKind::ResetOneEnd { server, told } => {
                self.lane_failed(usize::from(server), lane, told);
                self.wires[lane as usize].refused |= !told;
            }
            FaultKind::HalfClose { server } => {
                self.wires[lane as usize].pipes[usize::from(server)].write(Parcel::Eof);
                self.pump(lane, usize::from(server));
            }
            FaultKind::Silent => {
                self.wires[lane as usize].pipes.iter_mut().for_each(|pipe| pipe.stuck = true);
            }
            FaultKind::OneWay { to_server } => {
                self.wires[lane as usize].pipes[usize::from(!to_server)].stuck = true;
            }
            _ => {}
        }
    }

    fn path_down(&mut self, path: usize, outage: Time) {
        if self.links[path][0].down {
            return;
        }
        self.links[path].iter_mut().for_each(|link| link.down = true);
        self.note("path down", "net", path as u64, 0, 0);
        let until = (self.now + outage).min(self.faults_end.max(self.now));
        self.at(until, Event::PathUp { path, down_since: self.now });
    }

    fn on_path_up(&mut self, path: usize, down_since: Time) {
        if !self.links[path][0].down {
            return;
        }
        self.links[path].iter_mut().for_each(|link| link.down = false);
        self.note("path up", "net", path as u64, 0, 0);
        for lane in 0..self.wires.len() {
            if self.wires[lane].path != path {
                continue;
            }
            for direction in [0, 1] {
                let links = &self.links[path];
                let mut later = std::mem::take(&mut self.later);
                self.wires[lane].pipes[direction].revive(
                    self.now,
                    self.now - down_since,
                    &links[direction],
                    links[1 - direction].delay,
                    &mut self.rng,
                    &mut later,
                );
                self.schedule(lane as u64, direction, &mut later);
                self.pump(lane as u64, direction);
            }
        }
    }

    fn on_faults_end(&mut self) {
        self.note("faults end", "net", 0, 0, 0);
        if self.options.faults.is_empty() {
            return;
        }
        for path in 0..self.links.len() {
            for way in [0, 1] {
                let healthy = Link::new(&self.options.paths[path], way);
                let link = &mut self.links[path][way];
                link.rate = healthy.rate;
                link.delay = healthy.delay;
                link.loss = healthy.loss;
            }
        }
    }

    fn on_ending(&mut self, ending: Ending) {
        let end = usize::from(ending.server);
        if ending.close {
            self.count("close");
            self.ends[end].closed_by_user = true;
            self.ends[end].session.close(Code::application(7));
        } else {
            self.count("drain");
            self.ends[end].session.drain();
            self.ends[end].draining = true;
        }
        self.note(if ending.close { "close" } else { "drain" }, NAMES[end], 0, 0, 0);
        self.serve(end);
    }
}

// The driver's part.
impl World {
    fn on_timer(&mut self, end: usize) {
        if self.timer_at[end].is_some_and(|at| at <= self.now) {
            self.timer_at[end] = None;
        }
        let now = self.instant();
        if let Some((_, timer)) = self.ends[end].session.poll_timeout().filter(|(at, _)| *at <= now)
        {
            self.ends[end].timers_fired += 1;
            self.note("timer", NAMES[end], timer as u64, 0, 0);
            self.ends[end].session.handle_timeout(now);
        }
        self.serve(end);
    }

    /// After any input: events, wake-ups, pulls, the timer.
    fn serve(&mut self, end: usize) {
        let mut rounds = 0;
        loop {
            let now = self.now;
            let at = self.instant();
            let happened = self.ends[end].turn(now, at, &self.options, &mut self.truths);
            let idle = happened.is_empty();
            for happened in happened {
                self.on_happened(end, happened);
            }
            let mut pulled = false;
            for lane in self.ends[end].awake_lanes() {
                pulled |= self.pull_once(end, lane);
            }
            rounds += 1;
            if rounds > 10_000 {
                self.fail(format!("{} is served without end", NAMES[end]));
            }
            if (idle && !pulled) || self.failure.is_some() {
                break;
            }
        }
        self.set_timer(end);
    }

    fn on_happened(&mut self, end: usize, happened: Happened) {
        match happened {
            Happened::Failed(why) => self.fail(format!("{}: {why}", NAMES[end])),
            Happened::Counted(what) => self.count(what),
            Happened::Noted(what, id, a, b) => {
                self.note(what, NAMES[end], id, a, b);
            }
            Happened::LaneWoken(lane) => {
                let wait = self.rng.range(0..=self.options.driver.wake_us_max) * 1_000;
                if wait == 0 {
                    self.ends[end].wake(lane);
                } else {
                    self.at(self.now + wait, Event::Wake { end, lane });
                }
            }
            Happened::LaneLost(lane, code) => {
                self.note("lane lost", NAMES[end], lane.number(), code.to_wire().into_inner(), 0);
                self.count(if code == Code::LANE_TIMEOUT { "lane timed out" } else { "lane lost" });
                self.drop_lane(end, lane.number(), true);
            }
            Happened::Again(stream, time) => self.at(time, Event::App { end, stream }),
            Happened::Closed(error) => self.on_closed(end, &error),
            Happened::LetGo => {
                let lanes = self.ends[end].lanes();
                for lane in lanes {
                    self.ends[end].forget_lane(lane);
                    self.wires[lane.number() as usize].pipes[end].write(Parcel::Eof);
                    self.pump(lane.number(), end);
                }
            }
        }
    }

    fn on_closed(&mut self, end: usize, error: &SessionError) {
        self.note("closed", NAMES[end], 0, 0, 0);
        self.closed_at.get_or_insert(self.now);
        let fine = match error {
            SessionError::Closed(_) => self.ends[end].closed_by_user,
            SessionError::ClosedByPeer { .. } => self.ends[1 - end].closed_by_user,
            SessionError::GraceExpired => {
                self.count("grace expired");
                let since = self.ends[end].alone_since;
                since.is_some_and(|at| self.now - at >= self.options.sessions[end].grace_ms * MS)
            }
            SessionError::PeerMisbehaved { .. } => false,
        };
        if !fine {
            self.fail(format!("{} ended its session: {error}", NAMES[end]));
        }
    }

    fn pull(&mut self, end: usize, lane: LaneId) {
        if self.pull_once(end, lane) {
            self.serve(end);
        }
    }

    /// Fills a lane's socket as far as it takes bytes. `true` if it took any.
    fn pull_once(&mut self, end: usize, lane: LaneId) -> bool {
        let mut any = false;
        let number = lane.number() as usize;
        let at = self.instant();
        loop {
            let limit = match self.options.driver.unsent_bytes {
                0 => u64::from(self.ends[end].session.unsent_limit(lane)),
                bytes => bytes,
            };
            let pipe = &mut self.wires[number].pipes[end];
            if pipe.unsent_bytes() >= limit {
                return any;
            }
            if self.options.driver.metrics
                && let Some(metrics) = pipe.metrics(self.now)
            {
                self.ends[end].session.handle_lane_metrics(at, lane, metrics);
            }
            let path = self.wires[number].path;
            let may_carry = self.policies.may_carry(path, &self.ends[end].session);
            match self.ends[end].pull(at, lane) {
                Ok(Some(bytes)) => {
                    any = true;
                    match self.policies.on_pull(self.now, end, path, lane, &bytes, may_carry) {
                        Ok(seen) => seen.into_iter().for_each(|what| self.count(what)),
                        Err(why) => self.fail(format!("{}: {why}", NAMES[end])),
                    }
                    self.note("pull", NAMES[end], lane.number(), bytes.len() as u64, 0);
                    self.wires[number].pipes[end].write(Parcel::Bytes(bytes));
                    // Not `pump`: that would pull again from within.
                    self.pump_only(lane.number(), end);
                }
                Ok(None) => return any,
                Err(why) => {
                    self.fail(format!("{}: {why}", NAMES[end]));
                    return any;
                }
            }
        }
    }

    fn pump_only(&mut self, lane: u64, direction: usize) {
        let wire = &mut self.wires[lane as usize];
        let links = &mut self.links[wire.path];
        let back = links[1 - direction].delay;
        let mut later = std::mem::take(&mut self.later);
        wire.pipes[direction].pump(
            self.now,
            &mut links[direction],
            back,
            &mut self.rng,
            &mut later,
        );
        self.schedule(lane, direction, &mut later);
    }

    fn set_timer(&mut self, end: usize) {
        let Some((at, timer)) = self.ends[end].session.poll_timeout() else { return };
        let at = at.saturating_duration_since(self.base).as_nanos() as Time;
        if at <= self.now && self.ends[end].is_spinning(self.now) {
            self.fail(format!("{}: the timer for {timer:?} spins", NAMES[end]));
            return;
        }
        if self.timer_at[end].is_none_or(|set| set > at.max(self.now)) {
            let late = self.rng.range(0..=self.options.driver.timer_us_max) * 1_000;
            let time = at.max(self.now) + late;
            if self.timer_at[end].is_none_or(|set| set > time) {
                self.timer_at[end] = Some(time);
                self.at(time, Event::Timer { end });
            }
        }
    }
}
