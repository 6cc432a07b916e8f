//! What both halves of a stream share: whom to wake, and what is left when they are gone.

use std::task::{Context, Waker};

use crate::driver::error::StreamError;
use crate::driver::shared::Handle;
use crate::driver::state::{State, StreamWakers, remember};
use crate::proto::ids::StreamId;

/// Remembers whom to wake when `place` of the stream changes.
pub(super) fn remember_stream(
    state: &mut State,
    id: StreamId,
    place: impl FnOnce(&mut StreamWakers) -> &mut Option<Waker>,
    cx: &Context<'_>,
) {
    if let Some(wakers) = state.streams.get_mut(&id) {
        remember(place(wakers), cx);
    }
}

/// Why a stream that nobody has reset is gone.
pub(in crate::driver) fn closed(state: &State) -> StreamError {
    state.over.clone().map_or(StreamError::Closed, StreamError::Session)
}

/// A half is gone; with the second the session forgets who waited.
pub(super) fn release(handle: &Handle, id: StreamId) {
    handle.shared.with(|state, _| {
        if let Some(wakers) = state.streams.get_mut(&id) {
            wakers.halves = wakers.halves.saturating_sub(1);
            if wakers.halves == 0 {
                state.streams.remove(&id);
            }
        }
    });
}
