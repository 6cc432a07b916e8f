//! Where the server listens, and where connections go from here: `-R`, as ssh writes it.

use imux::trust::{Destination, ProxyHeader};

use super::address::{self, Endpoint, Host};
use super::forward::{listen_at, split_forward, udp_at};
use super::text::escape;

/// A place at the server where it accepts connections, and where this client takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reverse {
    pub listen: Destination,
    pub to: Endpoint,
    /// Every byte goes on two lanes.
    pub redundant: bool,
    /// Whether the destination is told who connects, and how.
    pub tell_source: Option<ProxyHeader>,
}

const FORM: &str = "write [ADDRESS:]PORT:HOST:PORT, such as 8080:localhost:80, or the absolute path of a Unix socket for either \
                    half; for datagrams udp:[ADDRESS:]PORT:HOST:PORT";

impl Reverse {
    /// Parses ssh's `[ADDRESS:]PORT:HOST:HOSTPORT`, with the path of a Unix socket in place of
    /// either half, or with `udp:` before it. Without an address: the server's machine only.
    pub fn parse(text: &str) -> Result<Self, String> {
        let with_form = |error: String| format!("{error}; {FORM}");
        let mut parts = text.split(',');
        let place = parts.next().unwrap_or_default();
        let (is_udp, place) = address::udp(place).map_or((false, place), |rest| (true, rest));
        let (mut redundant, mut tell_source) = (false, None);
        for option in parts {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            let twice = match (name, value) {
                ("redundant", None) => std::mem::replace(&mut redundant, true),
                ("proxy-protocol", version) if !is_udp => {
                    let how = version.map_or(Ok(ProxyHeader::default()), str::parse);
                    tell_source.replace(how.map_err(|error| error.to_string())?).is_some()
                }
                _ => {
                    let (option, other) =
                        (escape(option), if is_udp { "" } else { ", proxy-protocol" });
                    return Err(format!(
                        "there is no option `{option}` here, but redundant{other}"
                    ));
                }
            };
            if twice {
                return Err(format!("the option {name} stands twice"));
            }
        }
        let (listen, to) =
            split_forward(place).ok_or_else(|| format!("this is no forward; {FORM}"))?;
        let mut listen = place_to_listen(listen).map_err(with_form)?;
        let mut to = Endpoint::to_dial(to).map_err(with_form)?;
        if is_udp {
            let sockets = || with_form("Unix sockets carry no datagrams here".to_owned());
            listen = listen.over_udp().ok_or_else(sockets)?;
            to = Endpoint::Udp(udp_at(to).map_err(with_form)?);
        }
        Ok(Self { listen, to, redundant, tell_source })
    }
}

/// An address of the server, which is not this machine: nothing is looked up here.
fn place_to_listen(text: &str) -> Result<Destination, String> {
    let place = match listen_at(text)? {
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
        Endpoint::Network(at) | Endpoint::Udp(at) => match &at.host {
            Host::Any => format!("[::]:{}", at.port),
            Host::Ip(_) => at.for_resolver(),
            Host::Name(name) if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") => {
                format!("localhost:{}", at.port)
            }
            Host::Name(_) | Host::LinkLocal { .. } => {
                return Err(
                    "an address of the server, or localhost, has to stand before the port at it"
                        .to_owned(),
                );
            }
        },
    };
    Destination::place_to_listen(&place).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_forwards_as_ssh_writes_them() {
        for (text, listen, to) in [
            ("8080:localhost:80", "localhost:8080", "localhost:80"),
            ("0.0.0.0:8080:192.168.7.20:80", "0.0.0.0:8080", "192.168.7.20:80"),
            (":8080:localhost:80", "[::]:8080", "localhost:80"),
            ("[::1]:8080:[2001:db8::1]:80", "[::1]:8080", "[2001:db8::1]:80"),
            ("LOCALHOST.:1:a:2", "localhost:1", "a:2"),
            ("/run/far.sock:localhost:80", "unix:/run/far.sock", "localhost:80"),
            ("8080:/run/app.sock", "localhost:8080", "/run/app.sock"),
            ("0:a:1", "localhost:0", "a:1"),
            ("0.0.0.0:0:a:1", "0.0.0.0:0", "a:1"),
        ] {
            let reverse = Reverse::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let said = (reverse.listen.to_string(), reverse.to.to_string());
            assert_eq!(said, (listen.to_owned(), to.to_owned()), "{text}");
            assert_eq!((reverse.tell_source, reverse.redundant), (None, false));
        }
        for text in ["", "80", "host.example:80:a:1", "80:a:0", "80:a", "x:a:1", "/run/a"] {
            let error = Reverse::parse(text).expect_err(text);
            assert!(error.contains("8080:localhost:80"), "{text}: {error}");
        }
    }

    #[test]
    fn reverse_forwards_of_datagrams_begin_with_udp() {
        let reverse = Reverse::parse("udp:0.0.0.0:51820:localhost:51821,redundant").unwrap();
        assert_eq!(reverse.listen.to_string(), "udp:0.0.0.0:51820");
        assert_eq!(reverse.to.to_string(), "udp:localhost:51821");
        assert_eq!(reverse.to.for_library(), "localhost:51821");
        assert!(reverse.redundant);
        for text in ["udp:53", "udp:/run/a:a:1", "udp:53:/run/a", "udp:53:a:1,proxy-protocol"] {
            Reverse::parse(text).expect_err(text);
        }
    }

    #[test]
    fn options_of_a_reverse_forward_follow_after_commas() {
        let how = |text: &str| Reverse::parse(text).map(|it| (it.redundant, it.tell_source));
        assert_eq!(how("80:a:1,proxy-protocol"), Ok((false, Some(ProxyHeader::V2))));
        assert_eq!(how("80:a:1,proxy-protocol=v1"), Ok((false, Some(ProxyHeader::V1))));
        assert_eq!(how("80:/a,redundant"), Ok((true, None)));
        assert_eq!(how("80:a:1,proxy-protocol=v2,redundant"), Ok((true, Some(ProxyHeader::V2))));
        for (text, expected) in [
            ("80:a:1,proxy-protocol=v3", "v1 and v2"),
            ("80:a:1,proxy-protocolled", "no option `proxy-protocolled`"),
            ("80:a:1,redundant=1", "no option `redundant=1`"),
            ("80:a:1,fast", "no option `fast` here, but redundant"),
            ("80:a:1,redundant,redundant", "redundant stands twice"),
            ("80:a:1,", "no option ``"),
            ("80:a:1,proxy-protocol,proxy-protocol=v1", "stands twice"),
        ] {
            let error = how(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
