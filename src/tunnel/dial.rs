//! Streams into connections to their destinations.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::copy::copy;
use crate::driver::{Code, Incoming, Session, SessionError, StreamKind};
use crate::trust::{Destination, Permit};

/// How long a destination may take to answer.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Carries every stream the peer opens to where it may go, until the session is over, and returns
/// when its connections have ended.
///
/// By default that is `destination` (`host:port`, resolved at each dial), which the server has
/// chosen and which is not checked. A client whose [`Permit`] lists destinations goes to the one
/// it names among them, or to the first of them. What it may do is asked anew for each stream, and
/// held against the very address that is dialled.
pub async fn serve(session: Session, destination: Arc<str>) -> SessionError {
    let mut connections = JoinSet::new();
    let over = loop {
        tokio::select! {
            accepted = session.accept() => match accepted {
                Ok(incoming) => {
                    let permit = session.permit();
                    drop(connections.spawn(carry(incoming, permit, destination.clone())));
                }
                Err(over) => break over,
            },
            Some(_) = connections.join_next() => {}
        }
    };
    while connections.join_next().await.is_some() {}
    over
}

async fn carry(incoming: Incoming, permit: Option<Permit>, destination: Arc<str>) {
    let Incoming { stream, kind } = incoming;
    let Some(permit) = permit else { return stream.reset(Code::UNAUTHORIZED) };
    let Some(_place) = permit.enter() else {
        tracing::warn!("a client has as many connections open as it may");
        return stream.reset(Code::EXCESSIVE_LOAD);
    };
    match connect(&kind, &permit, &destination).await {
        Ok(socket) => copy(socket, stream).await,
        Err(Failed { destination, code, why }) => {
            tracing::warn!(%destination, error = %why, "cannot reach the destination");
            stream.reset(code);
        }
    }
}

/// Why there is no connection: where to, what the far end is told, and what stands in our log.
#[derive(Debug)]
struct Failed {
    destination: String,
    code: Code,
    why: String,
}

impl Failed {
    fn new(destination: &str, code: Code, why: impl fmt::Display) -> Self {
        Self { destination: destination.to_owned(), code, why: why.to_string() }
    }
}

async fn connect(kind: &StreamKind, permit: &Permit, fixed: &str) -> Result<TcpStream, Failed> {
    let (asked, allowed) = match (kind, permit.destinations()) {
        (StreamKind::Default, None) => {
            let addresses = look_up(fixed).await.map_err(|why| unknown_name(fixed, why))?;
            return dial(fixed, &addresses).await;
        }
        (StreamKind::Default, Some(allowed)) => {
            let asked = allowed.default_place().ok_or_else(|| {
                forbidden("(none named)", "this client has to name its destination")
            })?;
            (asked, allowed)
        }
        (StreamKind::Named(name), Some(allowed)) => {
            // A peer's words are shown as a string's source code: nothing in them can draw.
            let asked: Destination =
                name.parse().map_err(|why| forbidden(&format!("{name:?}"), why))?;
            (asked, allowed)
        }
        (StreamKind::Named(name), None) => {
            let why = "this client may not choose its destination";
            return Err(forbidden(&format!("{name:?}"), why));
        }
        (StreamKind::Raw | StreamKind::Unknown(_), _) => {
            return Err(forbidden(&format!("{kind:?}"), "not a stream to a destination"));
        }
    };
    let shown = asked.to_string();
    if !allowed.may_allow(&asked) {
        return Err(forbidden(&shown, "not among the destinations of this client"));
    }
    let mut addresses =
        look_up(asked.for_resolver()).await.map_err(|why| unknown_name(&shown, why))?;
    let found = addresses.clone();
    addresses.retain(|address| allowed.allows(&asked, *address));
    if addresses.is_empty() {
        let why = format!("its address {found:?} is not among the destinations of this client");
        return Err(forbidden(&shown, why));
    }
    dial(&shown, &addresses).await
}

fn forbidden(destination: &str, why: impl fmt::Display) -> Failed {
    Failed::new(destination, Code::DIAL_FORBIDDEN, why)
}

fn unknown_name(destination: &str, why: io::Error) -> Failed {
    Failed::new(destination, Code::DIAL_NAME, why)
}

/// All addresses of a place; never none.
async fn look_up(place: impl tokio::net::ToSocketAddrs) -> io::Result<Vec<SocketAddr>> {
    let looking = tokio::time::timeout(DIAL_TIMEOUT, tokio::net::lookup_host(place));
    let addresses: Vec<_> = looking.await.map_err(|_| io::ErrorKind::TimedOut)??.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses)
}

/// Connects to the first of these addresses that answers.
async fn dial(destination: &str, addresses: &[SocketAddr]) -> Result<TcpStream, Failed> {
    match tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(addresses)).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(Failed::new(destination, meaning(&error), error)),
        Err(_) => Err(Failed::new(destination, Code::DIAL_TIMEOUT, io::ErrorKind::TimedOut)),
    }
}

/// What the far end is told of it.
fn meaning(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Code::DIAL_REFUSED,
        io::ErrorKind::TimedOut => Code::DIAL_TIMEOUT,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            Code::DIAL_UNREACHABLE
        }
        io::ErrorKind::InvalidInput => Code::DIAL_NAME,
        _ => Code::DIAL_RESOURCES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Grant;

    async fn refused(kind: StreamKind, rules: &[&str], fixed: &str) -> Failed {
        let destinations = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let permit = Permit::new(Grant { destinations, ..Grant::default() });
        connect(&kind, &permit, fixed).await.unwrap_err()
    }

    #[tokio::test]
    async fn failures_are_told_apart() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        drop(taken);
        let kind = || StreamKind::Default;
        assert_eq!(refused(kind(), &[], &address).await.code, Code::DIAL_REFUSED);
        assert_eq!(refused(kind(), &[], "nowhere.invalid:22").await.code, Code::DIAL_NAME);
        assert_eq!(refused(kind(), &[&address], "unused:1").await.code, Code::DIAL_REFUSED);
        let named = StreamKind::Named(address.clone());
        assert_eq!(refused(named, &[&address], "unused:1").await.code, Code::DIAL_REFUSED);
    }

    #[tokio::test]
    async fn what_is_not_listed_is_not_dialled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let port = address.port();
        let named = |name: &str| StreamKind::Named(name.to_owned());
        let here = address.to_string();
        let localhost = format!("localhost:{port}");
        let everywhere = format!("*:{port}");
        for (kind, rules) in [
            (named(&here), &[][..]),
            (named(&here), &["localhost:*"]),
            (named(&here), &["*:*", "0.0.0.0/0:*"]),
            // Looked up, and the address is what counts.
            (named(&localhost), &[&everywhere]),
            (named(&localhost), &["127.0.0.2:*"]),
            (named("a\x1b[2Jb:1"), &["*:*"]),
            (named("169.254.169.254:80"), &["*:*"]),
            (named("0.0.0.0:80"), &["*:*"]),
            (StreamKind::Default, &["*:*"]),
            (StreamKind::Raw, &["*:*"]),
            (StreamKind::Unknown(9), &["*:*"]),
        ] {
            let failed = refused(kind.clone(), rules, &here).await;
            assert_eq!(failed.code, Code::DIAL_FORBIDDEN, "{kind:?} {rules:?}: {failed:?}");
            assert!(!failed.destination.contains('\x1b') && !failed.why.contains('\x1b'));
        }
        let permit = |rule: &str| {
            let destinations = vec![rule.parse().unwrap()];
            Permit::new(Grant { destinations, ..Grant::default() })
        };
        for (kind, rule) in [
            (named(&here), here.as_str()),
            (named(&localhost), &localhost),
            (named(&localhost), "127.0.0.1:*"),
            (StreamKind::Default, &here),
        ] {
            let socket = connect(&kind, &permit(rule), "unused:1").await.unwrap();
            assert_eq!(socket.peer_addr().unwrap(), address, "{kind:?} {rule}");
        }
    }
}
