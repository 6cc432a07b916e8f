//! Datagrams that a server takes for a client. Their senders may be forged: whoever sends gets no
//! answer but the client's, and how many have a flow is bounded.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures::future::join_all;

use super::port::Port;
use crate::driver::{FlowOptions, StreamKind, Subject};
use crate::net::as_ipv4;
use crate::trust::StreamPlace;
use crate::tunnel::takers::udp::{self, Opener, Taker};
use crate::tunnel::udp_socket::{Received, Sender, UdpPort};

/// Takes datagrams there until it is dropped.
pub(super) async fn take(ports: Vec<Arc<UdpPort>>, place: &Arc<Port>) {
    let options = FlowOptions { redundant: place.redundant, ..FlowOptions::default() };
    let options = place.client.sockets().for_flows(options);
    let each = ports.into_iter().map(|port| {
        let at = port.to_string();
        let visitors = Visitors { port, place: place.clone() };
        let opener = Opener::Session(place.session.clone());
        let flows = place.client.flows.clone();
        let taker = Taker::new(visitors, opener, options.clone(), flows, at);
        taker.run(std::future::pending())
    });
    join_all(each).await;
}

/// A port at the server, and what it is for.
struct Visitors {
    port: Arc<UdpPort>,
    place: Arc<Port>,
}

/// A visitor's place within the bounds; its end is noted when dropped.
pub(super) struct Ticket {
    _place: StreamPlace,
    subject: Subject,
    shown: String,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.subject.stream_ended(&self.shown, &"over");
    }
}

impl udp::Port for Visitors {
    type Sender = Sender;
    type Ticket = Ticket;

    async fn readable(&self) -> io::Result<()> {
        self.port.readable().await
    }

    fn try_recv(&self, space: &mut [u8]) -> io::Result<Received<Sender>> {
        self.port.try_recv(space)
    }

    async fn answer(&self, sender: &Sender, _: &Ticket, answer: &[u8]) -> io::Result<()> {
        self.port.answer(sender, answer).await
    }

    fn source(&self, sender: &Sender) -> IpAddr {
        sender.address.ip()
    }

    fn kind(&self, sender: &Sender) -> StreamKind {
        let source = Some(as_ipv4(sender.address).to_string());
        StreamKind::Visitor { number: self.place.number, source }
    }

    fn admit(&self, sender: &Sender) -> Option<Ticket> {
        let permit = self.place.session.permit().filter(|_| self.place.is_allowed())?;
        let Some(place) = permit.enter() else {
            tracing::warn!(at = %self.port, "a client has as many connections open as it may");
            return None;
        };
        let subject = self.place.session.subject();
        let shown = format!("a client by {} for {sender}", self.port);
        subject.stream_started(&shown);
        Some(Ticket { _place: place, subject, shown })
    }
}
