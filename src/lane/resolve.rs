//! Names to addresses.

use std::io;
use std::net::SocketAddr;

use super::DialError;

/// Resolves `host:port` to all its addresses, in the resolver's order; never an empty list.
///
/// `host` may be a name, an IPv4 address, or an IPv6 address in brackets.
///
/// # Errors
/// [`DialError::InvalidAddress`] where it is not of that form, [`DialError::Resolve`] where the name has no address.
pub async fn resolve(host_port: &str) -> Result<Vec<SocketAddr>, DialError> {
    let (host, _port) = split_host_port(host_port)?;
    let failed = |source| DialError::Resolve { host: host.to_owned(), source };
    // The system's resolver, on a thread of its own: it honours /etc/hosts, nsswitch and address preference (RFC 6724).
    let found: Vec<_> = tokio::net::lookup_host(host_port).await.map_err(failed)?.collect();
    if found.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
    }
    Ok(found)
}

/// Splits `host:port`, `[v6]:port`. The host comes without brackets.
pub(super) fn split_host_port(host_port: &str) -> Result<(&str, u16), DialError> {
    let invalid = |why| DialError::InvalidAddress(host_port.to_owned(), why);
    let (host, port) = host_port.rsplit_once(':').ok_or_else(|| invalid("the port is missing"))?;
    let port = port.parse().map_err(|_| invalid("the port is not a number from 0 to 65535"))?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').ok_or_else(|| invalid("a bracket is not closed"))?,
        None if host.contains(':') => return Err(invalid("an IPv6 address goes in brackets")),
        None => host,
    };
    if host.is_empty() {
        return Err(invalid("the host is missing"));
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_names_and_both_families() {
        assert_eq!(split_host_port("localhost:22").unwrap(), ("localhost", 22));
        assert_eq!(split_host_port("192.0.2.1:443").unwrap(), ("192.0.2.1", 443));
        assert_eq!(split_host_port("[2001:db8::1]:443").unwrap(), ("2001:db8::1", 443));
        assert_eq!(split_host_port("[fe80::1%eth0]:1").unwrap(), ("fe80::1%eth0", 1));
    }

    #[test]
    fn says_what_is_wrong_with_an_address() {
        for (input, why) in [
            ("", "the port is missing"),
            ("localhost", "the port is missing"),
            (":22", "the host is missing"),
            ("[]:22", "the host is missing"),
            ("localhost:", "not a number"),
            ("localhost:65536", "not a number"),
            ("localhost:ssh", "not a number"),
            ("::1:22", "goes in brackets"),
            ("[::1:22", "not closed"),
        ] {
            let error = split_host_port(input).unwrap_err().to_string();
            assert!(error.contains(why), "{input:?}: {error}");
        }
    }

    #[tokio::test]
    async fn resolves_literals_and_refuses_unknown_names() {
        assert_eq!(resolve("127.0.0.1:7").await.unwrap(), vec!["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(resolve("[::1]:7").await.unwrap(), vec!["[::1]:7".parse().unwrap()]);
        // RFC 6761: `.invalid` never resolves.
        let error = resolve("no-such-host.invalid:7").await.unwrap_err();
        assert!(
            matches!(&error, DialError::Resolve { host, .. } if host == "no-such-host.invalid")
        );
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }
}
