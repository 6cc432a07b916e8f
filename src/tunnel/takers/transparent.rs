//! Connections that the kernel hands over on their way to somewhere else: nftables' REDIRECT and
//! TPROXY.
//!
//! REDIRECT rewrites a connection's destination, and the kernel tells on request what it was.
//! TPROXY rewrites nothing: the accepted socket's own address is the destination.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::udp::serve_handed;
use super::{Listener, carry, take};
use crate::driver::{Client, FlowOptions, OpenOptions, StreamKind};
use crate::net::{as_ipv4, is_own_address};
use crate::tunnel::connections::Connections;
use crate::tunnel::copy::Ends;
use crate::tunnel::socket::{self, Socket};
use crate::tunnel::udp_socket::allow_foreign;

/// Lets TPROXY hand connections, or datagrams, to `listener`. REDIRECT needs no permission, and
/// hands over connections only.
///
/// # Errors
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied) without `CAP_NET_ADMIN`, and what the
/// system says; a Unix socket is [`InvalidInput`](io::ErrorKind::InvalidInput).
pub fn allow_tproxy(listener: &Listener) -> io::Result<()> {
    if let Some(port) = listener.udp() {
        return port.allow_tproxy();
    }
    let Some(listener) = listener.tcp() else { return Err(io::ErrorKind::InvalidInput.into()) };
    allow_foreign(listener, listener.local_addr()?.is_ipv4())
}

/// Serves connections that the kernel hands to `listener`, as
/// [`forward_within`](crate::tunnel::forward_within) does, each with a stream to where it was meant
/// to go. `options.kind` does not count. Datagrams that it hands to a UDP port have a flow for each
/// sender and destination, as [`forward_udp_within`](crate::tunnel::forward_udp_within) has one for
/// each sender; it has to be [allowed](allow_tproxy), and its mark is that of the answers.
///
/// Who connects to the listener itself is refused: nothing would come of it but a loop.
pub async fn serve_transparent_within(
    listener: impl Into<Listener>,
    client: Arc<Client>,
    options: impl Into<OpenOptions>,
    bound: &Connections,
) {
    let (listener, options) = (listener.into(), options.into());
    if let Some(port) = listener.udp() {
        let flows = FlowOptions { redundant: options.redundant, ..options.kind.into() };
        return serve_handed(port.clone(), client, flows, bound).await;
    }
    let at: Arc<str> = listener.to_string().into();
    let own_port = listener.tcp().and_then(|it| it.local_addr().ok()).map_or(0, |at| at.port());
    let sockets = *bound.sockets();
    let each = |local: Socket, from: String| {
        let (client, options, at) = (client.clone(), options.clone(), at.clone());
        async move {
            let to = match destination(&local, own_port) {
                Ok(to) => to,
                Err(why) => {
                    socket::reset(&local);
                    tracing::debug!(%from, %at, %why, "connection refused");
                    return;
                }
            };
            let ends = Ends { from, to: format!("{to} by {at}") };
            let kind = StreamKind::Named(to.to_string());
            let options = OpenOptions { kind, source: ends.from.parse().ok(), ..options };
            if let Err(error) = carry(local, &client, options, &sockets, &ends).await {
                let Ends { from, to } = ends;
                tracing::warn!(%from, %to, %error, "connection refused");
            }
        }
    };
    take(listener, &client, bound, each).await;
}

/// Why a connection leads nowhere.
#[derive(Debug, thiserror::Error)]
enum Unmeant {
    #[error("it is meant for this listener itself")]
    Listener,
    #[error("the kernel does not say where it was meant to go: {0}")]
    Unknown(#[from] io::Error),
}

/// Where a connection was meant to go.
fn destination(socket: &Socket, own_port: u16) -> Result<SocketAddr, Unmeant> {
    let Socket::Tcp(socket) = socket else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
    };
    let to = original_destination(socket)?;
    // What TPROXY hands over may have the listener's port by chance, but not its address.
    if to.port() == own_port && is_own_address(to.ip())? {
        return Err(Unmeant::Listener);
    }
    Ok(to)
}

fn original_destination(socket: &TcpStream) -> io::Result<SocketAddr> {
    let local = as_ipv4(socket.local_addr()?);
    let socket = SockRef::from(socket);
    let original =
        if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    match original {
        Ok(original) => Ok(original.as_socket().map_or(local, as_ipv4)),
        // The kernel has rewritten nothing: it knows no such connection, or tracks none at all.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOPROTOOPT)) => {
            Ok(local)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn who_connects_to_the_listener_itself_is_meant_for_it() {
        for place in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(place).await else { continue };
            let own_port = listener.local_addr().unwrap().port();
            let _program = TcpStream::connect(("127.0.0.1", own_port)).await.unwrap();
            let (socket, _) = listener.accept().await.unwrap();
            let socket = Socket::Tcp(socket);
            assert!(matches!(destination(&socket, own_port), Err(Unmeant::Listener)), "{place}");
            // Any other port is where it was meant to go.
            let to = destination(&socket, 1).unwrap();
            assert_eq!(to, SocketAddr::from(([127, 0, 0, 1], own_port)));
        }
    }
}
