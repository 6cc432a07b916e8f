//! TCP sockets, bound and tuned for lanes.

use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{BindSource, DialError};
use crate::net::{AttemptError, as_ipv4};

/// How the TCP connections of lanes are set up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpOptions {
    /// How long dialling a lane may take in all: resolving, connecting, TLS.
    pub dial_timeout: Duration,
    /// How long sent bytes may stay unacknowledged before the kernel gives the connection up
    /// (`TCP_USER_TIMEOUT`). A backstop: the session notices a silent lane much sooner.
    pub user_timeout: Duration,
    /// How many bytes the kernel may hold unsent at first (`TCP_NOTSENT_LOWAT`); each lane can
    /// change its own.
    pub unsent_limit: u32,
    /// Congestion control (`TCP_CONGESTION`).
    pub congestion: Congestion,
    /// The mark of the lanes' packets (`SO_MARK`), by which a firewall or the routing rules can
    /// tell them; needs `CAP_NET_ADMIN`.
    pub mark: Option<u32>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            // A SYN is sent again after 1, 3 and 7 seconds: dialling survives three losses in a
            // row.
            dial_timeout: Duration::from_secs(10),
            user_timeout: Duration::from_secs(30),
            // The most the session lets a lane hold; it soon sets a limit that fits the lane's
            // rate.
            unsent_limit: 512 * 1024,
            congestion: Congestion::default(),
            mark: None,
        }
    }
}

impl TcpOptions {
    /// Sets [`dial_timeout`](Self#structfield.dial_timeout).
    #[must_use]
    pub fn with_dial_timeout(self, dial_timeout: Duration) -> Self {
        Self { dial_timeout, ..self }
    }

    /// Sets [`user_timeout`](Self#structfield.user_timeout); zero means the system's default.
    #[must_use]
    pub fn with_user_timeout(self, user_timeout: Duration) -> Self {
        Self { user_timeout, ..self }
    }

    /// Sets [`unsent_limit`](Self#structfield.unsent_limit), in bytes.
    #[must_use]
    pub fn with_unsent_limit(self, unsent_limit: u32) -> Self {
        Self { unsent_limit, ..self }
    }

    /// Sets [`congestion`](Self#structfield.congestion).
    #[must_use]
    pub fn with_congestion(self, congestion: Congestion) -> Self {
        Self { congestion, ..self }
    }

    /// Sets [`mark`](Self#structfield.mark).
    #[must_use]
    pub fn with_mark(self, mark: Option<u32>) -> Self {
        Self { mark, ..self }
    }
}

/// Which congestion control the kernel uses for a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Congestion {
    /// The system's default.
    System,
    /// This one if the kernel has it and allows it, else the system's default.
    Prefer(String),
    /// This one; without it dialling fails.
    Require(String),
}

impl Default for Congestion {
    /// bbr where possible: at 1 % loss, cubic leaves nine tenths of a path unused.
    fn default() -> Self {
        Self::Prefer("bbr".to_owned())
    }
}

/// Connects from `bind` to `remote`. Cancel safe.
pub(super) async fn connect(
    bind: &BindSource,
    remote: SocketAddr,
    options: &TcpOptions,
) -> Result<TcpStream, AttemptError<DialError>> {
    let socket = new_socket(remote).map_err(DialError::Socket)?;
    bind_to(&socket, bind).map_err(|source| DialError::Bind { bind: bind.clone(), source })?;
    tune(&socket, options)?;
    if let Some(mark) = options.mark {
        socket.set_mark(mark).map_err(DialError::Socket)?;
    }
    let socket = TcpSocket::from_std_stream(socket.into());
    socket.connect(remote).await.map_err(AttemptError::Remote)
}

/// A listening socket at `addr`, inside a tokio runtime. `[::]` accepts IPv4 as well, whatever the
/// system's default.
///
/// # Errors
/// The kernel's: the address is in use, is not this machine's, or needs more privileges.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let addr = as_ipv4(addr);
    let socket = new_socket(addr)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    // Without this, a restarted server finds its port held by the remains of old connections.
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    // As many lanes as may arrive at once when a client's links return; the kernel caps it
    // (somaxconn).
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// Sets up a lane's socket, before it connects or after it was accepted.
pub(super) fn tune(socket: &Socket, options: &TcpOptions) -> Result<(), DialError> {
    let set = || -> io::Result<()> {
        // A lane's writes are already complete; Nagle's algorithm would only delay them.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(options.unsent_limit)?;
        socket.set_tcp_user_timeout(Some(options.user_timeout))
    };
    set().map_err(DialError::Socket)?;
    match &options.congestion {
        Congestion::System => Ok(()),
        Congestion::Prefer(name) => {
            // If the kernel refuses, its default applies; `Lane::describe` tells which.
            let _ = socket.set_tcp_congestion(name.as_bytes());
            Ok(())
        }
        Congestion::Require(name) => socket
            .set_tcp_congestion(name.as_bytes())
            .map_err(|source| DialError::Congestion { name: name.clone(), source }),
    }
}

/// Congestion controls that pace.
pub(super) const PACED: [&str; 2] = ["bbr", "bbr2"];

/// The name of the congestion control in use.
pub(super) fn congestion(stream: &TcpStream) -> Option<String> {
    let name = SockRef::from(stream).tcp_congestion().ok()?;
    // The kernel pads with zeroes.
    let name: Vec<u8> = name.into_iter().take_while(|&byte| byte != 0).collect();
    String::from_utf8(name).ok()
}

fn new_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_to(socket: &Socket, bind: &BindSource) -> io::Result<()> {
    match bind {
        BindSource::Any => Ok(()),
        BindSource::Addr(addr) if addr.is_unspecified() => Ok(()),
        BindSource::Addr(addr) => bind_to_address(socket, SocketAddr::new(addr.to_canonical(), 0)),
        BindSource::LinkLocal { addr, device } => {
            let index = device_index(device)?;
            bind_to_address(socket, SocketAddrV6::new(*addr, 0, 0, index).into())
        }
        BindSource::Device(name) => socket.bind_device(Some(name.as_bytes())),
    }
}

fn bind_to_address(socket: &Socket, addr: SocketAddr) -> io::Result<()> {
    // Without it, bind would pick a port without knowing the remote end: 28,000 for all servers
    // together. Best effort: kernels before 4.2 lack the option.
    let _ = setsockopt(socket, sockopt::IpBindAddressNoPort, &true);
    socket.bind(&addr.into())
}

/// By name, or by number, which the resolver accepts too. Looked up at each dial: devices come and
/// go.
fn device_index(device: &str) -> io::Result<u32> {
    let by_name = nix::net::if_::if_nametoindex(device);
    by_name.or_else(|error| device.parse().map_err(|_| error.into()))
}
