//! Waiting for one thing in a session.

use std::future::poll_fn;
use std::task::Poll;

use super::shared::Shared;
use super::state::State;
use super::waiters::Waiters;

/// Waits until `find` finds what it looks for. It looks again whenever the waiters of `list` are
/// woken.
///
/// Cancel safe: the poll that finds it also returns it.
pub(super) async fn wait<T>(
    shared: &Shared,
    list: fn(&mut State) -> &mut Waiters,
    mut find: impl FnMut(&mut State) -> Option<T>,
) -> T {
    let mut waiting = Waiting { shared, list, key: None };
    poll_fn(|cx| {
        shared.with(|state, _| match find(state) {
            Some(found) => Poll::Ready(found),
            None => {
                list(state).note(&mut waiting.key, cx);
                Poll::Pending
            }
        })
    })
    .await
}

/// A waiter's entry in a list.
struct Waiting<'a> {
    shared: &'a Shared,
    list: fn(&mut State) -> &mut Waiters,
    key: Option<u64>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            // Dropping a waker may drop its task, which may hold streams: not under the lock.
            let waker = self.shared.ask(|state| (self.list)(state).remove(key));
            drop(waker);
        }
    }
}
