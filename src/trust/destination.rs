//! Where a client may connect: what it names, what the rules say, and which addresses no mere name
//! ever reaches.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use super::ascii_host_name;

mod listen;
mod reach;

pub use listen::ListenAt;
use reach::{Reach, contains, is_many, masked};

/// Prefix of a Unix socket's path.
const UNIX: &str = "unix:";
/// Prefix of a place that takes datagrams.
const UDP: &str = "udp:";
const MANY: &str = "is a multicast or broadcast address, to which no datagrams go";
const NO_PORT: &str = "has no port from 1 to 65535";
/// The kernel's limit (`sun_path`, 108 with its NUL).
const UNIX_PATH_MAX: usize = 107;

/// A place that a client asks for: `host:port`, where `host` is a name, an IPv4 address, or an IPv6
/// address in brackets; `udp:` and the same, which takes datagrams; or `unix:/path`, a Unix socket
/// of the server's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Network {
        udp: bool,
        host: Host,
        port: u16,
    },
    /// By a path with only one spelling.
    Unix(String),
}

/// What to dial for a [`Destination`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target<'a> {
    /// Host and port as the system's resolver accepts them.
    Host(String, u16),
    /// The path of a Unix socket.
    Unix(&'a Path),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// In lower case, as punycode, and without a trailing dot.
    Name(String),
    Address(IpAddr),
}

/// Text that is not a destination or a rule about one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} {why}")]
pub struct DestinationError {
    text: String,
    why: &'static str,
}

impl FromStr for Destination {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Self::place_to_listen(text)? {
            Self(Place::Network { port: 0, .. }) => Err(error(text, NO_PORT)),
            place => Ok(place),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_udp() {
            f.write_str(UDP)?;
        }
        match &self.0 {
            Place::Network { host: Host::Name(name), port, .. } => write!(f, "{name}:{port}"),
            Place::Network { host: Host::Address(ip), port, .. } => {
                SocketAddr::new(*ip, *port).fmt(f)
            }
            Place::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

impl Destination {
    /// Whether it is given by a name, which must be looked up.
    #[must_use]
    pub fn is_name(&self) -> bool {
        matches!(self.0, Place::Network { host: Host::Name(_), .. })
    }

    /// Whether it takes datagrams. All others take connections.
    #[must_use]
    pub fn is_udp(&self) -> bool {
        matches!(self.0, Place::Network { udp: true, .. })
    }

    /// The place that takes datagrams at the same host and port; none for a Unix socket.
    #[must_use]
    pub fn over_udp(mut self) -> Option<Self> {
        match &mut self.0 {
            Place::Network { udp, .. } => *udp = true,
            Place::Unix(_) => return None,
        }
        Some(self)
    }

    /// What the opening of a stream or a flow calls it, which says by itself whether it carries
    /// datagrams: the same without `udp:`.
    #[must_use]
    pub fn name(&self) -> String {
        let mut place = self.clone();
        if let Place::Network { udp, .. } = &mut place.0 {
            *udp = false;
        }
        place.to_string()
    }

    /// What to dial for it.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        match &self.0 {
            Place::Network { host: Host::Name(name), port, .. } => {
                Target::Host(name.clone(), *port)
            }
            Place::Network { host: Host::Address(ip), port, .. } => {
                Target::Host(ip.to_string(), *port)
            }
            Place::Unix(path) => Target::Unix(Path::new(path)),
        }
    }
}

/// Which destinations a client may choose: those that a rule lists, and no others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Destinations {
    rules: Vec<DestinationRule>,
}

impl Destinations {
    /// These and no others.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = DestinationRule>) -> Self {
        Self { rules: rules.into_iter().collect() }
    }

    /// The rules, in their order.
    #[must_use]
    pub fn rules(&self) -> &[DestinationRule] {
        &self.rules
    }

    /// Where a client's stream that names no destination goes: the first rule that is not about
    /// UDP, if it is a single place.
    #[must_use]
    pub fn default_place(&self) -> Option<Destination> {
        let first = self.rules.iter().find(|rule| !rule.udp)?;
        let host = match &first.host {
            HostRule::Name(name) => Host::Name(name.clone()),
            HostRule::Address(ip) => Host::Address(*ip),
            HostRule::Network(..) | HostRule::Any => return None,
            HostRule::Unix(path) => return Some(Destination(Place::Unix(path.clone()))),
        };
        Some(Destination(Place::Network { udp: false, host, port: first.port? }))
    }

    /// Whether any address could make `asked` an allowed destination. If not, its name is not even
    /// looked up: no rule lists it or any name, and the names of a listed address or network do not
    /// count.
    #[must_use]
    pub fn may_allow(&self, asked: &Destination) -> bool {
        self.rules.iter().any(|rule| rule.may_allow(asked))
    }

    /// Whether a client that asks for `asked`, which is on the network, may be connected to
    /// `address`, the very address that will be dialled.
    ///
    /// `own` are the addresses of this machine's interfaces.
    #[must_use]
    pub fn allows(&self, asked: &Destination, address: SocketAddr, own: &[IpAddr]) -> bool {
        let ip = address.ip().to_canonical();
        let reach = Reach::of(ip, own);
        let address = SocketAddr::new(ip, address.port());
        self.rules.iter().any(|rule| rule.allows(asked, address, reach))
    }
}

/// One rule: a host, a network or `*`, and a port or `*`, which means connections, with `udp:`
/// before it datagrams; or `unix:` and the path of a socket, which no other rule covers.
///
/// `db.example:5432`, `192.0.2.7:*`, `[2001:db8::7]:443`, `10.1.0.0/16:22`, `[2001:db8::/32]:*`,
/// `*:443`, `udp:*:53`, `unix:/run/app.sock`. A name is compared with the name the client asks for,
/// an address or a network with the address. Two kinds of address are reached only if listed
/// themselves:
///
/// - loopback, by its address or, for a client that asks for `localhost`, by that name;
/// - only by their address: link-local, cloud metadata services, unspecified, multicast, broadcast,
///   reserved, and those of this machine's own interfaces; also if an IPv6 address embeds one of
///   these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationRule {
    udp: bool,
    host: HostRule,
    /// `None` means any.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostRule {
    Any,
    Name(String),
    Address(IpAddr),
    /// Address, whose host part is zero, and prefix length.
    Network(IpAddr, u8),
    /// The path of a Unix socket, without a port.
    Unix(String),
}

impl FromStr for DestinationRule {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = unix_path(text) {
            let host = HostRule::Unix(parse_path(text, path)?);
            return Ok(Self { udp: false, host, port: None });
        }
        let (udp, place) = split_udp(text);
        let (host, port) = split(text, place)?;
        let port = match port {
            "*" => None,
            port => {
                let port = port.parse().ok().filter(|port| *port != 0 && is_number(text));
                Some(port.ok_or_else(|| error(text, "has no port from 1 to 65535 and no `*`"))?)
            }
        };
        let host = match host.split_once('/') {
            _ if host == "*" => HostRule::Any,
            Some((address, length)) => parse_network(text, address, length)?,
            None => match parse_host(text, host)? {
                Host::Name(name) => HostRule::Name(name),
                Host::Address(ip) if udp && is_many(ip) => return Err(error(text, MANY)),
                Host::Address(ip) => HostRule::Address(ip),
            },
        };
        Ok(Self { udp, host, port })
    }
}

impl fmt::Display for DestinationRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.udp {
            f.write_str(UDP)?;
        }
        match &self.host {
            HostRule::Any => f.write_str("*")?,
            HostRule::Name(name) => f.write_str(name)?,
            HostRule::Address(IpAddr::V4(ip)) => ip.fmt(f)?,
            HostRule::Address(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
            HostRule::Network(IpAddr::V4(ip), length) => write!(f, "{ip}/{length}")?,
            HostRule::Network(IpAddr::V6(ip), length) => write!(f, "[{ip}/{length}]")?,
            HostRule::Unix(path) => return write!(f, "{UNIX}{path}"),
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => f.write_str(":*"),
        }
    }
}

impl DestinationRule {
    fn may_allow(&self, asked: &Destination) -> bool {
        let (host, port) = match (&self.host, &asked.0) {
            (HostRule::Unix(listed), Place::Unix(path)) => return listed == path,
            (HostRule::Unix(_), _) | (_, Place::Unix(_)) => return false,
            (_, Place::Network { udp, .. }) if *udp != self.udp => return false,
            (_, Place::Network { host, port, .. }) => (host, *port),
        };
        self.port.is_none_or(|listed| listed == port)
            && match (&self.host, host) {
                (HostRule::Name(listed), Host::Name(name)) => listed == name,
                // Comparing a name with a listed address would mean looking up any name a client
                // makes up.
                (HostRule::Name(_), Host::Address(_))
                | (HostRule::Address(_) | HostRule::Network(..), Host::Name(_))
                | (HostRule::Unix(_), _) => false,
                (HostRule::Any, _) => true,
                (HostRule::Address(listed), Host::Address(ip)) => listed == ip,
                (HostRule::Network(base, length), Host::Address(ip)) => {
                    contains(*base, *length, *ip)
                }
            }
    }

    fn allows(&self, asked: &Destination, address: SocketAddr, reach: Reach) -> bool {
        let ip = address.ip();
        let port = |port: u16| port == address.port();
        let to_many = self.udp && is_many(ip);
        self.may_allow(asked)
            && !to_many
            && matches!(asked.0, Place::Network { port: asked, .. } if port(asked))
            && match &self.host {
                HostRule::Address(listed) => *listed == ip,
                HostRule::Name(name) if name == "localhost" => reach == Reach::Loopback,
                HostRule::Name(_) | HostRule::Any => reach == Reach::Ordinary,
                HostRule::Network(base, length) => {
                    reach == Reach::Ordinary && contains(*base, *length, ip)
                }
                HostRule::Unix(_) => false,
            }
    }
}

fn error(text: &str, why: &'static str) -> DestinationError {
    // The frame bounds a peer's text; a file's or a person's is their own affair.
    DestinationError { text: text.to_owned(), why }
}

/// The path of a Unix socket, if the text means one: a host may be called `unix`, too.
fn unix_path(text: &str) -> Option<&str> {
    text.strip_prefix(UNIX).filter(|path| path.starts_with('/'))
}

/// A path that can be compared literally and quoted in a list.
fn parse_path(text: &str, path: &str) -> Result<String, DestinationError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b'\\');
    if !path.bytes().all(plain) {
        return Err(error(text, "has a path with other than plain letters, digits and signs"));
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(error(text, "has a path that is longer than 107 bytes"));
    }
    if path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return Err(error(text, "has a path with an empty part, a `.` or a `..`"));
    }
    Ok(path.to_owned())
}

/// Whether a place takes datagrams, and the place: a host may be called `udp`, too.
fn split_udp(text: &str) -> (bool, &str) {
    match text.strip_prefix(UDP).filter(|place| place.contains(':')) {
        Some(place) => (true, place),
        None => (false, text),
    }
}

/// Host, without brackets, and port of a place within `text`.
fn split<'a>(text: &str, place: &'a str) -> Result<(&'a str, &'a str), DestinationError> {
    let (host, port) = place.rsplit_once(':').ok_or_else(|| error(text, "has no port"))?;
    match host.strip_prefix('[') {
        Some(rest) => {
            let host = rest.strip_suffix(']').filter(|host| host.contains(':'));
            let host = host.ok_or_else(|| error(text, "has no IPv6 address in its brackets"))?;
            Ok((host, port))
        }
        None if host.contains(':') => Err(error(text, "needs brackets around its IPv6 address")),
        None => Ok((host, port)),
    }
}

/// Whether the port is all digits: `+80` would parse too.
fn is_number(text: &str) -> bool {
    text.rsplit(':').next().is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn parse_host(text: &str, host: &str) -> Result<Host, DestinationError> {
    let not_a_name = || error(text, "has neither an address nor a host name before its port");
    let ascii = ascii_host_name(host).ok_or_else(not_a_name)?;
    if let Ok(ip) = ascii.parse::<IpAddr>() {
        return Ok(Host::Address(ip.to_canonical()));
    }
    let name = ascii.strip_suffix('.').unwrap_or(&ascii);
    let label = |label: &str| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(valid)
    };
    // A resolver reads 127.1 and 0x7f000001 as addresses: no name ends in a number.
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.get(..2).is_some_and(|prefix| prefix.eq_ignore_ascii_case("0x"));
    if name.len() > 253 || number || !name.split('.').all(label) || name.starts_with('-') {
        return Err(not_a_name());
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

fn parse_network(text: &str, address: &str, length: &str) -> Result<HostRule, DestinationError> {
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let (ip, length) = match (address.parse::<IpAddr>(), length.parse::<u8>()) {
        (Ok(ip), Ok(length)) if digits => (ip, length),
        _ => return Err(error(text, "has no network such as 10.0.0.0/8 before its port")),
    };
    match masked(ip, length) {
        // An IPv4 network written as IPv6 would match nothing: addresses are compared as IPv4.
        _ if ip.to_canonical() != ip => Err(error(text, "is to be written as an IPv4 network")),
        Some(base) if base == ip => Ok(HostRule::Network(ip, length)),
        Some(_) => Err(error(text, "has bits set beyond the length of its network")),
        None => Err(error(text, "has a network longer than its address")),
    }
}

#[cfg(test)]
mod tests;
