//! Lanes: reliable, ordered, confidential byte pipes, and how they are made.
//!
//! A session runs over a changing set of lanes, whatever each is made of: here TLS 1.3 over a TCP
//! socket bound to a local address or device ([`TlsDialer`], [`TlsListener`]), and pipes in memory
//! for tests ([`memory`]). Another transport is another implementation of [`Lane`], [`Dialer`] and
//! [`Listener`]; nothing here is sealed.
//!
//! This room moves bytes. It knows nothing of frames, streams or sessions and never imports
//! `proto`.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncBufRead, AsyncWrite};

use crate::trust::PeerIdentity;

mod bind;
mod buffered;
mod error;
pub mod memory;
mod metrics;
mod resolve;
mod tcp;
mod tls;

pub use bind::{Bind, BindSource};
// For the lanes of this package's program; not part of the API.
#[doc(hidden)]
pub use buffered::poll_read_buffered;
pub use error::DialError;
pub(crate) use metrics::{outgoing, unread};
pub use resolve::{resolve, resolve_as_group};
pub use tcp::{Congestion, TcpOptions, listen};
#[cfg(any(test, fuzzing))]
pub(crate) use tls::fuzz_records;
pub use tls::{TLS_RECORD_MAX, TlsDialer, TlsLane, TlsListener, TlsSettings, Transport};

/// One reliable, ordered, confidential and authenticated byte pipe.
///
/// # Contract
///
/// - Reading: the session decodes straight from [`poll_fill_buf`](AsyncBufRead::poll_fill_buf). An
///   empty buffer is the *authenticated* end of what the peer sent; a pipe that merely breaks off
///   is an error, of kind [`UnexpectedEof`](io::ErrorKind::UnexpectedEof) if nothing better is
///   known.
/// - Writing: [`poll_write_vectored`](AsyncWrite::poll_write_vectored) takes bytes only while
///   nothing from an earlier write still waits inside the lane, and is pending otherwise: bytes
///   must not queue where nobody can move them to another lane. It sends what it has taken without
///   another call if the transport has room; [`poll_flush`](AsyncWrite::poll_flush) finishes the
///   rest.
/// - After [`poll_shutdown`](AsyncWrite::poll_shutdown) the peer reads an end, and writing is an
///   error ([`BrokenPipe`](io::ErrorKind::BrokenPipe)). Reading goes on.
/// - One task polls everything: a lane keeps one waker for reading and one for writing.
pub trait Lane: AsyncBufRead + AsyncWrite + Send + Unpin + 'static {
    /// Keying material of this lane alone, the same on both ends (RFC 5705), 32 bytes. It binds a
    /// session's proof of membership to this lane and no other. The labels are
    /// [`SESSION_EXPORTER_LABEL`] and [`LANE_EXPORTER_LABEL`].
    ///
    /// [`SESSION_EXPORTER_LABEL`]: crate::trust::SESSION_EXPORTER_LABEL
    /// [`LANE_EXPORTER_LABEL`]: crate::trust::LANE_EXPORTER_LABEL
    ///
    /// # Errors
    /// If the lane cannot export, or not with this label.
    fn export_keying_material(&self, label: &'static str, out: &mut [u8; 32]) -> io::Result<()>;

    /// The key the other end has proven to hold; `None` if it showed none.
    fn peer(&self) -> Option<PeerIdentity>;

    /// What the transport knows about the lane's path now; `None` if it knows nothing. One system
    /// call.
    fn metrics(&self) -> Option<LaneMetrics> {
        None
    }

    /// Ready when a write would be taken and put on the wire now: nothing waits inside the lane,
    /// and the transport holds fewer unsent bytes than its limit
    /// ([`set_unsent_limit`](Lane::set_unsent_limit)). Ask before choosing what to write, so that
    /// the choice is made as late as possible.
    ///
    /// # Errors
    /// The lane's IO errors, after which it is dead.
    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_flush(cx)
    }

    /// Bounds the bytes the transport may hold unsent (`TCP_NOTSENT_LOWAT`).
    fn set_unsent_limit(&self, _bytes: u32) {}

    /// Bounds the transport's sending rate, in bytes a second (`SO_MAX_PACING_RATE`), if it probes
    /// the path's rate by pacing.
    fn set_pacing_limit(&self, _bytes_per_second: u64) {}

    /// This end's address, for logs.
    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// The other end's address, for logs.
    fn peer_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// What the lane is made of, for logs and reports: `TLS 1.3 X25519MLKEM768 AES-128-GCM, TCP
    /// bbr`.
    fn describe(&self) -> String {
        String::new()
    }

    /// From now on dropping the lane cuts it off (a TCP reset) instead of letting the transport
    /// send what is left.
    fn abort(&self) {}
}

impl fmt::Debug for dyn Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("local", &self.local_addr())
            .field("peer", &self.peer_addr())
            .finish_non_exhaustive()
    }
}

/// What a lane's transport has measured of its path, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneMetrics {
    /// Smoothed round-trip time; zero before the first sample.
    pub rtt: Duration,
    /// The smallest round-trip time seen lately; `None` before the first sample.
    pub rtt_min: Option<Duration>,
    /// Mean deviation of the round-trip time.
    pub rtt_var: Duration,
    /// Latest measure of the path's delivery rate, in bytes a second; 0 before the first sample.
    pub delivery_rate: u64,
    /// The rate was limited by what there was to send, not by the path, and so is a lower bound.
    pub delivery_rate_app_limited: bool,
    /// The rate the transport would send at now, in bytes a second; `None` if it does not pace.
    pub pacing_rate: Option<u64>,
    /// How long ago the peer's transport last acknowledged anything; `None` if unknown.
    pub silence: Option<Duration>,
    /// Bytes sent and not yet acknowledged by the peer's transport (in whole segments if the
    /// transport counts those).
    pub unacked_bytes: u64,
    /// Bytes taken from us and not yet sent for the first time.
    pub unsent_bytes: u64,
    /// Congestion window in bytes.
    pub cwnd_bytes: u64,
    /// Bytes that have arrived since the lane came up, in order or not (in whole segments if the
    /// transport counts those); `None` if unknown.
    pub delivered_bytes: Option<u64>,
    /// Largest segment the path currently takes, in bytes of payload.
    pub mss: u32,
    /// Segments sent again since the lane came up.
    pub retransmits: u64,
    /// The peer's end or reset has arrived, read or not: anything written now is lost.
    pub ended: bool,
}

impl LaneMetrics {
    /// Metrics of a lane before any measurement: a start for an implementation outside this crate.
    pub const UNKNOWN: Self = Self {
        rtt: Duration::ZERO,
        rtt_min: None,
        rtt_var: Duration::ZERO,
        delivery_rate: 0,
        delivery_rate_app_limited: true,
        pacing_rate: None,
        silence: None,
        unacked_bytes: 0,
        unsent_bytes: 0,
        cwnd_bytes: 0,
        delivered_bytes: None,
        mss: 0,
        retransmits: 0,
        ended: false,
    };
}

/// Makes lanes to one server over one local address or device: one dialer per bind.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// Makes one lane, ready for use: connected, keys exchanged, the peer's key proven (but not yet
    /// judged).
    ///
    /// Cancel safe: dropping the future abandons the attempt and leaves nothing behind.
    ///
    /// # Errors
    /// Why there is no lane now. Whatever the reason, the caller tries again later.
    async fn dial(&self) -> Result<Box<dyn Lane>, DialError>;

    /// What this dialer's lanes are bound to, for logs: `192.168.1.2` or `dev:eth1`.
    fn name(&self) -> String;
}

/// Accepts lanes.
#[async_trait]
pub trait Listener: Send + Sync + 'static {
    /// The next incoming lane. It has cost almost nothing yet: the handshake is a separate step, so
    /// that the caller can count and limit them, and run many at a time.
    ///
    /// # Errors
    /// Errors of the listening socket. Those of a single connection, and running out of file
    /// descriptors, are temporary: call again after a pause.
    async fn accept(&self) -> io::Result<Box<dyn PendingLane>>;

    /// The address lanes arrive at.
    ///
    /// # Errors
    /// If the listener has none.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// A lane before its handshake.
#[async_trait]
pub trait PendingLane: Send {
    /// The address it comes from.
    fn remote(&self) -> Option<SocketAddr>;

    /// Exchanges keys. It takes as long as the peer likes: put a timeout on it.
    ///
    /// # Errors
    /// What went wrong with this peer.
    async fn handshake(self: Box<Self>) -> io::Result<Box<dyn Lane>>;
}

impl fmt::Debug for dyn PendingLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingLane").field("remote", &self.remote()).finish_non_exhaustive()
    }
}
