//! `HOST:PORT`, as written in options.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::bind;

use imux::trust::{Destination, Target, ascii_host_name};

use super::text::escape;

/// Where to listen or what to dial. Keeps its original text, except for names that the resolver
/// takes in another form: the original imux files a server's key under exactly the text given to
/// `--dial`, and its own under that of `--listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    pub host: Host,
    pub port: u16,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// No host was written (`:443`): listen on every address, dial this machine.
    Any,
    /// Never an IPv4 address mapped into IPv6, which becomes that IPv4 address.
    Ip(IpAddr),
    /// An IPv6 address that is valid on one interface only; the resolver knows the interface's
    /// number.
    LinkLocal {
        ip: Ipv6Addr,
        device: String,
    },
    Name(String),
}

impl HostPort {
    /// The text as the user wrote it, non-ASCII names as punycode.
    pub fn as_written(&self) -> &str {
        &self.text
    }

    /// In the form the resolver takes: no host means this machine, and addresses are in plain form.
    pub fn for_resolver(&self) -> String {
        let port = self.port;
        match &self.host {
            Host::Any => format!("localhost:{port}"),
            Host::Ip(ip) => SocketAddr::new(*ip, port).to_string(),
            Host::LinkLocal { ip, device } => format!("[{ip}%{device}]:{port}"),
            // Not every resolver knows this name (RFC 6761, 6.3).
            Host::Name(name) if name.eq_ignore_ascii_case("localhost.") => {
                format!("localhost:{port}")
            }
            Host::Name(name) => format!("{name}:{port}"),
        }
    }

    /// Parses an address to listen on. Port 0 lets the system choose one.
    pub fn to_listen(text: &str) -> Result<Self, String> {
        parse(text, "0.0.0.0:443, [::]:443 or localhost:2222")
    }

    /// Parses an address to connect to.
    pub fn to_dial(text: &str) -> Result<Self, String> {
        let parsed = parse(text, "server.example:443, 192.0.2.7:22 or [2001:db8::1]:443")?;
        match (&parsed.host, parsed.port) {
            (_, 0) => Err("port 0 cannot be connected to; write a port from 1 to 65535".to_owned()),
            (Host::Ip(ip), _) if ip.is_multicast() => {
                Err("a multicast address cannot be connected to".to_owned())
            }
            _ => Ok(parsed),
        }
    }

    /// Whether both listen at the same place, as written. Port 0 differs each time.
    pub fn is_same_place(&self, other: &HostPort) -> bool {
        self.port != 0 && self.port == other.port && self.host == other.host
    }

    /// Whether dialling `dial` would reach what listens on `self`: the same port, and a host
    /// that is literally the same or that loops back to it. Names other than `localhost` are not
    /// looked up.
    pub fn is_reached_by(&self, dial: &HostPort) -> bool {
        if self.port != dial.port {
            return false;
        }
        let this_machine = |host: &Host| match host {
            Host::Any => true,
            Host::Ip(ip) => ip.is_loopback() || ip.is_unspecified(),
            Host::LinkLocal { .. } => false,
            Host::Name(name) => name.eq_ignore_ascii_case("localhost"),
        };
        match (&self.host, &dial.host) {
            (Host::Ip(a), Host::Ip(b)) if !a.is_unspecified() && !b.is_unspecified() => a == b,
            (Host::Ip(IpAddr::V4(a)), Host::Ip(IpAddr::V6(b))) if a.is_unspecified() => {
                // 0.0.0.0 does not receive what is sent to ::1, but may receive what is sent to ::.
                b.is_unspecified()
            }
            (Host::LinkLocal { .. }, Host::LinkLocal { .. }) => self.host == dial.host,
            (a, b) => this_machine(a) && this_machine(b),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where programs connect, or are connected to: a port or a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Network(HostPort),
    /// A port that takes datagrams.
    Udp(HostPort),
    /// By its absolute path.
    Unix(PathBuf),
}

impl Endpoint {
    /// Parses a place to listen on.
    pub fn to_listen(text: &str) -> Result<Self, String> {
        match unix_path(text)? {
            Some(path) => Ok(Self::Unix(path)),
            None => HostPort::to_listen(text).map(Self::Network),
        }
    }

    /// Parses a place to connect to.
    pub fn to_dial(text: &str) -> Result<Self, String> {
        match unix_path(text)? {
            Some(path) => Ok(Self::Unix(path)),
            None => HostPort::to_dial(text).map(Self::Network),
        }
    }

    /// In the form the library dials.
    pub fn for_library(&self) -> String {
        match self {
            Self::Network(at) | Self::Udp(at) => at.for_resolver(),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// As [`HostPort::is_same_place`].
    pub fn is_same_place(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Network(one), Self::Network(other)) | (Self::Udp(one), Self::Udp(other)) => {
                one.is_same_place(other)
            }
            (one, other) => one == other,
        }
    }

    /// As [`HostPort::is_reached_by`].
    pub fn is_reached_by(&self, dial: &Self) -> bool {
        match (self, dial) {
            (Self::Network(listen), Self::Network(dial)) => listen.is_reached_by(dial),
            (listen, dial) => listen == dial,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(at) => at.fmt(f),
            Self::Udp(at) => write!(f, "{UDP}{at}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Prefix of what takes datagrams.
const UDP: &str = "udp:";

/// The rest of a forward that begins with `udp:`. A host may be called so, too: it has a port.
pub fn udp(text: &str) -> Option<&str> {
    text.trim().strip_prefix(UDP).filter(|rest| rest.contains(':'))
}

/// The path of a Unix socket, if the text means one: `/run/app.sock` or `unix:/run/app.sock`.
pub fn unix_path(text: &str) -> Result<Option<PathBuf>, String> {
    let written = text.trim();
    let path = written.strip_prefix("unix:").unwrap_or(written);
    if !path.starts_with('/') {
        return Ok(None);
    }
    let place = format!("unix:{path}").parse::<Destination>();
    let place = place.map_err(|error| {
        format!("{}; write a Unix socket such as /run/app.sock", escape(&error.to_string()))
    })?;
    match place.target() {
        Target::Unix(path) => Ok(Some(path.to_owned())),
        Target::Host(..) => Ok(None),
    }
}

fn parse(text: &str, examples: &str) -> Result<HostPort, String> {
    let written = text.trim();
    if written.is_empty() {
        return Err(format!("the address is missing; write HOST:PORT, such as {examples}"));
    }
    if written.contains("://") {
        return Err(format!("this is a URL; write only HOST:PORT, such as {examples}"));
    }
    if udp(written).is_some() {
        return Err(format!(
            "this takes connections, and no datagrams (UDP): for those there is -L udp:PORT:HOST:PORT; write HOST:PORT, such as \
             {examples}"
        ));
    }
    let (host, port) = split(written)
        .map_err(|problem| format!("{problem}; write HOST:PORT, such as {examples}"))?;
    let port = port.parse::<u16>().ok().filter(|_| !port.starts_with('+')).ok_or_else(|| {
        format!("`{port}` is no port; a port is a number up to 65535, such as in {examples}")
    })?;
    let ascii = ascii_host_name(host).ok_or_else(|| {
        format!("`{}` is not a host name; write HOST:PORT, such as {examples}", escape(host))
    })?;
    let text = match &ascii {
        Cow::Borrowed(_) => written.to_owned(),
        Cow::Owned(ascii) => format!("{ascii}:{port}"),
    };
    let host = parse_host(&ascii)
        .map_err(|problem| format!("{problem}; write HOST:PORT, such as {examples}"))?;
    Ok(HostPort { host, port, text })
}

fn split(text: &str) -> Result<(&str, &str), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("the bracket `[` is not closed")?;
        let port = after.strip_prefix(':').ok_or("the port is missing")?;
        let (address, zone) =
            host.split_once('%').map_or((host, None), |(ip, zone)| (ip, Some(zone)));
        return match address.parse::<Ipv6Addr>() {
            Ok(ip) if zone.is_some() && !ip.is_unicast_link_local() => {
                Err("only a link-local address has an interface, as in [fe80::1%eth0]:443")
            }
            Ok(_) => Ok((host, port)),
            _ => Err("between brackets belongs an IPv6 address"),
        };
    }
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    if host.contains(':') {
        return Err("an IPv6 address needs brackets, as in [::1]:443");
    }
    Ok((host, port))
}

fn parse_host(host: &str) -> Result<Host, String> {
    if host.is_empty() {
        return Ok(Host::Any);
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Host::Ip(ip.to_canonical()));
    }
    if let Some((address, device)) = host.split_once('%')
        && let Some(ip) = bind::parse_link_local(address)
    {
        bind::check_device(device)?;
        return Ok(Host::LinkLocal { ip, device: device.to_owned() });
    }
    // 10.0.0.300 or 10.0.0 is a mistyped address, never a name: no top-level domain is a number.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hex = last.get(..2).is_some_and(|prefix| prefix.eq_ignore_ascii_case("0x"));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("`{host}` is neither an IP address nor a host name"));
    }
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if host.len() > 253 || !host.chars().all(valid) || host.starts_with(['-', '.']) {
        return Err(format!("`{}` is not a host name", escape(host)));
    }
    Ok(Host::Name(host.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> HostPort {
        HostPort::to_listen(text).unwrap()
    }

    fn link_local(ip: &str, device: &str) -> Host {
        Host::LinkLocal { ip: ip.parse().unwrap(), device: device.to_owned() }
    }

    #[test]
    fn what_the_resolver_is_given() {
        for (text, expected) in [
            (":443", "localhost:443"),
            ("server.example:443", "server.example:443"),
            ("[2001:DB8::1]:443", "[2001:db8::1]:443"),
            ("[::ffff:192.0.2.9]:443", "192.0.2.9:443"),
            ("[fe80::9%eth0]:443", "[fe80::9%eth0]:443"),
        ] {
            assert_eq!(HostPort::to_dial(text).unwrap().for_resolver(), expected);
        }
    }

    #[test]
    fn addresses_that_are_fine() {
        for (text, host, port) in [
            ("0.0.0.0:443", Host::Ip("0.0.0.0".parse().unwrap()), 443),
            ("[::1]:22", Host::Ip("::1".parse().unwrap()), 22),
            ("[::ffff:192.0.2.9]:22", Host::Ip("192.0.2.9".parse().unwrap()), 22),
            ("[fe80::9%eth0]:22", link_local("fe80::9", "eth0"), 22),
            ("localhost:22", Host::Name("localhost".to_owned()), 22),
            ("my_host-2.example.:65535", Host::Name("my_host-2.example.".to_owned()), 65535),
            (":443", Host::Any, 443),
            (" 127.0.0.1:1 ", Host::Ip("127.0.0.1".parse().unwrap()), 1),
        ] {
            let parsed = HostPort::to_dial(text).unwrap();
            assert_eq!((&parsed.host, parsed.port), (&host, port), "{text}");
            assert_eq!(parsed.as_written(), text.trim());
        }
        assert_eq!(listen("127.0.0.1:0").port, 0);
    }

    #[test]
    fn names_that_are_not_ascii_are_written_as_the_resolver_takes_them() {
        for (text, host, written) in [
            ("münchen.example:443", "xn--mnchen-3ya.example", "xn--mnchen-3ya.example:443"),
            ("BÜCHER.example.:1", "xn--bcher-kva.example.", "xn--bcher-kva.example.:1"),
            ("日本語。example:22", "xn--wgv71a119e.example", "xn--wgv71a119e.example:22"),
        ] {
            let parsed = HostPort::to_dial(text).unwrap();
            assert_eq!(parsed.host, Host::Name(host.to_owned()), "{text}");
            assert_eq!(parsed.as_written(), written);
            assert_eq!(listen(text), parsed);
        }
        // Full-width digits still make an address, and 10.0.0 is not one.
        assert_eq!(HostPort::to_dial("１０.0.0.1:1").unwrap().as_written(), "10.0.0.1:1");
        assert!(HostPort::to_dial("１０.0.0:1").unwrap_err().contains("neither an IP address"));
    }

    #[test]
    fn addresses_that_are_not() {
        for (text, expected) in [
            ("", "the address is missing"),
            ("localhost", "the port is missing"),
            ("[::1]", "the port is missing"),
            ("[::1", "not closed"),
            ("[localhost]:22", "IPv6 address"),
            ("[2001:db8::1%eth0]:22", "only a link-local address"),
            ("[fe80::1%]:22", "interface's name is missing"),
            ("[fe80::1%e h]:22", "no interface name"),
            ("fe80::1%eth0:22", "needs brackets"),
            ("::1:443", "needs brackets"),
            ("localhost:ssh", "`ssh` is no port"),
            ("localhost:", "`` is no port"),
            ("localhost:65536", "`65536` is no port"),
            ("localhost:-1", "`-1` is no port"),
            ("localhost:+1", "`+1` is no port"),
            ("https://server:443", "URL"),
            ("10.0.0.300:22", "neither an IP address nor"),
            ("10.0.0:22", "neither an IP address nor"),
            // Resolvers read these as 127.0.0.1.
            ("0x7f000001:22", "neither an IP address nor"),
            ("127.0.0.0X1:22", "neither an IP address nor"),
            ("a b:22", "not a host name"),
            ("a\x1b[2J:22", "\\u{1b}"),
            ("user@host:22", "not a host name"),
            ("--dial:22", "not a host name"),
            ("ü..example:22", "not a host name"),
            ("ü b:22", "not a host name"),
            ("a\u{2028}b:22", "not a host name"),
        ] {
            let error = HostPort::to_dial(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(HostPort::to_dial("localhost:0").unwrap_err().contains("port 0"));
        assert!(HostPort::to_dial("224.0.0.1:1").unwrap_err().contains("multicast"));
    }

    #[test]
    fn a_forward_to_itself_is_noticed() {
        let dial = |text| HostPort::to_dial(text).unwrap();
        for (from, to, expected) in [
            ("0.0.0.0:443", "127.0.0.1:443", true),
            ("0.0.0.0:443", "localhost:443", true),
            (":443", "[::1]:443", true),
            ("localhost:22", "127.0.0.1:22", true),
            ("10.0.0.1:22", "10.0.0.1:22", true),
            ("0.0.0.0:443", "127.0.0.1:444", false),
            ("0.0.0.0:443", "server.example:443", false),
            ("localhost:22", "server.example:22", false),
            ("10.0.0.1:22", "127.0.0.1:22", false),
            ("0.0.0.0:443", "[::1]:443", false),
            ("0.0.0.0:22", "192.0.2.7:22", false),
        ] {
            assert_eq!(listen(from).is_reached_by(&dial(to)), expected, "{from} {to}");
        }
    }
}
