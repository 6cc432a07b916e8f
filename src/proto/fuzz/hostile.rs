//! One honest end and a peer that says anything, in frames and in near-frames.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use bytes::{Bytes, BytesMut};

use super::endpoints::some_policy;
use super::frames::{frame, stream_id};
use crate::proto::error::{Code, SessionError};
use crate::proto::event::Event;
use crate::proto::ids::{LaneId, Side, StreamId};
use crate::proto::limits::{
    FLOWS_BYTES_MAX, FRAME_BYTES_MAX, REORDER_OVERHEAD_BYTES, REORDER_OVERHEAD_FACTOR,
};
use crate::proto::testing;
use crate::proto::wire::{Decoder, Frame, FrameBatch, LaneBuf, StreamKind, encode_frame};
use crate::proto::{Config, KernelSample, Session};

/// The target. Whatever the peer does: no panic, no memory beyond the windows and limits, no
/// unbounded output, and in the end a session that works, or one that was closed with a code.
pub(crate) fn hostile(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(mut run) = Run::new(&mut u) else { return };
    for _ in 0..100 {
        if u.is_empty() || run.step(&mut u).is_err() {
            break;
        }
        run.settle();
        run.check();
    }
    run.finish();
}

/// One lane, seen from the peer.
#[derive(Default)]
struct Wire {
    to_us: Decoder,
    to_peer: Decoder,
    /// Bytes that the honest end has sent on it.
    sent: u64,
    /// The last acknowledgement of what the peer sent on it.
    acked: u64,
    /// The peer reads nothing from it.
    stuck: bool,
    awake: bool,
    close: Option<Code>,
}

struct Run {
    now: Instant,
    session: Session,
    config: Arc<Config>,
    wires: BTreeMap<LaneId, Wire>,
    next_lane: u64,
    streams: Vec<StreamId>,
    opened: usize,
    written: u64,
    /// Why the session is over, if it is.
    ended: Option<SessionError>,
}

/// What the application writes: its contents do not matter.
static ZEROS: [u8; 4096] = [0; 4096];

impl Run {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let now = testing::start();
        let window = *u.choose(&[64u64, 1000, 10_000, 100_000])?;
        let config = Arc::new(Config {
            stream_window: window,
            stream_window_max: window * 4,
            session_window: window * 2,
            streams_max: 4,
            grace: Duration::from_secs(5),
            ..Config::default()
        });
        let side = if u.arbitrary()? { Side::Client } else { Side::Server };
        let session = Session::new(side, config.clone(), config.params(), 7, now);
        let mut run = Self {
            now,
            session,
            config,
            wires: BTreeMap::new(),
            next_lane: 0,
            streams: Vec::new(),
            opened: 0,
            written: 0,
            ended: None,
        };
        run.lane_up(None);
        Ok(run)
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=15)? {
            0..=5 => self.hear_frames(u),
            6 if u.ratio(1, 4)? => self.hear_flood(u),
            6 => self.hear_garbage(u),
            7 | 8 => self.hear_ack(u),
            9 | 10 => self.application(u),
            11 => {
                let ms: u16 = u.arbitrary()?;
                self.wait(Duration::from_millis(ms.into()));
                Ok(())
            }
            12 => self.change_lanes(u),
            13 => {
                let stuck = u.arbitrary()?;
                self.some_wire(u, |wire| wire.stuck = stuck)
            }
            14 => self.metrics(u),
            _ => self.read_all(u),
        }
    }

    fn some_lane(&self, u: &mut Unstructured<'_>) -> Result<LaneId> {
        let nth = usize::from(u.arbitrary::<u8>()?) % self.wires.len().max(1);
        self.wires.keys().nth(nth).copied().ok_or(arbitrary::Error::EmptyChoose)
    }

    fn some_wire(&mut self, u: &mut Unstructured<'_>, change: impl Fn(&mut Wire)) -> Result<()> {
        let lane = self.some_lane(u)?;
        self.wires.get_mut(&lane).into_iter().for_each(change);
        Ok(())
    }

    fn hear_frames(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let lane = self.some_lane(u)?;
        let mut wire = BytesMut::new();
        for _ in 0..u.int_in_range(1..=4)? {
            encode_frame(&frame(u)?, &mut wire);
        }
        if u.ratio(1, 16)? {
            let at = usize::from(u.arbitrary::<u16>()?) % wire.len();
            wire[at] ^= u.arbitrary::<u8>()?;
        }
        self.hear(lane, &wire);
        Ok(())
    }

    fn hear_garbage(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let lane = self.some_lane(u)?;
        let len = u.int_in_range(0..=64)?;
        let bytes = u.bytes(len)?;
        self.hear(lane, bytes);
        Ok(())
    }

    /// The same frame again and again, or one piece after another, with gaps between.
    fn hear_flood(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (lane, mut frame) = (self.some_lane(u)?, frame(u)?);
        let (count, step) = (1 << u.int_in_range(4..=17)?, u.int_in_range(0..=3)?);
        let mut batch = FrameBatch::default();
        for _ in 0..count {
            batch.frames.push(frame.clone());
            batch.wire_bytes += 2;
            match &mut frame {
                Frame::Stream { offset, .. } => *offset += step,
                Frame::Datagram(datagram) => datagram.number += step,
                _ => {}
            }
        }
        self.session.handle_frames(self.now, lane, &mut batch);
        self.take_events(count);
        Ok(())
    }

    /// An acknowledgement of something that was sent: the peer is not hostile in everything.
    fn hear_ack(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (lane, on) = (self.some_lane(u)?, self.some_lane(u)?);
        let part = u64::from(u.arbitrary::<u8>()?);
        let position = self.wires[&lane].sent * part / 255;
        let mut wire = BytesMut::new();
        encode_frame(&Frame::Ack { lane, position }, &mut wire);
        self.hear(on, &wire);
        Ok(())
    }

    /// Bytes arrive on a lane.
    fn hear(&mut self, lane: LaneId, bytes: &[u8]) {
        let Some(wire) = self.wires.get_mut(&lane) else { return };
        let mut batch = FrameBatch::default();
        let decoded = wire.to_us.decode(bytes, &mut batch);
        let frames = batch.frames.len();
        self.session.handle_frames(self.now, lane, &mut batch);
        assert!(batch.is_empty(), "the batch was taken");
        self.take_events(frames);
        if decoded.is_err() {
            self.lane_down(lane, Code::PROTOCOL);
        }
    }

    fn lane_up(&mut self, rtt: Option<Duration>) {
        let id = LaneId::new(self.next_lane);
        let over = self.session.is_closed();
        assert_eq!(self.session.handle_lane_up(self.now, id, rtt), !over);
        assert!(!self.session.handle_lane_up(self.now, id, rtt), "numbers are used once");
        if !over {
            self.next_lane += 1;
            self.wires.insert(id, Wire { awake: true, ..Wire::default() });
        }
    }

    fn lane_down(&mut self, id: LaneId, code: Code) {
        self.session.handle_lane_down(self.now, id, code);
        self.wires.remove(&id);
    }

    fn change_lanes(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if u.arbitrary()? && self.wires.len() < 8 {
            let ms = u64::from(u.arbitrary::<u8>()?);
            let id = LaneId::new(self.next_lane);
            self.lane_up((ms > 0).then(|| Duration::from_millis(ms)));
            self.session.handle_lane_policy(self.now, id, some_policy(ms as u8));
        } else {
            let lane = self.some_lane(u)?;
            self.lane_down(lane, Code::NONE);
        }
        Ok(())
    }

    fn metrics(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let lane = self.some_lane(u)?;
        let metrics = KernelSample {
            rtt: Duration::from_micros(u.arbitrary::<u32>()?.into()),
            rtt_var: Duration::from_micros(u.arbitrary::<u16>()?.into()),
            rtt_min: Duration::from_micros(u.arbitrary::<u32>()?.into()),
            delivery_rate: u.arbitrary::<Option<u32>>()?.map(u64::from),
            app_limited: u.arbitrary()?,
            pacing_rate: u.arbitrary::<Option<u32>>()?.map(u64::from),
            cwnd_bytes: u.arbitrary::<u16>()?.into(),
            delivered_bytes: u.arbitrary::<Option<u32>>()?.map(u64::from),
            silence: u.arbitrary::<Option<u32>>()?.map(|us| Duration::from_micros(us.into())),
        };
        let advice = self.session.handle_lane_metrics(self.now, lane, metrics);
        if let Some(advice) = advice {
            assert!((1_500..=512 * 1024).contains(&advice.unsent_limit));
            assert!(advice.pacing_limit > 10_000, "no lane stands still");
        }
        Ok(())
    }

    fn application(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let choice = u.int_in_range(0..=15)?;
        let known = if self.streams.is_empty() || u.ratio(1, 16)? {
            stream_id(u)?
        } else {
            self.streams[usize::from(u.arbitrary::<u8>()?) % self.streams.len()]
        };
        match choice {
            0..=3 => {
                if let Some(id) = self.session.open(StreamKind::Default) {
                    if choice == 3 {
                        self.session.send_stream(id).set_redundant();
                    }
                    self.opened += 1;
                    self.streams.push(id);
                }
            }
            4..=7 => self.write(known, 1 + usize::from(u.arbitrary::<u16>()?) % ZEROS.len()),
            8 => drop(self.session.send_stream(known).finish()),
            9 => self.session.send_stream(known).reset(Code::RESET),
            10 => self.session.recv_stream(known).stop(Code::RESET),
            11 => drop(self.session.recv_stream(known).read(self.now, u.int_in_range(1..=999)?)),
            12 if u.ratio(1, 4)? => self.session.drain(),
            13..=15 => self.flow(u, known)?,
            _ => drop(self.session.send_stream(known).stopped()),
        }
        Ok(())
    }

    /// Opens a flow, or does something with one, which may be a stream or none.
    fn flow(&mut self, u: &mut Unstructured<'_>, known: StreamId) -> Result<()> {
        let now = self.now;
        match u.int_in_range(0..=7)? {
            0 | 1 => {
                let deadline = Duration::from_millis(u.arbitrary::<u8>()?.into());
                let granted = self.session.may_open_flow();
                if let Some(id) = self.session.open_flow(now, deadline, StreamKind::Raw) {
                    assert!(granted);
                    self.opened += 1;
                    self.streams.push(id);
                }
            }
            2..=4 => {
                let data = Bytes::from_static(&ZEROS[..u.int_in_range(0..=ZEROS.len())?]);
                let _ = self.session.flow(known).send(now, data);
            }
            5 => while self.session.flow(known).recv(now).is_ok() {},
            6 => self.session.flow(known).set_idle_timeout(Duration::from_millis(500)),
            _ => self.session.flow(known).close(Code::NONE),
        }
        Ok(())
    }

    fn write(&mut self, id: StreamId, len: usize) {
        let mut data = Bytes::from_static(&ZEROS[..len]);
        let capacity = self.session.send_stream(id).capacity();
        let written = self.session.send_stream(id).write(&mut data);
        assert_eq!(written, capacity.map(|room| len.min(usize::try_from(room).unwrap_or(len))));
        assert_eq!(data.len(), len - written.unwrap_or(0));
        self.written += written.unwrap_or(0) as u64;
    }

    fn read_all(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let max = 1 + usize::from(u.arbitrary::<u16>()?);
        for &id in &self.streams {
            while let Ok(Some(data)) = self.session.recv_stream(id).read(self.now, max) {
                assert!(!data.is_empty() && data.len() <= max);
            }
        }
        Ok(())
    }

    /// Timers due by then fire, each lane pulls when it is woken.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        let mut fired_now = 0;
        while let Some((at, timer)) = self.session.poll_timeout().filter(|due| due.0 <= until) {
            fired_now = if at > self.now { 0 } else { fired_now + 1 };
            assert!(fired_now < 100, "{timer:?} spins");
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
        self.settle();
    }

    /// What a driver does after every call.
    fn settle(&mut self) {
        self.take_events(0);
        loop {
            while let Some(id) = self.session.poll_wake(self.now) {
                self.wires.get_mut(&id).expect("a lane that is up").awake = true;
            }
            let ready = |wire: &Wire| wire.awake && !wire.stuck;
            let Some(id) = self.wires.iter().find(|(_, wire)| ready(wire)).map(|(id, _)| *id)
            else {
                break;
            };
            self.pull(id);
        }
        self.take_events(0);
        while let Some((id, _)) = self.session.accept() {
            assert!(!self.streams.contains(&id), "{id} was opened twice");
            self.streams.push(id);
        }
    }

    /// The lane takes everything there is for it: at any one moment that is bounded.
    fn pull(&mut self, id: LaneId) {
        let mut out = LaneBuf::new();
        for _ in 0..1000 {
            let pulled = self.session.poll_transmit(self.now, id, usize::MAX, &mut out);
            let Some(transmit) = pulled else {
                assert!(out.is_empty());
                self.wires.get_mut(&id).into_iter().for_each(|wire| wire.awake = false);
                return;
            };
            assert_eq!(transmit.bytes, out.len());
            assert!(out.len() <= PULL_BYTES_MAX, "{} bytes at once", out.len());
            let mut batch = FrameBatch::default();
            let wire = self.wires.get_mut(&id).expect("only lanes that are up pull");
            wire.sent += out.len() as u64;
            for piece in out.pieces() {
                wire.to_peer.decode(piece, &mut batch).expect("an honest end's bytes are frames");
            }
            out.advance(out.len());
            for frame in &batch.frames {
                self.is_honest(id, frame);
            }
        }
        panic!("{id} pulls without end");
    }

    fn is_honest(&mut self, on: LaneId, frame: &Frame) {
        assert!(!frame.is_handshake(), "{frame:?}");
        match frame {
            Frame::Ack { lane, position } => {
                let Some(wire) = self.wires.get_mut(lane) else { return };
                assert!(*position >= wire.acked, "acknowledgements do not go back");
                wire.acked = *position;
            }
            Frame::Close { code, .. } => {
                let wire = self.wires.get_mut(&on).expect("it was sent on it");
                assert_eq!(wire.close.replace(*code), None, "said twice");
            }
            _ => {}
        }
    }

    /// `frames` were received: that many can cause no more than a few events each.
    fn take_events(&mut self, frames: usize) {
        let mut events = 0;
        while let Some(event) = self.session.poll_event() {
            assert_eq!(self.ended, None, "the last event was the last");
            events += 1;
            match event {
                Event::LaneLost { lane, .. } => drop(self.wires.remove(&lane)),
                Event::Closed(error) => self.ended = Some(error),
                _ => {}
            }
        }
        assert_eq!(self.ended.is_some(), self.session.is_closed());
        if self.ended.is_some() {
            // The session ends everything: lanes lost before that are no longer reported.
            let left: Vec<_> = self.session.stats().lanes.iter().map(|lane| lane.id).collect();
            self.wires.retain(|id, _| left.contains(id));
        }
        let others = self.streams.len() + self.wires.len() + self.config.streams_max as usize;
        assert!(events <= 4 * (1 + frames) * (1 + others), "{events} events");
    }

    fn check(&self) {
        let stats = self.session.stats();
        let (credit, window) = (stats.credit, self.config.session_window);
        assert!(credit.consumed <= credit.received && credit.received <= credit.announced);
        assert!(credit.announced - credit.consumed <= window, "{credit:?}");
        assert!(credit.sent <= credit.sent_max && credit.sent == self.written, "{credit:?}");
        let reorder_max = REORDER_OVERHEAD_FACTOR * window + REORDER_OVERHEAD_BYTES;
        assert!(stats.reorder_bytes <= reorder_max, "{stats:?}");
        let flows_max = 2 * FLOWS_BYTES_MAX;
        assert!(self.session.flow_bytes() <= flows_max, "{} bytes", self.session.flow_bytes());
        assert!(self.session.flow_count() <= self.session.stream_count() + self.streams.len());
        let memory_max = window + reorder_max + self.written + flows_max;
        assert!(self.session.memory() <= memory_max, "{} bytes", self.session.memory());
        assert!(stats.pending_bytes <= self.written);
        assert!(stats.duplicate_bytes <= stats.received_bytes);
        assert!(stats.resent_bytes <= stats.sent_bytes);
        assert!(self.session.stream_count() <= self.opened + self.config.streams_max as usize);
        assert_eq!(self.session.lane_count(), self.wires.len());
    }

    /// It works, or was closed with a code.
    fn finish(&mut self) {
        self.wires.values_mut().for_each(|wire| wire.stuck = false);
        if self.ended.is_none() {
            self.still_works();
        }
        if self.ended.is_none() {
            self.session.close(Code::SHUTDOWN);
        }
        self.settle();
        let told = match self.ended.as_ref().expect("it is over") {
            SessionError::PeerMisbehaved { code, detail } => {
                assert!(code.meaning().is_some() && *code != Code::INTERNAL && !detail.is_empty());
                Some(*code)
            }
            SessionError::Closed(code) => Some(*code),
            SessionError::ClosedByPeer { reason, .. } => {
                assert!(reason.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                None
            }
            SessionError::GraceExpired => None,
        };
        for (id, wire) in &self.wires {
            assert_eq!(wire.close, told, "what {id} was told");
        }
        assert!(self.session.is_close_sent());
        assert_eq!(self.session.poll_timeout(), None);
        assert_eq!(self.session.open(StreamKind::Raw), None);
    }

    /// A new lane answers.
    fn still_works(&mut self) {
        let lane = LaneId::new(self.next_lane);
        self.lane_up(Some(Duration::from_millis(10)));
        self.settle();
        self.hear(lane, &[0, 0]); // a PING
        self.wait(Duration::from_millis(100));
        let answered = self.wires.get(&lane).map(|wire| wire.acked);
        assert_eq!(answered, Some(2), "a PING is answered");
    }
}

/// Sixteen full frames of data, and control frames before and after them.
const PULL_BYTES_MAX: usize = 20 * FRAME_BYTES_MAX;
