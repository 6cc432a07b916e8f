//! The sending direction of a stream.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::waiting::{closed, release, remember_stream};
use crate::driver::error::StreamError;
use crate::driver::shared::Handle;
use crate::driver::state::State;
use crate::driver::wants::ANSWER;
use crate::proto::ids::StreamId;
use crate::proto::{Code, WriteError};

/// The sending direction of a stream.
#[derive(Debug)]
pub struct WriteHalf {
    handle: Arc<Handle>,
    id: StreamId,
    /// How many bytes were written.
    written: u64,
    /// The first byte must be our word that we are connected.
    pub(super) owes_answer: bool,
    /// It was finished or reset.
    over: bool,
}

impl WriteHalf {
    pub(super) fn new(handle: Arc<Handle>, id: StreamId) -> Self {
        Self { handle, id, written: 0, owes_answer: false, over: false }
    }

    /// See [`Stream::is_redundant`](super::Stream::is_redundant).
    pub(super) fn is_redundant(&self) -> bool {
        let id = self.id;
        self.handle.shared.ask(|state| state.core.send_stream(id).is_redundant())
    }

    /// Takes all of `data`, without copying, as credit allows.
    ///
    /// Not cancel safe: if it is dropped, a part of `data` may have been taken.
    /// [`poll_write_chunk`](Self::poll_write_chunk) says which.
    ///
    /// # Errors
    /// The peer wants no more of it, or the session is over.
    pub async fn write_all(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        while !data.is_empty() {
            poll_fn(|cx| self.poll_write_chunk(cx, &mut data)).await?;
        }
        Ok(())
    }

    /// Tells the opener that there is a connection, if it wants to know
    /// ([`Wants::ANSWER`](crate::Wants::ANSWER)) and has not been told yet. Waits for credit, as
    /// other bytes do. Cancel safe.
    ///
    /// # Errors
    /// The peer wants no more of it, or the session is over.
    pub async fn answer(&mut self) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_answer(cx)).await
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if std::mem::take(&mut self.owes_answer) {
            let written = self.poll_write_chunk(cx, &mut Bytes::from_static(ANSWER));
            self.owes_answer = written.is_pending();
            ready!(written)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes at least one byte off the front of `data`; returns how many it took.
    pub fn poll_write_chunk(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
    ) -> Poll<Result<usize, StreamError>> {
        ready!(self.poll_answer(cx))?;
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

    /// Waits until a write would take something; returns how many bytes.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The peer wants no more of it, or the session is over.
    pub async fn capacity(&mut self) -> Result<u64, StreamError> {
        let (id, shared) = (self.id, &self.handle.shared);
        poll_fn(|cx| shared.ask(|state| poll_capacity(state, id, cx))).await
    }

    /// [`write_all`](Self::write_all), then [`capacity`](Self::capacity): in one visit to the
    /// session if neither has to wait. Not cancel safe, like `write_all`.
    pub(crate) async fn write_all_and_capacity(
        &mut self,
        mut data: Bytes,
    ) -> Result<u64, StreamError> {
        let id = self.id;
        poll_fn(|cx| {
            let before = data.len();
            let capacity = self.handle.shared.with(|state, _| {
                while !data.is_empty() {
                    ready!(poll_send(state, id, cx, |stream| stream.write(&mut data)))?;
                }
                poll_capacity(state, id, cx)
            });
            self.written += (before - data.len()) as u64;
            capacity
        })
        .await
    }

    /// Waits until the peer wants no more of the stream, or the session is over; returns which.
    /// While it waits, nothing else may wait on this half. Cancel safe.
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

    /// Waits until the peer's session has acknowledged everything written so far, and the end if it
    /// was marked. It says nothing about what the peer's application has read.
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
        ready!(self.poll_answer(cx))?;
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

    /// Marks the end of the stream at the first call, and is ready when the peer's session has
    /// acknowledged it and everything before it; or when the session is over, as it is if no lane
    /// comes back within the grace time.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish()?;
        self.poll_acknowledged(cx).map_err(Into::into)
    }
}

/// Does something with the sending side of a stream, or waits until it can.
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

fn poll_capacity(
    state: &mut State,
    id: StreamId,
    cx: &Context<'_>,
) -> Poll<Result<u64, StreamError>> {
    #[allow(clippy::redundant_closure_for_method_calls, reason = "the lifetimes differ")]
    poll_send(state, id, cx, |stream| stream.capacity())
}

fn write_error(state: &State, error: WriteError) -> StreamError {
    match error {
        WriteError::Stopped(code) => StreamError::Reset(code),
        WriteError::Closed | WriteError::Blocked => closed(state),
    }
}
