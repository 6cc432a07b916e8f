//! The forwarded sockets' options.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

/// No delay: what comes in pieces goes out in pieces. Failing to set it costs time, nothing else.
pub(super) fn prepare(socket: &TcpStream) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
}

/// Makes the coming close a reset, so that the other program sees a broken connection and not an
/// end.
pub(super) fn reset(socket: &TcpStream) {
    if let Err(error) = SockRef::from(socket).set_linger(Some(Duration::ZERO)) {
        tracing::debug!(%error, "SO_LINGER");
    }
}
