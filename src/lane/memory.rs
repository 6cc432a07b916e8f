//! Lanes in memory, for tests: nothing leaves the process, and a lane can be killed at will.
//!
//! ```
//! use imux::lane::{Dialer, Lane, Listener, memory};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
//! let mut client = dialer.dial().await?;
//! let mut server = listener.accept().await?.handshake().await?;
//! client.write_all(b"hello").await?;
//! let mut five = [0; 5];
//! server.read_exact(&mut five).await?;
//! assert_eq!(&five, b"hello");
//!
//! dialer.lanes()[0].reset();
//! assert!(server.read_exact(&mut five).await.is_err());
//! # Ok(())
//! # }
//! ```

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::buffered::poll_read_buffered;
use super::{DialError, Dialer, Lane, Listener, PendingLane};
use crate::trust::PeerIdentity;

/// Bytes a lane holds each way by default: about as many as a socket.
pub const DEFAULT_CAPACITY: usize = 256 * 1024;

/// The two ends of one lane, which holds up to `capacity` bytes each way.
#[must_use]
pub fn pair(capacity: usize) -> (MemoryLane, MemoryLane) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let link = Arc::new(Link {
        number: NEXT.fetch_add(1, Ordering::Relaxed),
        capacity: capacity.max(1),
        state: Mutex::default(),
    });
    let end =
        |side| MemoryLane { link: link.clone(), side, chunk: Vec::new(), read: 0, peer: None };
    (end(0), end(1))
}

/// A dialer, and the listener its lanes arrive at.
#[must_use]
pub fn network(capacity: usize) -> (MemoryDialer, MemoryListener) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let dialer = MemoryDialer {
        capacity,
        name: "memory".to_owned(),
        peer: None,
        sender,
        refusing: Arc::default(),
        lanes: Arc::default(),
    };
    (dialer, MemoryListener { receiver: tokio::sync::Mutex::new(receiver) })
}

/// One end of a lane in memory.
#[derive(Debug)]
pub struct MemoryLane {
    link: Arc<Link>,
    /// 0 or 1: this end writes to the pipe with this number and reads from the other.
    side: usize,
    /// Bytes taken out of the pipe; `read` of them are consumed.
    chunk: Vec<u8>,
    read: usize,
    peer: Option<PeerIdentity>,
}

impl MemoryLane {
    /// The same lane, with `peer` as the key its other end has proven.
    #[must_use]
    pub fn with_peer(mut self, peer: PeerIdentity) -> Self {
        self.peer = Some(peer);
        self
    }

    /// A switch that kills the lane, from anywhere.
    #[must_use]
    pub fn kill_switch(&self) -> KillSwitch {
        KillSwitch(self.link.clone())
    }
}

/// Kills a lane.
#[derive(Debug, Clone)]
pub struct KillSwitch(Arc<Link>);

impl KillSwitch {
    /// Both ends get an error at once, and anything in flight is lost.
    pub fn reset(&self) {
        self.0.decide(Fate::Reset);
    }

    /// Nothing arrives any more and neither end is told; writes succeed until the lane is full.
    pub fn silence(&self) {
        self.0.decide(Fate::Silent);
    }

    /// Ends the silence: what was written meanwhile arrives.
    pub fn restore(&self) {
        self.0.decide(Fate::Alive);
    }
}

#[derive(Debug)]
struct Link {
    number: u64,
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fate: Fate,
    pipes: [Pipe; 2],
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Fate {
    #[default]
    Alive,
    Silent,
    Reset,
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    bytes: Vec<u8>,
    /// The writing end has said that it is done.
    closed: bool,
    /// The writing end is gone.
    writer_gone: bool,
    /// The reading end is gone.
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panicked elsewhere leaves plain data behind, nothing half-updated.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self, fate: Fate) {
        let mut state = self.lock();
        // A reset is final.
        if state.fate != Fate::Reset {
            state.fate = fate;
        }
        state.pipes.iter_mut().for_each(Pipe::wake);
    }
}

impl MemoryLane {
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<MutexGuard<'_, State>>> {
        let mut state = self.link.lock();
        let fate = state.fate;
        let pipe = &mut state.pipes[self.side];
        if fate == Fate::Reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if pipe.closed || (pipe.reader_gone && fate == Fate::Alive) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if pipe.bytes.len() >= self.link.capacity {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(state))
    }
}

impl AsyncBufRead for MemoryLane {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.read == this.chunk.len() {
            let mut state = this.link.lock();
            let fate = state.fate;
            let pipe = &mut state.pipes[1 - this.side];
            match fate {
                Fate::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Fate::Alive if !pipe.bytes.is_empty() => {
                    this.chunk.clear();
                    this.read = 0;
                    std::mem::swap(&mut pipe.bytes, &mut this.chunk);
                    if let Some(writer) = pipe.writer.take() {
                        writer.wake();
                    }
                }
                Fate::Alive if pipe.closed => return Poll::Ready(Ok(&[])),
                Fate::Alive if pipe.writer_gone => {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                Fate::Alive | Fate::Silent => {
                    pipe.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(&this.chunk[this.read..]))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        assert!(amount <= this.chunk.len() - this.read, "consumes more than there is");
        this.read += amount;
    }
}

impl AsyncRead for MemoryLane {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        poll_read_buffered(self, cx, out)
    }
}

impl AsyncWrite for MemoryLane {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let capacity = this.link.capacity;
        let mut state = ready!(this.poll_room(cx))?;
        let pipe = &mut state.pipes[this.side];
        let before = pipe.bytes.len();
        for slice in slices {
            let taken = slice.len().min(capacity - pipe.bytes.len());
            pipe.bytes.extend_from_slice(&slice[..taken]);
        }
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(pipe.bytes.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.link.lock();
        let pipe = &mut state.pipes[self.side];
        pipe.closed = true;
        pipe.wake();
        Poll::Ready(Ok(()))
    }
}

impl Lane for MemoryLane {
    fn export_keying_material(&self, label: &'static str, out: &mut [u8; 32]) -> io::Result<()> {
        // As with TLS: the two ends of a lane agree, and every lane and label differs.
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.link.number.to_be_bytes());
        out.copy_from_slice(hmac::sign(&key, label.as_bytes()).as_ref());
        Ok(())
    }

    fn peer(&self) -> Option<PeerIdentity> {
        self.peer
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_room(cx).map_ok(drop)
    }

    fn describe(&self) -> String {
        format!("memory {}", self.link.number)
    }

    fn abort(&self) {
        self.link.decide(Fate::Reset);
    }
}

impl Drop for MemoryLane {
    fn drop(&mut self) {
        let mut state = self.link.lock();
        state.pipes[self.side].writer_gone = true;
        state.pipes[1 - self.side].reader_gone = true;
        state.pipes.iter_mut().for_each(Pipe::wake);
    }
}

/// Dials lanes to the [`MemoryListener`] it was made with.
#[derive(Debug, Clone)]
pub struct MemoryDialer {
    capacity: usize,
    name: String,
    peer: Option<PeerIdentity>,
    sender: mpsc::UnboundedSender<MemoryLane>,
    refusing: Arc<AtomicBool>,
    lanes: Arc<Mutex<Vec<KillSwitch>>>,
}

impl MemoryDialer {
    /// The same dialer under another name, as if on another link, with lanes and refusals of its
    /// own.
    #[must_use]
    pub fn named(&self, name: impl Into<String>) -> Self {
        Self { name: name.into(), refusing: Arc::default(), lanes: Arc::default(), ..self.clone() }
    }

    /// The same dialer; its lanes report `peer` as the key the server has proven.
    #[must_use]
    pub fn with_peer(mut self, peer: PeerIdentity) -> Self {
        self.peer = Some(peer);
        self
    }

    /// Makes further dials fail, or succeed again.
    pub fn refuse(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::Relaxed);
    }

    /// The lanes dialled so far, dead ones too, in order.
    #[must_use]
    pub fn lanes(&self) -> Vec<KillSwitch> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Dialer for MemoryDialer {
    async fn dial(&self) -> Result<Box<dyn Lane>, DialError> {
        let refused = || DialError::Other(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        if self.refusing.load(Ordering::Relaxed) {
            return Err(refused());
        }
        let (mut ours, theirs) = pair(self.capacity);
        ours.peer = self.peer;
        let switch = ours.kill_switch();
        self.sender.send(theirs).map_err(|_| refused())?;
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(switch);
        Ok(Box::new(ours))
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Where the lanes of a [`MemoryDialer`] arrive.
#[derive(Debug)]
pub struct MemoryListener {
    receiver: tokio::sync::Mutex<mpsc::UnboundedReceiver<MemoryLane>>,
}

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&self) -> io::Result<Box<dyn PendingLane>> {
        match self.receiver.lock().await.recv().await {
            Some(lane) => Ok(Box::new(lane)),
            // Every dialer is gone, perhaps for good; for a listener that is no error.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a listener in memory has no address"))
    }
}

#[async_trait]
impl PendingLane for MemoryLane {
    fn remote(&self) -> Option<SocketAddr> {
        None
    }

    async fn handshake(self: Box<Self>) -> io::Result<Box<dyn Lane>> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    async fn is_pending<T>(future: impl Future<Output = T>) -> bool {
        timeout(Duration::from_millis(50), future).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn holds_no_more_than_its_capacity() {
        let (mut a, mut b) = pair(10);
        assert_eq!(a.write(&[1; 16]).await.unwrap(), 10);
        assert!(is_pending(a.write(&[2])).await);
        let mut ten = [0; 10];
        b.read_exact(&mut ten).await.unwrap();
        assert_eq!(a.write(&[2]).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_told_from_a_break() {
        let (mut a, mut b) = pair(64);
        a.write_all(b"last").await.unwrap();
        a.shutdown().await.unwrap();
        assert_eq!(a.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let mut all = Vec::new();
        b.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"last");

        let (a, mut b) = pair(64);
        drop(a);
        let error = b.read_to_end(&mut all).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(b.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test(start_paused = true)]
    async fn dies_by_reset_or_in_silence() {
        let (mut a, mut b) = pair(64);
        let switch = a.kill_switch();
        switch.silence();
        a.write_all(b"lost?").await.unwrap();
        assert!(is_pending(b.read_u8()).await);
        switch.restore();
        assert_eq!(b.read_u8().await.unwrap(), b'l');
        // The reader gets what it had read ahead, then the reset.
        switch.reset();
        switch.restore();
        let error = b.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(a.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn exports_are_the_lanes_own() {
        let export = |lane: &MemoryLane, label| {
            let mut out = [0; 32];
            lane.export_keying_material(label, &mut out).unwrap();
            out
        };
        let (a, b) = pair(1);
        let (c, _d) = pair(1);
        assert_eq!(export(&a, "one"), export(&b, "one"));
        assert_ne!(export(&a, "one"), export(&a, "two"));
        assert_ne!(export(&a, "one"), export(&c, "one"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dialer_can_refuse() {
        let (dialer, listener) = network(64);
        dialer.refuse(true);
        assert!(matches!(dialer.dial().await, Err(DialError::Other(_))));
        dialer.refuse(false);
        let _lane = dialer.dial().await.unwrap();
        assert_eq!(dialer.lanes().len(), 1);
        listener.accept().await.unwrap().handshake().await.unwrap();
        assert!(is_pending(listener.accept()).await);
    }
}
