//! What a TLS lane runs over.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;

use crate::lane::metrics::{set_max_pacing_rate, tcp_metrics};
use crate::lane::{LaneMetrics, tcp};

/// A connected, reliable and ordered byte pipe that TLS can run over, and what it may know about
/// itself. Each method means the same as its namesake in [`Lane`](super::Lane); leave out what is
/// unknown.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// What is known about the path.
    fn metrics(&self) -> Option<LaneMetrics> {
        None
    }

    /// Ready when a write would be sent at once, as far as anyone can tell.
    ///
    /// # Errors
    /// The pipe is broken.
    fn poll_write_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Bounds how much may wait to be sent, in bytes.
    fn set_unsent_limit(&self, _bytes: u32) {}

    /// Bounds the sending rate, in bytes a second, if the transport paces.
    fn set_pacing_limit(&self, _bytes_per_second: u64) {}

    /// This end's address.
    fn local_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// The other end's address.
    fn peer_addr(&self) -> Option<SocketAddr> {
        None
    }

    /// Describes it for logs and reports: `TCP bbr`.
    fn describe(&self) -> String;

    /// From now on dropping it cuts the connection off.
    fn abort(&self) {}
}

impl Transport for TcpStream {
    fn metrics(&self) -> Option<LaneMetrics> {
        tcp_metrics(self)
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(Self::poll_write_ready(self, cx))?;
            // tokio calls a socket writable until a write has failed; the kernel knows better. Its
            // "no" clears tokio's "yes", and makes the kernel report the next change.
            match self.try_io(Interest::WRITABLE, || kernel_takes(self)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                answer => return Poll::Ready(answer),
            }
        }
    }

    fn set_unsent_limit(&self, bytes: u32) {
        // A dead socket says so at the next write.
        let _ = SockRef::from(self).set_tcp_notsent_lowat(bytes);
    }

    fn set_pacing_limit(&self, bytes_per_second: u64) {
        if tcp::congestion(self).is_some_and(|name| tcp::PACED.contains(&name.as_str())) {
            set_max_pacing_rate(self, bytes_per_second);
        }
    }

    fn local_addr(&self) -> Option<SocketAddr> {
        Self::local_addr(self).ok()
    }

    fn peer_addr(&self) -> Option<SocketAddr> {
        Self::peer_addr(self).ok()
    }

    fn describe(&self) -> String {
        format!("TCP {}", tcp::congestion(self).unwrap_or_default())
    }

    fn abort(&self) {
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

/// Whether the kernel takes bytes now; `WouldBlock` if not. Fewer unsent bytes than its limit means
/// yes; so does an error, which the next write will report.
fn kernel_takes(socket: &TcpStream) -> io::Result<()> {
    let mut asked = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    match nix::poll::poll(&mut asked, PollTimeout::ZERO)? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}
