//! Lanes of TLS 1.3 over TCP.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use socket2::SockRef;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::happy_eyeballs::{RaceError, race};
use super::metrics::tcp_metrics;
use super::resolve::{resolve, split_host_port};
use super::{
    BindSource, DialError, Dialer, Lane, LaneMetrics, Listener, PendingLane, TcpOptions, tcp,
};
use crate::trust::{ALPN, PeerIdentity};

/// Largest payload of one TLS record (RFC 8446, section 5.1). What does not straddle two records is decoded without being
/// pieced together, so writers keep their units within it.
pub const TLS_RECORD_MAX: usize = 1 << 14;

/// What one write may encrypt at once: a system call's worth. More would only delay the choice of what comes next.
const WRITE_MAX: usize = 256 * 1024;

/// What one read may take from the socket. rustls itself would read 4 KiB at a time.
const READ_MAX: usize = 64 * 1024;

/// A lane of TLS 1.3 over TCP.
pub struct TlsLane {
    socket: TcpStream,
    tls: Connection,
    /// Records read from the socket and not yet given to `tls`.
    received: Received,
    /// Decrypted bytes that wait in `tls`.
    plaintext: usize,
    /// The peer has said that nothing more comes (close_notify).
    peer_closed: bool,
    /// We have said so.
    closed: bool,
    peer: Option<PeerIdentity>,
}

impl TlsLane {
    fn new(socket: TcpStream, mut tls: Connection) -> Self {
        tls.set_buffer_limit(Some(WRITE_MAX));
        Self {
            socket,
            tls,
            received: Received::new(READ_MAX),
            plaintext: 0,
            peer_closed: false,
            closed: false,
            peer: None,
        }
    }

    async fn handshake(mut self) -> io::Result<Self> {
        poll_fn(|cx| self.poll_handshake(cx)).await?;
        if self.tls.alpn_protocol() != Some(ALPN) {
            let what = "the peer speaks TLS but not imux (ALPN)";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        self.peer = match self.tls.peer_certificates() {
            Some([certificate, ..]) => {
                Some(PeerIdentity::from_certificate(certificate).map_err(invalid)?)
            }
            _ => None,
        };
        Ok(self)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let sent = self.poll_send(cx)?;
            if !self.tls.is_handshaking() {
                return sent.map(Ok);
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// Sends what is encrypted.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut socket = SocketWriter { socket: &mut self.socket, cx };
            match self.tls.write_tls(&mut socket) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Receives until there is plaintext, an end, or something of the handshake was read.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.received.is_empty() && ready!(self.received.poll_fill(&mut self.socket, cx))? == 0 {
            let what = "the connection broke off (no close_notify)";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, what)));
        }
        // Record by record: what is decrypted ahead of its reader would only be in memory twice.
        while self.plaintext == 0 && !self.peer_closed && !self.received.is_empty() {
            let taken = self.tls.read_tls(&mut self.received.filled())?;
            self.received.consume(taken);
            match self.tls.process_new_packets() {
                Ok(state) => {
                    self.plaintext = state.plaintext_bytes_to_read();
                    self.peer_closed = state.peer_has_closed();
                }
                Err(error) => {
                    // Tell the peer, if the socket takes it right now.
                    let _ = self.poll_send(cx);
                    return Poll::Ready(Err(invalid(error)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsyncBufRead for TlsLane {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        while this.plaintext == 0 {
            if this.peer_closed {
                return Poll::Ready(Ok(&[]));
            }
            ready!(this.poll_receive(cx))?;
        }
        Poll::Ready(this.tls.reader().into_first_chunk())
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        let this = self.get_mut();
        io::BufRead::consume(&mut this.tls.reader(), amount);
        this.plaintext -= amount;
    }
}

impl AsyncRead for TlsLane {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = ready!(self.as_mut().poll_fill_buf(cx))?;
        let amount = filled.len().min(out.remaining());
        out.put_slice(&filled[..amount]);
        self.consume(amount);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsLane {
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
        let taken = this.tls.writer().write_vectored(slices)?;
        // What the socket does not take now waits; it is part of the lane's sequence already.
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
            this.tls.send_close_notify();
            this.closed = true;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

impl Lane for TlsLane {
    fn export_keying_material(&self, label: &'static str, out: &mut [u8; 32]) -> io::Result<()> {
        self.tls
            .export_keying_material(out, label.as_bytes(), None)
            .map(drop)
            .map_err(io::Error::other)
    }

    fn peer(&self) -> Option<PeerIdentity> {
        self.peer
    }

    fn metrics(&self) -> Option<LaneMetrics> {
        tcp_metrics(&self.socket)
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        loop {
            ready!(self.socket.poll_write_ready(cx))?;
            // tokio calls a socket writable until a write has failed; the kernel knows better. Its "no" clears tokio's
            // "yes", and makes the kernel tell when it changes.
            let asked = self.socket.try_io(Interest::WRITABLE, || kernel_takes(&self.socket));
            match asked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                answer => return Poll::Ready(answer),
            }
        }
    }

    fn set_unsent_limit(&self, bytes: u32) {
        // A socket that is gone says so when it is written to.
        let _ = SockRef::from(&self.socket).set_tcp_notsent_lowat(bytes);
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.socket.peer_addr().ok()
    }

    fn describe(&self) -> String {
        // rustls's names are those of the registry: TLS13_AES_128_GCM_SHA256.
        let suite = self.tls.negotiated_cipher_suite().map_or_else(String::new, |suite| {
            let name = format!("{:?}", suite.suite());
            let name = name.strip_prefix("TLS13_").unwrap_or(&name);
            name.rsplit_once("_SHA").map_or(name, |(cipher, _)| cipher).replace('_', "-")
        });
        let group = self.tls.negotiated_key_exchange_group().map(|group| group.name());
        let group = group.map_or_else(String::new, |name| format!("{name:?}"));
        let congestion = tcp::congestion(&self.socket).unwrap_or_default();
        format!("TLS 1.3 {group} {suite}, TCP {congestion}")
    }

    fn abort(&self) {
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }
}

impl fmt::Debug for TlsLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsLane")
            .field("socket", &self.socket)
            .field("peer", &self.peer)
            .field("peer_closed", &self.peer_closed)
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// Whether the kernel takes bytes now, as `WouldBlock` or not. Less than its limit unsent means yes; so does an error, which
/// the next write will tell.
fn kernel_takes(socket: &TcpStream) -> io::Result<()> {
    let mut asked = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    match nix::poll::poll(&mut asked, PollTimeout::ZERO)? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

/// Bytes from the socket, on their way to be decrypted.
struct Received {
    buffer: Box<[u8]>,
    // 0 <= start <= end <= buffer.len()
    start: usize,
    end: usize,
}

impl Received {
    fn new(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity].into(), start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn filled(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn consume(&mut self, amount: usize) {
        self.start += amount;
        debug_assert!(self.start <= self.end);
    }

    /// Reads once into the empty buffer.
    fn poll_fill(
        &mut self,
        socket: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.is_empty());
        let mut into = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(socket).poll_read(cx, &mut into))?;
        (self.start, self.end) = (0, into.filled().len());
        Poll::Ready(Ok(self.end))
    }
}

/// Lets rustls write to the socket: all it has, in one system call.
struct SocketWriter<'a, 'b> {
    socket: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
}

impl Write for SocketWriter<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut *self.socket).poll_write_vectored(self.cx, slices) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Dials TLS lanes to one server from one local address or device.
#[derive(Debug, Clone)]
pub struct TlsDialer {
    server: String,
    bind: BindSource,
    config: Arc<ClientConfig>,
    options: TcpOptions,
}

impl TlsDialer {
    /// Dials `server` (`host:port`), whose name is resolved anew each time, from `bind`.
    ///
    /// # Errors
    /// [`DialError::InvalidAddress`] where `server` is not of that form.
    pub fn new(
        server: impl Into<String>,
        bind: BindSource,
        config: Arc<ClientConfig>,
        options: TcpOptions,
    ) -> Result<Self, DialError> {
        let server = server.into();
        split_host_port(&server)?;
        Ok(Self { server, bind, config, options })
    }

    async fn connect(&self) -> Result<(SocketAddr, TcpStream), DialError> {
        let (host, bind) = (self.server.clone(), self.bind.clone());
        let all = resolve(&self.server).await?;
        let addresses: Vec<_> = all.iter().copied().filter(|addr| bind.reaches(addr)).collect();
        if addresses.is_empty() {
            return Err(DialError::NoAddressOfFamily { host, bind, addresses: all });
        }
        let connect = |addr| tcp::connect(&self.bind, addr, &self.options);
        race(addresses, connect).await.map_err(|error| match error {
            RaceError::Local(error) => error,
            RaceError::Remote(attempts) => DialError::Connect { host, bind, attempts },
        })
    }

    async fn dial_tls(&self) -> Result<TlsLane, DialError> {
        let (host, _port) = split_host_port(&self.server)?;
        let (addr, socket) = self.connect().await?;
        let failed = |source| DialError::Handshake { addr, source };
        // The name only helps a proxy that routes by it; who the server is, its key says.
        let name = ServerName::try_from(host.to_owned())
            .unwrap_or_else(|_| ServerName::IpAddress(addr.ip().into()));
        let tls = ClientConnection::new(self.config.clone(), name)
            .map_err(|error| failed(invalid(error)))?;
        TlsLane::new(socket, tls.into()).handshake().await.map_err(failed)
    }
}

#[async_trait]
impl Dialer for TlsDialer {
    async fn dial(&self) -> Result<Box<dyn Lane>, DialError> {
        let after = self.options.dial_timeout;
        match tokio::time::timeout(after, self.dial_tls()).await {
            Ok(result) => Ok(Box::new(result?)),
            Err(_) => {
                let (host, bind) = (self.server.clone(), self.bind.clone());
                Err(DialError::Timeout { host, bind, after })
            }
        }
    }

    fn name(&self) -> String {
        self.bind.to_string()
    }
}

/// Where TLS lanes come in.
#[derive(Debug)]
pub struct TlsListener {
    socket: TcpListener,
    config: Arc<ServerConfig>,
    options: TcpOptions,
}

impl TlsListener {
    /// Listens at `addr`, inside a tokio runtime.
    ///
    /// # Errors
    /// As the kernel says: the address is in use, is not this machine's, or needs more rights.
    pub fn bind(
        addr: SocketAddr,
        config: Arc<ServerConfig>,
        options: TcpOptions,
    ) -> io::Result<Self> {
        Ok(Self { socket: tcp::listen(addr)?, config, options })
    }
}

#[async_trait]
impl Listener for TlsListener {
    async fn accept(&self) -> io::Result<Box<dyn PendingLane>> {
        let (socket, remote) = self.socket.accept().await?;
        let (config, options) = (self.config.clone(), self.options.clone());
        Ok(Box::new(PendingTls { socket, remote, config, options }))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

struct PendingTls {
    socket: TcpStream,
    remote: SocketAddr,
    config: Arc<ServerConfig>,
    options: TcpOptions,
}

#[async_trait]
impl PendingLane for PendingTls {
    fn remote(&self) -> Option<SocketAddr> {
        Some(self.remote)
    }

    async fn handshake(self: Box<Self>) -> io::Result<Box<dyn Lane>> {
        tcp::tune(&SockRef::from(&self.socket), &self.options).map_err(io::Error::other)?;
        let tls = ServerConnection::new(self.config).map_err(invalid)?;
        Ok(Box::new(TlsLane::new(self.socket, tls.into()).handshake().await?))
    }
}

#[cfg(test)]
mod tests;
