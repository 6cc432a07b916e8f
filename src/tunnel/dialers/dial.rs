//! Makes connections: where a client may go, and to what the owner of this end has chosen.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;

use crate::driver::Code;
use crate::net::{AttemptError, LookUps, RaceError, own_addresses, race, split_host_port};
use crate::trust::{Destination, Destinations, Target};
use crate::tunnel::connections::{Client, LOOK_UP_THREADS, Place};
use crate::tunnel::socket::Socket;

static LOOK_UPS: LookUps = LookUps::new(LOOK_UP_THREADS);

/// How long a destination may take to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// For the destination that the server's owner has chosen. Clients' names have their own, so that
/// they never block the way there.
static FIXED_LOOK_UPS: LookUps = LookUps::new(64);

/// Why there is no connection: where to, what the far end is told, and what our log says.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) destination: String,
    pub(super) code: Code,
    pub(super) why: String,
}

impl Failed {
    pub(super) fn new(destination: &str, code: Code, why: impl fmt::Display) -> Self {
        Self { destination: destination.to_owned(), code, why: why.to_string() }
    }

    /// Logs it; what the far end is told.
    pub(super) fn tell(self, client: &Client) -> Code {
        let Self { destination, code, why } = self;
        if code == Code::EXCESSIVE_LOAD {
            client.tell_full();
        } else {
            tracing::warn!(%destination, error = %why, "cannot reach the destination");
        }
        code
    }
}

/// A connection, and its place within the bounds.
pub(super) type Connected = (Socket, Place);

/// The addresses of a place on the network, as far as the client may go there.
pub(super) async fn addresses(
    asked: &Destination,
    allowed: &Destinations,
    client: &Client,
) -> Result<Vec<SocketAddr>, Failed> {
    let shown = asked.to_string();
    if !allowed.may_allow(asked) {
        return Err(forbidden(&shown, not_listed(asked)));
    }
    let Target::Host(host, port) = asked.target() else {
        return Err(forbidden(&shown, "not a place on the network"));
    };
    let found = LOOK_UPS.look_up(&host, port, Some(&client.look_ups)).await;
    let mut addresses = found.map_err(|why| unknown_name(&shown, why))?;
    let found = addresses.clone();
    let own = own_addresses().map_err(|why| Failed::new(&shown, Code::DIAL_RESOURCES, why))?;
    addresses.retain(|address| allowed.allows(asked, *address, &own));
    if addresses.is_empty() {
        let why = format!("its address {found:?} is not among the destinations of this client");
        return Err(forbidden(&shown, why));
    }
    Ok(addresses)
}

/// Why a client may not go there, and what to do if it should.
pub(super) fn not_listed(asked: &Destination) -> String {
    let names = match asked.is_name() {
        true => ", where names count only under a rule that names them",
        false => "",
    };
    format!(
        "not among the destinations of this client{names}; if it shall go there, add dial=\"{asked}\" to its line"
    )
}

pub(super) fn forbidden(destination: &str, why: impl fmt::Display) -> Failed {
    Failed::new(destination, Code::DIAL_FORBIDDEN, why)
}

pub(super) fn unknown_name(destination: &str, why: io::Error) -> Failed {
    Failed::new(destination, Code::DIAL_NAME, why)
}

/// Connects to the destination that the server's owner has chosen.
pub(super) async fn connect_fixed(fixed: &str, client: &Arc<Client>) -> Result<Connected, Failed> {
    if let Ok(place) = fixed.parse::<Destination>()
        && let Target::Unix(path) = place.target()
    {
        return dial_unix(fixed, path, client).await;
    }
    let addresses = look_up_fixed(fixed).await.map_err(|why| unknown_name(fixed, why))?;
    dial(fixed, addresses, client).await
}

/// Its addresses, if it is on the network.
pub(super) async fn look_up_fixed(place: &str) -> io::Result<Vec<SocketAddr>> {
    let (host, port) =
        split_host_port(place).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
    FIXED_LOOK_UPS.look_up(host, port, None).await
}

/// Connects to whichever of these addresses answers first. Each attempt takes a place of its own.
pub(super) async fn dial(
    destination: &str,
    addresses: Vec<SocketAddr>,
    client: &Arc<Client>,
) -> Result<Connected, Failed> {
    let attempt = |address: SocketAddr| async move {
        let place = client.enter().ok_or_else(no_descriptors);
        let connected = match place {
            Ok(place) => {
                let connected = client.dialing().connect(address).await;
                connected.map(|socket| (Socket::Tcp(socket), place))
            }
            Err(error) => Err(error),
        };
        connected.map_err(AttemptError::<Infallible>::Remote)
    };
    match tokio::time::timeout(DIAL_TIMEOUT, race(addresses, attempt)).await {
        Ok(Ok((_, connected))) => Ok(connected),
        Ok(Err(RaceError::Remote(mut failed))) => {
            // The last answer; our log gets them all.
            let code = failed.last().map_or(Code::DIAL_NAME, |(_, error)| meaning(error));
            let why = match (failed.pop(), failed.is_empty()) {
                (Some((_, only)), true) => only.to_string(),
                (last, _) => {
                    let each = failed.iter().chain(&last);
                    let each: Vec<_> = each.map(|(at, error)| format!("{at}: {error}")).collect();
                    each.join("; ")
                }
            };
            Err(Failed::new(destination, code, why))
        }
        Err(_) => Err(Failed::new(destination, Code::DIAL_TIMEOUT, io::ErrorKind::TimedOut)),
    }
}

/// Connects to a Unix socket on this machine.
pub(super) async fn dial_unix(
    destination: &str,
    path: &Path,
    client: &Arc<Client>,
) -> Result<Connected, Failed> {
    let failed = |error: io::Error| Failed::new(destination, meaning(&error), error);
    let place = client.enter().ok_or_else(|| failed(no_descriptors()))?;
    // It blocks while the listener's queue is full.
    let connecting = tokio::time::timeout(DIAL_TIMEOUT, UnixStream::connect(path)).await;
    let connected = connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    connected.map(|socket| (Socket::Unix(socket), place)).map_err(failed)
}

pub(super) fn no_descriptors() -> io::Error {
    io::Error::from_raw_os_error(libc::EMFILE)
}

/// What the far end is told of it.
pub(super) fn meaning(error: &io::Error) -> Code {
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        return Code::EXCESSIVE_LOAD;
    }
    match error.kind() {
        // The last of them: a Unix socket that is not there.
        io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::NotFound => Code::DIAL_REFUSED,
        io::ErrorKind::TimedOut => Code::DIAL_TIMEOUT,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Code::DIAL_UNREACHABLE
        }
        io::ErrorKind::InvalidInput => Code::DIAL_NAME,
        _ => Code::DIAL_RESOURCES,
    }
}
