//! Host names as compared and as written to files: one spelling for each.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

/// The port of a host written without one.
const DEFAULT_PORT: u16 = 443;

/// A host name as the resolver takes it: non-ASCII letters become punycode (UTS 46, as in
/// browsers), all others stay as they are. `None` if it cannot be written so.
#[must_use]
pub fn ascii_host_name(name: &str) -> Option<Cow<'_, str>> {
    if name.is_ascii() {
        return Some(name.into());
    }
    let uts46 = Uts46::new();
    let deny = AsciiDenyList::EMPTY;
    let ascii =
        uts46.to_ascii(name.as_bytes(), deny, Hyphens::Allow, DnsLength::VerifyAllowRootDot);
    ascii.ok().map(|ascii| Cow::Owned(ascii.into_owned()))
}

/// Where a host is, in the one spelling used for comparison: a name in lower case, as punycode and
/// without one trailing dot; an address in its canonical form, as IPv4 if it maps one. The default
/// port is 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPlace {
    host: String,
    port: u16,
    port_written: bool,
}

impl HostPlace {
    pub(super) fn of(text: &str) -> Self {
        if let Some(host) = address(text) {
            return Self { host, port: DEFAULT_PORT, port_written: false };
        }
        let port = |port: &str| {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            port.parse::<u16>().ok().filter(|_| digits)
        };
        match text.rsplit_once(':').and_then(|(host, digits)| Some((host, port(digits)?))) {
            Some((host, port)) => Self { host: canonical(host), port, port_written: true },
            None => Self { host: canonical(text), port: DEFAULT_PORT, port_written: false },
        }
    }

    /// Whether both are the same place.
    pub(super) fn is(&self, other: &Self) -> bool {
        (&self.host, self.port) == (&other.host, other.port)
    }
}

impl std::fmt::Display for HostPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)?;
        if self.port_written { write!(f, ":{}", self.port) } else { Ok(()) }
    }
}

fn canonical(host: &str) -> String {
    // Without a host, this machine is dialled.
    if host.is_empty() {
        return "localhost".to_owned();
    }
    if let Some(address) = address(host) {
        return address;
    }
    let ascii = ascii_host_name(host);
    // Nobody can dial an invalid name; its capitals still do not count.
    let name = ascii.map_or_else(|| host.to_lowercase(), |ascii| ascii.to_ascii_lowercase());
    // After an empty label the dot does not mean the root: stripping it would give another name's
    // spelling.
    let rooted = name.strip_suffix('.').filter(|rest| !rest.is_empty() && !rest.ends_with('.'));
    let name = rooted.unwrap_or(&name);
    // Full-width letters may have spelt an address.
    if let Some(address) = address(name) {
        return address;
    }
    // What follows the colon is no port, or we would not be here; in another spelling it could be
    // one.
    if name.contains(':') { host.to_lowercase() } else { name.to_owned() }
}

/// An address, in brackets or not, as written before a port.
fn address(text: &str) -> Option<String> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Some((ip, zone)) = inner.split_once('%') {
        let ip: Ipv6Addr = ip.parse().ok()?;
        // An interface's name, in which capitals count.
        return (!zone.is_empty()).then(|| format!("[{ip}%{zone}]"));
    }
    match inner.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(ip) => Some(ip.to_string()),
        IpAddr::V6(ip) => Some(format!("[{ip}]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_each_place() {
        for (canonical, others) in [
            (
                "localhost:2222",
                &["Localhost:2222", "LOCALHOST.:2222", "localhost:02222", ":2222"][..],
            ),
            ("server.example:443", &["Server.Example", "server.example.", "SERVER.example.:443"]),
            (
                "xn--mnchen-3ya.example:9",
                &["münchen.example:9", "MÜNCHEN.example.:9", "XN--mnchen-3YA.Example:9"],
            ),
            ("xn--mnchen-3ya.example:9", &["mu\u{308}nchen。example:9", "ｍünchen.example:9"]),
            ("192.0.2.7:1", &["[::ffff:192.0.2.7]:1", "[::FFFF:c000:207]:1", "１９２.0.2.7:1"]),
            ("[2001:db8::a]:1", &["[2001:DB8::A]:1", "[2001:0db8:0:0:0:0:0:a]:00001"]),
            ("[fe80::1%eth0]:1", &["[FE80::1%eth0]:1", "[fe80:0::1%eth0]:1"]),
            ("[::1]:443", &["::1", "[::1]", "0:0:0:0:0:0:0:1"]),
            ("my_host:1", &["MY_HOST:1", "my_host.:1"]),
        ] {
            let place = HostPlace::of(canonical);
            assert_eq!(place.to_string(), canonical);
            for other in others {
                let other = HostPlace::of(other);
                assert!(place.is(&other), "{canonical} {other}");
                assert_eq!(HostPlace::of(&other.to_string()), other, "said again it is another");
            }
        }
    }

    #[test]
    fn other_places_stay_others() {
        for (one, other) in [
            ("localhost:1", "localhost:2"),
            ("localhost:1", "localhost..:1"),
            ("localhost.:1", "localhost..:1"),
            (".:1", "..:1"),
            (".:1", ":1"),
            ("server:2.", "server:2"),
            ("server：2", "server:2"),
            ("Server:2.:3", "server:2"),
            ("localhost:1", "127.0.0.1:1"),
            ("[fe80::1%eth0]:1", "[fe80::1%eth1]:1"),
            ("[fe80::1%eth0]:1", "[fe80::1%ETH0]:1"),
            ("[fe80::1%eth0]:1", "[fe80::1]:1"),
            ("münchen.example:1", "munchen.example:1"),
            ("strasse.example:1", "straße.example:1"),
            ("server:443", "server:4430"),
            ("server:44", "server:44x"),
        ] {
            assert!(!HostPlace::of(one).is(&HostPlace::of(other)), "{one} {other}");
            for place in [one, other].map(HostPlace::of) {
                assert_eq!(HostPlace::of(&place.to_string()), place, "said again it is another");
            }
        }
    }

    #[test]
    fn names_as_the_resolver_takes_them() {
        assert_eq!(ascii_host_name("My_Host.example.").unwrap(), "My_Host.example.");
        assert_eq!(ascii_host_name("Bücher.example.").unwrap(), "xn--bcher-kva.example.");
        assert_eq!(ascii_host_name("faß.example").unwrap(), "xn--fa-hia.example");
        for bad in ["a\u{200b}\u{fffd}.example", "ü..example", &"ü".repeat(100), "\u{300}a.example"]
        {
            assert!(ascii_host_name(bad).is_none(), "{bad:?}");
        }
    }
}
