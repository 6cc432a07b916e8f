//! Datagrams of a port here, all to one place.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use super::{Opener, Port, Taker};
use crate::driver::{Client, FlowOptions, StreamKind};
use crate::tunnel::connections::Connections;
use crate::tunnel::udp_socket::{Received, Sender, UdpPort};

/// A port whose datagrams all lead to one place.
#[derive(Debug)]
struct Leading {
    port: Arc<UdpPort>,
    to: StreamKind,
}

impl Port for Leading {
    type Sender = Sender;
    type Ticket = ();

    async fn readable(&self) -> io::Result<()> {
        self.port.readable().await
    }

    fn try_recv(&self, space: &mut [u8]) -> io::Result<Received<Sender>> {
        self.port.try_recv(space)
    }

    async fn answer(&self, sender: &Sender, (): &(), answer: &[u8]) -> io::Result<()> {
        self.port.answer(sender, answer).await
    }

    fn source(&self, sender: &Sender) -> IpAddr {
        sender.address.ip()
    }

    fn kind(&self, _: &Sender) -> StreamKind {
        self.to.clone()
    }

    fn admit(&self, _: &Sender) -> Option<()> {
        Some(())
    }
}

/// Forwards the datagrams that come in on `port`, those of each sender through a flow of its own,
/// until the client is [drained](Client::drain) or closed. A flow takes answers to its sender. How
/// many there may be is bounded, of one source and in sum: the one that was idle the longest gives
/// way.
pub async fn forward_udp_within(
    port: Arc<UdpPort>,
    client: Arc<Client>,
    options: impl Into<FlowOptions>,
    bound: &Connections,
) {
    let options = bound.sockets().for_flows(options.into());
    let at = port.to_string();
    let port = Leading { port, to: options.kind.clone() };
    let opener = Opener::Client(client.clone());
    let taker = Taker::new(port, opener, options, bound.flows().clone(), at);
    taker.run(stopping(&client, bound)).await;
}

/// Until the client takes nothing more, here or at all.
pub(super) async fn stopping(client: &Client, bound: &Connections) {
    tokio::select! {
        () = client.stopping() => {}
        () = bound.ended() => {}
    }
}
