//! UDP ASSOCIATE: a socket for one program's datagrams, each with a header that says where it goes.
//! It lasts as long as the connection that asked for it, and hears nobody but that program.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use fast_socks5::server::{Socks5ServerProtocol, states};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, parse_udp_request};
use futures::FutureExt;
use tokio::io::AsyncReadExt;
use tokio::net::UdpSocket;

use crate::driver::{FlowOptions, OpenError, StreamKind};
use crate::net::as_ipv4;
use crate::tunnel::connections::Place;
use crate::tunnel::takers::proxy::program::Program;
use crate::tunnel::takers::proxy::way::{Unheard, Way, destination};
use crate::tunnel::takers::udp::{Opener, Port, Taker};
use crate::tunnel::udp_socket::{Received, prepare};

/// A fragment's number stands there; fragments are dropped, as RFC 1928 lets us.
const FRAGMENT_AT: usize = 2;

pub(super) async fn serve(
    protocol: Socks5ServerProtocol<&mut Program, states::CommandRead>,
    asked: &TargetAddr,
    way: &Way,
    ends: Option<[SocketAddr; 2]>,
) -> Result<(), Unheard> {
    let (relay, at) = match Relay::bind(asked, way, ends).await {
        Ok(bound) => bound,
        Err(why) => {
            tracing::warn!(from = way.from, at = %way.at, %why, "datagrams are not carried");
            return Ok(protocol.reply_error(&why.reply()).await?);
        }
    };
    let program = protocol.reply_success(at).await?;
    let options = FlowOptions { redundant: way.options.redundant, ..FlowOptions::default() };
    let options = way.bound.sockets().for_flows(options);
    let opener = Opener::Client(way.client.clone());
    let taker = Taker::new(relay, opener, options, way.bound.flows().clone(), way.at.to_string());
    let ended = async {
        // Nothing else is said there.
        let mut space = [0; 64];
        while program.read(&mut space).await.is_ok_and(|read| read > 0) {}
    };
    taker
        .run(async {
            tokio::select! {
                () = ended => {}
                () = way.client.stopping() => {}
            }
        })
        .await;
    Ok(())
}

/// Why there is no association.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0}")]
    NotKnown(OpenError),
    #[error("a program at a Unix socket sends no datagrams")]
    NoNetwork,
    #[error("there are as many connections as there may be")]
    Full,
    #[error("no socket for them: {0}")]
    Socket(#[from] io::Error),
}

impl Refused {
    fn reply(&self) -> ReplyError {
        match self {
            Self::NotKnown(_) | Self::NoNetwork => ReplyError::CommandNotSupported,
            Self::Full | Self::Socket(_) => ReplyError::GeneralFailure,
        }
    }
}

/// The socket for one program.
struct Relay {
    socket: UdpSocket,
    /// Where the connection comes from.
    from: IpAddr,
    /// Where the datagrams come from, once that is known.
    program: OnceLock<SocketAddr>,
    /// Where the last one went.
    last: Mutex<Option<Target>>,
    _place: Place,
}

impl Relay {
    /// Binds it at the address to which the program has connected; and where it is.
    async fn bind(
        asked: &TargetAddr,
        way: &Way,
        ends: Option<[SocketAddr; 2]>,
    ) -> Result<(Self, SocketAddr), Refused> {
        if way.client.session().is_some_and(|session| session.flows_granted() == 0) {
            return Err(Refused::NotKnown(OpenError::FlowsNotKnown));
        }
        let [mut local, from] = ends.ok_or(Refused::NoNetwork)?;
        let place = way.bound.enter().ok_or(Refused::Full)?;
        local.set_port(0);
        let socket = UdpSocket::bind(local).await?;
        prepare(&socket);
        let at = socket.local_addr()?;
        let program = OnceLock::new();
        // Behind NAT it does not know. Otherwise nobody else is to be the first.
        if let TargetAddr::Ip(said) = asked
            && said.ip().to_canonical() == from.ip()
            && said.port() != 0
        {
            let _ = program.set(SocketAddr::new(from.ip(), said.port()));
        }
        let (from, last) = (from.ip(), Mutex::default());
        Ok((Self { socket, from, program, last, _place: place }, at))
    }

    /// Whether it is our program that sends from there.
    fn is_program(&self, from: SocketAddr) -> bool {
        let program = self.program.get().copied();
        from.ip() == self.from && program.is_none_or(|it| it.port() == from.port())
    }

    /// Where a datagram goes, by its header.
    fn target(&self, datagram: &[u8]) -> Option<Target> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last.as_ref().filter(|last| datagram.starts_with(&last.header)) {
            return Some(last.clone());
        }
        let target = Target::read(datagram)?;
        Some(last.insert(target).clone())
    }
}

/// Where datagrams go, and what stands before those that come back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Target {
    /// As the program has written it.
    header: Bytes,
    name: Arc<str>,
}

impl Target {
    /// `None`: it has no header, is a fragment, or leads nowhere.
    fn read(datagram: &[u8]) -> Option<Self> {
        if datagram.get(FRAGMENT_AT) != Some(&0) {
            return None;
        }
        // All there is to read is there.
        let (_, target, rest) = parse_udp_request(datagram).now_or_never()?.ok()?;
        let header = &datagram[..datagram.len() - rest.len()];
        let (host, port) = target.into_string_and_port();
        let name = destination(&host, port).ok()?.to_string().into();
        Some(Self { header: Bytes::copy_from_slice(header), name })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a program, for udp:{}", self.name)
    }
}

impl Port for Relay {
    type Sender = Target;
    type Ticket = ();

    async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    fn try_recv(&self, space: &mut [u8]) -> io::Result<Received<Target>> {
        let (len, from) = self.socket.try_recv_from(space)?;
        let from = as_ipv4(from);
        let Some(target) =
            Some(&space[..len]).filter(|_| self.is_program(from)).and_then(|it| self.target(it))
        else {
            return Ok(None);
        };
        self.program.get_or_init(|| from);
        let begin = target.header.len();
        Ok(Some((target, begin..len)))
    }

    async fn answer(&self, target: &Target, (): &(), answer: &[u8]) -> io::Result<()> {
        let Some(program) = self.program.get() else { return Ok(()) };
        let whole = [&target.header, answer].concat();
        self.socket.send_to(&whole, program).await.map(drop)
    }

    fn source(&self, _: &Target) -> IpAddr {
        self.from
    }

    fn kind(&self, target: &Target) -> StreamKind {
        StreamKind::Named(target.name.as_ref().to_owned())
    }

    fn admit(&self, _: &Target) -> Option<()> {
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_whole_or_not_at_all() {
        let name = |datagram: &[u8]| Target::read(datagram).map(|it| it.name.to_string());
        let header = |rest: &[u8]| [&[0, 0, 0], rest].concat();
        let four = header(&[1, 192, 0, 2, 7, 0, 53]);
        assert_eq!(name(&four).as_deref(), Some("192.0.2.7:53"));
        let target = Target::read(&[&four[..], b"rest"].concat()).unwrap();
        assert_eq!(target.header, four);
        let named = header(b"\x03\x09localhost\x00\x35");
        assert_eq!(name(&named).as_deref(), Some("localhost:53"));
        let six = [header(&[4]), vec![0; 15], vec![1, 0, 53]].concat();
        assert_eq!(name(&six).as_deref(), Some("[::1]:53"));
        for len in 0..four.len() {
            assert_eq!(name(&four[..len]), None);
        }
        for (at, byte) in [(0, 1), (1, 1), (2, 1), (2, 0x80), (3, 2)] {
            let mut wrong = four.clone();
            wrong[at] = byte;
            assert_eq!(name(&wrong), None, "{wrong:?}");
        }
        assert_eq!(name(&header(&[1, 192, 0, 2, 7, 0, 0])), None);
        assert_eq!(name(&header(b"\x03\x03a\nb\x00\x35")), None);
    }
}
