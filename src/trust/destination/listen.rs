//! The same places and rules, for clients that have connections accepted there: names are never
//! looked up, and a rule must name the very address to listen on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::reach::{contains, is_many};
use super::{
    Destination, DestinationError, DestinationRule, Destinations, Host, HostRule, MANY, NO_PORT,
    Place, error, is_number, parse_host, parse_path, split, split_udp, unix_path,
};

/// Ports below are for a machine's administrator: a rule must name them one by one.
const FIRST_ORDINARY_PORT: u16 = 1_024;

/// Where to accept connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAt<'a> {
    /// At whichever of these addresses are allowed: connections, or datagrams
    /// ([`Destination::is_udp`]).
    Addresses(Vec<SocketAddr>),
    /// At this path.
    Unix(&'a Path),
}

impl Destination {
    /// Reads a place to listen at, which may also have port 0: whoever listens there chooses one.
    ///
    /// # Errors
    /// It is no place.
    pub fn place_to_listen(text: &str) -> Result<Self, DestinationError> {
        if let Some(path) = unix_path(text) {
            return Ok(Self(Place::Unix(parse_path(text, path)?)));
        }
        let (udp, place) = split_udp(text);
        let (host, port) = split(text, place)?;
        let port = port.parse().ok().filter(|_| is_number(text));
        let port = port.ok_or_else(|| error(text, NO_PORT))?;
        let host = match parse_host(text, host)? {
            Host::Address(ip) if udp && is_many(ip) => return Err(error(text, MANY)),
            host => host,
        };
        Ok(Self(Place::Network { udp, host, port }))
    }

    /// Whether whoever listens there chooses the port.
    #[must_use]
    pub fn leaves_port(&self) -> bool {
        matches!(self.0, Place::Network { port: 0, .. })
    }

    /// The same, at the port that was chosen; a Unix socket has none.
    #[must_use]
    pub fn with_port(mut self, chosen: u16) -> Self {
        if let Place::Network { port, .. } = &mut self.0 {
            *port = chosen;
        }
        self
    }

    /// The rule that allows it, for a client's line: any port, if whoever listens chooses it.
    #[must_use]
    pub fn rule_to_listen(&self) -> DestinationRule {
        match &self.0 {
            Place::Network { udp, host, port } => {
                let host = match host {
                    Host::Name(name) => HostRule::Name(name.clone()),
                    Host::Address(ip) => HostRule::Address(*ip),
                };
                DestinationRule { udp: *udp, host, port: (*port != 0).then_some(*port) }
            }
            Place::Unix(path) => {
                DestinationRule { udp: false, host: HostRule::Unix(path.clone()), port: None }
            }
        }
    }

    /// Where to accept connections, if this is a place to listen: `localhost` means both of its
    /// addresses; other names do not count.
    #[must_use]
    pub fn listen_at(&self) -> Option<ListenAt<'_>> {
        let (host, port) = match &self.0 {
            Place::Network { host, port, .. } => (host, *port),
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
    /// addresses, and a `*` for the port means none below 1024, but 0, any port there is.
    #[must_use]
    pub fn may_listen(&self, at: SocketAddr) -> bool {
        self.rules.iter().any(|rule| !rule.udp && rule.lets_listen(at))
    }

    /// Whether datagrams may be taken at this address, by a rule with `udp:`.
    #[must_use]
    pub fn may_listen_udp(&self, at: SocketAddr) -> bool {
        self.rules.iter().any(|rule| rule.udp && rule.lets_listen(at))
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
        self.port.map_or(port == 0 || port >= FIRST_ORDINARY_PORT, |listed| listed == port)
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
            ("localhost:*", "127.0.0.1:0"),
            ("*:*", "[::]:0"),
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
            ("*:443", "0.0.0.0:0"),
            ("localhost:*", "0.0.0.0:0"),
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
        let udp = Destinations::new(["udp:*:*".parse().unwrap()]);
        let at = "0.0.0.0:8080".parse().unwrap();
        assert!(udp.may_listen_udp(at) && !udp.may_listen(at));
        assert!(everything.may_listen(at) && !everything.may_listen_udp(at));
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
        let chosen = Destination::place_to_listen("localhost:0").unwrap();
        assert_eq!(chosen.rule_to_listen().to_string(), "localhost:*");
        assert!(chosen.leaves_port() && "localhost:0".parse::<Destination>().is_err());
        let chosen = chosen.with_port(8080);
        assert_eq!(chosen, "localhost:8080".parse().unwrap());
        assert!(!chosen.leaves_port());
        assert_eq!(chosen.rule_to_listen().to_string(), "localhost:8080");
        let udp = Destination::place_to_listen("udp:localhost:0").unwrap();
        assert_eq!(udp.rule_to_listen().to_string(), "udp:localhost:*");
        assert_eq!(udp.with_port(53).to_string(), "udp:localhost:53");
        for text in ["localhost", "localhost:", "localhost:+0", "localhost:65536", "unix:/a/../b"] {
            Destination::place_to_listen(text).unwrap_err();
        }
    }
}
