//! Names to addresses.

use std::io;
use std::net::SocketAddr;

use super::DialError;
use crate::net::{self, LookUps};

/// For server names only: a name that hangs blocks nothing else. All lanes of a large client may
/// look up their server at once.
static LOOK_UPS: LookUps = LookUps::new(64);

/// Resolves `host:port` to all its addresses, in the resolver's order; never an empty list.
///
/// `host` may be a name, an IPv4 address, or an IPv6 address in brackets, with the interface where
/// it needs one (`[fe80::1%eth0]:443`). An IPv4 address mapped into IPv6 is that IPv4 address.
///
/// # Errors
/// [`DialError::InvalidAddress`] if it does not have that form, [`DialError::Resolve`] if the name
/// has no address.
pub async fn resolve(host_port: &str) -> Result<Vec<SocketAddr>, DialError> {
    let (host, port) = split_host_port(host_port)?;
    let failed = |source| DialError::Resolve { host: host.to_owned(), source };
    LOOK_UPS.look_up(host, port, None).await.map_err(failed)
}

/// From now on, has names looked up by threads of this group (`setfsgid`), by which a firewall can
/// tell the resolver's sockets from those of other programs: they have no mark. The process itself
/// stays in its groups.
///
/// # Errors
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied) without `CAP_SETGID`;
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) after a call with another group.
pub fn resolve_as_group(group: u32) -> io::Result<()> {
    net::look_up_as_group(group)
}

/// Splits `host:port`, `[v6]:port`. The host comes without brackets.
pub(super) fn split_host_port(host_port: &str) -> Result<(&str, u16), DialError> {
    let invalid = |why| DialError::InvalidAddress(host_port.to_owned(), why);
    let (host, port) = net::split_host_port(host_port).map_err(invalid)?;
    if host.is_empty() {
        return Err(invalid("the host is missing"));
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_with_an_address() {
        for (input, why) in [
            ("", "the port is missing"),
            ("localhost", "the port is missing"),
            (":22", "the host is missing"),
            ("[]:22", "the host is missing"),
            ("localhost:ssh", "not a number"),
        ] {
            let error = split_host_port(input).unwrap_err().to_string();
            assert!(error.contains(why), "{input:?}: {error}");
        }
    }

    #[tokio::test]
    async fn resolves_literals_and_refuses_unknown_names() {
        assert_eq!(resolve("127.0.0.1:7").await.unwrap(), vec!["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(resolve("[::1]:7").await.unwrap(), vec!["[::1]:7".parse().unwrap()]);
        let mapped = resolve("[::ffff:127.0.0.2]:7").await.unwrap();
        assert_eq!(mapped, vec!["127.0.0.2:7".parse().unwrap()]);
        let scoped = resolve("[fe80::7%1]:7").await.unwrap();
        assert_eq!(scoped, vec!["[fe80::7%1]:7".parse().unwrap()]);
        assert!(resolve("[fe80::7%no-such-dev0]:7").await.is_err());
        // RFC 6761: `.invalid` never resolves.
        let error = resolve("no-such-host.invalid:7").await.unwrap_err();
        assert!(
            matches!(&error, DialError::Resolve { host, .. } if host == "no-such-host.invalid")
        );
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }
}
