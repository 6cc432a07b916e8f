//! Two sessions and the lanes between them, on virtual time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::proto::testing;
use crate::proto::wire::{Decoder, FrameBatch, LaneBuf, StreamKind};
use crate::proto::{
    Code, Config, Event, LaneId, ReadError, Session, Side, StreamId, Timer, WriteError,
};

/// What a lane does with bytes, each way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) bytes_per_second: f64,
    pub(crate) delay: Duration,
    /// Silently swallows everything.
    pub(crate) silent: bool,
}

impl Path {
    pub(crate) fn new(mbit: f64, delay_ms: u64) -> Self {
        Self {
            bytes_per_second: mbit * 125_000.0,
            delay: Duration::from_millis(delay_ms),
            silent: false,
        }
    }
}

/// One direction of a lane.
struct Pipe {
    path: Path,
    /// When the link is free again.
    free_at: Instant,
    /// Arrival and bytes, in order.
    flying: VecDeque<(Instant, Vec<u8>)>,
    decoder: Decoder,
    /// What a pull yielded and the sender's buffer has not accepted.
    out: LaneBuf,
}

/// The sender's buffer: this much of the link's time may wait for it.
const SENDER_BUFFER: Duration = Duration::from_millis(4);

impl Pipe {
    fn new(path: Path, now: Instant) -> Self {
        Self {
            path,
            free_at: now,
            flying: VecDeque::new(),
            decoder: Decoder::new(),
            out: LaneBuf::new(),
        }
    }

    fn writable_at(&self) -> Instant {
        self.free_at.checked_sub(SENDER_BUFFER).unwrap_or(self.free_at)
    }

    fn carry(&mut self, now: Instant) {
        let bytes: Vec<u8> = self.out.pieces().flatten().copied().collect();
        self.out.advance(bytes.len());
        let seconds = bytes.len() as f64 / self.path.bytes_per_second;
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(seconds);
        if !self.path.silent {
            self.flying.push_back((self.free_at + self.path.delay, bytes));
        }
    }
}

/// One end.
pub(crate) struct End {
    pub(crate) session: Session,
    pub(crate) events: Vec<Event>,
    /// What was read of each stream, and whether its end was reached.
    pub(crate) read: BTreeMap<StreamId, (Vec<u8>, bool)>,
    pub(crate) resets: BTreeMap<StreamId, Code>,
    pub(crate) accepted: Vec<StreamId>,
    /// What was received on each flow, and when.
    pub(crate) datagrams: BTreeMap<StreamId, Vec<(Instant, Bytes)>>,
    /// Bytes still to be written to each stream; the end follows.
    pub(crate) to_write: BTreeMap<StreamId, Bytes>,
    /// Streams whose writers wait for room.
    blocked: BTreeSet<StreamId>,
    /// Streams that are not read.
    pub(crate) unread: Vec<StreamId>,
    /// Most bytes that one read asks for.
    pub(crate) read_max: usize,
    asleep: BTreeMap<LaneId, bool>,
    pub(crate) timers: BTreeMap<Timer, u64>,
}

pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) ends: [End; 2],
    /// What a lane delivers is handed over in pieces of at most this many bytes.
    pub(crate) cut: usize,
    pipes: BTreeMap<LaneId, [Pipe; 2]>,
}

pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVER: usize = 1;

/// Bytes whose values depend on their position.
pub(crate) fn pattern(len: usize, seed: u64) -> Bytes {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

impl Pair {
    pub(crate) fn new(config: Config, paths: &[Path]) -> Self {
        let now = testing::start();
        let config = Arc::new(config);
        let end = |side| End {
            session: Session::new(side, config.clone(), config.params(), 7, now),
            events: Vec::new(),
            read: BTreeMap::new(),
            resets: BTreeMap::new(),
            accepted: Vec::new(),
            datagrams: BTreeMap::new(),
            to_write: BTreeMap::new(),
            blocked: BTreeSet::new(),
            unread: Vec::new(),
            read_max: usize::MAX,
            asleep: BTreeMap::new(),
            timers: BTreeMap::new(),
        };
        let ends = [end(Side::Client), end(Side::Server)];
        let mut pair = Self { now, ends, cut: usize::MAX, pipes: BTreeMap::new() };
        for (number, path) in paths.iter().enumerate() {
            pair.lane_up(LaneId::new(number as u64), *path);
        }
        pair
    }

    pub(crate) fn lane_up(&mut self, id: LaneId, path: Path) {
        for end in &mut self.ends {
            assert!(end.session.handle_lane_up(self.now, id, Some(path.delay * 2)));
            end.asleep.insert(id, false);
        }
        self.pipes.insert(id, [Pipe::new(path, self.now), Pipe::new(path, self.now)]);
    }

    /// What is in flight is lost; both ends are told.
    pub(crate) fn lane_down(&mut self, id: LaneId) {
        self.pipes.remove(&id);
        for end in &mut self.ends {
            end.session.handle_lane_down(self.now, id, Code::NONE);
            end.asleep.remove(&id);
        }
    }

    pub(crate) fn set_path(&mut self, id: LaneId, change: impl Fn(&mut Path)) {
        self.pipes.get_mut(&id).unwrap().iter_mut().for_each(|pipe| change(&mut pipe.path));
    }

    /// From now on, what `end` sends on the lane is swallowed; the other direction still works.
    pub(crate) fn silence_one_way(&mut self, id: LaneId, end: usize) {
        self.pipes.get_mut(&id).unwrap()[end].path.silent = true;
    }

    /// From now on, what `end` sends on the lane stays in its buffer.
    pub(crate) fn clog(&mut self, id: LaneId, end: usize) {
        let path = &mut self.pipes.get_mut(&id).unwrap()[end].path;
        path.silent = true;
        path.bytes_per_second = 1e-6;
    }

    pub(crate) fn open(&mut self, end: usize, data: Bytes) -> StreamId {
        self.try_open(end, data).unwrap()
    }

    /// `None` if the session refuses.
    pub(crate) fn try_open(&mut self, end: usize, data: Bytes) -> Option<StreamId> {
        let id = self.ends[end].session.open(StreamKind::Raw)?;
        self.ends[end].to_write.insert(id, data);
        self.ends[end].read.insert(id, (Vec::new(), false));
        Some(id)
    }

    pub(crate) fn open_flow(&mut self, end: usize, deadline: Duration) -> StreamId {
        let end = &mut self.ends[end];
        let id = end.session.open_flow(self.now, deadline, StreamKind::Raw).unwrap();
        end.datagrams.insert(id, Vec::new());
        id
    }

    /// Sends a datagram of this length, whose bytes depend on its number.
    pub(crate) fn send(&mut self, end: usize, id: StreamId, number: usize, len: usize) {
        let data = pattern(len, number as u64);
        self.ends[end].session.flow(id).send(self.now, data).unwrap();
    }

    /// Runs for just this long.
    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        self.drive(time);
        self.now = until;
        self.step();
    }

    /// Runs until nothing more happens or `limit` of virtual time is over; returns the time taken.
    pub(crate) fn drive(&mut self, limit: Duration) -> Duration {
        self.drive_until(limit, |_| false)
    }

    pub(crate) fn drive_until(
        &mut self,
        limit: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Duration {
        let start = self.now;
        let mut steps_here = 0;
        while self.now - start < limit {
            self.step();
            if done(self) {
                break;
            }
            let Some(next) = self.next_event() else { break };
            let next = next.max(self.now);
            steps_here = if next == self.now { steps_here + 1 } else { 0 };
            assert!(steps_here < 10_000, "nothing moves: {:?}", self.timeouts());
            if next - start > limit {
                break;
            }
            self.now = next;
        }
        self.now - start
    }

    fn timeouts(&self) -> Vec<Option<(Duration, Timer)>> {
        let relative =
            |(at, timer): (Instant, Timer)| (at.saturating_duration_since(self.now), timer);
        self.ends.iter().map(|end| end.session.poll_timeout().map(relative)).collect()
    }

    fn next_event(&self) -> Option<Instant> {
        let timeouts = self.ends.iter().filter_map(|end| Some(end.session.poll_timeout()?.0));
        let flying = self.pipes.values().flatten().filter_map(|pipe| Some(pipe.flying.front()?.0));
        let writable = self.pipes.iter().flat_map(|(id, pipes)| {
            let awake = |end: &usize| !self.ends[*end].asleep[id];
            [CLIENT, SERVER].into_iter().filter(awake).map(|end| pipes[end].writable_at())
        });
        timeouts.chain(flying).chain(writable).min()
    }

    fn step(&mut self) {
        for end in [CLIENT, SERVER] {
            self.deliver(end);
            self.ends[end].run(self.now);
            self.transmit(end);
        }
    }

    fn deliver(&mut self, end: usize) {
        for (id, pipes) in &mut self.pipes {
            let pipe = &mut pipes[1 - end];
            while pipe.flying.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, bytes) = pipe.flying.pop_front().unwrap();
                let mut batch = FrameBatch::default();
                for piece in bytes.chunks(self.cut) {
                    pipe.decoder.decode(piece, &mut batch).unwrap();
                    self.ends[end].session.handle_frames(self.now, *id, &mut batch);
                }
            }
        }
    }

    fn transmit(&mut self, at: usize) {
        let end = &mut self.ends[at];
        while let Some(id) = end.session.poll_wake(self.now) {
            end.asleep.insert(id, false);
        }
        for (id, pipes) in &mut self.pipes {
            let pipe = &mut pipes[at];
            while !end.asleep[id] && pipe.writable_at() <= self.now {
                match end.session.poll_transmit(self.now, *id, usize::MAX, &mut pipe.out) {
                    Some(transmit) => {
                        assert_eq!(transmit.bytes, pipe.out.len());
                        pipe.carry(self.now);
                    }
                    None => drop(end.asleep.insert(*id, true)),
                }
            }
            while let Some(id) = end.session.poll_wake(self.now) {
                end.asleep.insert(id, false);
            }
        }
        end.run(self.now);
    }
}

impl End {
    fn run(&mut self, now: Instant) {
        while let Some((at, timer)) = self.session.poll_timeout().filter(|(at, _)| *at <= now) {
            *self.timers.entry(timer).or_default() += 1;
            self.session.handle_timeout(now);
            if self.session.poll_timeout() == Some((at, timer)) {
                break; // an ACK waits for its lane to pull
            }
        }
        while let Some((id, kind)) = self.session.accept() {
            self.accepted.push(id);
            self.read.insert(id, (Vec::new(), false));
            if matches!(kind, StreamKind::Flow { .. }) {
                self.datagrams.insert(id, Vec::new());
            }
        }
        while let Some(event) = self.session.poll_event() {
            if let Event::Writable(id) | Event::Stopped { id, .. } = event {
                self.blocked.remove(&id);
            }
            self.events.push(event);
        }
        self.write();
        self.read_all(now);
        for (id, received) in self.datagrams.iter_mut().filter(|(id, _)| !self.unread.contains(id))
        {
            while let Ok(data) = self.session.flow(*id).recv(now) {
                received.push((now, data));
            }
        }
    }

    fn write(&mut self) {
        self.to_write.retain(|&id, data| {
            if self.blocked.contains(&id) {
                return true;
            }
            let mut stream = self.session.send_stream(id);
            while !data.is_empty() {
                match stream.write(data) {
                    Ok(taken) => assert!(taken > 0),
                    Err(WriteError::Blocked) => {
                        self.blocked.insert(id);
                        return true;
                    }
                    Err(_) => return false,
                }
            }
            stream.finish().unwrap();
            false
        });
    }

    fn read_all(&mut self, now: Instant) {
        for (id, (bytes, ended)) in &mut self.read {
            if *ended || self.resets.contains_key(id) || self.unread.contains(id) {
                continue;
            }
            loop {
                match self.session.recv_stream(*id).read(now, self.read_max) {
                    Ok(Some(data)) => bytes.extend_from_slice(&data),
                    Ok(None) => *ended = true,
                    Err(ReadError::Reset(code)) => drop(self.resets.insert(*id, code)),
                    Err(ReadError::Blocked | ReadError::Closed) => break,
                }
                if *ended {
                    break;
                }
            }
        }
    }
}
