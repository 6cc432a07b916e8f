//! A program's connection while it says where it wants to go.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::Sleep;

use crate::net::as_ipv4;
use crate::tunnel::socket::Socket;

/// How long, or how much, is still read from a program after our last word: closing a socket with
/// unread bytes resets it, and what the program was told is lost.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Its socket, as other libraries read and write it. Shut down, it waits for the program's end.
#[derive(Debug)]
pub(super) struct Program {
    socket: Socket,
    /// Until when it waits for the program's end, once it is shut down.
    leaving: Option<Pin<Box<Sleep>>>,
    /// How many bytes were read since.
    discarded: usize,
}

impl Program {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, leaving: None, discarded: 0 }
    }

    pub(super) fn into_socket(self) -> Socket {
        self.socket
    }

    /// The addresses of its connection, this end's first; a Unix socket has none.
    pub(super) fn ends(&self) -> Option<[SocketAddr; 2]> {
        let Socket::Tcp(socket) = &self.socket else { return None };
        let ends = [socket.local_addr().ok()?, socket.peer_addr().ok()?];
        Some(ends.map(as_ipv4))
    }

    /// Lets the program read what it was told.
    pub(super) async fn leave(mut self) {
        // If it has gone already, there is nothing to report.
        let _ = poll_fn(|cx| Pin::new(&mut self).poll_shutdown(cx)).await;
    }

    /// Ready once the program has ended, or sent more than we read.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; 4096];
        while self.discarded <= LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *self).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.discarded += buffer.filled().len();
                }
                Poll::Ready(_) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

/// Peeks at the first byte that a program sends; `None` if it sends none. Cancel safe.
pub(super) async fn first_byte(socket: &Socket) -> io::Result<Option<u8>> {
    loop {
        socket.ready(Interest::READABLE).await?;
        let mut byte = [0];
        let peek = || Ok(recv(socket.as_fd().as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK)?);
        match socket.try_io(Interest::READABLE, peek) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(byte[0])),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

impl AsyncRead for Program {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buffer),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Program {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.leaving.is_none() {
            self.socket.finish()?;
            self.leaving = Some(Box::pin(tokio::time::sleep(LINGER)));
        }
        if self.poll_end(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let over = self.leaving.as_mut().is_none_or(|until| until.as_mut().poll(cx).is_ready());
        if over { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}
