//! One forwarded connection: a socket and a stream, copied into each other.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf as SocketRead, WriteHalf as SocketWrite};

use super::socket;
use crate::driver::{Code, ReadHalf, Stream, StreamError, WriteHalf};

/// A read from a socket begins with room for this much, and doubles while reads fill it: an idle
/// or interactive connection costs little, a bulk one few system calls.
const READ_MIN: usize = 8 * 1024;
const READ_MAX: usize = 256 * 1024;

/// What is taken from the stream at once, for one vectored write.
const WRITE_MAX: usize = 256 * 1024;
const SLICES: usize = 32;

/// Copies both ways until both have ended. A half-close is passed on as one; whatever breaks one
/// side is a reset for the other.
pub(super) async fn copy(mut local: TcpStream, stream: Stream) {
    socket::prepare(&local);
    let (mut read, mut write) = stream.into_split();
    let outcome = {
        let (mut local_read, mut local_write) = local.split();
        tokio::try_join!(send(&mut local_read, &mut write), receive(&mut read, &mut local_write))
    };
    match outcome {
        Ok(((), ())) => {}
        Err(broken) => {
            match &broken {
                Broken::Far(StreamError::Reset(why)) if why.is_dial_failure() => {
                    tracing::warn!(%why, "the server could not reach the destination");
                }
                Broken::Far(StreamError::Reset(
                    why @ (Code::UNAUTHORIZED | Code::EXCESSIVE_LOAD),
                )) => tracing::warn!(%why, "the server does not grant the connection"),
                _ => tracing::debug!(%broken, "connection broken off"),
            }
            socket::reset(&local);
            read.stop(Code::RESET);
            write.reset(Code::RESET);
        }
    }
}

/// Which side broke the connection, and why.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("local side: {0}")]
    Local(#[from] io::Error),
    #[error("far side: {0}")]
    Far(#[from] StreamError),
}

/// From the socket into the stream.
async fn send(local: &mut SocketRead<'_>, stream: &mut WriteHalf) -> Result<(), Broken> {
    let mut size = READ_MIN;
    loop {
        // No credit, no read: the sender on the local side is slowed down by TCP itself.
        let room = usize::try_from(stream.capacity().await?).unwrap_or(usize::MAX);
        tokio::select! {
            ready = local.readable() => ready?,
            stopped = stream.stopped() => return Err(stopped.into()),
        }
        // Room is made only now that there is something to read.
        let mut buffer = BytesMut::with_capacity(size.min(room));
        let offered = buffer.capacity().min(room);
        let mut limited = bytes::BufMut::limit(&mut buffer, offered);
        match local.try_read_buf(&mut limited) {
            Ok(0) => break,
            Ok(read) => {
                size = next_size(size, read);
                stream.write_all(fit(buffer)).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(stream.finish()?)
}

/// Twice as much after a full read, half after one that used less than a quarter.
fn next_size(size: usize, read: usize) -> usize {
    if read >= size {
        (size * 2).min(READ_MAX)
    } else if read < size / 4 {
        (size / 2).max(READ_MIN)
    } else {
        size
    }
}

/// What was read, without the room that was not used: it is kept until the peer acknowledges it.
fn fit(buffer: BytesMut) -> Bytes {
    if buffer.len() < buffer.capacity() / 2 {
        Bytes::copy_from_slice(&buffer)
    } else {
        buffer.freeze()
    }
}

/// From the stream into the socket.
async fn receive(stream: &mut ReadHalf, local: &mut SocketWrite<'_>) -> Result<(), Broken> {
    let mut chunks = VecDeque::new();
    while stream.read_chunks(&mut chunks, WRITE_MAX).await? {
        while !chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(&chunks) {
                *slice = IoSlice::new(chunk);
                used += 1;
            }
            let written = local.write_vectored(&slices[..used]).await?;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            advance(&mut chunks, written);
        }
    }
    Ok(local.shutdown().await?)
}

/// Drops what was written.
fn advance(chunks: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = chunks.front_mut() {
        let step = written.min(front.len());
        front.advance(step);
        written -= step;
        if !front.is_empty() {
            return;
        }
        chunks.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_with_what_comes() {
        let grown = (0..10).fold(READ_MIN, |size, _| next_size(size, size));
        assert_eq!(grown, READ_MAX);
        let shrunk = (0..10).fold(grown, |size, _| next_size(size, 1));
        assert_eq!(shrunk, READ_MIN);
        assert_eq!(next_size(READ_MIN * 2, READ_MIN), READ_MIN * 2);
    }

    #[test]
    fn advancing_drops_exactly_what_was_written() {
        let mut chunks = VecDeque::from([Bytes::from_static(b"abc"), Bytes::from_static(b"de")]);
        advance(&mut chunks, 4);
        assert_eq!(chunks, [Bytes::from_static(b"e")]);
        advance(&mut chunks, 1);
        assert!(chunks.is_empty());
    }
}
