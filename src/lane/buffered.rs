//! Reading from a type that has a buffer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, ReadBuf};

/// [`AsyncRead::poll_read`](tokio::io::AsyncRead::poll_read) for a lane: the session never uses it,
/// but every [`AsyncBufRead`] needs one.
pub fn poll_read_buffered<L: AsyncBufRead>(
    mut lane: Pin<&mut L>,
    cx: &mut Context<'_>,
    out: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let filled = ready!(lane.as_mut().poll_fill_buf(cx))?;
    let amount = filled.len().min(out.remaining());
    out.put_slice(&filled[..amount]);
    lane.consume(amount);
    Poll::Ready(Ok(()))
}
