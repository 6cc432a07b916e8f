//! One end: a session, the driver that serves it, and the users of its streams.

mod flows;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use imux::proto::wire::{Decoder, FrameBatch, LaneBuf, Params, StreamKind};
use imux::proto::{
    Allowance, Code, Config, DecodeError, Event, LaneId, Session, SessionError, Side, StreamId,
};

use crate::app::{App, Done, Fate};
use crate::flow::FlowApp;
use crate::net::{Time, ms};
use crate::options::{AllowanceOptions, Options};
use crate::oracle::flow;
use crate::oracle::liveness::AtOnce;
use crate::oracle::memory;
use crate::oracle::promises::Promises;
use crate::oracle::session::{check_credit, check_lanes};
use crate::oracle::stream::Truth;
use crate::order::Order;
use crate::rng::Rng;

/// A timer due this often at one instant is stuck.
const SPINS_MAX: u64 = 1_000;
/// Memory is checked once in this many steps.
const MEMORY_EVERY: u64 = 16;

/// Cuts arrived bytes into reads of any size in the range, as TCP has no message boundaries.
fn cut_anew<'a>(bytes: &'a [u8], sizes: [u64; 2], rng: &mut Rng) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let size = rng.range(sizes[0]..=sizes[1]) as usize;
        let (piece, later) = rest.split_at(size.clamp(1, rest.len()));
        rest = later;
        Some(piece)
    })
}

/// What an end's turn asks of the world.
#[derive(Debug)]
pub enum Happened {
    Failed(String),
    Counted(&'static str),
    Noted(&'static str, u64, u64, u64),
    LaneWoken(LaneId),
    LaneSuspect(LaneId),
    LaneLost(LaneId, Code),
    MetricsWanted(LaneId),
    Again(StreamId, Time),
    /// The client should dial its express lanes.
    ExpressWanted,
    Closed(SessionError),
    /// Every lane has the CLOSE: they may go.
    LetGo,
}

#[derive(Debug, Default)]
struct LaneEnd {
    awake: bool,
    decoder: Decoder,
}

#[derive(Debug)]
pub struct End {
    pub session: Session,
    config: Config,
    bounds: memory::Bounds,
    promises: Promises,
    held: memory::Held,
    /// Allowances to come, next one first.
    allowances: VecDeque<AllowanceOptions>,
    allowed: Option<Allowance>,
    lanes: BTreeMap<LaneId, LaneEnd>,
    pub apps: BTreeMap<StreamId, App>,
    pub flows: BTreeMap<StreamId, FlowApp>,
    pub flows_to_open: VecDeque<usize>,
    arrivals: BTreeMap<StreamId, flow::Arrivals>,
    openings: flow::Openings,
    /// A rule of flows that a frame of the peer's broke.
    broken: Option<String>,
    /// Streams and flows whose users have something to do.
    pub todo: BTreeSet<StreamId>,
    /// How many of `apps` are still open.
    pub apps_open: usize,
    pub to_open: VecDeque<usize>,
    pub try_open: bool,
    pub draining: bool,
    peer_drains: bool,
    pub closed_by_user: bool,
    let_go: bool,
    pub alone_since: Option<Time>,
    pub timers_fired: u64,
    spins: AtOnce,
    steps: u64,
    faults_end: Time,
    read_bytes: [u64; 2],
    batch: FrameBatch,
    pub order: Order,
}

impl End {
    pub fn new(
        side: Side,
        config: Config,
        peer: Params,
        seed: u64,
        base: Instant,
        options: &Options,
        observe: bool,
    ) -> Self {
        Self {
            session: Session::new(side, Arc::new(config.clone()), peer, seed, base),
            bounds: memory::Bounds::new(&config),
            promises: Promises::new(config.session_window),
            held: memory::Held::unbounded(),
            allowances: options.sessions[usize::from(side == Side::Server)]
                .allowances
                .clone()
                .into(),
            allowed: None,
            config,
            lanes: BTreeMap::new(),
            apps: BTreeMap::new(),
            flows: BTreeMap::new(),
            flows_to_open: VecDeque::new(),
            arrivals: BTreeMap::new(),
            openings: flow::Openings::new(side),
            broken: None,
            todo: BTreeSet::new(),
            apps_open: 0,
            to_open: VecDeque::new(),
            try_open: false,
            draining: false,
            peer_drains: false,
            closed_by_user: false,
            let_go: false,
            alone_since: Some(0),
            timers_fired: 0,
            spins: AtOnce::new(SPINS_MAX),
            steps: 0,
            faults_end: ms(options.faults_end_ms),
            read_bytes: options.driver.read_bytes,
            batch: FrameBatch::default(),
            order: Order::new(observe),
        }
    }

    pub fn lanes(&self) -> Vec<LaneId> {
        self.lanes.keys().copied().collect()
    }

    pub fn has_lane(&self, lane: LaneId) -> bool {
        self.lanes.contains_key(&lane)
    }

    pub fn lane_up(&mut self, lane: LaneId) {
        self.alone_since = None;
        self.lanes.insert(lane, LaneEnd { awake: true, decoder: Decoder::new() });
    }

    pub fn forget_lane(&mut self, lane: LaneId) {
        self.lanes.remove(&lane);
    }

    pub fn wake(&mut self, lane: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.awake = true;
        }
    }

    pub fn wants_to_write(&self, lane: LaneId) -> bool {
        self.lanes.get(&lane).is_some_and(|lane| lane.awake)
    }

    pub fn awake_lanes(&self) -> Vec<LaneId> {
        self.lanes.iter().filter(|(_, lane)| lane.awake).map(|(id, _)| *id).collect()
    }

    /// The session's timer is due at once. `true`: it spins at one instant.
    pub fn is_spinning(&mut self, now: Time) -> bool {
        self.spins.again(now)
    }

    /// Bytes have arrived on a lane: passes them in pieces to the decoder and the session.
    pub fn receive(
        &mut self,
        now: Time,
        at: Instant,
        lane: LaneId,
        bytes: &Bytes,
        rng: &mut Rng,
    ) -> Result<(), DecodeError> {
        for piece in cut_anew(bytes, self.read_bytes, rng) {
            let Some(state) = self.lanes.get_mut(&lane) else { return Ok(()) };
            state.decoder.decode(piece, &mut self.batch)?;
            if self.batch.is_empty() {
                continue;
            }
            self.order.on_frames(now, &self.batch.frames);
            self.note_datagrams(now);
            self.session.handle_frames(at, lane, &mut self.batch);
        }
        Ok(())
    }

    /// Asks the session for bytes for a lane.
    pub fn pull(&mut self, at: Instant, lane: LaneId) -> Result<Option<Bytes>, String> {
        let Some(state) = self.lanes.get_mut(&lane) else { return Ok(None) };
        if !state.awake {
            return Ok(None);
        }
        let mut out = LaneBuf::new();
        let Some(transmit) = self.session.poll_transmit(at, lane, usize::MAX, &mut out) else {
            state.awake = false;
            return if out.is_empty() { Ok(None) } else { Err("nothing to send has bytes".into()) };
        };
        let len = out.len();
        let mut bytes = BytesMut::with_capacity(len);
        out.pieces().for_each(|piece| bytes.extend_from_slice(piece));
        if transmit.bytes != len || bytes.len() != len || len == 0 {
            return Err(format!("{} bytes announced, {len} given", transmit.bytes));
        }
        Ok(Some(bytes.freeze()))
    }

    /// The driver's and the users' turn; an empty answer means nothing is left to do.
    pub fn turn(
        &mut self,
        now: Time,
        at: Instant,
        options: &Options,
        truths: &mut [[Truth; 2]],
        flow_truths: &mut [[flow::Truth; 2]],
    ) -> Vec<Happened> {
        let mut happened = Vec::new();
        self.change_allowance(now, &mut happened);
        while let Some(event) = self.session.poll_event() {
            self.on_event(now, event, &mut happened);
        }
        while let Some((id, kind)) = self.session.accept() {
            if !self.accept_flow(now, id, &kind, options, &mut happened) {
                self.on_accept(id, &kind, options, &mut happened);
            }
        }
        if std::mem::take(&mut self.try_open) {
            self.open(options, &mut happened);
            self.open_flows(now, at, options, &mut happened);
        }
        while let Some(id) = self.todo.pop_first() {
            if !self.serve_flow(now, at, id, options, flow_truths, &mut happened) {
                self.serve_user(now, at, id, options, truths, &mut happened);
            }
        }
        while let Some(lane) = self.session.poll_wake(at) {
            happened.push(Happened::LaneWoken(lane));
        }
        if self.lanes.is_empty() && self.session.lane_count() == 0 {
            self.alone_since.get_or_insert(now);
        }
        if self.session.is_close_sent() && !std::mem::replace(&mut self.let_go, true) {
            happened.push(Happened::LetGo);
        }
        happened
    }

    /// Acts as a budget of many sessions: allows what it has, whatever is asked for.
    fn change_allowance(&mut self, now: Time, happened: &mut Vec<Happened>) {
        while self.allowances.front().is_some_and(|next| ms(next.at_ms) <= now) {
            let Some(next) = self.allowances.pop_front() else { return };
            let allowed = Allowance { receive: next.receive, send: next.send };
            self.session.set_allowance(allowed);
            self.session.lend_first_windows();
            self.promises.allow(allowed.receive, self.session.promised());
            self.held.allow(allowed.send, self.session.stats().held_bytes);
            self.allowed = Some(allowed);
            happened.push(Happened::Counted("allowance changed"));
        }
        if let Some(allowed) = self.allowed.filter(|_| self.session.memory_due()) {
            self.session.use_memory();
            self.session.set_allowance(allowed);
        }
    }

    fn on_event(&mut self, now: Time, event: Event, happened: &mut Vec<Happened>) {
        match event {
            // No key is announced here.
            Event::Opened | Event::Begun(_) | Event::NextKey(_) | Event::Arrived { .. } => {}
            Event::ReadersPaused { .. } => happened.push(Happened::Counted("readers paused")),
            Event::OpenAvailable => {
                happened.push(Happened::Counted("open available"));
                self.try_open = true;
            }
            Event::Readable(id)
            | Event::Writable(id)
            | Event::FlowReadable(id)
            | Event::Stopped { id, .. } => {
                self.todo.insert(id);
            }
            Event::LaneLost { lane, code } => {
                // What `handle_lane_down` reports again is already known.
                if self.lanes.contains_key(&lane) {
                    if self.session.lane_count() == 0 {
                        self.alone_since = Some(now);
                    }
                    happened.push(Happened::LaneLost(lane, code));
                }
            }
            Event::LaneSuspect(lane) => {
                happened.push(Happened::LaneSuspect(lane));
            }
            Event::MetricsWanted(lane) => happened.push(Happened::MetricsWanted(lane)),
            Event::ExpressWanted => happened.push(Happened::ExpressWanted),
            Event::Draining => {
                self.peer_drains = true;
                self.to_open.clear();
                self.flows_to_open.clear();
            }
            Event::Closed(error) => {
                self.apps_open = 0;
                happened.push(Happened::Closed(error));
            }
        }
    }

    fn open(&mut self, options: &Options, happened: &mut Vec<Happened>) {
        while let Some(&plan) = self.to_open.front() {
            let name = StreamKind::Named(plan.to_string());
            let Some(id) = self.session.open(name) else {
                let over = self.draining || self.peer_drains || self.session.is_closed();
                happened.push(Happened::Counted(if over {
                    "open refused"
                } else {
                    "open blocked"
                }));
                if over {
                    self.to_open.clear();
                }
                return;
            };
            debug_assert!(plan < options.streams.len());
            if options.streams[plan].redundant {
                self.session.send_stream(id).set_redundant();
                happened.push(Happened::Counted("redundant stream"));
            }
            self.to_open.pop_front();
            self.add_user(App::new(plan, id, true));
            happened.push(Happened::Noted("open", id.index(), plan as u64, 0));
        }
    }

    fn on_accept(
        &mut self,
        id: StreamId,
        kind: &StreamKind,
        options: &Options,
        happened: &mut Vec<Happened>,
    ) {
        let plan = match kind {
            StreamKind::Named(name) => name.parse::<usize>().ok(),
            _ => None,
        };
        match plan.filter(|plan| *plan < options.streams.len()) {
            Some(plan) if !self.apps.contains_key(&id) => self.add_user(App::new(plan, id, false)),
            _ => happened.push(Happened::Failed(format!("{id} accepted as {kind:?}"))),
        }
    }

    fn add_user(&mut self, app: App) {
        self.todo.insert(app.id);
        self.apps_open += 1;
        self.apps.insert(app.id, app);
    }

    fn serve_user(
        &mut self,
        now: Time,
        at: Instant,
        id: StreamId,
        options: &Options,
        truths: &mut [[Truth; 2]],
        happened: &mut Vec<Happened>,
    ) {
        if self.session.is_closed() {
            return;
        }
        let Some(app) = self.apps.get_mut(&id) else { return };
        if app.is_over() {
            return;
        }
        let plan = &options.streams[app.plan];
        let half = app.own_half();
        let mut done = Done::default();
        let truths = &mut truths[app.plan];
        let mut result = app.read(
            now,
            at,
            self.faults_end,
            &mut self.session,
            plan,
            &mut truths[1 - half],
            &mut done,
        );
        let again = done.again_at.take();
        if result.is_ok() {
            result = app.write(now, &mut self.session, plan, &mut truths[half], &mut done);
        }
        app.again_at = app.again_at.filter(|at| *at > now);
        let wanted = [again, done.again_at].into_iter().flatten().min();
        if let Some(time) = wanted
            && app.again_at.is_none_or(|at| at > time)
        {
            app.again_at = Some(time);
            happened.push(Happened::Again(id, time));
        }
        if app.is_over() {
            self.apps_open -= 1;
        }
        if done.read > 0 {
            happened.push(Happened::Noted("read", app.plan as u64, app.read, done.read));
        }
        for (what, did) in [
            ("writer blocked", done.blocked),
            ("reset", done.reset),
            ("stop", done.stopped),
            ("reset read", app.reader == Fate::Reset),
            ("writer stopped", app.writer == Fate::Stopped),
        ] {
            if did {
                happened.push(Happened::Counted(what));
            }
        }
        if let Err(why) = result {
            happened.push(Happened::Failed(format!("stream {id} of plan {}: {why}", app.plan)));
        }
    }

    pub fn begin_idling(&mut self) {
        self.timers_fired = 0;
    }

    /// Whether nothing is left to do and the session is still connected.
    pub fn is_drained(&self) -> bool {
        self.to_open.is_empty()
            && self.flows_to_open.is_empty()
            && self.apps_open == 0
            && self.session.stream_count() == 0
            && self.session.lane_count() > 0
    }

    /// Whether this end's user of the stream has finished its plan.
    pub fn has_done(&self, plan: usize) -> bool {
        self.apps.values().any(|app| app.plan == plan && app.is_over())
    }

    /// What an unfinished run is waiting for.
    pub fn undone(&self) -> String {
        let open = self.apps.values().filter(|app| !app.is_over()).take(4);
        let users: Vec<String> = open
            .map(|app| format!("plan {} {:?}/{:?}", app.plan, app.writer, app.reader))
            .collect();
        let stats = self.session.stats();
        format!(
            "{} streams in the session, {} to open, {} lanes, users {users:?}, pending {}, credit {:?}",
            stats.streams,
            self.to_open.len(),
            stats.lanes.len(),
            stats.pending_bytes,
            stats.credit,
        )
    }

    /// What must hold at every step; an error names the broken rule.
    pub fn check(&mut self) -> Result<(), String> {
        if self.session.is_closed() {
            return Ok(());
        }
        let stats = self.session.stats();
        self.steps += 1;
        // It inspects every stream.
        if self.steps.is_multiple_of(MEMORY_EVERY) {
            let flows = self.session.flow_bytes();
            self.bounds.check(&stats, self.session.memory().saturating_sub(flows))?;
        }
        self.check_flows()?;
        check_credit(stats.credit, self.config.session_window)?;
        self.promises.check(self.session.promised())?;
        self.held.check(stats.held_bytes)?;
        check_lanes(self.lanes.len(), self.session.lane_count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_cut_anew_and_lose_nothing() {
        let bytes: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        for sizes in [[1, 1], [1, 64], [700, 900], [65_536, 65_536], [0, 0]] {
            let mut rng = Rng::new(1);
            let pieces: Vec<&[u8]> = cut_anew(&bytes, sizes, &mut rng).collect();
            assert_eq!(pieces.concat(), bytes);
            let (last, whole) = pieces.split_last().unwrap();
            let fits =
                |piece: &&[u8]| (sizes[0].max(1)..=sizes[1].max(1)).contains(&(piece.len() as u64));
            assert!(whole.iter().all(fits) && last.len() as u64 <= sizes[1].max(1), "{sizes:?}");
        }
    }
}
