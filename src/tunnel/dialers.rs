//! Carries streams into connections to their destinations.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::connections::{Client, Connections};
use super::copy::{Ends, copy};
use super::socket::Socket;
use super::takers::listening::{self, Asked};
use crate::driver::{Code, Incoming, Session, SessionError, StreamKind, Subject, Wants};
use crate::trust::{Destination, Permit, ProxyHeader, Target};

mod datagrams;
mod dial;
mod from;
mod visitors;

use dial::{
    Connected, Failed, addresses, connect_fixed, dial, dial_unix, forbidden, meaning, not_listed,
};
pub use from::Dialing;
pub use visitors::{
    RemoteForward, RemoteForwardError, forward_from_server, forward_from_server_as,
};

/// Carries every stream the peer opens to where it may go, until the session is over, and returns
/// when its connections have ended.
///
/// By default that is `destination` (`host:port`, resolved at each dial), which the server has
/// chosen and which is not checked. A client whose [`Permit`] lists destinations goes to the one it
/// names among them, or to the first. What it may do is asked anew for each stream, and checked
/// against the very address that is dialled.
pub async fn serve(session: Session, destination: Arc<str>) -> SessionError {
    serve_within(session, destination, Connections::unbounded()).await
}

/// Like [`serve`], with a bound on connections that all sessions of a process share: any beyond it
/// are refused (EXCESSIVE_LOAD).
pub async fn serve_within(
    session: Session,
    destination: Arc<str>,
    bound: &Connections,
) -> SessionError {
    let client = bound.client(session.client());
    let mut connections = JoinSet::new();
    let over = loop {
        tokio::select! {
            accepted = session.accept() => match accepted {
                Ok(incoming) => {
                    let client = client.clone();
                    let incoming = match incoming.into_flow() {
                        Ok((flow, kind)) => {
                            let served = datagrams::serve(flow, kind, session.clone(), client);
                            drop(connections.spawn(served));
                            continue;
                        }
                        Err(stream) => stream,
                    };
                    let Incoming { stream, kind, wants, claim } = incoming;
                    if let StreamKind::Listening { number, place } = kind {
                        let asked = Asked { stream, number, place };
                        drop(connections.spawn(listening::serve(asked, session.clone(), client)));
                        continue;
                    }
                    let incoming = Incoming { stream, kind, wants, claim };
                    let (permit, subject) = (session.permit(), session.subject());
                    let carried = carry(incoming, permit, client, destination.clone(), subject);
                    drop(connections.spawn(carried));
                }
                Err(over) => break over,
            },
            Some(_) = connections.join_next() => {}
        }
    };
    while connections.join_next().await.is_some() {}
    over
}

async fn carry(
    incoming: Incoming,
    permit: Option<Permit>,
    client: Arc<Client>,
    destination: Arc<str>,
    subject: Subject,
) {
    let Incoming { stream, kind, wants, claim } = incoming;
    let Some(permit) = permit else { return stream.reset(Code::UNAUTHORIZED) };
    let Some(_place) = permit.enter() else {
        tracing::warn!("a client has as many connections open as it may");
        return stream.reset(Code::EXCESSIVE_LOAD);
    };
    // Anybody can claim anything, even 127.0.0.1.
    let claim = claim.filter(|_| permit.trusts_source());
    let address = claim.or_else(|| subject.source());
    let source = Source { told: tells(wants, &permit, &client), address };
    // While it is dialled; and then with the address that it had.
    stream.describe("", &leads_to(&kind, &permit, &destination));
    let connected = connect(&kind, &permit, &client, &destination).await;
    let connected = match connected {
        Ok((socket, place)) => {
            source.tell(socket).await.map(|socket| (socket, place)).map_err(|error| {
                Failed::new(&leads_to(&kind, &permit, &destination), meaning(&error), error)
            })
        }
        Err(failed) => Err(failed),
    };
    match connected {
        Ok((socket, _place)) => {
            let shown = leads_to(&kind, &permit, &destination);
            let to = match &socket {
                Socket::Tcp(_) => format!("{shown} at {}", socket.peer()),
                Socket::Unix(_) => shown.clone(),
            };
            let ends = Ends { from: "a client".to_owned(), to };
            subject.stream_started(&shown);
            copy(socket, Bytes::new(), stream, client.sockets(), &ends).await;
            subject.stream_ended(&shown, &"over");
        }
        Err(failed) => {
            if failed.code != Code::EXCESSIVE_LOAD {
                subject.stream_ended(&failed.destination, &failed.why);
            }
            stream.reset(failed.tell(&client));
        }
    }
}

/// Who connects, for a destination that is to be told.
#[derive(Debug)]
struct Source {
    told: Option<ProxyHeader>,
    address: Option<SocketAddr>,
}

/// Whether and how the destination is told: by the client's line, by the server's options, or as
/// the client wants it.
fn tells(wants: Wants, permit: &Permit, client: &Client) -> Option<ProxyHeader> {
    let set = permit.tell_source().or(client.dialing().tell_source);
    set.or_else(|| wants.has(Wants::SOURCE).then(ProxyHeader::default))
}

impl Source {
    /// Written before anything else on the connection.
    async fn tell(&self, socket: Socket) -> io::Result<Socket> {
        let Some(how) = self.told else { return Ok(socket) };
        let destination = match &socket {
            Socket::Tcp(socket) => socket.peer_addr().ok(),
            Socket::Unix(_) => None,
        };
        let header = from::header(how, self.address, destination)?;
        match socket {
            Socket::Tcp(mut socket) => {
                socket.write_all(&header).await?;
                Ok(Socket::Tcp(socket))
            }
            Socket::Unix(mut socket) => {
                socket.write_all(&header).await?;
                Ok(Socket::Unix(socket))
            }
        }
    }
}

/// Where an admitted stream leads, in the words of the list or of the client.
fn leads_to(kind: &StreamKind, permit: &Permit, fixed: &str) -> String {
    match (kind, permit.destinations()) {
        (StreamKind::Named(name), _) => match name.parse::<Destination>() {
            Ok(destination) => destination.to_string(),
            Err(_) => format!("{name:?}"),
        },
        (_, Some(allowed)) => {
            allowed.default_place().map_or_else(|| fixed.to_owned(), |place| place.to_string())
        }
        (_, None) => fixed.to_owned(),
    }
}

async fn connect(
    kind: &StreamKind,
    permit: &Permit,
    client: &Arc<Client>,
    fixed: &str,
) -> Result<Connected, Failed> {
    let (asked, allowed) = match (kind, permit.destinations()) {
        (StreamKind::Default, None) => {
            return connect_fixed(fixed, client).await;
        }
        (StreamKind::Default, Some(allowed)) => {
            let asked = allowed.default_place().ok_or_else(|| {
                forbidden("(none named)", "this client has to name its destination")
            })?;
            (asked, allowed)
        }
        (StreamKind::Named(name), Some(allowed)) => {
            // A peer's words are shown escaped: nothing in them can control a terminal.
            let asked: Destination =
                name.parse().map_err(|why| forbidden(&format!("{name:?}"), why))?;
            (asked, allowed)
        }
        (StreamKind::Named(name), None) => {
            let why = "this client may not choose its destination";
            return Err(forbidden(&format!("{name:?}"), why));
        }
        (
            StreamKind::Raw
            | StreamKind::Wanting { .. }
            | StreamKind::Listening { .. }
            | StreamKind::Visitor { .. }
            | StreamKind::Flow { .. }
            | StreamKind::Unknown(_),
            _,
        ) => {
            return Err(forbidden(&format!("{kind:?}"), "not a stream to a destination"));
        }
    };
    let shown = asked.to_string();
    if asked.is_udp() {
        return Err(forbidden(&shown, "a stream carries no datagrams"));
    }
    if let Target::Unix(path) = asked.target() {
        if !allowed.may_allow(&asked) {
            return Err(forbidden(&shown, not_listed(&asked)));
        }
        return dial_unix(&shown, path, client).await;
    }
    dial(&shown, addresses(&asked, allowed, client).await?, client).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Grant;

    fn anybody() -> Arc<Client> {
        Connections::unbounded().client(None)
    }

    async fn refused(kind: StreamKind, rules: &[&str], fixed: &str) -> Failed {
        let destinations = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let permit = Permit::new(Grant { destinations, ..Grant::default() });
        connect(&kind, &permit, &anybody(), fixed).await.unwrap_err()
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
            // Not looked up.
            (named(&localhost), &["127.0.0.1:*"]),
            (named(&localhost), &["127.0.0.0/8:*"]),
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
            (StreamKind::Default, &here),
        ] {
            let connected = connect(&kind, &permit(rule), &anybody(), "unused:1").await;
            let (socket, _place) = connected.unwrap();
            assert_eq!(socket.peer(), address.to_string(), "{kind:?} {rule}");
        }
    }
    #[tokio::test]
    async fn a_name_under_a_rule_of_addresses_is_refused_with_the_line_to_add() {
        let named = StreamKind::Named("db.example:5432".to_owned());
        let failed = refused(named, &["192.0.2.0/24:*", "192.0.2.7:5432"], "unused:1").await;
        assert_eq!(failed.code, Code::DIAL_FORBIDDEN);
        assert!(failed.why.contains("add dial=\"db.example:5432\" to its line"), "{}", failed.why);
    }

    #[tokio::test]
    async fn beyond_its_places_a_client_is_refused_for_that() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let client = Connections::at_most(4).client(None);
        let permit = Permit::fixed_destination();
        let connect = async || connect(&StreamKind::Default, &permit, &client, &address).await;
        let open = [connect().await.unwrap(), connect().await.unwrap()];
        assert_eq!(connect().await.unwrap_err().code, Code::EXCESSIVE_LOAD);
        drop(open);
        connect().await.unwrap();
    }
}
