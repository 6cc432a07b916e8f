//! The same places and rules, for clients that have connections accepted there: names are never
//! looked up, and a rule must name the very address to listen on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::{Destination, DestinationRule, Destinations, Host, HostRule, Place, contains};

/// Ports below are for a machine's administrator: a rule must name them one by one.
const FIRST_ORDINARY_PORT: u16 = 1_024;

/// Where to accept connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAt<'a> {
    /// At whichever of these addresses are allowed.
    Addresses(Vec<SocketAddr>),
    /// At this path.
    Unix(&'a Path),
}

impl Destination {
    /// Where to accept connections, if this is a place to listen: `localhost` means both of its
    /// addresses; other names do not count.
    #[must_use]
    pub fn listen_at(&self) -> Option<ListenAt<'_>> {
        let (host, port) = match &self.0 {
            Place::Network { host, port } => (host, *port),
            Place::Unix(path) => return Some(ListenAt::Unix(Path::new(path))),
        };
        let ips: Vec<IpAddr> = match host {
            Host::Address(ip) => vec![*ip],
            Host::Name(name) if name == "localhost" => {
                vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            }
            Host::Name(_) => return None,
        };
        Some(ListenAt::Addresses(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()))
    }
}

impl Destinations {
    /// Whether connections may be accepted at this address. `*` and networks mean any of their
    /// addresses, and a `*` for the port means none below 1024.
    #[must_use]
    pub fn may_listen(&self, at: SocketAddr) -> bool {
        self.rules.iter().any(|rule| rule.lets_listen(at))
    }

    /// Whether connections may be accepted at a Unix socket: only by its own path.
    #[must_use]
    pub fn may_listen_unix(&self, path: &Path) -> bool {
        let is = |rule: &DestinationRule| matches!(&rule.host, HostRule::Unix(listed) if Path::new(listed) == path);
        self.rules.iter().any(is)
    }
}

impl DestinationRule {
    /// Whether it can name a place to accept connections: an address of the machine, and no name
    /// but `localhost`.
    #[must_use]
    pub fn is_place_to_listen(&self) -> bool {
        !matches!(&self.host, HostRule::Name(name) if name != "localhost")
    }

    fn lets_listen(&self, at: SocketAddr) -> bool {
        let (ip, port) = (at.ip(), at.port());
        self.port.map_or(port >= FIRST_ORDINARY_PORT, |listed| listed == port)
            && match &self.host {
                HostRule::Any => true,
                HostRule::Address(listed) => *listed == ip,
                HostRule::Network(base, length) => contains(*base, *length, ip),
                HostRule::Name(name) => name == "localhost" && ip.is_loopback(),
                HostRule::Unix(_) => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_listening_are_exact() {
        let may = |rule: &str, at: &str| {
            let rules = Destinations::new([rule.parse().unwrap()]);
            rules.may_listen(at.parse().unwrap())
        };
        for (rule, at) in [
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            ("[::]:8080", "[::]:8080"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("localhost:8080", "[::1]:8080"),
            ("localhost:*", "127.0.0.1:1024"),
            ("*:8080", "0.0.0.0:8080"),
            ("*:*", "192.0.2.1:65535"),
            ("192.0.2.0/24:*", "192.0.2.9:8080"),
            ("*:443", "0.0.0.0:443"),
        ] {
            assert!(may(rule, at), "{rule} {at}");
        }
        for (rule, at) in [
            ("0.0.0.0:8080", "0.0.0.0:8081"),
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("0.0.0.0:8080", "[::]:8080"),
            ("127.0.0.1:8080", "0.0.0.0:8080"),
            ("localhost:8080", "0.0.0.0:8080"),
            ("localhost:8080", "192.0.2.1:8080"),
            ("localhost:*", "127.0.0.1:1023"),
            ("*:*", "0.0.0.0:80"),
            ("0.0.0.0/0:*", "[::]:8080"),
            ("192.0.2.0/24:*", "0.0.0.0:8080"),
            ("unix:/run/a", "0.0.0.0:8080"),
        ] {
            assert!(!may(rule, at), "{rule} {at}");
        }
        let everything = Destinations::new(["*:*".parse().unwrap()]);
        assert!(!everything.may_listen_unix(Path::new("/run/a")));
        let one = Destinations::new(["unix:/run/a".parse().unwrap()]);
        assert!(one.may_listen_unix(Path::new("/run/a")));
        assert!(!one.may_listen_unix(Path::new("/run/b")));
        assert!(!"db.example:80".parse::<DestinationRule>().unwrap().is_place_to_listen());
    }

    #[test]
    fn places_to_listen_at_are_addresses_localhost_and_sockets() {
        let at = |text: &str| {
            let place: Destination = text.parse().unwrap();
            match place.listen_at() {
                Some(ListenAt::Addresses(all)) => format!("{all:?}"),
                other => format!("{other:?}"),
            }
        };
        assert_eq!(at("0.0.0.0:80"), "[0.0.0.0:80]");
        assert_eq!(at("[::]:80"), "[[::]:80]");
        assert_eq!(at("localhost:80"), "[127.0.0.1:80, [::1]:80]");
        assert_eq!(at("unix:/run/a"), "Some(Unix(\"/run/a\"))");
        assert_eq!(at("db.example:80"), "None");
    }
}
