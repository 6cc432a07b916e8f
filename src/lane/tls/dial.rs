//! Where TLS lanes come from: dialled from a bind, or accepted.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ServerConfig};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::TlsLane;
use super::large_hello::{Attempt, Finding, Next, PATIENCE, is_large};
use crate::lane::resolve::{resolve, split_host_port};
use crate::lane::{BindSource, DialError, Dialer, Lane, Listener, PendingLane, TcpOptions, tcp};
use crate::net::{AttemptError, RaceError, as_ipv4, race};
use crate::trust::ruled_out;

/// Dials TLS lanes to one server from one local address or device.
#[derive(Debug, Clone)]
pub struct TlsDialer {
    server: String,
    bind: BindSource,
    config: Arc<ClientConfig>,
    pub(super) options: TcpOptions,
    finding: Finding,
}

impl TlsDialer {
    /// Dials `server` (`host:port`) from `bind`. The name is resolved anew each time.
    ///
    /// # Errors
    /// [`DialError::InvalidAddress`] if `server` does not have that form.
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
        Ok(Self { server, bind, config, options, finding: Finding::default() })
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

    /// One attempt, without investigating why it failed.
    #[cfg(test)]
    pub(super) async fn dial_tls(&self) -> Result<TlsLane, DialError> {
        self.attempt(&Attempt::default()).await
    }

    async fn attempt(&self, attempt: &Attempt) -> Result<TlsLane, DialError> {
        let (addr, socket) = self.connect().await?;
        attempt.connected(addr);
        let failed = |source| match ruled_out(&source) {
            Some(presented) => DialError::KeyRefused { presented },
            None => DialError::Handshake { addr, source },
        };
        let (name, config) = (self.server_name(addr)?, self.config.clone());
        TlsLane::dial_heard(socket, name, config, &attempt.heard).await.map_err(failed)
    }

    /// The name only helps a proxy that routes by it; the server's key says who it is.
    fn server_name(&self, addr: SocketAddr) -> Result<ServerName<'static>, DialError> {
        let (host, _port) = split_host_port(&self.server)?;
        let name = ServerName::try_from(host.to_owned());
        Ok(name.unwrap_or_else(|_| ServerName::IpAddress(addr.ip().into())))
    }

    /// One attempt that takes at most `after`, and how far it got.
    async fn attempt_within(&self, after: Duration) -> (Result<TlsLane, DialError>, Attempt) {
        let attempt = Attempt::default();
        let dialled = tokio::time::timeout(after, self.attempt(&attempt)).await;
        let dialled = dialled.unwrap_or_else(|_| {
            let (host, bind) = (self.server.clone(), self.bind.clone());
            Err(DialError::Timeout { host, bind, after })
        });
        (dialled, attempt)
    }

    /// Dials; if TLS's first message goes unanswered, finds out whether its size is the cause.
    async fn dial_once(&self) -> Result<TlsLane, DialError> {
        let (begun, after) = (Instant::now(), self.options.dial_timeout);
        let (dialled, attempt) = self.attempt_within(after).await;
        let error = match dialled {
            Ok(lane) => {
                self.finding.refute();
                return Ok(lane);
            }
            Err(error) => error,
        };
        let Some(addr) = attempt.unanswered().filter(|_| is_large(&self.config)) else {
            return Err(error);
        };
        let connect = async {
            let connected = tcp::connect(&self.bind, addr, &self.options).await;
            connected.map_err(|error| match error {
                AttemptError::Local(error) => io::Error::other(error),
                AttemptError::Remote(error) => error,
            })
        };
        match self.finding.ask_once(connect, self.server_name(addr)?).await {
            Next::GiveUp => Err(match error {
                DialError::Timeout { host, bind, after } => {
                    // In tenths of a second, for a human reader.
                    let tenths = begun.elapsed().as_millis() / 100;
                    let whole = Duration::from_millis(100 * u64::try_from(tenths).unwrap_or(0));
                    DialError::Timeout { host, bind, after: after.max(whole) }
                }
                error => error,
            }),
            Next::TooLarge => Err(DialError::LargeHello { addr }),
            Next::TryAgain => {
                let (again, attempt) = self.attempt_within(after.min(PATIENCE)).await;
                if again.is_err() && attempt.unanswered().is_some() {
                    self.finding.confirm().await;
                    return Err(DialError::LargeHello { addr });
                }
                self.finding.refute();
                again
            }
        }
    }
}

#[async_trait]
impl Dialer for TlsDialer {
    async fn dial(&self) -> Result<Box<dyn Lane>, DialError> {
        Ok(Box::new(self.dial_once().await?))
    }

    fn name(&self) -> String {
        self.bind.to_string()
    }
}

/// Accepts TLS lanes.
#[derive(Debug)]
pub struct TlsListener {
    pub(super) socket: TcpListener,
    pub(super) settings: TlsSettings,
    options: TcpOptions,
}

/// A [`TlsListener`]'s settings, which may be replaced while it listens.
#[derive(Clone, Debug)]
pub struct TlsSettings(Arc<Mutex<Arc<ServerConfig>>>);

impl TlsSettings {
    fn new(config: Arc<ServerConfig>) -> Self {
        Self(Arc::new(Mutex::new(prepared(config))))
    }

    /// From now on answers incoming connections with `config`. Lanes that are up stay as they are.
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
    /// The kernel's: the address is in use, is not this machine's, or needs more privileges.
    pub fn bind(
        addr: SocketAddr,
        config: Arc<ServerConfig>,
        options: TcpOptions,
    ) -> io::Result<Self> {
        Ok(Self { socket: tcp::listen(addr)?, settings: TlsSettings::new(config), options })
    }

    /// A handle to replace its settings: another key, say.
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
