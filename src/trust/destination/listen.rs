//! The same places and rules, where it is a client that has connections taken there: a name is then
//! never looked up, and what a rule has to name is the very address that is listened at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::{Destination, DestinationRule, Destinations, Host, HostRule, Place, contains};

/// Ports below are for who administers a machine: a rule has to name one of them.
const FIRST_ORDINARY_PORT: u16 = 1_024;

/// Where connections are to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAt<'a> {
    /// At those of these addresses that are allowed.
    Addresses(Vec<SocketAddr>),
    /// At this path.
    Unix(&'a Path),
}

impl Destination {
    /// Where connections are to be taken, if that is what the place is for: `localhost` is both
    /// addresses of that name, and nothing else is called by a name.
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
    /// Whether connections may be taken at this address. `*` and networks mean any address of
    /// theirs, and a `*` for the port none below 1024.
    #[must_use]
    pub fn may_listen(&self, at: SocketAddr) -> bool {
        self.rules.iter().any(|rule| rule.lets_listen(at))
    }

    /// Whether connections may be taken at a Unix socket: of its own path alone.
    #[must_use]
    pub fn may_listen_unix(&self, path: &Path) -> bool {
        let is = |rule: &DestinationRule| matches!(&rule.host, HostRule::Unix(listed) if Path::new(listed) == path);
        self.rules.iter().any(is)
    }
}

impl DestinationRule {
    /// Whether it can be about where connections are taken: by an address of the machine, and no
    /// name but `localhost`.
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
