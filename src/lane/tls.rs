//! Lanes of TLS 1.3 over TCP.
//!
//! A lane costs little more than its system calls and its cipher: a write is encrypted once, into
//! records that one system call takes; a read is decrypted in the buffer the socket filled and
//! decoded from there. `record` has the figures.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll, ready};

use rustls::crypto::cipher::OutboundChunks;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CipherSuite, NamedGroup};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::buffered::poll_read_buffered;
use super::{Lane, LaneMetrics};
use crate::trust::PeerIdentity;

mod dial;
mod error;
mod handshake;
mod keys;
mod large_hello;
mod record;
mod transport;

pub use dial::{TlsDialer, TlsListener, TlsSettings};
use error::{invalid, truncated};
use handshake::{Agreed, shake_hands};
use keys::TrafficSecrets;
pub use record::TLS_RECORD_MAX;
#[cfg(any(test, fuzzing))]
pub(crate) use record::fuzz::records as fuzz_records;
use record::{Opened, Opener, RecordBuffer, Sealer};
pub use transport::Transport;

/// The most one write encrypts at once: a system call's worth. More would only delay the choice of
/// what comes next.
const WRITE_MAX: usize = 256 * 1024;

/// A lane of TLS 1.3 over a connected pipe: TCP by default.
///
/// [`TlsDialer`] and [`TlsListener`] make them over bound TCP sockets; [`dial`](Self::dial) and
/// [`accept`](Self::accept) over any [`Transport`].
pub struct TlsLane<T = TcpStream> {
    socket: T,
    received: RecordBuffer,
    opener: Opener,
    /// The decrypted bytes in `received` that wait to be read.
    plaintext: Range<usize>,
    incoming: Incoming,
    sealer: Sealer,
    outbound: Outbound,
    /// We have announced our end.
    closed: bool,
    peer: Option<PeerIdentity>,
    exported: [(&'static str, Zeroizing<[u8; 32]>); 2],
    group: Option<NamedGroup>,
    suite: CipherSuite,
}

/// What to expect from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incoming {
    Open,
    /// Nothing more: it has said so (close_notify).
    Closed,
    /// Nothing that can be trusted: not a byte behind an error is handed out.
    Broken,
}

impl<T: Transport> TlsLane<T> {
    /// Shakes hands over `socket` as the end that dials. Takes as long as the peer likes: bound it.
    ///
    /// `config` is one of [`client_config`](crate::trust::client_config). `name` only helps a proxy
    /// that routes by it; who the server is, its key says.
    ///
    /// # Errors
    /// What went wrong with this peer.
    pub async fn dial(
        socket: T,
        name: ServerName<'static>,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        Self::dial_heard(socket, name, config, &AtomicBool::new(false)).await
    }

    /// As [`dial`](Self::dial); `heard` becomes true with the first byte that the peer sends.
    async fn dial_heard(
        socket: T,
        name: ServerName<'static>,
        mut config: Arc<ClientConfig>,
        heard: &AtomicBool,
    ) -> io::Result<Self> {
        let own = Arc::make_mut(&mut config);
        // The record layer is the lane's own, and so are its keys.
        own.enable_secret_extraction = true;
        let secrets = TrafficSecrets::catcher(own.key_log.clone());
        own.key_log = secrets.clone();
        let tls = ClientConnection::new(config, name).map_err(invalid)?;
        Ok(Self::new(shake_hands(socket, tls.into(), secrets, heard).await?))
    }

    fn new(agreed: Agreed<T>) -> Self {
        let Agreed { socket, received, opener, sealer, peer, exported, group, suite } = agreed;
        Self {
            socket,
            received,
            opener,
            plaintext: 0..0,
            incoming: Incoming::Open,
            sealer,
            outbound: Outbound::default(),
            closed: false,
            peer,
            exported,
            group,
            suite,
        }
    }

    /// Shakes hands over `socket` as the end that was dialled. Takes as long as the peer likes:
    /// bound it.
    ///
    /// `config` is one of [`server_config`](crate::trust::server_config).
    ///
    /// # Errors
    /// What went wrong with this peer.
    pub async fn accept(socket: T, mut config: Arc<ServerConfig>) -> io::Result<Self> {
        let own = Arc::make_mut(&mut config);
        // The record layer is the lane's own, and so are its keys.
        own.enable_secret_extraction = true;
        let secrets = TrafficSecrets::catcher(own.key_log.clone());
        own.key_log = secrets.clone();
        let tls = ServerConnection::new(config).map_err(invalid)?;
        let heard = AtomicBool::new(false);
        Ok(Self::new(shake_hands(socket, tls.into(), secrets, &heard).await?))
    }

    /// Sends the encrypted records.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outbound.poll_send(&mut self.socket, cx)
    }

    /// Decrypts the next record, from the buffer or the socket.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let received = ready!(self.poll_record(cx));
        if let Err(error) = &received {
            self.incoming = Incoming::Broken;
            self.give_up(cx, error);
        }
        Poll::Ready(received)
    }

    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(record) = self.received.next_record()? else {
            if ready!(self.received.poll_fill(&mut self.socket, cx))? == 0 {
                return Poll::Ready(Err(truncated()));
            }
            return Poll::Ready(Ok(()));
        };
        match self.opener.open(self.received.get_mut(record.clone()))? {
            Opened::Data(place) => {
                self.plaintext = record.start + place.start..record.start + place.end;
            }
            Opened::NewKeys { requested: true } => self.sealer.ask_for_update(),
            Opened::NewKeys { requested: false } | Opened::Nothing => {}
            Opened::Closed => self.incoming = Incoming::Closed,
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the peer that its bytes make no sense, if the socket takes the alert right now.
    fn give_up(&mut self, cx: &mut Context<'_>, error: &io::Error) {
        if self.closed || error.kind() != io::ErrorKind::InvalidData {
            return;
        }
        self.closed = true;
        let alert = match error.get_ref().and_then(|error| error.downcast_ref()) {
            Some(rustls::Error::DecryptError) => AlertDescription::BadRecordMac,
            Some(rustls::Error::PeerSentOversizedRecord) => AlertDescription::RecordOverflow,
            _ => AlertDescription::UnexpectedMessage,
        };
        if self.sealer.seal_alert(alert, &mut self.outbound.bytes).is_ok() {
            let _ = self.poll_send(cx);
        }
    }

    /// Encrypts as much as one write may; returns how much.
    fn encrypt(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let slices: Vec<&[u8]> = slices.iter().map(|slice| &**slice).collect();
        let (mut rest, _) = OutboundChunks::new(&slices).split_at(WRITE_MAX);
        let mut taken = 0;
        while !rest.is_empty() {
            let (one, more) = rest.split_at(TLS_RECORD_MAX);
            taken += one.len();
            self.sealer.seal(&one, &mut self.outbound.bytes)?;
            rest = more;
        }
        Ok(taken)
    }
}

impl<T: Transport> AsyncBufRead for TlsLane<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.plaintext.is_empty() {
            match this.incoming {
                Incoming::Open => ready!(this.poll_receive(cx))?,
                Incoming::Closed => break,
                Incoming::Broken => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            }
        }
        Poll::Ready(Ok(this.received.get(this.plaintext.clone())))
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        assert!(amount <= this.plaintext.len(), "consumes more than there is");
        this.plaintext.start += amount;
    }
}

impl<T: Transport> AsyncRead for TlsLane<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        poll_read_buffered(self, cx, out)
    }
}

impl<T: Transport> AsyncWrite for TlsLane<T> {
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
        if this.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_send(cx))?;
        let taken = this.encrypt(slices)?;
        // What the socket does not take now waits: it already has its place in the lane's sequence.
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.closed = true;
            this.sealer.seal_alert(AlertDescription::CloseNotify, &mut this.outbound.bytes)?;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

impl<T: Transport> Lane for TlsLane<T> {
    fn export_keying_material(&self, label: &'static str, out: &mut [u8; 32]) -> io::Result<()> {
        // The exporter's secret is gone with the handshake; these labels are all that sessions ask
        // for.
        let (_, value) =
            self.exported.iter().find(|(known, _)| *known == label).ok_or_else(|| {
                io::Error::new(io::ErrorKind::Unsupported, "no keying material of this label")
            })?;
        *out = **value;
        Ok(())
    }

    fn peer(&self) -> Option<PeerIdentity> {
        self.peer
    }

    fn metrics(&self) -> Option<LaneMetrics> {
        self.socket.metrics()
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        self.socket.poll_write_ready(cx)
    }

    fn set_unsent_limit(&self, bytes: u32) {
        self.socket.set_unsent_limit(bytes);
    }

    fn set_pacing_limit(&self, bytes_per_second: u64) {
        self.socket.set_pacing_limit(bytes_per_second);
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.socket.peer_addr()
    }

    fn describe(&self) -> String {
        // rustls uses the registry's names: TLS13_AES_128_GCM_SHA256.
        let suite = format!("{:?}", self.suite);
        let suite = suite.strip_prefix("TLS13_").unwrap_or(&suite);
        let suite = suite.rsplit_once("_SHA").map_or(suite, |(cipher, _)| cipher).replace('_', "-");
        let group = self.group.map_or_else(String::new, |group| format!("{group:?}"));
        format!("TLS 1.3 {group} {suite}, {}", self.socket.describe())
    }

    fn abort(&self) {
        self.socket.abort();
    }
}

impl<T: fmt::Debug> fmt::Debug for TlsLane<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsLane")
            .field("socket", &self.socket)
            .field("peer", &self.peer)
            .field("incoming", &self.incoming)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// Encrypted records on their way to the socket.
#[derive(Default)]
struct Outbound {
    bytes: Vec<u8>,
    /// How many bytes of them have been sent.
    sent: usize,
}

impl Outbound {
    /// Sends everything.
    fn poll_send(
        &mut self,
        socket: &mut impl Transport,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match ready!(Pin::new(&mut *socket).poll_write(cx, &self.bytes[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        // Keeps the memory for the next write.
        self.bytes.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
