//! Where connections are accepted, and where they go: `-L` and `-D`, as ssh writes them, and
//! `--transparent`.

use std::time::Duration;

use imux::trust::Destination;

use super::address::{self, Endpoint, Host, HostPort};
use super::text::escape;
use super::units;

/// A place where connections are accepted, and where the server is to take them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    pub listen: Endpoint,
    pub to: Leads,
    pub options: ForwardOptions,
}

/// Where connections lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leads {
    /// Where the server takes a client that names nothing.
    ServersDestination,
    To(Destination),
    /// Where the program says, in SOCKS or HTTP.
    Anywhere,
    /// Where they were meant to go before the kernel handed them over.
    WhereMeant,
}

impl From<Option<Destination>> for Leads {
    fn from(to: Option<Destination>) -> Self {
        to.map_or(Self::ServersDestination, Self::To)
    }
}

/// The options after commas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForwardOptions {
    /// Every byte goes on two lanes.
    pub redundant: bool,
    /// The server tells the destination who connects.
    pub proxy_protocol: bool,
    /// Programs are told of success before the destination has answered.
    pub fast: bool,
    /// A datagram that has waited this long is dropped.
    pub deadline: Option<Duration>,
}

const FORWARD_FORM: &str = "write [ADDRESS:]PORT:HOST:PORT, such as 5432:db.example:5432, or the absolute path of a Unix socket \
                            for either half; for datagrams udp:[ADDRESS:]PORT:HOST:PORT, such as udp:5353:192.0.2.53:53";
const DYNAMIC_FORM: &str =
    "write [ADDRESS:]PORT, such as 1080, or the absolute path of a Unix socket";
const TRANSPARENT_FORM: &str = "write [ADDRESS:]PORT, such as 7070";

impl Forward {
    /// Parses ssh's `[ADDRESS:]PORT:HOST:HOSTPORT`, with the path of a Unix socket in place of
    /// either half, or with `udp:` before it. Without an address: this machine only.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(rest) = address::udp(text) {
            return Self::parse_udp(rest);
        }
        let with_form = |error: String| format!("{error}; {FORWARD_FORM}");
        let (place, options) = split_options(text, &["redundant", "proxy-protocol"])?;
        let (listen, to) =
            split_forward(place).ok_or_else(|| format!("this is no forward; {FORWARD_FORM}"))?;
        let listen = listen_at(listen).map_err(with_form)?;
        let to = match address::unix_path(to).map_err(with_form)? {
            Some(path) => format!("unix:{}", path.display()),
            None => to.to_owned(),
        };
        let to = to.parse().map_err(|error| format!("{error}; {FORWARD_FORM}"))?;
        Ok(Self { listen, to: Leads::To(to), options })
    }

    /// Parses what stands after `udp:`.
    fn parse_udp(text: &str) -> Result<Self, String> {
        let with_form = |error: String| format!("{error}; {FORWARD_FORM}");
        let (place, options) = split_options(text, &["redundant", "deadline"])?;
        let (listen, to) =
            split_forward(place).ok_or_else(|| format!("this is no forward; {FORWARD_FORM}"))?;
        let listen = udp_at(listen_at(listen).map_err(with_form)?).map_err(with_form)?;
        let to = format!("udp:{to}").parse();
        let to = to.map_err(|error| format!("{error}; {FORWARD_FORM}"))?;
        Ok(Self { listen: Endpoint::Udp(listen), to: Leads::To(to), options })
    }

    /// Parses ssh's `[ADDRESS:]PORT` of a port for all destinations.
    pub fn parse_dynamic(text: &str) -> Result<Self, String> {
        let (place, options) = split_options(text, &["redundant", "proxy-protocol", "fast"])?;
        let listen = listen_at(place).map_err(|error| format!("{error}; {DYNAMIC_FORM}"))?;
        Ok(Self { listen, to: Leads::Anywhere, options })
    }

    /// Parses `[ADDRESS:]PORT` of a port to which the kernel hands connections. REDIRECT hands
    /// those of other machines to the address they came in by: without an address, all are taken.
    pub fn parse_transparent(text: &str) -> Result<Self, String> {
        let with_form = |error: String| format!("{error}; {TRANSPARENT_FORM}");
        let (place, options) = split_options(text, &["redundant", "proxy-protocol"])?;
        let whole = if place.contains(':') { place.to_owned() } else { format!(":{place}") };
        let listen = Endpoint::to_listen(&whole).map_err(with_form)?;
        match listen {
            Endpoint::Network(_) => Ok(Self { listen, to: Leads::WhereMeant, options }),
            _ => Err(with_form("the kernel hands nothing to files".to_owned())),
        }
    }

    /// Whether programs on other machines could go wherever the server lets this client go.
    pub fn is_open_to_others(&self) -> bool {
        let Endpoint::Network(at) = &self.listen else { return false };
        let here = match &at.host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Name(name) => name.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
            Host::Any | Host::LinkLocal { .. } => false,
        };
        self.to == Leads::Anywhere && !here
    }
}

/// A port alone means this machine only.
pub(super) fn listen_at(text: &str) -> Result<Endpoint, String> {
    if text.contains([':', '/']) {
        Endpoint::to_listen(text)
    } else {
        Endpoint::to_listen(&format!("localhost:{text}"))
    }
}

/// The port, where datagrams are meant.
pub(super) fn udp_at(place: Endpoint) -> Result<HostPort, String> {
    match place {
        Endpoint::Network(at) if matches!(&at.host, Host::Ip(ip) if ip.is_multicast()) => {
            Err("no datagrams are taken at a multicast address".to_owned())
        }
        Endpoint::Network(at) | Endpoint::Udp(at) => Ok(at),
        Endpoint::Unix(_) => Err("Unix sockets carry no datagrams here".to_owned()),
    }
}

/// Takes the options off its end. Neither places nor paths contain a comma.
fn split_options<'a>(text: &'a str, known: &[&str]) -> Result<(&'a str, ForwardOptions), String> {
    let mut options = ForwardOptions::default();
    let mut parts = text.split(',');
    let place = parts.next().unwrap_or_default();
    for option in parts {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        if !known.contains(&name) || value.is_some() != (name == "deadline") {
            let known = known.join(", ").replace("deadline", "deadline=TIME");
            return Err(format!("there is no option `{}` here, but {known}", escape(option)));
        }
        let twice = match (name, value) {
            (_, Some(time)) => options.deadline.replace(deadline(time)?).is_some(),
            ("redundant", _) => std::mem::replace(&mut options.redundant, true),
            ("proxy-protocol", _) => std::mem::replace(&mut options.proxy_protocol, true),
            _ => std::mem::replace(&mut options.fast, true),
        };
        if twice {
            return Err(format!("the option {name} stands twice"));
        }
    }
    Ok((place, options))
}

fn deadline(text: &str) -> Result<Duration, String> {
    let time = units::parse_duration(text)?;
    let range = Duration::from_millis(1)..=Duration::from_secs(10);
    if !range.contains(&time) {
        return Err("a datagram's deadline is from 1ms to 10s".to_owned());
    }
    Ok(time)
}

/// Where to listen, and where that leads. Paths contain no colon where the other half follows.
pub(super) fn split_forward(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('/') {
        return text.split_once(':');
    }
    if let Some(at) = text.find(":/") {
        return Some((&text[..at], &text[at + 1..]));
    }
    let (rest, _port) = text.rsplit_once(':')?;
    let host_at = match rest.strip_suffix(']') {
        Some(inner) => inner.rfind('[')?.checked_sub(1)?,
        None => rest.rfind(':')?,
    };
    let (listen, to) = text.split_at_checked(host_at)?;
    Some((listen, to.strip_prefix(':')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_as_ssh_writes_them() {
        for (text, listen, to) in [
            ("5432:db.example:5433", "localhost:5432", "db.example:5433"),
            ("127.0.0.1:5432:db.example:5433", "127.0.0.1:5432", "db.example:5433"),
            ("0.0.0.0:80:[2001:db8::1]:8080", "0.0.0.0:80", "[2001:db8::1]:8080"),
            ("[::1]:80:[2001:db8::1]:8080", "[::1]:80", "[2001:db8::1]:8080"),
            ("80:[2001:db8::1]:8080", "localhost:80", "[2001:db8::1]:8080"),
            (":80:192.0.2.1:22", ":80", "192.0.2.1:22"),
            ("0:a:1", "localhost:0", "a:1"),
            ("/run/pg.sock:db:5432", "/run/pg.sock", "db:5432"),
            ("/run/pg.sock:[2001:db8::1]:5432", "/run/pg.sock", "[2001:db8::1]:5432"),
            ("2375:/var/run/docker.sock", "localhost:2375", "unix:/var/run/docker.sock"),
            ("[::1]:2375:/var/run/docker.sock", "[::1]:2375", "unix:/var/run/docker.sock"),
            ("/a.sock:/b:c.sock", "/a.sock", "unix:/b:c.sock"),
        ] {
            let forward = Forward::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(forward.listen.to_string(), listen, "{text}");
            let Leads::To(place) = forward.to else { panic!("{text}") };
            assert_eq!(place.to_string(), to, "{text}");
            assert_eq!(forward.options, ForwardOptions::default(), "{text}");
        }
        for text in [
            "",
            "80",
            "80:db",
            "db:80",
            "80:db:x",
            "80:db:0",
            "x:db:80",
            "80::1:80",
            "80:[::1:80",
            "[::1]:80",
            "]:80",
            "[]:80",
            "80:]:80",
            "80:d b:80",
            "80:db:80:90:100",
            "/run/a.sock",
            "/run/a.sock:",
            "/run/a.sock:80",
            "80:/run/../a",
            "/run//a:db:80",
            ":/run/a",
            "80:*:80",
        ] {
            let error = Forward::parse(text).expect_err(text);
            assert!(error.contains("5432:db.example:5432"), "{text}: {error}");
        }
    }

    #[test]
    fn forwards_of_datagrams_begin_with_udp() {
        for (text, listen, to) in [
            ("udp:5353:192.0.2.53:53", "udp:localhost:5353", "udp:192.0.2.53:53"),
            ("udp::53:ns.example:53", "udp::53", "udp:ns.example:53"),
            ("udp:[::1]:53:[2001:db8::1]:53", "udp:[::1]:53", "udp:[2001:db8::1]:53"),
            ("udp:0:a:1", "udp:localhost:0", "udp:a:1"),
        ] {
            let forward = Forward::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(forward.listen.to_string(), listen, "{text}");
            assert_eq!(forward.to, Leads::To(to.parse().unwrap()), "{text}");
        }
        for text in [
            "udp:",
            "udp:53",
            "udp:53:a",
            "udp:/run/a:a:1",
            "udp:53:/run/a",
            "udp:224.0.0.1:53:a:1",
            "udp:53:224.0.0.1:53",
        ] {
            let error = Forward::parse(text).expect_err(text);
            assert!(error.contains("udp:5353:192.0.2.53:53"), "{text}: {error}");
        }
        let options = |text: &str| Forward::parse(text).map(|forward| forward.options);
        let both = options("udp:53:a:1,redundant,deadline=50ms").unwrap();
        assert_eq!((both.redundant, both.deadline), (true, Some(Duration::from_millis(50))));
        for (text, expected) in [
            (
                "udp:53:a:1,proxy-protocol",
                "no option `proxy-protocol` here, but redundant, deadline=TIME",
            ),
            ("udp:53:a:1,deadline", "no option `deadline`"),
            ("udp:53:a:1,deadline=11s", "from 1ms to 10s"),
            ("udp:53:a:1,deadline=1s,deadline=2s", "stands twice"),
            ("53:a:1,deadline=1s", "no option `deadline=1s`"),
        ] {
            let error = options(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn options_of_a_forward_follow_after_commas() {
        let forward = Forward::parse("80:db:81,redundant,proxy-protocol").unwrap();
        let both = ForwardOptions { redundant: true, proxy_protocol: true, ..Default::default() };
        assert_eq!(
            (forward.listen.to_string(), forward.options),
            ("localhost:80".to_owned(), both)
        );
        let path = Forward::parse("80:/run/a,redundant").unwrap();
        assert!(path.options.redundant && path.to == Leads::To("unix:/run/a".parse().unwrap()));
        for (text, expected) in [
            ("80:db:81,fast", "no option `fast`"),
            ("80:db:81,", "no option ``"),
            ("80:db:81,redundant,redundant", "stands twice"),
            ("80:db:81,redundant=1", "no option `redundant=1`"),
        ] {
            let error = Forward::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn ports_to_which_the_kernel_hands_connections() {
        for (text, listen) in [
            ("7070", ":7070"),
            ("127.0.0.1:7070", "127.0.0.1:7070"),
            ("[::1]:7070", "[::1]:7070"),
            ("0", ":0"),
        ] {
            let forward = Forward::parse_transparent(text).unwrap();
            assert_eq!(
                (forward.listen.to_string(), &forward.to),
                (listen.into(), &Leads::WhereMeant)
            );
            // Who connects to it from elsewhere gets nowhere.
            assert!(!forward.is_open_to_others());
        }
        let told = Forward::parse_transparent("7070,redundant,proxy-protocol").unwrap().options;
        assert!(told.redundant && told.proxy_protocol && !told.fast);
        for text in ["", "x", "65536", "7070:db:80", "7070,fast", "/run/a", "a b:1"] {
            Forward::parse_transparent(text).expect_err(text);
        }
    }

    #[test]
    fn ports_for_all_destinations() {
        for (text, listen, open) in [
            ("1080", "localhost:1080", false),
            ("127.0.0.1:1080", "127.0.0.1:1080", false),
            ("[::1]:1080", "[::1]:1080", false),
            ("localhost.:1080", "localhost.:1080", false),
            ("/run/proxy.sock", "/run/proxy.sock", false),
            (":1080", ":1080", true),
            ("0.0.0.0:1080", "0.0.0.0:1080", true),
            ("192.0.2.7:1080", "192.0.2.7:1080", true),
            ("[::]:1080", "[::]:1080", true),
            ("gateway:1080", "gateway:1080", true),
        ] {
            let forward = Forward::parse_dynamic(text).unwrap();
            assert_eq!(forward.listen.to_string(), listen);
            assert_eq!(forward.is_open_to_others(), open, "{text}");
        }
        let fast = Forward::parse_dynamic("1080,fast,redundant").unwrap().options;
        assert!(fast.fast && fast.redundant && !fast.proxy_protocol);
        for text in ["", "x", "65536", "1080:db:80", "1080,slow", "a b:1"] {
            Forward::parse_dynamic(text).expect_err(text);
        }
        assert!(!Forward::parse("0.0.0.0:80:db:80").unwrap().is_open_to_others());
    }
}
