//! To wait for one thing of a session.

use std::future::poll_fn;
use std::task::Poll;

use super::shared::Shared;
use super::state::State;
use super::waiters::Waiters;

/// Waits until `find` finds what it looks for. Whatever wakes the waiters of `list` has it look
/// again.
///
/// Cancel safe: what was found is returned by the same poll.
pub(super) async fn wait<T>(
    shared: &Shared,
    list: fn(&mut State) -> &mut Waiters,
    mut find: impl FnMut(&mut State) -> Option<T>,
) -> T {
    let mut place = Place { shared, list, key: None };
    poll_fn(|cx| {
        shared.with(|state, _| match find(state) {
            Some(found) => Poll::Ready(found),
            None => {
                list(state).note(&mut place.key, cx);
                Poll::Pending
            }
        })
    })
    .await
}

/// A waiter's place in a list.
struct Place<'a> {
    shared: &'a Shared,
    list: fn(&mut State) -> &mut Waiters,
    key: Option<u64>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // A waker's end may be that of a task, which may hold streams: not under the lock.
            let waker = self.shared.ask(|state| (self.list)(state).remove(key));
            drop(waker);
        }
    }
}
