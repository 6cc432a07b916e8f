//! Where TLS lanes come from: dialled from a bind, or accepted.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};

use super::TlsLane;
use crate::lane::resolve::{resolve, split_host_port};
use crate::lane::{BindSource, DialError, Dialer, Lane, Listener, PendingLane, TcpOptions, tcp};
use crate::net::{RaceError, as_ipv4, race};

/// Dials TLS lanes to one server from one local address or device.
#[derive(Debug, Clone)]
pub struct TlsDialer {
    server: String,
    bind: BindSource,
    config: Arc<ClientConfig>,
    pub(super) options: TcpOptions,
}

impl TlsDialer {
    /// Dials `server` (`host:port`), whose name is resolved anew each time, from `bind`.
    ///
    /// # Errors
    /// [`DialError::InvalidAddress`] where `server` is not of that form.
    pub fn new(
        server: impl Into<String>,
        bind: BindSource,
        mut config: Arc<ClientConfig>,
        options: TcpOptions,
    ) -> Result<Self, DialError> {
        let server = server.into();
        split_host_port(&server)?;
        // What every lane would have to do for itself.
        Arc::make_mut(&mut config).enable_secret_extraction = true;
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

    pub(super) async fn dial_tls(&self) -> Result<TlsLane, DialError> {
        let (host, _port) = split_host_port(&self.server)?;
        let (addr, socket) = self.connect().await?;
        let failed = |source| DialError::Handshake { addr, source };
        // The name only helps a proxy that routes by it; who the server is, its key says.
        let name = ServerName::try_from(host.to_owned())
            .unwrap_or_else(|_| ServerName::IpAddress(addr.ip().into()));
        TlsLane::dial(socket, name, self.config.clone()).await.map_err(failed)
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
    pub(super) socket: TcpListener,
    pub(super) settings: TlsSettings,
    options: TcpOptions,
}

/// Settings of a [`TlsListener`], which may be replaced while it listens.
#[derive(Clone, Debug)]
pub struct TlsSettings(Arc<Mutex<Arc<ServerConfig>>>);

impl TlsSettings {
    fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(Mutex::new(prepared(config))))
    }

    /// From now on connections that come in are answered with `config`. Lanes that are up stay as they are.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = prepared(config);
    }

    pub(super) fn get(&self) -> Arc<ServerConfig> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What every lane would have to do for itself.
fn prepared(mut config: Arc<ServerConfig>) -> Arc<ServerConfig> {
    Arc::make_mut(&mut config).enable_secret_extraction = true;
    config
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
        Ok(Self { socket: tcp::listen(addr)?, settings: TlsSettings::new(config), options })
    }

    /// Its settings, for when it is to have others: another key, say.
    #[must_use]
    pub fn settings(&self) -> TlsSettings {
        self.settings.clone()
    }
}

#[async_trait]
impl Listener for TlsListener {
    async fn accept(&self) -> io::Result<Box<dyn PendingLane>> {
        let (socket, remote) = self.socket.accept().await?;
        let remote = as_ipv4(remote);
        let (config, options) = (self.settings.get(), self.options.clone());
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
        Ok(Box::new(TlsLane::accept(self.socket, self.config).await?))
    }
}
