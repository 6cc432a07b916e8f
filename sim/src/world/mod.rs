//! The run itself: events in order of time, and nothing outside them.

mod driver;
mod faults;
mod lanes;
mod outcome;
mod queue;
mod slot;
mod watch;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use imux::proto::{LaneId, Side, StreamId};

pub use self::outcome::{LaneSum, Outcome};
use self::queue::Queue;
use self::slot::{Slot, Wire};
use crate::end::End;
use crate::net::{Later, Link, SECOND, Time, ms};
use crate::options::{Options, PathOptions};
use crate::oracle::copies::Copies;
use crate::oracle::flow;
use crate::oracle::liveness::{Liveness, Phase};
use crate::oracle::policy::{Policies, is_plain};
use crate::oracle::session::check_drained;
use crate::oracle::stream::Truth;
use crate::rng::Rng;
use crate::trace::{Record, Trace};

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;
pub const NAMES: [&str; 2] = ["client", "server"];

/// Runs `options` with `seed`. `observe`: keeps the trace and measures, at some cost.
pub fn run(options: &Options, seed: u64, observe: bool) -> Outcome {
    World::new(options.clone(), seed, observe).run()
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Net { lane: u64, direction: usize, later: Later },
    Wake { end: usize, lane: LaneId },
    Timer { end: usize },
    App { end: usize, stream: StreamId },
    Open { plan: usize },
    OpenFlow { plan: usize },
    Fault { index: usize },
    PathUp { path: usize, down_since: Time },
    Ending { index: usize },
    Dial { slot: usize },
    Connected { slot: usize },
    ConnectTimeout { slot: usize },
    FaultsEnd,
}

#[derive(Debug)]
struct World {
    options: Options,
    now: Time,
    /// The instant of time 0.
    base: Instant,
    rng: Rng,
    queue: Queue<Event>,
    faults_end: Time,
    // The network by path, lanes by number, and slots for them.
    links: Vec<[Link; 2]>,
    wires: Vec<Wire>,
    slots: Vec<Slot>,
    /// Scratch space for what a pipe wants done later.
    later: Vec<(Time, Later)>,
    // Client and server, and when to call each.
    ends: [End; 2],
    timer_at: [Option<Time>; 2],
    // The rules they are held to.
    truths: Vec<[Truth; 2]>,
    flow_truths: Vec<[flow::Truth; 2]>,
    liveness: Liveness,
    /// Lanes differ, or streams do, or there are flows.
    watched: bool,
    policies: Policies,
    copies: [Copies; 2],
    // What came of it.
    failure: Option<String>,
    counts: BTreeMap<&'static str, u64>,
    trace: Trace,
    path_bytes: Vec<[u64; 2]>,
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
        let slots = |(path, o): (usize, &PathOptions)| {
            o.policies(path).map(|policy| Slot::new(path, policy)).collect::<Vec<_>>()
        };
        let mut world = Self {
            now: 0,
            base,
            rng: Rng::new(seed),
            queue: Queue::new(),
            faults_end: ms(options.faults_end_ms),
            links,
            wires: Vec::new(),
            slots: options.paths.iter().enumerate().flat_map(slots).collect(),
            later: Vec::new(),
            ends: [client, server],
            timer_at: [None; 2],
            truths: vec![[Truth::default(); 2]; options.streams.len()],
            flow_truths: options.flows.iter().map(|_| Default::default()).collect(),
            liveness: Liveness::new(&options),
            watched: is_watched(&options),
            policies: Policies::new(options.paths.len()),
            copies: [0, 1].map(|end: usize| Copies::new(options.sessions[end].duplicate_share)),
            failure: None,
            counts: BTreeMap::new(),
            trace: Trace::new(observe),
            path_bytes: vec![[0; 2]; options.paths.len()],
            options,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.dial(false);
        for plan in 0..self.options.streams.len() {
            self.at(ms(self.options.streams[plan].at_ms), Event::Open { plan });
        }
        for plan in 0..self.options.flows.len() {
            self.at(ms(self.options.flows[plan].at_ms), Event::OpenFlow { plan });
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

    fn run(mut self) -> Outcome {
        while self.failure.is_none() {
            let Some((time, event)) = self.queue.pop() else { break };
            self.now = time;
            if let Err(why) = self.liveness.on_event(time) {
                self.fail(format!("{why}; the last is {event:?}"));
            } else if self.is_over() {
                break;
            } else {
                self.dispatch(event);
                self.check();
            }
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
        let (now, ends, options) = (self.now, &self.ends, &self.options);
        match self.liveness.phase(now, || is_drained(now, ends, options)) {
            Ok(Phase::Busy) => {}
            Ok(Phase::Drained) => self.on_drained(),
            Ok(Phase::Over) => return true,
            Err(why) => self.fail(format!("{why}: {}", self.undone())),
        }
        self.failure.is_some()
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
                self.ends[end].to_open.push_back(plan);
                self.ends[end].try_open = true;
                self.serve(end);
            }
            Event::OpenFlow { plan } => {
                let end = usize::from(self.options.flows[plan].from_server);
                self.ends[end].flows_to_open.push_back(plan);
                self.ends[end].try_open = true;
                self.serve(end);
            }
            Event::Fault { index } => self.on_fault(index),
            Event::PathUp { path, down_since } => self.on_path_up(path, down_since),
            Event::Ending { index } => self.on_ending(self.options.endings[index]),
            Event::Dial { slot } => self.on_dial(slot),
            Event::Connected { slot } => self.on_connected(slot),
            Event::ConnectTimeout { slot } => self.on_connect_timeout(slot),
            Event::FaultsEnd => self.on_faults_end(),
        }
    }

    fn check(&mut self) {
        for end in [CLIENT, SERVER] {
            if let Err(broken) = self.ends[end].check() {
                self.fail(format!("{}: {broken}", NAMES[end]));
            }
        }
    }

    fn on_drained(&mut self) {
        self.note("drained", "net", 0, 0, 0);
        for end in [CLIENT, SERVER] {
            let peer = self.ends[1 - end].session.stats().credit;
            let session = &self.ends[end].session;
            if let Err(broken) = check_drained(&session.stats(), session.memory(), peer) {
                self.fail(format!("{}: {broken}", NAMES[end]));
            }
            self.ends[end].begin_idling();
        }
    }

    /// What an unfinished run is waiting for.
    fn undone(&self) -> String {
        let ends = NAMES.iter().zip(&self.ends);
        let parts: Vec<String> =
            ends.map(|(name, end)| format!("{name}: {}", end.undone())).collect();
        parts.join("; ")
    }

    // What everything here is made with.

    fn at(&mut self, time: Time, event: Event) {
        self.queue.push(time.max(self.now), event);
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
}

/// Whether the rules of tiers, of copies or of flows apply.
fn is_watched(options: &Options) -> bool {
    let plain = |path: &PathOptions| path.policies(0).all(is_plain);
    let flows = !options.flows.is_empty();
    flows
        || options.streams.iter().any(|stream| stream.redundant)
        || !options.paths.iter().all(plain)
}

/// Whether everything planned is done and the ends are still connected.
fn is_drained(now: Time, ends: &[End; 2], options: &Options) -> bool {
    let begun = options.flows.iter().all(|plan| ms(plan.at_ms) < now);
    begun
        && options.streams.iter().all(|plan| ms(plan.at_ms) < now)
        && ends.iter().all(End::is_drained)
}
