//! UDP sockets: a port of this machine, and what is received in one go.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use bytes::Bytes;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::driver::Flow;
use crate::net::as_ipv4;

/// What the kernel keeps of datagrams that come in a burst, if it allows that much.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// Most datagrams that are taken before something else has its turn.
const BATCH_MAX: usize = 64;

/// Who has sent a datagram, and which part of the space it takes.
pub(super) type Received<S> = Option<(S, Range<usize>)>;

/// A port that takes datagrams.
#[derive(Debug)]
pub struct UdpPort {
    socket: UdpSocket,
    /// It is bound to no one address: answers have to be sent from the one that was asked.
    has_many: bool,
}

impl AsFd for UdpPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Display for UdpPort {
    /// Its address, after `udp:`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local_addr() {
            Ok(at) => write!(f, "udp:{}", as_ipv4(at)),
            Err(error) => error.fmt(f),
        }
    }
}

impl UdpPort {
    /// Binds a port of this machine, or of all its addresses, `[::]` with those of IPv4. Within a
    /// runtime.
    ///
    /// # Errors
    /// The kernel's: the address is in use, is not this machine's, or needs more privileges.
    pub fn bind(at: SocketAddr) -> io::Result<Self> {
        let at = as_ipv4(at);
        let socket =
            Socket::new(Domain::for_address(at), Type::DGRAM.nonblocking().cloexec(), None)?;
        let has_many = at.ip().is_unspecified();
        if at.is_ipv6() {
            socket.set_only_v6(!has_many)?;
        }
        // Datagrams to IPv4 addresses may come to a socket of IPv6, too.
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        if at.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        socket.bind(&at.into())?;
        prepare(&socket);
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, has_many })
    }

    /// Where it is.
    ///
    /// # Errors
    /// The kernel's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Has the kernel hand it datagrams that were to go elsewhere, and say where.
    pub(super) fn allow_tproxy(&self) -> io::Result<()> {
        let is_ipv4 = self.local_addr()?.is_ipv4();
        allow_foreign(&self.socket, is_ipv4)?;
        setsockopt(&self.socket, sockopt::Ipv4OrigDstAddr, &true)?;
        if !is_ipv4 {
            setsockopt(&self.socket, sockopt::Ipv6OrigDstAddr, &true)?;
        }
        Ok(())
    }

    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The next datagram; `None` if it was sent to many.
    pub(super) fn try_recv(&self, space: &mut [u8]) -> io::Result<Received<Sender>> {
        let receive = || receive(&self.socket, space);
        let received = self.socket.try_io(Interest::READABLE, receive)?;
        Ok(received.map(|(address, asked, len)| {
            (Sender { address, asked: Some(asked).filter(|_| self.has_many) }, 0..len)
        }))
    }

    pub(super) async fn answer(&self, to: &Sender, answer: &[u8]) -> io::Result<()> {
        match to.asked {
            Some(own) => {
                let send = || send_from(&self.socket, own, to.address, answer);
                self.socket.async_io(Interest::WRITABLE, send).await
            }
            None => self.socket.send_to(answer, to.address).await.map(drop),
        }
    }
}

/// Lets a socket have addresses that are not this machine's.
pub(super) fn allow_foreign<'a>(socket: impl Into<SockRef<'a>>, is_ipv4: bool) -> io::Result<()> {
    let socket = socket.into();
    if is_ipv4 { socket.set_ip_transparent_v4(true) } else { socket.set_ip_transparent_v6(true) }
}

/// Whatever cannot be set costs datagrams in a burst, and nothing else.
pub(super) fn prepare<'a>(socket: impl Into<SockRef<'a>>) {
    if let Err(error) = socket.into().set_recv_buffer_size(RECEIVE_BUFFER_BYTES) {
        tracing::debug!(%error, "SO_RCVBUF");
    }
}

/// Who has sent a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sender {
    pub(super) address: SocketAddr,
    /// Which of this machine's addresses it was sent to, if there are several.
    asked: Option<IpAddr>,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        as_ipv4(self.address).fmt(f)
    }
}

/// Room for what the kernel says beside a datagram: two addresses.
#[repr(align(8))]
struct Control([u8; 128]);

/// Receives a datagram: who sent it, if that is told, and its length. What the kernel says beside
/// it goes to `told`.
pub(super) fn receive_told(
    socket: &UdpSocket,
    space: &mut [u8],
    told: impl FnMut(ControlMessageOwned),
) -> io::Result<(Option<SocketAddr>, usize)> {
    let mut control = Control([0; 128]);
    let mut slices = [IoSliceMut::new(space)];
    let received = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control.0),
        MsgFlags::empty(),
    )?;
    received.cmsgs()?.for_each(told);
    let from = received.address.as_ref().and_then(|from| {
        let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
        v4.or_else(|| from.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
    });
    Ok((from, received.bytes))
}

/// Receives a datagram: who sent it, to which address, and its length. `None`: it was sent to many
/// machines, and is not for us to answer.
fn receive(
    socket: &UdpSocket,
    space: &mut [u8],
) -> io::Result<Option<(SocketAddr, IpAddr, usize)>> {
    let (mut own, mut asked) = (None, None);
    let (address, length) = receive_told(socket, space, |message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            let [spec, to] = [info.ipi_spec_dst, info.ipi_addr]
                .map(|ip| IpAddr::V4(u32::from_be(ip.s_addr).into()));
            (own, asked) = (Some(spec), Some(to));
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            let to = Some(IpAddr::V6(info.ipi6_addr.s6_addr.into()));
            (own, asked) = (own.or(to), asked.or(to));
        }
        _ => {}
    })?;
    // Where an answer comes from is another address than a broadcast was sent to.
    let asked = asked.filter(|to| !to.is_multicast() && own == Some(*to));
    Ok(address.zip(asked).map(|(address, asked)| (address, asked, length)))
}

/// Sends a datagram from one of this machine's addresses.
fn send_from(socket: &UdpSocket, own: IpAddr, to: SocketAddr, answer: &[u8]) -> io::Result<()> {
    let (descriptor, slices) = (socket.as_raw_fd(), [IoSlice::new(answer)]);
    let to = SockaddrStorage::from(to);
    // The route says by which interface.
    let (v4, v6);
    let from = match own {
        IpAddr::V4(own) => {
            let (any, own) = (Ipv4Addr::UNSPECIFIED.to_bits(), own.to_bits().to_be());
            v4 = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: own },
                ipi_addr: libc::in_addr { s_addr: any },
            };
            ControlMessage::Ipv4PacketInfo(&v4)
        }
        IpAddr::V6(own) => {
            let ipi6_addr = libc::in6_addr { s6_addr: own.octets() };
            v6 = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
            ControlMessage::Ipv6PacketInfo(&v6)
        }
    };
    sendmsg(descriptor, &slices, &[from], MsgFlags::empty(), Some(&to))?;
    Ok(())
}

/// Receives what a socket has, up to a bound, and hands each datagram on in memory of its own.
/// Those that are too large for a flow are dropped.
///
/// # Errors
/// The socket's, but for the want of datagrams. What had come before was handed on.
pub(super) fn receive_each<S>(
    mut try_recv: impl FnMut(&mut [u8]) -> io::Result<Received<S>>,
    mut each: impl FnMut((S, Bytes)),
) -> io::Result<()> {
    thread_local! {
        /// Large enough for any. One for each thread: flows that wait need none.
        static SPACE: RefCell<Vec<u8>> = RefCell::new(vec![0; usize::from(u16::MAX)]);
    }
    SPACE.with_borrow_mut(|space| {
        for _ in 0..BATCH_MAX {
            match try_recv(space) {
                Ok(Some((from, part))) if part.len() <= Flow::DATAGRAM_BYTES_MAX => {
                    each((from, Bytes::copy_from_slice(&space[part])));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    })
}
