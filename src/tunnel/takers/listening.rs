//! Connections that a server accepts for a client, at its request: each goes into a stream to the
//! client, which alone knows where it leads.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::select_all;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::listener::Listener;
use super::unix::UnixSocket;
use super::wait_out;
use crate::driver::{
    Code, OpenError, OpenOptions, Session, Stream, StreamKind, VISITORS_PER_LISTENER_MAX,
};
use crate::lane::listen;
use crate::net::as_ipv4;
use crate::trust::{Destination, ListenAt};
use crate::tunnel::connections::{Client, Place};
use crate::tunnel::copy::{Ends, copy};
use crate::tunnel::places::{Hold, NotHad};
use crate::tunnel::socket::{self, Socket};
use crate::tunnel::udp_socket::UdpPort;

mod datagrams;
mod port;

use port::{Port, allowed, not_listed};

/// How often to check whether its client may still have them.
const RECHECK_EVERY: Duration = Duration::from_secs(2);

/// What a client asks for.
#[derive(Debug)]
pub(in crate::tunnel) struct Asked {
    /// Stays open as long as connections are accepted.
    pub(in crate::tunnel) stream: Stream,
    pub(in crate::tunnel) number: u64,
    pub(in crate::tunnel) place: String,
}

/// Accepts connections for a client, if it may have them, until it wants no more, may not have them
/// any more, or its session ends; returns when they have ended.
pub(in crate::tunnel) async fn serve(asked: Asked, session: Session, client: Arc<Client>) {
    let Asked { stream, number, place } = asked;
    let begun = begin(&place, &session, &client);
    let subject = session.subject();
    let (leaves_port, hold, descriptors) = match begun {
        Ok(begun) => begun,
        Err(Refused { place, code, why }) => {
            if client.places().is_news(client.id(), &place, code) {
                subject.stream_ended(&format!("listening at {place}"), &why);
                tracing::warn!(%place, error = %why, "no connections are taken for a client");
            }
            return stream.reset(code);
        }
    };
    let at = hold.place().to_owned();
    let shown = format!("listening at {at}");
    subject.stream_started(&shown);
    tracing::info!(address = %at, client = subject.comment(), "connections are taken for a client");
    let redundant = stream.is_redundant();
    let port = Arc::new(Port { number, place: at, leaves_port, redundant, session, client });
    let mut visitors = JoinSet::new();
    let over = port.attend(stream, &hold, &mut visitors).await;
    // Whoever asks next may have it.
    drop((hold, descriptors));
    tracing::info!(address = %port.place, why = %over, "no more connections are taken for a client");
    subject.stream_ended(&shown, &over);
    while visitors.join_next().await.is_some() {}
}

/// Why we do not listen: where, what the client is told, and what our log says.
#[derive(Debug)]
struct Refused {
    place: String,
    code: Code,
    why: String,
}

/// Whether the client is to be told which port it got, its place, and descriptors for it.
type Begun = (bool, Hold, Vec<Place>);

fn begin(asked: &str, session: &Session, client: &Arc<Client>) -> Result<Begun, Refused> {
    let refused = |place: &str, code, why: &dyn fmt::Display| {
        Err(Refused { place: place.to_owned(), code, why: why.to_string() })
    };
    // A peer's words are shown escaped: nothing in them can control a terminal.
    let quoted = || format!("{asked:?}");
    let place = match Destination::place_to_listen(asked) {
        Ok(place) => place,
        Err(why) => return refused(&quoted(), Code::LISTEN_FORBIDDEN, &why),
    };
    let shown = place.to_string();
    let Some(permit) = session.permit() else {
        return refused(&shown, Code::UNAUTHORIZED, &Code::UNAUTHORIZED);
    };
    let Some(at) = allowed(&place, &permit, client) else {
        return refused(&shown, Code::LISTEN_FORBIDDEN, &not_listed(&place, &permit));
    };
    let wanted = match &at {
        ListenAt::Addresses(all) => all.len(),
        ListenAt::Unix(_) => 1,
    };
    let descriptors: Vec<_> = std::iter::from_fn(|| client.enter()).take(wanted).collect();
    if descriptors.len() < wanted {
        client.tell_full();
        return refused(&shown, Code::EXCESSIVE_LOAD, &"there are no descriptors left for it");
    }
    match client.places().take(&shown, client.id(), session, || bind(&place, &at)) {
        Ok(hold) => Ok((place.leaves_port(), hold, descriptors)),
        Err(why) => {
            let code = match &why {
                NotHad::InUse => Code::LISTEN_IN_USE,
                NotHad::TooMany => Code::EXCESSIVE_LOAD,
                NotHad::Bind(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    Code::LISTEN_IN_USE
                }
                NotHad::Bind(_) => Code::LISTEN_FAILED,
            };
            refused(&shown, code, &why)
        }
    }
}

/// Listens there; says what the place is called with the port it got.
fn bind(place: &Destination, at: &ListenAt<'_>) -> io::Result<(Vec<Listener>, String)> {
    let all = match at {
        ListenAt::Unix(path) => {
            return Ok((vec![UnixSocket::bind(path)?.into()], place.to_string()));
        }
        ListenAt::Addresses(all) => all,
    };
    let (mut listeners, mut failed, mut chosen) = (Vec::new(), None, None);
    for at in all {
        // One port for all of them.
        let at = SocketAddr::new(at.ip(), chosen.unwrap_or(at.port()));
        match listen_there(at, place.is_udp()) {
            Ok((listener, at)) => {
                chosen = Some(at.port());
                listeners.push(listener);
            }
            // Two programs on one port would share its connections.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
            // A machine without IPv6 has no ::1.
            Err(error) => failed = Some(error),
        }
    }
    match (failed, chosen) {
        (Some(error), None) => Err(error),
        (_, chosen) => {
            let place = chosen.map_or(place.clone(), |port| place.clone().with_port(port));
            Ok((listeners, place.to_string()))
        }
    }
}

fn listen_there(at: SocketAddr, is_udp: bool) -> io::Result<(Listener, SocketAddr)> {
    if is_udp {
        let port = UdpPort::bind(at)?;
        let at = port.local_addr()?;
        return Ok((port.into(), at));
    }
    let listener = listen(at)?;
    let at = listener.local_addr()?;
    Ok((listener.into(), at))
}

/// Why no more connections are accepted.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error("the client wants no more of them")]
    Unwanted,
    #[error("the client's next session has it")]
    Superseded,
    #[error("the client may not have it any more")]
    Forbidden,
    #[error("its session is over, or shutting down")]
    Session,
}

impl Port {
    async fn attend(
        self: &Arc<Self>,
        mut stream: Stream,
        hold: &Hold,
        visitors: &mut JoinSet<()>,
    ) -> Over {
        // Its first byte is the answer: we are listening.
        if stream.answer().await.is_err() || self.tell_port(&mut stream).await.is_err() {
            return Over::Session;
        }
        let taken = async {
            match hold.listeners().iter().filter_map(Listener::udp).cloned().collect::<Vec<_>>() {
                ports if ports.is_empty() => self.take(hold.listeners(), visitors).await,
                ports => datagrams::take(ports, self).await,
            }
        };
        let over = tokio::select! {
            biased;
            over = self.watch(&mut stream, hold) => over,
            () = taken => Over::Forbidden,
        };
        stream.reset(match over {
            Over::Unwanted => Code::NONE,
            Over::Superseded => Code::LISTEN_IN_USE,
            Over::Forbidden => Code::LISTEN_FORBIDDEN,
            Over::Session => Code::SHUTDOWN,
        });
        over
    }

    /// Waits until no more is to be taken.
    async fn watch(&self, stream: &mut Stream, hold: &Hold) -> Over {
        let mut recheck = tokio::time::interval(RECHECK_EVERY);
        loop {
            tokio::select! {
                biased;
                () = hold.taken_over() => return Over::Superseded,
                () = self.session.draining() => return Over::Session,
                () = ended(stream) => return Over::Unwanted,
                _ = recheck.tick() => {
                    if !self.is_allowed() {
                        return Over::Forbidden;
                    }
                }
            }
        }
    }

    /// Has connections carried, until the client may have no more from there.
    async fn take(&self, listeners: &[Listener], visitors: &mut JoinSet<()>) {
        loop {
            tokio::select! {
                Some(_) = visitors.join_next() => {}
                (socket, from) = accept(listeners) => {
                    if visitors.len() >= VISITORS_PER_LISTENER_MAX {
                        self.client.tell_full();
                        socket::reset(&socket);
                    } else if !self.let_in(socket, from, visitors) {
                        return;
                    }
                }
            }
        }
    }

    /// Tells the client which port it got, if it left that open.
    async fn tell_port(&self, stream: &mut Stream) -> io::Result<()> {
        let port = self.place.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        match port.filter(|_| self.leaves_port) {
            Some(port) => stream.write_all(&port.to_be_bytes()).await,
            None => Ok(()),
        }
    }

    /// Has a connection carried; `false` if the client may have no more from there.
    fn let_in(&self, socket: Socket, from: Option<SocketAddr>, visitors: &mut JoinSet<()>) -> bool {
        let Some(permit) = self.session.permit().filter(|_| self.is_allowed()) else {
            socket::reset(&socket);
            return false;
        };
        let Some(places) = permit.enter().zip(self.client.enter()) else {
            tracing::warn!(at = self.place, "a client has as many connections open as it may");
            socket::reset(&socket);
            return true;
        };
        let (session, client) = (self.session.clone(), self.client.clone());
        let (number, redundant) = (self.number, self.redundant);
        let ends = Ends {
            from: from.map_or_else(|| socket.peer(), |from| as_ipv4(from).to_string()),
            to: format!("a client by {}", self.place),
        };
        visitors.spawn(async move {
            let _places = places;
            let source = from.map(|from| as_ipv4(from).to_string());
            let kind = StreamKind::Visitor { number, source };
            match session.open(OpenOptions { redundant, ..kind.into() }).await {
                Ok(stream) => carry(socket, stream, &session, &client, &ends).await,
                Err(error) => refuse(&socket, &error, &ends),
            }
        });
        true
    }
}

async fn carry(socket: Socket, stream: Stream, session: &Session, client: &Client, ends: &Ends) {
    let subject = session.subject();
    let shown = format!("{} for {}", ends.to, ends.from);
    subject.stream_started(&shown);
    copy(socket, Bytes::new(), stream, client.sockets(), ends).await;
    subject.stream_ended(&shown, &"over");
}

fn refuse(socket: &Socket, error: &OpenError, Ends { from, to }: &Ends) {
    socket::reset(socket);
    tracing::debug!(%from, %to, %error, "connection refused");
}

/// The next connection at any of them, and the address it comes from. Cancel safe.
async fn accept(listeners: &[Listener]) -> (Socket, Option<SocketAddr>) {
    loop {
        let each = listeners.iter().map(|listener| Box::pin(listener.accept_from()));
        match select_all(each).await.0 {
            Ok(accepted) => return accepted,
            Err(error) => wait_out(&error).await,
        }
    }
}

/// Waits for the end of a stream on which nothing comes.
async fn ended(stream: &mut Stream) {
    use tokio::io::AsyncReadExt;
    let _ = stream.read(&mut [0]).await;
}
