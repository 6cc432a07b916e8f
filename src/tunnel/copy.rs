//! One forwarded connection: a socket and a stream, copied into each other.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::Interest;
use tokio::sync::SetOnce;
use tokio::time::{Instant, sleep, sleep_until};

use super::socket::{self, PATIENCE, Socket, SocketOptions};
use crate::driver::{Code, ReadHalf, Stream, StreamError, WriteHalf};

/// A read from a socket begins with room for this much, and doubles while reads fill it: an idle
/// or interactive connection costs little, a bulk one few system calls.
const READ_MIN: usize = 8 * 1024;
const READ_MAX: usize = 256 * 1024;

/// Most that is taken from the stream at once, for one vectored write.
const WRITE_MAX: usize = 256 * 1024;
const SLICES: usize = 32;

/// How many times a connection is checked before it counts as idle: reading the clock for each
/// piece would cost more.
const IDLE_LOOKS: u32 = 4;

/// Copies both ways until both have ended, each as it would without us in between:
///
/// - A half-close is passed on as one.
/// - A reset is passed on once everything before it was. If the receiving program takes nothing for
///   [`PATIENCE`], it is passed on anyway and the rest is dropped.
/// - A socket that breaks in one direction goes on in the other: it may hold more to be read.
///
/// `first` was read from the socket before. Returns why it was broken off at the far side, if it
/// was.
pub(super) async fn copy(
    socket: Socket,
    first: Bytes,
    stream: Stream,
    options: &SocketOptions,
    ends: &Ends,
) -> Option<StreamError> {
    socket::prepare(&socket, options);
    let Ends { from, to } = ends;
    stream.describe(from, to);
    tracing::debug!(%from, %to, "connection begins");
    let begun = Instant::now();
    let local = Local::new(socket);
    let carried = tokio::select! {
        biased;
        ended = local.carry(stream, first) => Some(ended),
        () = local.idles(options.idle_timeout) => None,
    };
    let Some((up, down)) = carried else {
        tracing::debug!(%from, %to, "connection idle for too long");
        socket::reset(&local.socket);
        return None;
    };
    local.tell_end(ends, begun, &up, &down);
    match (&up, &down) {
        (_, Some(Err(Broken::Far(why)))) | (Some(Err(Broken::Far(why))), _) => {
            tell(why, ends);
            if let Some(Ok(())) = down {
                // Its end may not have been received yet.
                socket::drained(&local.socket).await;
            }
            socket::reset(&local.socket);
            Some(why.clone())
        }
        _ => None,
    }
}

/// Where a connection comes from and where it leads, for the log.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) from: String,
    pub(super) to: String,
}

/// Logs a connection that the server has given up.
pub(super) fn tell(why: &StreamError, Ends { from, to }: &Ends) {
    match why {
        StreamError::Reset(why) if why.is_dial_failure() => {
            tracing::warn!(%from, %to, %why, "the server could not reach the destination");
        }
        StreamError::Reset(why @ (Code::UNAUTHORIZED | Code::EXCESSIVE_LOAD)) => {
            tracing::warn!(%from, %to, %why, "the server does not grant the connection");
        }
        _ => {}
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

/// The socket, and what is known of either end being broken.
#[derive(Debug)]
struct Local {
    socket: Socket,
    /// The socket is broken. What it has received can still be read.
    broken: SetOnce<()>,
    /// A write got the report of it, so the end that the next read finds is none.
    cut_off: AtomicBool,
    /// The far socket is broken. What it had received may still come.
    far_broken: SetOnce<()>,
    /// Bytes that were read from the socket, and written to it.
    read: AtomicU64,
    written: AtomicU64,
}

/// How a direction has ended, if it has.
type Ended = Option<Result<(), Broken>>;

impl Local {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            broken: SetOnce::new(),
            cut_off: AtomicBool::new(false),
            far_broken: SetOnce::new(),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    fn tell_end(&self, Ends { from, to }: &Ends, begun: Instant, up: &Ended, down: &Ended) {
        let read = self.read.load(Ordering::Relaxed);
        let written = self.written.load(Ordering::Relaxed);
        let seconds = begun.elapsed().as_secs_f64();
        match (up, down) {
            (Some(Err(why)), _) | (_, Some(Err(why))) => {
                tracing::debug!(%from, %to, read, written, seconds, %why, "connection broken off");
            }
            _ => tracing::debug!(%from, %to, read, written, seconds, "connection ended"),
        }
    }

    /// Copies both ways: how the direction from the socket ended, and the one into it.
    async fn carry(&self, stream: Stream, first: Bytes) -> (Ended, Ended) {
        let (read, write) = stream.into_split();
        let mut up = pin!(self.send(write, first));
        let mut down = pin!(self.receive(read));
        // Neither direction would notice while it waits only for the far side.
        let mut noticed = pin!(self.socket.ready(Interest::ERROR));
        let (mut up_ended, mut down_ended) = (None, None);
        while up_ended.is_none() || down_ended.is_none() {
            tokio::select! {
                biased;
                ended = &mut up, if up_ended.is_none() => {
                    match &ended {
                        Err(Broken::Local(_)) => drop(self.broken.set(())),
                        Err(Broken::Far(StreamError::Reset(Code::BROKEN_OFF))) => {
                            drop(self.far_broken.set(()));
                        }
                        _ => {}
                    }
                    up_ended = Some(ended);
                }
                ended = &mut down, if down_ended.is_none() => {
                    match &ended {
                        Err(Broken::Local(error)) => self.write_failed(error),
                        // A connection reset in one direction is reset in both.
                        Err(Broken::Far(_)) => return (up_ended, Some(ended)),
                        Ok(()) => {}
                    }
                    down_ended = Some(ended);
                }
                _ = &mut noticed, if !self.broken.initialized() => drop(self.broken.set(())),
            }
        }
        (up_ended, down_ended)
    }

    /// Waits until nothing has been carried for `limit`.
    async fn idles(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        let (mut before, mut quiet) = (0, 0);
        while quiet < IDLE_LOOKS {
            sleep(limit / IDLE_LOOKS).await;
            let carried = self.read.load(Ordering::Relaxed) + self.written.load(Ordering::Relaxed);
            quiet = if carried == before { quiet + 1 } else { 0 };
            before = carried;
        }
    }

    fn write_failed(&self, error: &io::Error) {
        // The socket reports a reset only once: after this write was told, the next read would just
        // find an end. After a true end, though, a reset is EPIPE.
        if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected) {
            self.cut_off.store(true, Ordering::Relaxed);
        }
        drop(self.broken.set(()));
    }

    /// From the socket into the stream, `first` before all else.
    async fn send(&self, mut stream: WriteHalf, first: Bytes) -> Result<(), Broken> {
        let begun = async {
            stream.answer().await?;
            stream.write_all(first).await
        };
        let Some(begun) = self.patiently(begun).await else {
            stream.finish_with(Code::RESET);
            return Err(cut_off().into());
        };
        begun?;
        let mut size = READ_MIN;
        // No credit, no read: the sender on the local side is slowed down by TCP itself.
        let mut room = self.patiently(stream.capacity()).await;
        let broken = loop {
            let Some(credit) = room else { break cut_off() };
            let credit = usize::try_from(credit?).unwrap_or(usize::MAX);
            tokio::select! {
                // If there is something to read, the write reports a stopped stream.
                biased;
                ready = self.socket.ready(Interest::READABLE) => { ready?; }
                stopped = stream.stopped() => return Err(stopped.into()),
            }
            // Room is made only now that there is something to read.
            let mut buffer = BytesMut::with_capacity(size.min(credit));
            let offered = buffer.capacity().min(credit);
            let mut limited = bytes::BufMut::limit(&mut buffer, offered);
            match self.socket.try_read_buf(&mut limited) {
                Ok(0) if self.cut_off.load(Ordering::Relaxed) => break cut_off(),
                Ok(0) => return Ok(stream.finish()?),
                Ok(read) => {
                    self.read.fetch_add(read as u64, Ordering::Relaxed);
                    size = next_size(size, read);
                    room = self.patiently(stream.write_all_and_capacity(fit(buffer))).await;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    room = self.patiently(stream.capacity()).await;
                }
                Err(error) => break error,
            }
        };
        stream.finish_with(Code::RESET);
        Err(broken.into())
    }

    /// Waits for the far side, but once the socket is broken no longer than [`PATIENCE`] at a time.
    async fn patiently<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let impatient = async {
            let since = Instant::now();
            self.broken.wait().await;
            sleep_until(since + PATIENCE).await;
        };
        tokio::select! {
            biased;
            done = waiting => Some(done),
            () = impatient => None,
        }
    }

    /// From the stream into the socket.
    async fn receive(&self, mut stream: ReadHalf) -> Result<(), Broken> {
        let mut chunks = VecDeque::new();
        loop {
            let more = tokio::select! {
                biased;
                more = stream.read_chunks(&mut chunks, WRITE_MAX) => more,
                _ = self.broken.wait() => {
                    stream.stop(Code::BROKEN_OFF);
                    return Err(cut_off().into());
                }
            };
            match more {
                Ok(true) => {}
                Ok(false) => return Ok(self.socket.finish()?),
                Err(why) => {
                    socket::drained(&self.socket).await;
                    return Err(why.into());
                }
            }
            if let Err(broken) = self.write(&mut stream, &mut chunks).await {
                stream.stop(Code::BROKEN_OFF);
                return Err(broken);
            }
        }
    }

    async fn write(
        &self,
        stream: &mut ReadHalf,
        chunks: &mut VecDeque<Bytes>,
    ) -> Result<(), Broken> {
        while !chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(&*chunks) {
                *slice = IoSlice::new(chunk);
                used += 1;
            }
            match self.socket.try_write_vectored(&slices[..used]) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(written) => {
                    self.written.fetch_add(written as u64, Ordering::Relaxed);
                    advance(chunks, written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_for_room(stream).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits for room in the socket; gives up if the far side has broken the connection off and the
    /// program takes nothing.
    async fn wait_for_room(&self, stream: &mut ReadHalf) -> Result<(), Broken> {
        let since = Instant::now();
        let given_up = async {
            let why = tokio::select! {
                why = stream.broken_off() => why,
                _ = self.far_broken.wait() => StreamError::Reset(Code::BROKEN_OFF),
            };
            socket::stalled(&self.socket, since).await;
            why
        };
        tokio::select! {
            biased;
            ready = self.socket.ready(Interest::WRITABLE) => Ok(ready.map(drop)?),
            why = given_up => Err(why.into()),
        }
    }
}

fn cut_off() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
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

/// What was read, without the unused room: it is kept until the peer acknowledges it.
fn fit(buffer: BytesMut) -> Bytes {
    if buffer.len() < buffer.capacity() / 2 {
        Bytes::copy_from_slice(&buffer)
    } else {
        buffer.freeze()
    }
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
