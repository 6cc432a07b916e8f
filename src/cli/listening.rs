//! Where connections and lanes are accepted: the sockets, and what a failure to listen means.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use anyhow::anyhow;
use imux::lane::resolve;
use imux::tunnel::{Listener, UdpPort, UnixSocket};

use super::address::{Endpoint, Host, HostPort};
use super::exit::{Exit, Failure};

/// The addresses `listen` stands for, in the order to try them. For `:443` and `[::]:443`, first
/// the one that accepts both IP versions, then the one for a machine without IPv6.
pub(super) async fn listen_addresses(listen: &HostPort) -> Result<Vec<SocketAddr>, Failure> {
    let at = |ip| SocketAddr::new(ip, listen.port);
    match &listen.host {
        Host::Ip(IpAddr::V4(ip)) => Ok(vec![at((*ip).into())]),
        Host::Ip(IpAddr::V6(ip)) if !ip.is_unspecified() => Ok(vec![at((*ip).into())]),
        Host::Any | Host::Ip(_) => {
            Ok(vec![at(Ipv6Addr::UNSPECIFIED.into()), at(Ipv4Addr::UNSPECIFIED.into())])
        }
        Host::LinkLocal { device, .. } => resolve(&listen.for_resolver()).await.map_err(|error| {
            let advice = format!("see `ip link` for what {device} is called");
            Failure::message(Exit::Listen, format!("cannot listen on {listen}: {error}; {advice}"))
        }),
        Host::Name(name) => {
            let mut addresses = resolve(&listen.for_resolver()).await.unwrap_or_else(|error| {
                tracing::debug!(%error, name, "look-up failed");
                Vec::new()
            });
            // IPv4 first, as in the original: programs told `localhost` mostly mean 127.0.0.1.
            addresses.sort_by_key(SocketAddr::is_ipv6);
            addresses.dedup();
            if addresses.is_empty() {
                return Err(Failure::message(
                    Exit::Listen,
                    format!(
                        "cannot listen on {listen}: the name {name} is not known here; \
                         nothing was started; write an address of this machine, or 0.0.0.0"
                    ),
                ));
            }
            Ok(addresses)
        }
    }
}

/// What a failed `bind` or `listen` means and what to do about it.
pub(super) fn listen_failure(at: &HostPort, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it, or choose another port with --listen"
        }
        io::ErrorKind::PermissionDenied if at.port < 1024 => {
            "ports below 1024 are reserved; run with CAP_NET_BIND_SERVICE or as root, \
             or choose a port from 1024 with --listen"
        }
        io::ErrorKind::AddrNotAvailable => {
            "that is not an address of this machine; see `ip address`, or listen on 0.0.0.0"
        }
        _ => "nothing was started; choose another address or port with --listen",
    };
    Failure::new(Exit::Listen, anyhow!("cannot listen on {at}: {error}: {advice}"))
}

/// Listens there for local connections.
pub(super) async fn listen_locally(listen: &Endpoint) -> Result<Vec<Listener>, Failure> {
    match listen {
        Endpoint::Network(at) => {
            Ok(listen_at_port(at, |at| imux::lane::listen(at).map(Into::into)).await?)
        }
        Endpoint::Udp(at) => listen_at_port(at, |at| UdpPort::bind(at).map(Into::into)).await,
        Endpoint::Unix(path) => {
            let socket = UnixSocket::bind(path).map_err(|error| unix_failure(path, &error))?;
            Ok(vec![socket.into()])
        }
    }
}

/// What a failure to listen at a Unix socket means and what to do about it.
fn unix_failure(path: &Path, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it, or choose another path"
        }
        io::ErrorKind::AlreadyExists => {
            "that file is kept; choose another path, or remove it yourself"
        }
        io::ErrorKind::NotFound => {
            "its directory does not exist; nothing was started; make it, or choose another path"
        }
        io::ErrorKind::PermissionDenied => {
            "you may not write there; nothing was started; choose a directory of your own, such as the one in \
             $XDG_RUNTIME_DIR"
        }
        _ => "nothing was started; choose another path",
    };
    Failure::new(Exit::Listen, anyhow!("cannot listen on {}: {error}: {advice}", path.display()))
}

/// Listens at every address `listen` stands for: all of a name's, or the first that works for
/// `:PORT`.
async fn listen_at_port(
    listen: &HostPort,
    bind: impl Fn(SocketAddr) -> io::Result<Listener>,
) -> Result<Vec<Listener>, Failure> {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut first_error = None;
    for mut address in listen_addresses(listen).await? {
        // Port 0 is resolved once, for all of the name's addresses.
        if let (0, Some(first)) = (listen.port, listeners.first()) {
            address.set_port(
                local_addr(first).map_err(|error| listen_failure(listen, &error))?.port(),
            );
        }
        match bind(address) {
            Ok(listener) => listeners.push(listener),
            // If the port is taken at one address, traffic would be split between two programs.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(listen_failure(listen, &error));
            }
            // `localhost` also means ::1, but not on a machine without IPv6.
            Err(error) => first_error = first_error.or(Some(error)),
        }
        // A socket for both IP versions leaves nothing for another.
        if address.ip() == Ipv6Addr::UNSPECIFIED && !listeners.is_empty() {
            break;
        }
    }
    match first_error {
        Some(error) if listeners.is_empty() => Err(listen_failure(listen, &error)),
        _ => Ok(listeners),
    }
}

fn local_addr(listener: &Listener) -> io::Result<SocketAddr> {
    match (listener.tcp(), listener.udp()) {
        (Some(listener), _) => listener.local_addr(),
        (_, Some(port)) => port.local_addr(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> HostPort {
        HostPort::to_listen(text).unwrap()
    }

    #[test]
    fn a_failed_listen_says_what_to_do() {
        for (place, kind, expected) in [
            ("0.0.0.0:8080", io::ErrorKind::AddrInUse, "another program listens there"),
            ("0.0.0.0:443", io::ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            ("0.0.0.0:8080", io::ErrorKind::PermissionDenied, "choose another address or port"),
            ("192.0.2.1:8080", io::ErrorKind::AddrNotAvailable, "not an address of this machine"),
        ] {
            let failure = listen_failure(&at(place), &kind.into());
            assert_eq!(failure.exit, Exit::Listen);
            let message = failure.to_string();
            assert!(message.starts_with(&format!("cannot listen on {place}: ")), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }

    #[tokio::test]
    async fn addresses_to_listen_on() {
        let addresses = listen_addresses(&at("[::1]:22")).await.unwrap();
        assert_eq!(addresses, ["[::1]:22".parse().unwrap()]);
        for both in [":22", "[::]:22"] {
            let addresses = listen_addresses(&at(both)).await.unwrap();
            assert_eq!(addresses, ["[::]:22".parse().unwrap(), "0.0.0.0:22".parse().unwrap()]);
        }
        let addresses = listen_addresses(&at("[fe80::5%1]:22")).await.unwrap();
        assert_eq!(addresses, ["[fe80::5%1]:22".parse().unwrap()]);
        let failure = listen_addresses(&at("[fe80::5%nowhere0]:22")).await.unwrap_err();
        assert!(failure.to_string().contains("ip link"), "{failure}");
        let addresses = listen_addresses(&at("localhost:22")).await.unwrap();
        assert_eq!(addresses[0], "127.0.0.1:22".parse().unwrap());
        // `.invalid` resolves nowhere (RFC 6761).
        let failure = listen_addresses(&at("nowhere.invalid:22")).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Listen);
        assert!(failure.to_string().contains("nowhere.invalid is not known"), "{failure}");
    }

    #[tokio::test]
    async fn one_port_for_all_addresses_of_a_name() {
        for place in [Endpoint::Network(at("localhost:0")), Endpoint::Udp(at("localhost:0"))] {
            let listeners = listen_locally(&place).await.unwrap();
            let ports: std::collections::BTreeSet<_> =
                listeners.iter().map(|listener| local_addr(listener).unwrap().port()).collect();
            assert_eq!(ports.len(), 1);
            assert!(!ports.contains(&0));
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error() {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = at(&taken.local_addr().unwrap().to_string());
        let failure = listen_locally(&Endpoint::Network(place.clone())).await.unwrap_err();
        assert_eq!(failure.exit, Exit::Listen);
        assert!(failure.to_string().contains("another program"), "{failure}");
        // Another protocol has ports of its own.
        let there = listen_locally(&Endpoint::Udp(place.clone())).await.unwrap();
        let failure = listen_locally(&Endpoint::Udp(place)).await.unwrap_err();
        assert_eq!((there.len(), failure.exit), (1, Exit::Listen));
    }
}
