//! One lane's task: reads and decodes, hands frames to the session, pulls what is to be sent and
//! writes it. TLS and IO happen here, outside the session's lock.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use super::carried::{Meter, Totals};
use super::clock;
use super::greeting::JoinProof;
use super::lane_event::LaneEvent;
use super::seen::Seen;
use super::shared::Shared;
use super::state::{LaneSlot, remember};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

use crate::lane::{self, Lane};
use crate::proto::wire::{Decoder, Frame, FrameBatch, LaneBuf};
use crate::proto::{Advice, Code, DecodeError, KernelSample, LaneId, LanePolicy, Side};

/// Most bytes read before the frames are handed over, under one lock.
const READ_BATCH: u64 = 256 * 1024;

/// Most bytes pulled at once.
const PULL_MAX: usize = 256 * 1024;

/// Pieces given to one vectored write.
const SLICES: usize = 64;

/// Rounds of reading and writing before other tasks get their turn.
const ROUNDS: usize = 8;

/// The kernel is asked about the lane this often, while it carries something.
const METRICS_EVERY: Duration = Duration::from_millis(10);

/// How long a closing lane has to send its last words, and the peer to send its own.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a lane ended.
#[derive(Debug)]
pub(super) enum LaneEnd {
    /// The session is over.
    SessionOver,
    /// The peer closed it in order.
    Closed,
    /// The core gave it up.
    Lost(Code),
    /// What it was bound to has changed, is used in another way, or is no link any more.
    Outdated,
    /// The peer does not know the session (any more), or refuses the lane.
    Refused(Code),
    /// It carried something that is not a frame.
    Undecodable(DecodeError),
    /// The server did not prove that it knows the session.
    WrongProof,
    /// The pipe broke.
    Io(io::Error),
}

impl LaneEnd {
    /// What the peer is told.
    fn code(&self) -> Code {
        match self {
            Self::SessionOver | Self::Closed | Self::Outdated | Self::Io(_) => Code::NONE,
            Self::Lost(code) | Self::Refused(code) => *code,
            Self::Undecodable(_) => Code::PROTOCOL,
            Self::WrongProof => Code::JOIN_REFUSED,
        }
    }
}

impl std::fmt::Display for LaneEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SessionOver => f.write_str("session over"),
            Self::Closed => f.write_str("closed by peer"),
            Self::Outdated => f.write_str("its link is paused or has changed"),
            // For whatever reason: it says so of a paused link's lanes, and of a broken one.
            Self::Lost(Code::NONE) => f.write_str("the other end does not use it any more"),
            Self::Lost(code) | Self::Refused(code) => code.fmt(f),
            Self::Undecodable(error) => error.fmt(f),
            Self::WrongProof => f.write_str("the server did not prove that it knows the session"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

/// A verified lane that the session knows of. Dropping it tells the session that the lane is gone.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) shared: Arc<Shared>,
    pub(super) id: LaneId,
}

/// Whose lane it is, at the end that looks.
#[derive(Clone, Debug)]
pub(super) struct Of {
    /// What its dialer is bound to; empty if it was accepted.
    pub(super) via: Arc<str>,
    pub(super) totals: Arc<Totals>,
}

/// What the kernel reports about a lane, in the session's terms.
fn of_kernel(metrics: &lane::LaneMetrics) -> KernelSample {
    KernelSample {
        rtt: metrics.rtt,
        rtt_var: metrics.rtt_var,
        rtt_min: metrics.rtt_min.unwrap_or_default(),
        delivery_rate: (metrics.delivery_rate > 0).then_some(metrics.delivery_rate),
        app_limited: metrics.delivery_rate_app_limited,
        pacing_rate: metrics.pacing_rate,
        cwnd_bytes: metrics.cwnd_bytes,
        delivered_bytes: metrics.delivered_bytes,
        silence: metrics.silence,
    }
}

impl Attached {
    /// Attaches a lane. `None` if the session rejects it.
    pub(super) fn new(
        shared: &Arc<Shared>,
        id: LaneId,
        rtt: Option<Duration>,
        policy: LanePolicy,
        of: Of,
    ) -> Option<Self> {
        shared.with(|state, now| {
            let up = state.core.handle_lane_up(now, id, rtt);
            up.then(|| {
                state.core.handle_lane_policy(now, id, policy);
                let seen = Some(Seen::new(now, of.via, policy.link, Meter::new(now, of.totals)));
                state.lanes.insert(id, LaneSlot { seen, ..LaneSlot::default() });
                state.tell(LaneEvent::Up(id));
                Self { shared: shared.clone(), id }
            })
        })
    }

    /// Tells the session what the kernel learnt about the lane during its handshake.
    pub(super) fn learn(&self, lane: &dyn Lane) {
        if let Some(metrics) = lane.metrics() {
            let metrics = of_kernel(&metrics);
            self.shared.with(|state, now| state.core.handle_lane_metrics(now, self.id, metrics));
        }
    }

    /// The peer has said that it knows the session.
    pub(super) fn prove(shared: &Shared, id: LaneId) {
        shared.ask(|state| {
            if let Some(slot) = state.lanes.get_mut(&id) {
                slot.proven = true;
            }
        });
    }

    /// Notes what the lane is made of, for whoever looks.
    fn describe(&self, lane: &dyn Lane) {
        let (local, peer, made_of) = (lane.local_addr(), lane.peer_addr(), lane.describe());
        self.shared.ask(|state| {
            let slot = state.lanes.get_mut(&self.id);
            if let Some(seen) = slot.and_then(|slot| slot.seen.as_mut()) {
                (seen.local, seen.peer, seen.made_of) = (local, peer, made_of.into());
            }
        });
    }

    fn detach(&self, code: Code, why: &str) {
        let mut waiting = Vec::new();
        self.shared.with(|state, now| {
            let stats = state.core.lane_stats(self.id);
            state.core.handle_lane_down(now, self.id, code);
            if let Some(slot) = state.lanes.remove(&self.id) {
                state.on_gone(now, self.id, slot, stats.as_ref(), why);
                state.tell(LaneEvent::Lost(self.id));
            }
            // Wake whoever waits for the last lane to end.
            if state.lanes.is_empty() {
                state.closing.wake(&mut waiting);
            }
        });
        waiting.into_iter().for_each(std::task::Waker::wake);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.detach(Code::NONE, "given up");
    }
}

/// Carries the session on an attached lane until either ends, or the lane is `outdated`. `proof` is
/// what the server still has to show on a lane that joined.
pub(super) async fn run(
    attached: Attached,
    lane: Box<dyn Lane>,
    proof: Option<JoinProof>,
    outdated: impl Future<Output = ()>,
) -> LaneEnd {
    if proof.is_none() {
        Attached::prove(&attached.shared, attached.id);
    }
    attached.describe(&*lane);
    let mut task = LaneTask {
        shared: &attached.shared,
        id: attached.id,
        lane,
        proof,
        decoder: Decoder::new(),
        batch: FrameBatch::default(),
        out: LaneBuf::new(),
        measured_at: None,
        retransmits: 0,
        ended: false,
        unsent_limit: 0,
        pacing_limit: u64::MAX,
    };
    let end = tokio::select! {
        biased;
        end = &mut task => end,
        () = outdated => LaneEnd::Outdated,
    };
    let mut lane = task.lane;
    match end {
        LaneEnd::SessionOver => {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, farewell(&mut lane)).await;
        }
        // Other lanes carry what the kernel still holds: do not let it compete with them.
        _ => lane.abort(),
    }
    attached.detach(end.code(), &end.to_string());
    end
}

/// Closes a lane in order, and waits for the peer to do so. Closing a socket with unread bytes
/// resets it (RFC 1122, 4.2.2.13) and loses its last words if they are still unsent.
async fn farewell(lane: &mut Box<dyn Lane>) -> io::Result<()> {
    lane.shutdown().await?;
    loop {
        let unread = lane.fill_buf().await?.len();
        if unread == 0 {
            return Ok(());
        }
        Pin::new(&mut *lane).consume(unread);
    }
}

struct LaneTask<'a> {
    shared: &'a Shared,
    id: LaneId,
    lane: Box<dyn Lane>,
    proof: Option<JoinProof>,
    decoder: Decoder,
    batch: FrameBatch,
    /// Pulled but not yet written.
    out: LaneBuf,
    measured_at: Option<Instant>,
    retransmits: u64,
    /// The lane's peer has gone, though its end has not been read yet.
    ended: bool,
    unsent_limit: u32,
    pacing_limit: u64,
}

impl Future for LaneTask<'_> {
    type Output = LaneEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LaneEnd> {
        for _ in 0..ROUNDS {
            match self.round(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(end) => return Poll::Ready(end),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl LaneTask<'_> {
    /// Reads what there is, hands it over, pulls and writes; `false` if nothing moved.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, LaneEnd> {
        let read = self.read(cx);
        let written = match self.write(cx) {
            Poll::Ready(Ok(())) if self.out.is_empty() => self.write_ready(cx),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(false),
            Poll::Ready(Err(error)) => Err(LaneEnd::Io(error)),
        };
        let writable = *written.as_ref().unwrap_or(&false);
        let metrics = self.measure();
        let had_frames = !self.batch.is_empty();
        let pulled = self.exchange(cx, writable, metrics)?;
        written?;
        if pulled && let Poll::Ready(Err(error)) = self.write(cx) {
            return Err(LaneEnd::Io(error));
        }
        match read {
            // What came before the end has been handed over by now.
            Poll::Ready(Err(end)) => Err(end),
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Pending => Ok(pulled || had_frames),
        }
    }

    fn write_ready(&mut self, cx: &mut Context<'_>) -> Result<bool, LaneEnd> {
        match self.lane.poll_write_ready(cx) {
            Poll::Ready(Ok(())) => Ok(true),
            Poll::Ready(Err(error)) => Err(LaneEnd::Io(error)),
            Poll::Pending => Ok(false),
        }
    }

    /// Decodes into the batch; ready when it is full, pending when there is no more.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LaneEnd>> {
        while self.batch.wire_bytes < READ_BATCH && !self.batch.is_full() {
            let input = ready!(Pin::new(&mut self.lane).poll_fill_buf(cx)).map_err(LaneEnd::Io)?;
            let available = input.len();
            if available == 0 {
                return Poll::Ready(Err(LaneEnd::Closed));
            }
            let mut rest = input;
            if let Some(proof) = &self.proof {
                let first = self.decoder.decode_one(&mut rest).map_err(LaneEnd::Undecodable)?;
                let taken = available - rest.len();
                match first {
                    Some((Frame::Joined { mac }, _)) if proof.verify(Side::Server, &mac) => {
                        self.proof = None;
                        Attached::prove(self.shared, self.id);
                    }
                    Some((Frame::Refused { code, .. }, _)) => {
                        return Poll::Ready(Err(LaneEnd::Refused(code)));
                    }
                    Some((Frame::Ignored, _)) | None => {}
                    Some(_) => return Poll::Ready(Err(LaneEnd::WrongProof)),
                }
                Pin::new(&mut self.lane).consume(taken);
                continue;
            }
            let decoded = self.decoder.decode(input, &mut self.batch);
            Pin::new(&mut self.lane).consume(available);
            decoded.map_err(LaneEnd::Undecodable)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Asks the kernel about the lane, now and then.
    fn measure(&mut self) -> Option<KernelSample> {
        let now = clock::now();
        if self.measured_at.is_some_and(|at| now.duration_since(at) < METRICS_EVERY) {
            return None;
        }
        self.measured_at = Some(now);
        let metrics = self.lane.metrics()?;
        (self.ended, self.retransmits) = (metrics.ended, metrics.retransmits);
        Some(of_kernel(&metrics))
    }

    /// Tells the kernel how the lane is to be used. A system call is worth it only for a real
    /// change.
    fn heed(&mut self, advice: Advice) {
        let Advice { unsent_limit, pacing_limit, .. } = advice;
        if unsent_limit.abs_diff(self.unsent_limit) > self.unsent_limit / 4 {
            self.lane.set_unsent_limit(unsent_limit);
            self.unsent_limit = unsent_limit;
        }
        // The step is smaller than what lanes sharing a path may send beyond what they deliver, or
        // they would never grow.
        if pacing_limit.abs_diff(self.pacing_limit) > self.pacing_limit / 128 {
            self.lane.set_pacing_limit(pacing_limit);
            self.pacing_limit = pacing_limit;
        }
    }

    /// The one visit to the session: metrics and frames in, advice and bytes out. `true` if there
    /// is something to write.
    fn exchange(
        &mut self,
        cx: &Context<'_>,
        writable: bool,
        metrics: Option<KernelSample>,
    ) -> Result<bool, LaneEnd> {
        let (id, batch, out) = (self.id, &mut self.batch, &mut self.out);
        let (ended, retransmits, mut advice) = (self.ended, self.retransmits, None);
        let pulled = self.shared.with(|state, now| {
            if metrics.is_some() {
                state.on_measured(now, id, retransmits);
            }
            advice = metrics.and_then(|kernel| state.core.handle_lane_metrics(now, id, kernel));
            if !batch.is_empty() {
                state.core.handle_frames(now, id, batch);
            }
            let slot = state.lanes.entry(id).or_default();
            if let Some(code) = slot.lost {
                return Err(LaneEnd::Lost(code));
            }
            remember(&mut slot.waker, cx);
            // A lane whose peer has gone gets its last words, but nothing that could still go
            // another way.
            let writable = writable && (!ended || state.over.is_some());
            let pulled = writable && state.core.poll_transmit(now, id, PULL_MAX, out).is_some();
            let nothing_left = writable && !pulled && out.is_empty();
            if state.over.is_some() && nothing_left {
                return Err(LaneEnd::SessionOver);
            }
            Ok(pulled)
        });
        if let Some(advice) = advice {
            self.heed(advice);
        }
        pulled
    }

    /// Writes what was pulled; ready when all of it is in the lane.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, piece) in slices.iter_mut().zip(self.out.pieces()) {
                *slice = IoSlice::new(piece);
                used += 1;
            }
            let lane = Pin::new(&mut self.lane);
            let written = ready!(lane.poll_write_vectored(cx, &slices[..used]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}
