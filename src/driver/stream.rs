//! A stream as its user holds it: two halves, each for one direction.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use pin_project::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::error::StreamError;
use super::session::Handle;
use super::shared::{State, StreamWakers, remember};
use crate::proto::ids::StreamId;
use crate::proto::{Code, ReadError, WriteError};

/// A bidirectional byte stream.
///
/// `shutdown` ends the sending direction only (half-close), and waits until everything has arrived; the
/// peer reads the end once it has read everything before it. If it is dropped half way, the end is marked
/// all the same. `flush` waits for nothing; [`acknowledged`](Self::acknowledged) waits for what was written
/// so far. Dropping a half that has not come to its end resets it, as closing a TCP socket with unread data
/// does: an end that was not meant is never taken for one that was.
///
/// ```
/// # use std::sync::Arc;
/// # use imux::lane::memory;
/// # use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
/// # use imux::{Client, ClientConfig, Link, Server, ServerConfig};
/// use imux::{Code, StreamKind};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let key = Fingerprint::from_bytes([7; 32]);
/// # let identity = PeerIdentity { fingerprint: key, certificate_signature: None };
/// # let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
/// # let dialer = dialer.with_peer(identity);
/// # let mut server = Server::start(listener, ServerConfig::default());
/// # let trust = Arc::new(PinnedKeys::new([key]));
/// # let link = Link::new(Arc::new(dialer), 2);
/// # let client = Client::connect(vec![link], ClientConfig::new(trust));
/// # let client = client.await?;
/// # let (session, _) = server.accept().await.unwrap();
/// // A question, ended; then the answer.
/// let mut ours = client.open(StreamKind::Raw).await?;
/// ours.write_all(b"how much?").await?;
/// ours.shutdown().await?;
///
/// let mut theirs = session.accept().await?.stream;
/// let mut question = String::new();
/// theirs.read_to_string(&mut question).await?;
/// theirs.write_all(b"all of it").await?;
/// theirs.shutdown().await?;
///
/// let mut answer = String::new();
/// ours.read_to_string(&mut answer).await?;
/// assert_eq!((&question[..], &answer[..]), ("how much?", "all of it"));
///
/// // A reset is no end.
/// let mut ours = client.open(StreamKind::Raw).await?;
/// ours.write_all(b"half a").await?;
/// session.accept().await?.stream.reset(Code::RESET);
/// let error = ours.read_to_string(&mut answer).await.unwrap_err();
/// assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
/// # Ok(())
/// # }
/// ```
#[pin_project]
#[derive(Debug)]
pub struct Stream {
    #[pin]
    read: ReadHalf,
    #[pin]
    write: WriteHalf,
}

impl Stream {
    pub(super) fn new(handle: Arc<Handle>, id: StreamId) -> Self {
        Self {
            read: ReadHalf {
                handle: handle.clone(),
                id,
                front: Bytes::new(),
                over: false,
                failed: None,
            },
            write: WriteHalf { handle, id, written: 0, over: false },
        }
    }

    /// What a new stream's entry in the session begins with.
    pub(super) fn wakers() -> StreamWakers {
        StreamWakers { halves: 2, ..StreamWakers::default() }
    }

    /// Waits until something of it was given to a lane: from then on it belongs to its session. `false` if that has ended
    /// before, and the peer cannot have heard of the stream. Nobody may read from it meanwhile.
    pub(super) async fn begun(&mut self) -> bool {
        let (id, shared) = (self.read.id, &self.read.handle.shared);
        poll_fn(|cx| {
            shared.ask(|state| {
                if state.streams.get(&id).is_none_or(|wakers| wakers.begun) {
                    return Poll::Ready(true);
                }
                if state.over.is_some() {
                    return Poll::Ready(false);
                }
                remember_stream(state, id, |wakers| &mut wakers.read, cx);
                Poll::Pending
            })
        })
        .await
    }

    /// See [`WriteHalf::acknowledged`].
    ///
    /// # Errors
    /// The peer wants no more of what is written, or the session is over and not all has arrived.
    pub async fn acknowledged(&mut self) -> Result<(), StreamError> {
        self.write.acknowledged().await
    }

    /// Its number in its session: the same at both ends, and no other stream's.
    pub fn id(&self) -> StreamId {
        self.read.id
    }

    /// The two directions, to be used by different tasks.
    pub fn into_split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }

    /// Gives up both directions at once: the peer is told `code`.
    pub fn reset(self, code: Code) {
        self.read.stop(code);
        self.write.reset(code);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().read.poll_read(cx, out)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().write.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().write.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().write.poll_shutdown(cx)
    }
}

/// The receiving direction of a stream.
#[derive(Debug)]
pub struct ReadHalf {
    handle: Arc<Handle>,
    id: StreamId,
    /// Read from the session, and not by the user of `AsyncRead`.
    front: Bytes,
    /// The end or a reset was read, or it was stopped.
    over: bool,
    /// What ended it, if not the peer's own word: it is told again at every read, so that it is
    /// never taken for an end.
    failed: Option<StreamError>,
}

impl ReadHalf {
    /// Appends what has arrived to `out`, without copying: at least one piece, at most about `max`
    /// bytes. `false` is the end of the stream.
    ///
    /// Cancel safe: nothing is taken from the stream before it is ready.
    ///
    /// # Errors
    /// The peer has reset the stream, or the session is over.
    pub async fn read_chunks(
        &mut self,
        out: &mut VecDeque<Bytes>,
        max: usize,
    ) -> Result<bool, StreamError> {
        poll_fn(|cx| self.poll_read_chunks(cx, out, max)).await
    }

    /// Poll form of [`read_chunks`](Self::read_chunks).
    pub fn poll_read_chunks(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut VecDeque<Bytes>,
        max: usize,
    ) -> Poll<Result<bool, StreamError>> {
        if !self.front.is_empty() {
            out.push_back(std::mem::take(&mut self.front));
            return Poll::Ready(Ok(true));
        }
        if self.over {
            return Poll::Ready(self.failed.clone().map_or(Ok(false), Err));
        }
        let id = self.id;
        let mut got = 0;
        let ended = self.handle.shared.with(|state, now| {
            while got < max {
                match state.core.recv_stream(id).read(now, max - got) {
                    Ok(Some(data)) => {
                        got += data.len();
                        out.push_back(data);
                    }
                    Ok(None) => return Some(Ok(())),
                    Err(ReadError::Blocked) => {
                        if got == 0 {
                            remember_stream(state, id, |wakers| &mut wakers.read, cx);
                        }
                        return None;
                    }
                    Err(ReadError::Reset(code)) => return Some(Err(StreamError::Reset(code))),
                    Err(ReadError::Closed) => return Some(Err(closed(state))),
                }
            }
            None
        });
        if let Some(ended) = ended {
            self.over = true;
            self.failed = ended.err();
        }
        // What was read is handed out first; the end is told at the next call.
        match (got, self.over) {
            (0, false) => Poll::Pending,
            (0, true) => Poll::Ready(self.failed.clone().map_or(Ok(false), Err)),
            _ => Poll::Ready(Ok(true)),
        }
    }

    /// Waits until it is known that the stream has no end of its own: the peer has reset it, or the
    /// session is over. What arrived before can still be read. While it waits nothing else may wait
    /// on this half. Cancel safe.
    pub async fn broken_off(&mut self) -> StreamError {
        let id = self.id;
        poll_fn(|cx| {
            if self.over {
                // After a true end this never comes.
                return self.failed.clone().map_or(Poll::Pending, Poll::Ready);
            }
            self.handle.shared.ask(|state| {
                let stream = state.core.recv_stream(id);
                if let Some(code) = stream.reset_code() {
                    return Poll::Ready(StreamError::Reset(code));
                }
                if stream.is_gone() {
                    return Poll::Ready(closed(state));
                }
                remember_stream(state, id, |wakers| &mut wakers.read, cx);
                Poll::Pending
            })
        })
        .await
    }

    /// Wants no more: what was not read is dropped, and the peer's writer is told `code`.
    pub fn stop(mut self, code: Code) {
        self.stop_with(code);
    }

    fn stop_with(&mut self, code: Code) {
        if !std::mem::replace(&mut self.over, true) {
            let id = self.id;
            self.handle.shared.with(|state, _| state.core.recv_stream(id).stop(code));
        }
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        self.stop_with(Code::RESET);
        release(&self.handle, self.id);
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.front.is_empty() {
            if this.over {
                let failed = this.failed.clone().map(io::Error::from);
                return Poll::Ready(failed.map_or(Ok(()), Err));
            }
            let mut chunks = VecDeque::new();
            let max = out.remaining().max(1);
            if ready!(this.poll_read_chunks(cx, &mut chunks, max))? {
                // More than one piece is joined: whoever wants no copy takes chunks.
                this.front = match (chunks.pop_front(), chunks.is_empty()) {
                    (Some(only), true) => only,
                    (first, _) => first.into_iter().chain(chunks).flatten().collect(),
                };
            }
        }
        let amount = this.front.len().min(out.remaining());
        out.put_slice(&this.front[..amount]);
        this.front.advance(amount);
        Poll::Ready(Ok(()))
    }
}

/// The sending direction of a stream.
#[derive(Debug)]
pub struct WriteHalf {
    handle: Arc<Handle>,
    id: StreamId,
    /// How many bytes were written.
    written: u64,
    /// It was finished or reset.
    over: bool,
}

impl WriteHalf {
    /// Takes all of `data`, without copying, as credit allows.
    ///
    /// Not cancel safe: if it is dropped, a part of `data` may have been taken. [`poll_write_chunk`](Self::poll_write_chunk)
    /// says which.
    ///
    /// # Errors
    /// The peer wants no more of it, or the session is over.
    pub async fn write_all(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        while !data.is_empty() {
            poll_fn(|cx| self.poll_write_chunk(cx, &mut data)).await?;
        }
        Ok(())
    }

    /// Takes some of `data` off its front, at least one byte; returns how much.
    pub fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, StreamError>> {
        let id = self.id;
        let written = self
            .handle
            .shared
            .with(|state, _| poll_send(state, id, cx, |stream| stream.write(data)));
        self.count(written)
    }

    fn count(
        &mut self,
        written: Poll<Result<usize, StreamError>>,
    ) -> Poll<Result<usize, StreamError>> {
        if let Poll::Ready(Ok(written)) = written {
            self.written += written as u64;
        }
        written
    }

    /// Waits until something would be taken; returns how many bytes.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The peer wants no more of it, or the session is over.
    pub async fn capacity(&mut self) -> Result<u64, StreamError> {
        let (id, shared) = (self.id, &self.handle.shared);
        #[allow(clippy::redundant_closure_for_method_calls, reason = "the lifetimes differ")]
        poll_fn(|cx| shared.ask(|state| poll_send(state, id, cx, |stream| stream.capacity()))).await
    }

    /// Waits until the peer wants no more of the stream, or the session is over; says which. While
    /// it waits nothing else may wait on this half. Cancel safe.
    pub async fn stopped(&mut self) -> StreamError {
        let id = self.id;
        poll_fn(|cx| {
            self.handle.shared.ask(|state| {
                if let Some(code) = state.streams.get(&id).and_then(|stream| stream.stopped) {
                    return Poll::Ready(StreamError::Reset(code));
                }
                if state.over.is_some() {
                    return Poll::Ready(closed(state));
                }
                remember_stream(state, id, |wakers| &mut wakers.write, cx);
                Poll::Pending
            })
        })
        .await
    }

    /// Waits until the peer's session has acknowledged all that was written so far; with the end, if that was marked. It
    /// says nothing of what the peer's application has read.
    ///
    /// Cancel safe: dropping it changes nothing. Bounded as [`AsyncWrite::poll_shutdown`] is.
    ///
    /// # Errors
    /// The peer wants no more of it, or the session is over and not all has arrived.
    pub async fn acknowledged(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_acknowledged(cx)).await
    }

    fn poll_acknowledged(&self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        let (id, written, finished) = (self.id, self.written, self.over);
        self.handle.shared.ask(|state| {
            let stream = state.streams.get(&id);
            if stream.is_some_and(|it| it.ended || (!finished && it.arrived >= written)) {
                return Poll::Ready(Ok(()));
            }
            if let Some(code) = stream.and_then(|stream| stream.stopped) {
                return Poll::Ready(Err(StreamError::Reset(code)));
            }
            match state.core.send_stream(id).await_arrival() {
                Ok(true) => Poll::Ready(Ok(())),
                Ok(false) => {
                    remember_stream(state, id, |wakers| &mut wakers.write, cx);
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(write_error(state, error))),
            }
        })
    }

    /// Marks the end of the stream after what was written, and waits for nothing: see
    /// [`acknowledged`](Self::acknowledged).
    ///
    /// # Errors
    /// The peer wants no more of it, or the session is over.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        if std::mem::replace(&mut self.over, true) {
            return Ok(());
        }
        let id = self.id;
        self.handle.shared.with(|state, _| {
            let finished = state.core.send_stream(id).finish();
            finished.map_err(|error| write_error(state, error))
        })
    }

    /// Gives the stream up after what was written: the peer's reader is told `code` in place of an
    /// end, once it has read all of it.
    pub fn finish_with(mut self, code: Code) {
        if !std::mem::replace(&mut self.over, true) {
            let id = self.id;
            self.handle.shared.with(|state, _| state.core.send_stream(id).finish_with(code));
        }
    }

    /// Gives the stream up at once: what the peer has not received is dropped, and its reader is
    /// told when it has read what arrived before.
    pub fn reset(mut self, code: Code) {
        self.reset_with(code);
    }

    fn reset_with(&mut self, code: Code) {
        if !std::mem::replace(&mut self.over, true) {
            let id = self.id;
            self.handle.shared.with(|state, _| state.core.send_stream(id).reset(code));
        }
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        if !self.over {
            let id = self.id;
            self.handle.shared.ask(|state| state.given_up(id));
        }
        self.reset_with(Code::RESET);
        release(&self.handle, self.id);
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let id = self.id;
        let written = self.handle.shared.with(|state, _| {
            poll_send(state, id, cx, |stream| {
                let room = usize::try_from(stream.capacity()?).unwrap_or(usize::MAX);
                let part = &bytes[..bytes.len().min(room)];
                stream.write(&mut Bytes::copy_from_slice(part))
            })
        });
        self.count(written).map_err(Into::into)
    }

    /// Ready at once: what was written is on its way as soon as a lane takes it.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Marks the end of the stream at the first call, and is ready when the peer's session has acknowledged it and
    /// everything before it; or the session is over, which it is when no lane came back within the grace time.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish()?;
        self.poll_acknowledged(cx).map_err(Into::into)
    }
}

/// Does something with the sending side of a stream, or waits until that makes sense.
fn poll_send<T>(
    state: &mut State,
    id: StreamId,
    cx: &Context<'_>,
    act: impl FnOnce(&mut crate::proto::session::SendStream<'_>) -> Result<T, WriteError>,
) -> Poll<Result<T, StreamError>> {
    match act(&mut state.core.send_stream(id)) {
        Ok(done) => Poll::Ready(Ok(done)),
        Err(WriteError::Blocked) => {
            remember_stream(state, id, |wakers| &mut wakers.write, cx);
            Poll::Pending
        }
        Err(error) => Poll::Ready(Err(write_error(state, error))),
    }
}

fn remember_stream(
    state: &mut State,
    id: StreamId,
    place: impl FnOnce(&mut StreamWakers) -> &mut Option<std::task::Waker>,
    cx: &Context<'_>,
) {
    if let Some(wakers) = state.streams.get_mut(&id) {
        remember(place(wakers), cx);
    }
}

fn closed(state: &State) -> StreamError {
    state.over.clone().map_or(StreamError::Closed, StreamError::Session)
}

fn write_error(state: &State, error: WriteError) -> StreamError {
    match error {
        WriteError::Stopped(code) => StreamError::Reset(code),
        WriteError::Closed | WriteError::Blocked => closed(state),
    }
}

/// A half is gone; with the second the session forgets who waited.
fn release(handle: &Handle, id: StreamId) {
    handle.shared.with(|state, _| {
        if let Some(wakers) = state.streams.get_mut(&id) {
            wakers.halves = wakers.halves.saturating_sub(1);
            if wakers.halves == 0 {
                state.streams.remove(&id);
            }
        }
    });
}
