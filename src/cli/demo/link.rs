//! Lanes of a given speed on one machine: a lane around a lane that sends no more bytes than its
//! link would carry, and delivers them no sooner than they would have arrived.
//!
//! Each end limits the rate of its writes and delays its reads. The lanes inside are real: TLS over
//! TCP.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use futures::task::AtomicWaker;
use imux::lane::{
    DialError, Dialer, Lane, Listener, PendingLane, TlsDialer, TlsListener, poll_read_buffered,
};
use imux::trust::PeerIdentity;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Bytes leave in pieces that take this long: timers are no finer than a millisecond.
const PIECE: Duration = Duration::from_millis(2);

/// How much sending time is made up for when this program woke late: on a busy machine timers are
/// late, which is not the link's fault.
const LATE: Duration = Duration::from_millis(20);

/// What a link can do, each way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Speed {
    megabits: u32,
    delay: Duration,
}

impl Speed {
    /// `megabits` in Mbit/s, `delay_ms` in milliseconds from one end to the other.
    pub(super) const fn new(megabits: u32, delay_ms: u64) -> Self {
        Self { megabits, delay: Duration::from_millis(delay_ms) }
    }

    pub(super) fn bytes_per_second(self) -> f64 {
        f64::from(self.megabits) * 1e6 / 8.0
    }

    pub(super) fn round_trip(self) -> Duration {
        self.delay * 2
    }

    /// How long it takes to carry this many bytes one way, if nothing goes wrong.
    pub(super) fn time_for(self, bytes: u64) -> Duration {
        self.sending(bytes as f64) + self.delay
    }

    fn sending(self, bytes: f64) -> Duration {
        Duration::from_secs_f64(bytes / self.bytes_per_second())
    }

    /// How many bytes leave at once.
    fn piece(self) -> usize {
        (self.bytes_per_second() * PIECE.as_secs_f64()) as usize + 1
    }
}

/// A link as its client sees it: what it has carried, and a switch that kills its lane.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) speed: Speed,
    carried: Arc<Carried>,
    lane: Mutex<Option<Arc<Switch>>>,
    dead_until: Mutex<Option<Instant>>,
}

/// Bytes of all lanes a link has ever had.
#[derive(Debug, Default)]
struct Carried {
    sent: AtomicU64,
    received: AtomicU64,
}

#[derive(Debug, Default)]
struct Switch {
    off: AtomicBool,
    waker: AtomicWaker,
}

impl Wire {
    pub(super) fn new(speed: Speed) -> Self {
        let (carried, lane, dead_until) = Default::default();
        Self { speed, carried, lane, dead_until }
    }

    pub(super) fn sent(&self) -> u64 {
        self.carried.sent.load(Ordering::Relaxed)
    }

    pub(super) fn received(&self) -> u64 {
        self.carried.received.load(Ordering::Relaxed)
    }

    /// Cuts off the lane; the next one comes up after the outage.
    pub(super) fn kill(&self, outage: Duration) {
        *self.dead_until.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Instant::now() + outage);
        let lane = self.lane.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(switch) = lane {
            switch.off.store(true, Ordering::Release);
            switch.waker.wake();
        }
    }
}

/// Dials lanes with the speed of their wire.
#[derive(Debug)]
pub(super) struct PacedDialer {
    pub(super) dialer: TlsDialer,
    pub(super) wire: Arc<Wire>,
}

#[async_trait]
impl Dialer for PacedDialer {
    async fn dial(&self) -> Result<Box<dyn Lane>, DialError> {
        let dead_until = *self.wire.dead_until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = dead_until {
            tokio::time::sleep_until(until).await;
        }
        let inner = self.dialer.dial().await?;
        // The handshakes of TCP and TLS: two round trips, which took no time on loopback.
        tokio::time::sleep(self.wire.speed.round_trip() * 2).await;
        let switch = Arc::<Switch>::default();
        *self.wire.lane.lock().unwrap_or_else(PoisonError::into_inner) = Some(switch.clone());
        let carried = self.wire.carried.clone();
        Ok(Box::new(Paced::new(inner, self.wire.speed, switch, carried)))
    }

    fn name(&self) -> String {
        format!("{} Mbit/s", self.wire.speed.megabits)
    }
}

/// A listener for each link; its lanes have that link's speed.
#[derive(Debug)]
pub(super) struct ManyListeners(pub(super) Vec<(TlsListener, Speed)>);

#[async_trait]
impl Listener for ManyListeners {
    async fn accept(&self) -> io::Result<Box<dyn PendingLane>> {
        let accepting = self.0.iter().map(|(listener, speed)| {
            Box::pin(async {
                let inner = listener.accept().await?;
                Ok(Box::new(Pending { inner, speed: *speed }) as Box<dyn PendingLane>)
            })
        });
        // Accepting is cancel safe: connections to the other listeners wait there.
        futures::future::select_all(accepting).await.0
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self.0.first() {
            Some((listener, _)) => listener.local_addr(),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }
}

struct Pending {
    inner: Box<dyn PendingLane>,
    speed: Speed,
}

#[async_trait]
impl PendingLane for Pending {
    fn remote(&self) -> Option<SocketAddr> {
        self.inner.remote()
    }

    async fn handshake(self: Box<Self>) -> io::Result<Box<dyn Lane>> {
        let inner = self.inner.handshake().await?;
        let (switch, carried) = Default::default();
        Ok(Box::new(Paced::new(inner, self.speed, switch, carried)))
    }
}

/// A lane that is no faster than its link.
struct Paced {
    inner: Box<dyn Lane>,
    speed: Speed,
    switch: Arc<Switch>,
    carried: Arc<Carried>,
    /// When everything sent so far will have left; never more than a piece ahead, and until then
    /// nothing is sent.
    free_at: Instant,
    writing: Pin<Box<Sleep>>,
    /// What has arrived, and when it may be read.
    arriving: VecDeque<(Instant, Bytes)>,
    arriving_bytes: usize,
    /// What follows it: the end, or an error.
    last: Option<(Instant, io::Result<()>)>,
    reading: Pin<Box<Sleep>>,
}

impl Paced {
    fn new(inner: Box<dyn Lane>, speed: Speed, switch: Arc<Switch>, carried: Arc<Carried>) -> Self {
        let free_at = Instant::now();
        let timer = || Box::pin(tokio::time::sleep_until(free_at));
        Self {
            inner,
            speed,
            switch,
            carried,
            free_at,
            writing: timer(),
            arriving: VecDeque::new(),
            arriving_bytes: 0,
            last: None,
            reading: timer(),
        }
    }

    fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        self.switch.waker.register(cx.waker());
        if self.switch.off.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "killed by the demo"));
        }
        Ok(())
    }

    /// Ready when the link accepts bytes.
    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        while Instant::now() < self.free_at {
            self.writing.as_mut().reset(self.free_at);
            ready!(self.writing.as_mut().poll(cx));
        }
        Poll::Ready(Ok(()))
    }

    /// Takes bytes out of the inner lane, as many as the link could hold.
    fn take_in(&mut self, cx: &mut Context<'_>) {
        let link_holds = (self.speed.bytes_per_second() * self.speed.delay.as_secs_f64()) as usize;
        while self.last.is_none() && self.arriving_bytes < link_holds + 256 * 1024 {
            let due = Instant::now() + self.speed.delay;
            match Pin::new(&mut self.inner).poll_fill_buf(cx) {
                Poll::Pending => return,
                Poll::Ready(Err(error)) => self.last = Some((due, Err(error))),
                Poll::Ready(Ok([])) => self.last = Some((due, Ok(()))),
                Poll::Ready(Ok(bytes)) => {
                    let amount = bytes.len();
                    self.arriving.push_back((due, Bytes::copy_from_slice(bytes)));
                    self.arriving_bytes += amount;
                    self.carried.received.fetch_add(amount as u64, Ordering::Relaxed);
                    Pin::new(&mut self.inner).consume(amount);
                }
            }
        }
    }

    /// Ready when something may be read, even if it is the end.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let front = self.arriving.front().map(|(due, _)| *due);
        let Some(due) = front.or(self.last.as_ref().map(|(due, _)| *due)) else {
            // The inner lane wakes us.
            return Poll::Pending;
        };
        while Instant::now() < due {
            self.reading.as_mut().reset(due);
            ready!(self.reading.as_mut().poll(cx));
        }
        Poll::Ready(())
    }
}

impl AsyncBufRead for Paced {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        this.check(cx)?;
        this.take_in(cx);
        ready!(this.poll_due(cx));
        match (this.arriving.front(), &this.last) {
            (Some((_, bytes)), _) => Poll::Ready(Ok(bytes)),
            (None, Some((_, Err(error)))) => {
                Poll::Ready(Err(io::Error::new(error.kind(), error.to_string())))
            }
            (None, _) => Poll::Ready(Ok(&[])),
        }
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        if let Some((_, bytes)) = this.arriving.front_mut() {
            bytes.advance(amount);
            this.arriving_bytes -= amount;
            if bytes.is_empty() {
                this.arriving.pop_front();
            }
        }
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        poll_read_buffered(self, cx, out)
    }
}

impl AsyncWrite for Paced {
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
        ready!(this.poll_link(cx))?;
        let mut room = this.speed.piece();
        let mut piece = Vec::with_capacity(slices.len());
        for slice in slices {
            let part = &slice[..slice.len().min(room)];
            room -= part.len();
            piece.push(IoSlice::new(part));
            if room == 0 {
                break;
            }
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, &piece))?;
        this.carried.sent.fetch_add(written as u64, Ordering::Relaxed);
        let now = Instant::now();
        let earliest = now.checked_sub(LATE).unwrap_or(now);
        this.free_at = this.free_at.max(earliest) + this.speed.sending(written as f64);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Lane for Paced {
    fn export_keying_material(&self, label: &'static str, out: &mut [u8; 32]) -> io::Result<()> {
        self.inner.export_keying_material(label, out)
    }

    fn peer(&self) -> Option<PeerIdentity> {
        self.inner.peer()
    }

    // No metrics: what the kernel knows about loopback does not hold for the link.

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_link(cx))?;
        self.inner.poll_write_ready(cx)
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.inner.local_addr()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.inner.peer_addr()
    }

    fn abort(&self) {
        self.inner.abort();
    }
}

#[cfg(test)]
mod tests {
    use imux::lane::memory;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn paced(speed: Speed) -> (Paced, Paced, Arc<Switch>) {
        let (one, other) = memory::pair(1 << 20);
        let switch = Arc::<Switch>::default();
        let near = Paced::new(Box::new(one), speed, switch.clone(), Arc::default());
        let far = Paced::new(Box::new(other), speed, Arc::default(), Arc::default());
        (near, far, switch)
    }

    #[tokio::test(start_paused = true)]
    async fn rate_and_delay_are_those_of_the_link() {
        let speed = Speed::new(80, 30);
        let (mut near, mut far, _) = paced(speed);
        let begun = Instant::now();
        let sent: Vec<u8> = (0..2_000_000_u32).map(|n| n as u8).collect();
        let mut got = vec![0; sent.len()];
        let (written, read) = tokio::join!(near.write_all(&sent), far.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        assert_eq!(got, sent);
        // 2 MB at 10 MB/s, plus the last byte's travel time.
        let off = begun.elapsed().abs_diff(speed.time_for(2_000_000));
        assert!(off < Duration::from_millis(10), "{:?}", begun.elapsed());
        assert_eq!(near.carried.sent.load(Ordering::Relaxed), 2_000_000);
        assert_eq!(far.carried.received.load(Ordering::Relaxed), 2_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_is_delayed_as_well() {
        let (mut near, mut far, _) = paced(Speed::new(80, 30));
        let begun = Instant::now();
        near.write_all(b"x").await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"x");
        assert!(begun.elapsed() >= Duration::from_millis(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_killed_lane_wakes_its_reader_with_an_error() {
        let (mut near, _far, switch) = paced(Speed::new(80, 30));
        let reading = tokio::spawn(async move { near.read_u8().await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        switch.off.store(true, Ordering::Release);
        switch.waker.wake();
        let error = reading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
