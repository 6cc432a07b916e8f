//! The forwarded sockets: their options, and how much of what was sent the program takes.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use bytes::BufMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, sleep_until};

use crate::driver::FlowOptions;
use crate::lane::{outgoing, unread};
use crate::net::as_ipv4;

/// A program that takes nothing for this long is told that its connection broke off, though there
/// is more for it. Connected directly, it would be told at once, and see nothing of what its kernel
/// had not taken yet.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// How long to watch whether a program takes anything, if as far as is known it has not for longer
/// than [`PATIENCE`]: a socket reports room only when a third of its buffer is free.
const LOOK: Duration = Duration::from_millis(200);

/// What the kernel may hold for a program beyond what the program's own kernel has room for
/// (`TCP_NOTSENT_LOWAT`). Without it megabytes pile up in the send buffer of a paused program,
/// unswappable and uncounted; it does not bound what is on its way to one that reads.
const UNSENT_LIMIT: u32 = 128 << 10;

/// How often to check at first whether a program's kernel has taken everything; then less and less
/// often.
const DRAIN_POLL_MIN: Duration = Duration::from_millis(1);
const DRAIN_POLL_MAX: Duration = Duration::from_millis(20);

/// How forwarded sockets are set up, on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Whether to probe the other end of a quiet connection: a program's own keepalive ends at
    /// this side of the tunnel.
    pub keepalive: Option<Keepalive>,
    /// A connection that carries nothing for this long, or up to a quarter longer, is reset.
    pub idle_timeout: Option<Duration>,
}

/// When the kernel probes the other end. Whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// After this much silence (`TCP_KEEPIDLE`), 1 to 32,767 s.
    pub idle: Duration,
    /// Then this often (`TCP_KEEPINTVL`), 1 to 32,767 s.
    pub interval: Duration,
    /// After this many unanswered probes (`TCP_KEEPCNT`) the connection is broken; 1 to 127.
    pub probes: u32,
}

impl SocketOptions {
    /// Flows end after as long as connections do, if that is set.
    pub(super) fn for_flows(&self, options: FlowOptions) -> FlowOptions {
        let idle_timeout = self.idle_timeout.unwrap_or(options.idle_timeout);
        FlowOptions { idle_timeout, ..options }
    }
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self { keepalive: Some(Keepalive::default()), idle_timeout: None }
    }
}

impl Default for Keepalive {
    /// Finds an end that has vanished within two minutes, and keeps routers that forget a quiet
    /// connection after two from doing so.
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 6 }
    }
}

/// A program's connection.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(socket) => socket.ready(interest).await,
            Self::Unix(socket) => socket.ready(interest).await,
        }
    }

    pub(super) fn try_read_buf(&self, buffer: &mut impl BufMut) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read_buf(buffer),
            Self::Unix(socket) => socket.try_read_buf(buffer),
        }
    }

    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write_vectored(slices),
            Self::Unix(socket) => socket.try_write_vectored(slices),
        }
    }

    #[cfg(feature = "proxy")]
    pub(super) fn try_io<T>(
        &self,
        interest: Interest,
        io: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        match self {
            Self::Tcp(socket) => socket.try_io(interest, io),
            Self::Unix(socket) => socket.try_io(interest, io),
        }
    }

    /// Nothing more will be written.
    pub(super) fn finish(&self) -> io::Result<()> {
        SockRef::from(self).shutdown(Shutdown::Write)
    }

    /// Who has connected, for the log.
    pub(super) fn peer(&self) -> String {
        let said = |address: io::Result<_>| {
            address.map_or_else(|error| error.to_string(), |at| as_ipv4(at).to_string())
        };
        match self {
            Self::Tcp(socket) => said(socket.peer_addr()),
            Self::Unix(socket) => match socket.peer_cred() {
                Ok(who) => format!("user {}, process {}", who.uid(), who.pid().unwrap_or_default()),
                Err(error) => error.to_string(),
            },
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// No delay: what comes in pieces goes out in pieces. Urgent bytes stay in line: out of line they
/// would be lost. An option that cannot be set costs time, such a byte or memory, nothing else.
pub(super) fn prepare(socket: &Socket, options: &SocketOptions) {
    // Others have no such options, and their far ends do not vanish silently.
    let Socket::Tcp(socket) = socket else { return };
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    if let Err(error) = SockRef::from(socket).set_out_of_band_inline(true) {
        tracing::debug!(%error, "SO_OOBINLINE");
    }
    if let Err(error) = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_LIMIT) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT");
    }
    if let Some(Keepalive { idle, interval, probes }) = options.keepalive {
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(interval);
        let keepalive = keepalive.with_retries(probes);
        if let Err(error) = SockRef::from(socket).set_tcp_keepalive(&keepalive) {
            tracing::debug!(%error, "SO_KEEPALIVE");
        }
    }
}

/// Makes the coming close a reset, so that the other program sees a broken connection and not an
/// end. What it has not received by then it never will: see [`drained`]. A Unix socket appears
/// broken only to a program whose data is still unread.
pub(super) fn reset(socket: &Socket) {
    if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "SO_LINGER");
    }
}

/// Waits until the program's kernel has everything written (for a Unix socket, at once) or the
/// program takes no more.
pub(super) async fn drained(socket: &Socket) {
    let emptied = async {
        let mut pause = DRAIN_POLL_MIN;
        while outgoing(socket).is_some_and(|outgoing| outgoing.any_left) {
            sleep(pause).await;
            pause = (pause * 2).min(DRAIN_POLL_MAX);
        }
    };
    tokio::select! {
        biased;
        () = emptied => {}
        () = stalled(socket, Instant::now()) => {}
    }
}

/// Waits until the program has taken nothing for [`PATIENCE`]. The socket is known to have had no
/// room since `since`.
pub(super) async fn stalled(socket: &Socket, since: Instant) {
    let taken = || match socket {
        Socket::Tcp(socket) => outgoing(socket).map(|outgoing| outgoing.acked_bytes),
        Socket::Unix(socket) => unread(socket).map(u64::from),
    };
    let mut before = taken();
    let mut look_at = (since + PATIENCE).max(Instant::now() + LOOK);
    loop {
        sleep_until(look_at).await;
        let now = taken();
        if now == before {
            return;
        }
        before = now;
        look_at = Instant::now() + PATIENCE;
    }
}
