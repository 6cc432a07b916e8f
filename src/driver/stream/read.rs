//! The receiving direction of a stream.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};

use super::waiting::{closed, release, remember_stream};
use crate::driver::error::StreamError;
use crate::driver::shared::{Handle, Shared};
use crate::driver::wants::ANSWER;
use crate::proto::ids::StreamId;
use crate::proto::{Code, ReadError};

/// The receiving direction of a stream.
#[derive(Debug)]
pub struct ReadHalf {
    handle: Arc<Handle>,
    pub(super) id: StreamId,
    /// Read from the session, but not yet by the user of `AsyncRead`.
    front: Bytes,
    /// The first byte will be the peer's word that it is connected.
    pub(super) awaits_answer: bool,
    /// The end or a reset was read, or it was stopped.
    over: bool,
    /// What ended it, other than the peer's own word: every read reports it again, so that it is
    /// never taken for an end.
    failed: Option<StreamError>,
}

impl ReadHalf {
    pub(super) fn describe(&self, from: &str, to: &str) {
        self.handle.shared.ask(|state| state.describe(self.id, from, to));
    }

    pub(super) fn new(handle: Arc<Handle>, id: StreamId) -> Self {
        let front = Bytes::new();
        Self { handle, id, front, awaits_answer: false, over: false, failed: None }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.handle.shared
    }

    /// See [`Stream::begun`](super::Stream::begun).
    pub(super) async fn begun(&mut self) -> bool {
        let (id, shared) = (self.id, &self.handle.shared);
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
        if self.awaits_answer {
            ready!(self.poll_answer(cx))?;
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
        // What was read is handed out first; the next call reports the end.
        match (got, self.over) {
            (0, false) => Poll::Pending,
            (0, true) => Poll::Ready(self.failed.clone().map_or(Ok(false), Err)),
            _ => Poll::Ready(Ok(true)),
        }
    }

    /// See [`Stream::connected`](super::Stream::connected).
    pub(super) fn poll_connected(&mut self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        if self.awaits_answer {
            return self.poll_answer(cx);
        }
        Poll::Ready(self.failed.clone().map_or(Ok(()), Err))
    }

    /// Takes the answer off the stream. An end in its place counts as one that came after it.
    fn poll_answer(&mut self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        let id = self.id;
        let heard = ready!(self.handle.shared.with(|state, now| {
            Poll::Ready(match state.core.recv_stream(id).read(now, ANSWER.len()) {
                Ok(Some(answer)) if answer == ANSWER => Ok(()),
                Ok(Some(_)) => Err(StreamError::Reset(Code::PROTOCOL)),
                Ok(None) => {
                    self.over = true;
                    Ok(())
                }
                Err(ReadError::Blocked) => {
                    remember_stream(state, id, |wakers| &mut wakers.read, cx);
                    return Poll::Pending;
                }
                Err(ReadError::Reset(code)) => Err(StreamError::Reset(code)),
                Err(ReadError::Closed) => Err(closed(state)),
            })
        }));
        self.awaits_answer = false;
        if let Err(why) = &heard {
            self.stop_with(Code::PROTOCOL);
            self.failed = Some(why.clone());
        }
        Poll::Ready(heard)
    }

    /// Waits until the stream is known to have no end of its own: the peer has reset it, or the
    /// session is over. What arrived before can still be read. While it waits, nothing else may
    /// wait on this half. Cancel safe.
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

    /// Stops receiving: unread data is dropped, and the peer's writer is told `code`.
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
                // Several pieces are joined: to avoid the copy, read chunks.
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
