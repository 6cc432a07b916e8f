//! A place where connections are accepted, or datagrams taken.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::unix::UnixSocket;
use crate::net::as_ipv4;
use crate::tunnel::socket::Socket;
use crate::tunnel::udp_socket::UdpPort;

/// What programs connect to.
#[derive(Debug)]
#[non_exhaustive]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A file.
    Unix(UnixSocket),
    /// A port that takes datagrams, and no connections.
    Udp(Arc<UdpPort>),
    /// One that somebody else may accept from as well, now or later.
    Shared(Arc<Listener>),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixSocket> for Listener {
    fn from(listener: UnixSocket) -> Self {
        Self::Unix(listener)
    }
}

impl From<UdpPort> for Listener {
    fn from(port: UdpPort) -> Self {
        Self::Udp(Arc::new(port))
    }
}

impl fmt::Display for Listener {
    /// Its address, after `udp:` if it takes datagrams, or the path of its file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(at) => as_ipv4(at).fmt(f),
                Err(error) => error.fmt(f),
            },
            Self::Unix(listener) => listener.path().display().fmt(f),
            Self::Udp(port) => port.fmt(f),
            Self::Shared(listener) => listener.fmt(f),
        }
    }
}

impl Listener {
    /// The port, if it is one that accepts connections.
    #[must_use]
    pub fn tcp(&self) -> Option<&TcpListener> {
        match self {
            Self::Tcp(listener) => Some(listener),
            Self::Unix(_) | Self::Udp(_) => None,
            Self::Shared(listener) => listener.tcp(),
        }
    }

    /// The port, if it is one that takes datagrams.
    #[must_use]
    pub fn udp(&self) -> Option<&Arc<UdpPort>> {
        match self {
            Self::Udp(port) => Some(port),
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Shared(listener) => listener.udp(),
        }
    }

    /// The next connection, and who made it. Cancel safe.
    pub(super) async fn accept(&self) -> io::Result<(Socket, String)> {
        let (socket, from) = self.accept_from().await?;
        let from = from.map_or_else(|| socket.peer(), |from| as_ipv4(from).to_string());
        Ok((socket, from))
    }

    /// The next connection, and the address it comes from, if it has one. Cancel safe.
    pub(super) async fn accept_from(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        let mut this = self;
        while let Self::Shared(listener) = this {
            this = listener;
        }
        match this {
            Self::Tcp(listener) => {
                let (socket, from) = listener.accept().await?;
                Ok((Socket::Tcp(socket), Some(from)))
            }
            Self::Unix(listener) => Ok((Socket::Unix(listener.accept().await?), None)),
            Self::Udp(_) | Self::Shared(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}
