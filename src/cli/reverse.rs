//! Where the server listens, and where connections go from here: `-R`, as ssh writes it.

use imux::trust::{Destination, ProxyHeader};

use super::address::{Endpoint, Host};
use super::forward::{listen_at, split_forward};
use super::text::escape;

/// A place at the server where it accepts connections, and where this client takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reverse {
    pub listen: Destination,
    pub to: Endpoint,
    /// Whether the destination is told who connects, and how.
    pub tell_source: Option<ProxyHeader>,
}

const FORM: &str = "write [ADDRESS:]PORT:HOST:PORT, such as 8080:localhost:80, or the absolute path of a Unix socket for either \
                    half";

impl Reverse {
    /// Parses ssh's `[ADDRESS:]PORT:HOST:HOSTPORT`, with the path of a Unix socket in place of
    /// either half. Without an address: the server's machine only.
    pub fn parse(text: &str) -> Result<Self, String> {
        let with_form = |error: String| format!("{error}; {FORM}");
        let mut parts = text.split(',');
        let place = parts.next().unwrap_or_default();
        let mut tell_source = None;
        for option in parts {
            let how = match option.strip_prefix("proxy-protocol") {
                Some("") => Ok(ProxyHeader::default()),
                Some(version) if version.starts_with('=') => version[1..].parse(),
                _ => {
                    let option = escape(option);
                    return Err(format!("there is no option `{option}` here, but proxy-protocol"));
                }
            };
            if tell_source.replace(how.map_err(|error| error.to_string())?).is_some() {
                return Err("the option proxy-protocol stands twice".to_owned());
            }
        }
        let (listen, to) =
            split_forward(place).ok_or_else(|| format!("this is no forward; {FORM}"))?;
        let listen = place_to_listen(listen).map_err(with_form)?;
        let to = Endpoint::to_dial(to).map_err(with_form)?;
        Ok(Self { listen, to, tell_source })
    }
}

/// An address of the server, which is not this machine: nothing is looked up here.
fn place_to_listen(text: &str) -> Result<Destination, String> {
    let place = match listen_at(text)? {
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
        Endpoint::Network(at) if at.port == 0 => {
            return Err("the port at the server has to be named, from 1 to 65535".to_owned());
        }
        Endpoint::Network(at) => match &at.host {
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
    place.parse().map_err(|error: imux::trust::DestinationError| error.to_string())
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
        ] {
            let reverse = Reverse::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let said = (reverse.listen.to_string(), reverse.to.to_string());
            assert_eq!(said, (listen.to_owned(), to.to_owned()), "{text}");
            assert_eq!(reverse.tell_source, None);
        }
        for text in ["", "80", "0:a:1", "host.example:80:a:1", "80:a:0", "80:a", "x:a:1", "/run/a"]
        {
            let error = Reverse::parse(text).expect_err(text);
            assert!(error.contains("8080:localhost:80"), "{text}: {error}");
        }
    }

    #[test]
    fn a_reverse_forward_may_tell_who_connects() {
        let how = |text: &str| Reverse::parse(text).map(|it| it.tell_source);
        assert_eq!(how("80:a:1,proxy-protocol"), Ok(Some(ProxyHeader::V2)));
        assert_eq!(how("80:a:1,proxy-protocol=v1"), Ok(Some(ProxyHeader::V1)));
        for (text, expected) in [
            ("80:a:1,proxy-protocol=v3", "v1 and v2"),
            ("80:a:1,proxy-protocolled", "no option `proxy-protocolled`"),
            ("80:a:1,redundant", "no option `redundant`"),
            ("80:a:1,", "no option ``"),
            ("80:a:1,proxy-protocol,proxy-protocol=v1", "stands twice"),
        ] {
            let error = how(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
