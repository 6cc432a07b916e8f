//! The addresses that destinations are dialled from, and what they are told of who connects.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpSocket, TcpStream};

use crate::net::as_ipv4;
use crate::trust::ProxyHeader;

/// How connections to destinations are made.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Dialing {
    /// The addresses they are made from. If none is given, the system chooses; otherwise,
    /// destinations of an IP version that has none here are not dialled.
    pub from: Vec<IpAddr>,
    /// Whether each destination is told who connects, and how. A client's own line may say so for
    /// that client.
    pub tell_source: Option<ProxyHeader>,
}

impl Dialing {
    /// Connects to `to`.
    pub(super) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        if self.from.is_empty() {
            return TcpStream::connect(to).await;
        }
        let from = self.address_for(to)?;
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Without it, a port taken here would be taken for all destinations together. Kernels
        // before 4.2 lack the option.
        let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
        socket.bind(SocketAddr::new(from, 0))?;
        socket.connect(to).await
    }

    /// The address to dial `to` from; an unspecified one leaves it to the system.
    pub(super) fn address_for(&self, to: SocketAddr) -> io::Result<IpAddr> {
        let any = || match to {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        if self.from.is_empty() {
            return Ok(any());
        }
        let fits = |from: &&IpAddr| from.is_ipv4() == to.is_ipv4();
        let from = self.from.iter().find(fits).copied();
        from.ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }
}

/// The PROXY protocol's header for a connection by `source` to `destination`.
pub(super) fn header(
    how: ProxyHeader,
    source: Option<SocketAddr>,
    destination: Option<SocketAddr>,
) -> io::Result<Vec<u8>> {
    let ends = source.map(|source| {
        let source = as_ipv4(source);
        (source, of_family(destination, source))
    });
    match how {
        ProxyHeader::V1 => {
            let addresses = ends.map(ppp::v1::Addresses::from).unwrap_or_default();
            Ok(addresses.to_string().into_bytes())
        }
        ProxyHeader::V2 => {
            use ppp::v2::{Addresses, Builder, Command, Protocol, Version};
            let (command, protocol, addresses) = match ends {
                Some(ends) => (Command::Proxy, Protocol::Stream, Addresses::from(ends)),
                // Nobody knows who connects: a connection of our own.
                None => (Command::Local, Protocol::Unspecified, Addresses::Unspecified),
            };
            Builder::with_addresses(Version::Two | command, protocol, addresses).build()
        }
    }
}

/// Both must be of one IP version: a destination of the other is given as the unspecified address,
/// at its port.
fn of_family(destination: Option<SocketAddr>, source: SocketAddr) -> SocketAddr {
    let nowhere = match source {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    match destination.map(as_ipv4) {
        Some(at) if at.is_ipv4() == source.is_ipv4() => at,
        at => SocketAddr::new(nowhere, at.map_or(0, |at| at.port())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn headers_name_both_ends_in_one_version_of_ip() {
        let v1 = |source, destination| {
            String::from_utf8(header(ProxyHeader::V1, source, destination).unwrap()).unwrap()
        };
        let to = at("192.0.2.7:80");
        assert_eq!(v1(at("198.51.100.1:5"), to), "PROXY TCP4 198.51.100.1 192.0.2.7 5 80\r\n");
        assert_eq!(
            v1(at("[::ffff:198.51.100.1]:5"), to),
            "PROXY TCP4 198.51.100.1 192.0.2.7 5 80\r\n"
        );
        assert_eq!(v1(at("[2001:db8::1]:5"), to), "PROXY TCP6 2001:db8::1 :: 5 80\r\n");
        assert_eq!(v1(at("198.51.100.1:5"), None), "PROXY TCP4 198.51.100.1 0.0.0.0 5 0\r\n");
        assert_eq!(v1(None, to), "PROXY UNKNOWN\r\n");
        let v2 = header(ProxyHeader::V2, at("198.51.100.1:5"), to).unwrap();
        let expected =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x01\xc0\0\x02\x07\0\x05\0\x50";
        assert_eq!(v2, expected);
        let v2 = header(ProxyHeader::V2, None, to).unwrap();
        assert_eq!(v2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
        let six = header(ProxyHeader::V2, at("[2001:db8::1]:5"), at("[2001:db8::2]:80")).unwrap();
        assert_eq!((six[13], six.len()), (0x21, 16 + 36));
    }

    #[tokio::test]
    async fn destinations_are_dialled_from_the_address_of_their_version() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let from = Dialing { from: vec!["127.0.0.9".parse().unwrap()], ..Dialing::default() };
        let socket = from.connect(to).await.unwrap();
        assert_eq!(socket.local_addr().unwrap().ip().to_string(), "127.0.0.9");
        let none = from.connect("[::1]:1".parse().unwrap()).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NetworkUnreachable);
        let other = Dialing { from: vec!["192.0.2.9".parse().unwrap()], ..Dialing::default() };
        let error = other.connect(to).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
