//! Lanes over turmoil's TCP: the very TLS of production, on simulated sockets.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use imux::lane::{DialError, Dialer, Lane, Listener, PendingLane, TlsLane, Transport};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// Where relays and the server listen.
pub const PORT: u16 = 443;

/// As production's default.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A simulated socket that takes no more at once than a kernel might.
#[derive(Debug)]
struct Pipe {
    socket: TcpStream,
    segment_bytes: usize,
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, out)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let segment = &bytes[..bytes.len().min(self.segment_bytes)];
        Pin::new(&mut self.socket).poll_write(cx, segment)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Transport for Pipe {
    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It has no state of its own: asked anew each time.
        pin!(self.socket.writable()).poll(cx)
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        self.socket.peer_addr().ok()
    }

    fn describe(&self) -> String {
        "simulated TCP".to_owned()
    }
}

/// Dials the server through a relay.
#[derive(Debug)]
pub struct SimDialer {
    pub relay: String,
    pub config: Arc<rustls::ClientConfig>,
    pub segment_bytes: usize,
}

impl SimDialer {
    async fn dial_tls(&self) -> Result<TlsLane<Pipe>, DialError> {
        let failed = |error: io::Error| DialError::Other(error.into());
        let socket = TcpStream::connect((self.relay.as_str(), PORT)).await.map_err(failed)?;
        let addr = socket.peer_addr().map_err(failed)?;
        let socket = Pipe { socket, segment_bytes: self.segment_bytes };
        let name = ServerName::IpAddress(addr.ip().into());
        TlsLane::dial(socket, name, self.config.clone()).await.map_err(failed)
    }
}

#[async_trait]
impl Dialer for SimDialer {
    async fn dial(&self) -> Result<Box<dyn Lane>, DialError> {
        match tokio::time::timeout(DIAL_TIMEOUT, self.dial_tls()).await {
            Ok(lane) => Ok(Box::new(lane?)),
            Err(late) => Err(DialError::Other(late.into())),
        }
    }

    fn name(&self) -> String {
        self.relay.clone()
    }
}

/// Where lanes come in at the server.
pub struct SimListener {
    socket: TcpListener,
    config: Arc<rustls::ServerConfig>,
    segment_bytes: usize,
}

impl SimListener {
    /// Listens at [`PORT`].
    ///
    /// # Errors
    /// turmoil's.
    pub async fn bind(config: Arc<rustls::ServerConfig>, segment_bytes: usize) -> io::Result<Self> {
        let socket = TcpListener::bind(("0.0.0.0", PORT)).await?;
        Ok(Self { socket, config, segment_bytes })
    }
}

impl std::fmt::Debug for SimListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimListener({:?})", self.socket.local_addr())
    }
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&self) -> io::Result<Box<dyn PendingLane>> {
        let (socket, remote) = self.socket.accept().await?;
        let socket = Pipe { socket, segment_bytes: self.segment_bytes };
        Ok(Box::new(Pending { socket, remote, config: self.config.clone() }))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

struct Pending {
    socket: Pipe,
    remote: SocketAddr,
    config: Arc<rustls::ServerConfig>,
}

#[async_trait]
impl PendingLane for Pending {
    fn remote(&self) -> Option<SocketAddr> {
        Some(self.remote)
    }

    async fn handshake(self: Box<Self>) -> io::Result<Box<dyn Lane>> {
        Ok(Box::new(TlsLane::accept(self.socket, self.config).await?))
    }
}
