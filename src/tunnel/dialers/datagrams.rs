//! Flows of datagrams to where they lead: a socket for each, which hears nobody else.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::UdpSocket;

use super::dial::{
    Failed, addresses, forbidden, look_up_fixed, meaning, no_descriptors, unknown_name,
};
use super::from::Dialing;
use crate::driver::{Code, Flow, FlowError, Session, StreamKind};
use crate::trust::{Destination, Permit};
use crate::tunnel::connections::{Client, Place};
use crate::tunnel::udp_socket::{prepare, receive_each};

/// A socket that is connected to its destination, and its place within the bounds.
type Connected = (UdpSocket, Place);

/// Carries a flow that a client has opened to where it may go.
pub(super) async fn serve(flow: Flow, kind: StreamKind, session: Session, client: Arc<Client>) {
    let Some(permit) = session.permit() else { return flow.reset(Code::UNAUTHORIZED) };
    let Some(_place) = permit.enter() else {
        tracing::warn!("a client has as many connections open as it may");
        return flow.reset(Code::EXCESSIVE_LOAD);
    };
    let subject = session.subject();
    match connect(&kind, &permit, &client, &flow).await {
        Ok((connected, shown)) => {
            subject.stream_started(&shown);
            tokio::select! {
                why = carry(flow, connected, &shown, &client) => {
                    subject.stream_ended(&shown, &why);
                }
                // Nothing tells when a flow will have ended.
                () = session.draining() => subject.stream_ended(&shown, &Code::SHUTDOWN),
            }
        }
        Err(failed) => {
            if failed.code != Code::EXCESSIVE_LOAD {
                subject.stream_ended(&failed.destination, &failed.why);
            }
            flow.reset(failed.tell(&client));
        }
    }
}

/// Carries a flow to a place that the owner of this end has chosen: `host:port`.
pub(super) async fn serve_fixed(flow: Flow, to: &str, session: &Session, client: &Arc<Client>) {
    let connected = async {
        let found = look_up_fixed(to).await.map_err(|why| unknown_name(to, why))?;
        connect_first(to, &found, client).await
    };
    match connected.await {
        Ok(connected) => tokio::select! {
            _ = carry(flow, connected, to, client) => {}
            () = session.draining() => {}
        },
        Err(failed) => flow.reset(failed.tell(client)),
    }
}

/// The socket for a client's flow, and where that leads in the list's words.
async fn connect(
    kind: &StreamKind,
    permit: &Permit,
    client: &Arc<Client>,
    flow: &Flow,
) -> Result<(Connected, String), Failed> {
    let StreamKind::Named(name) = kind else {
        return Err(forbidden(
            &format!("{kind:?}"),
            "a flow of datagrams has to name where it leads",
        ));
    };
    // A peer's words are shown escaped: nothing in them can control a terminal.
    let quoted = || format!("{name:?}");
    let Some(allowed) = permit.destinations() else {
        return Err(forbidden(&quoted(), "this client may not choose its destination"));
    };
    let asked: Destination = name.parse().map_err(|why| forbidden(&quoted(), why))?;
    let asked = Some(asked).filter(|asked| !asked.is_udp()).and_then(Destination::over_udp);
    let asked = asked.ok_or_else(|| forbidden(&quoted(), "a flow leads to a host and a port"))?;
    let shown = asked.to_string();
    flow.describe("", &shown);
    let addresses = addresses(&asked, allowed, client).await?;
    let connected = connect_first(&shown, &addresses, client).await?;
    Ok((connected, shown))
}

/// A socket connected to the first of these addresses to which there is a route.
async fn connect_first(
    destination: &str,
    addresses: &[SocketAddr],
    client: &Arc<Client>,
) -> Result<Connected, Failed> {
    let failed = |error: io::Error| Failed::new(destination, meaning(&error), error);
    let place = client.enter().ok_or_else(|| failed(no_descriptors()))?;
    let mut error = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match client.dialing().connect_udp(*address).await {
            Ok(socket) => return Ok((socket, place)),
            Err(why) => error = why,
        }
    }
    // The kernel's word for a network's broadcast address.
    let is_many = error.kind() == io::ErrorKind::PermissionDenied;
    let code = if is_many { Code::DIAL_FORBIDDEN } else { meaning(&error) };
    Err(Failed::new(destination, code, error))
}

impl Dialing {
    /// A socket for datagrams to `to` and from there.
    async fn connect_udp(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let ip = to.ip().to_canonical();
        if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let socket = UdpSocket::bind(SocketAddr::new(self.address_for(to)?, 0)).await?;
        socket.connect(to).await?;
        prepare(&socket);
        Ok(socket)
    }
}

/// Copies both ways until the flow is over: what a socket reports, as that nobody listens there,
/// costs a datagram and no more.
async fn carry(mut flow: Flow, connected: Connected, to: &str, client: &Client) -> FlowError {
    let (socket, _place) = connected;
    if let Some(idle) = client.sockets().idle_timeout {
        flow.set_idle_timeout(idle);
    }
    if let Err(over) = flow.answer().await {
        return over.into();
    }
    let lost = |error: io::Error| tracing::debug!(%to, %error, "a datagram was lost");
    let there = async {
        let mut datagrams = Vec::new();
        loop {
            if let Err(over) = flow.recv_all(&mut datagrams).await {
                return over;
            }
            for datagram in datagrams.drain(..) {
                let _ = socket.send(&datagram).await.map_err(lost);
            }
        }
    };
    let back = async {
        let mut datagrams = Vec::new();
        loop {
            let ready = socket.readable().await;
            let received = ready.and_then(|()| {
                let next = |space: &mut [u8]| socket.try_recv(space).map(|len| Some(((), 0..len)));
                receive_each(next, |((), datagram)| datagrams.push(datagram))
            });
            let _ = received.map_err(lost);
            if let Err(over) = flow.send_all(datagrams.drain(..)) {
                return over;
            }
        }
    };
    tokio::select! {
        over = there => over,
        over = back => over,
    }
}
