//! Datagrams that the kernel hands over on their way to somewhere else: nftables' TPROXY.
//!
//! It rewrites nothing, and says with each datagram where that was to go. Answers have to come from
//! there: each destination has a socket here that is bound to its address, though that is not this
//! machine's.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::sys::socket::{ControlMessageOwned, SockaddrIn, SockaddrIn6};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::forward::stopping;
use super::{Opener, Port, Taker};
use crate::driver::{Client, FlowOptions, StreamKind};
use crate::net::{as_ipv4, is_own_address};
use crate::tunnel::connections::{Connections, Place};
use crate::tunnel::udp_socket::{Received, UdpPort, allow_foreign, receive_told};

/// A port to which the kernel hands datagrams that were to go elsewhere.
#[derive(Debug)]
struct Handed {
    port: Arc<UdpPort>,
    own_port: u16,
    /// What its sockets are marked with, as the port is.
    mark: u32,
    bound: Connections,
    destinations: Arc<Destinations>,
}

/// Those of all flows there are, by address.
type Destinations = Mutex<BTreeMap<SocketAddr, Weak<Destination>>>;

/// Where datagrams were to go, and answers come from.
#[derive(Debug)]
struct Destination {
    address: SocketAddr,
    answers: UdpSocket,
    all: Arc<Destinations>,
    _place: Place,
}

impl Drop for Destination {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        // There may be another for the same address by now.
        if all.get(&self.address).is_some_and(|there| there.strong_count() == 0) {
            all.remove(&self.address);
        }
    }
}

/// Who has sent a datagram, and where it was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Sender {
    from: SocketAddr,
    to: SocketAddr,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.from.fmt(f)
    }
}

impl Handed {
    fn destination(&self, address: SocketAddr) -> io::Result<Arc<Destination>> {
        let there = |all: &BTreeMap<_, Weak<Destination>>| all.get(&address)?.upgrade();
        let lock = || self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = there(&lock()) {
            return Ok(there);
        }
        let full = || io::Error::from_raw_os_error(libc::EMFILE);
        let place = self.bound.enter().ok_or_else(full)?;
        let answers = answering(address, self.mark)?;
        let all = self.destinations.clone();
        let new = Arc::new(Destination { address, answers, all, _place: place });
        lock().insert(address, Arc::downgrade(&new));
        Ok(new)
    }
}

/// A socket whose datagrams come from `address`, whoever has that.
fn answering(address: SocketAddr, mark: u32) -> io::Result<UdpSocket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    // A program of this machine may have the port at all addresses.
    socket.set_reuse_address(true)?;
    allow_foreign(&socket, address.is_ipv4())?;
    if mark != 0 {
        socket.set_mark(mark)?;
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Receives a datagram, and where it was to go; `None`: the kernel does not say.
fn receive(socket: &UdpSocket, space: &mut [u8]) -> io::Result<Received<Sender>> {
    let mut to = None;
    let (from, length) = receive_told(socket, space, |message| match message {
        ControlMessageOwned::Ipv4OrigDstAddr(told) => {
            to.get_or_insert(SocketAddr::V4(SockaddrIn::from(told).into()));
        }
        ControlMessageOwned::Ipv6OrigDstAddr(told) => {
            to.get_or_insert(SocketAddr::V6(SockaddrIn6::from(told).into()));
        }
        _ => {}
    })?;
    let sender = from.zip(to).map(|(from, to)| Sender { from: as_ipv4(from), to: as_ipv4(to) });
    Ok(sender.map(|sender| (sender, 0..length)))
}

impl Port for Handed {
    type Sender = Sender;
    type Ticket = Arc<Destination>;

    async fn readable(&self) -> io::Result<()> {
        self.port.readable().await
    }

    fn try_recv(&self, space: &mut [u8]) -> io::Result<Received<Sender>> {
        let socket = self.port.socket();
        socket.try_io(Interest::READABLE, || receive(socket, space))
    }

    async fn answer(&self, to: &Sender, from: &Arc<Destination>, answer: &[u8]) -> io::Result<()> {
        from.answers.send_to(answer, to.from).await.map(drop)
    }

    fn source(&self, sender: &Sender) -> IpAddr {
        sender.from.ip()
    }

    fn kind(&self, sender: &Sender) -> StreamKind {
        StreamKind::Named(sender.to.to_string())
    }

    /// What was meant for the port itself is refused: nothing would come of it but a loop.
    fn admit(&self, sender: &Sender) -> Option<Arc<Destination>> {
        let Sender { from, to } = *sender;
        if to.port() == self.own_port && is_own_address(to.ip()).unwrap_or(true) {
            tracing::debug!(%from, %to, "datagrams for the port itself are dropped");
            return None;
        }
        let why = match self.destination(to) {
            Ok(destination) => return Some(destination),
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) => {
                self.bound.tell_full();
                return None;
            }
            Err(error) => error,
        };
        let advice = match why.kind() {
            io::ErrorKind::AddrInUse => {
                "; a program here has this port at all addresses: bind it to one"
            }
            _ => "",
        };
        tracing::warn!(%from, %to, error = %why, "no answers could be sent, so datagrams are dropped{advice}");
        None
    }
}

/// Serves datagrams that the kernel hands to `port`, each sender's through a flow for each
/// destination.
pub(in crate::tunnel::takers) async fn serve_handed(
    port: Arc<UdpPort>,
    client: Arc<Client>,
    options: FlowOptions,
    bound: &Connections,
) {
    let options = bound.sockets().for_flows(options);
    let own_port = port.local_addr().map_or(0, |at| at.port());
    let mark = SockRef::from(port.socket()).mark().unwrap_or_default();
    let at = port.to_string();
    let end = stopping(&client, bound);
    let (bound, destinations) = (bound.clone(), Arc::default());
    let flows = bound.flows().clone();
    let handed = Handed { port, own_port, mark, bound, destinations };
    Taker::new(handed, Opener::Client(client.clone()), options, flows, at).run(end).await;
}
