//! Tasks that wait for one thing of a session, as many as there are.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use super::shared::{Shared, State};

/// One waker a waiter, replaced when it is polled again and gone with its future.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Waiters {
    /// Notes whom to wake for the waiter that is known by `key`; a new one gets its key.
    fn note(&mut self, key: &mut Option<u64>, cx: &Context<'_>) {
        let key = *key.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let waker = self.wakers.entry(key).or_insert_with(|| cx.waker().clone());
        waker.clone_from(cx.waker());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wakers.is_empty()
    }

    /// Takes everyone out, to be woken.
    pub(super) fn wake(&mut self, wake: &mut Vec<Waker>) {
        wake.extend(std::mem::take(&mut self.wakers).into_values());
    }
}

/// Waits until `look` finds what it looks for. Whatever wakes the waiters of `list` has it look again.
///
/// Cancel safe: what was found is returned by the same poll.
pub(super) async fn wait<T>(
    shared: &Shared,
    list: fn(&mut State) -> &mut Waiters,
    mut look: impl FnMut(&mut State) -> Option<T>,
) -> T {
    let mut place = Place { shared, list, key: None };
    poll_fn(|cx| {
        shared.with(|state, _| match look(state) {
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
            let waker = self.shared.ask(|state| (self.list)(state).wakers.remove(&key));
            drop(waker);
        }
    }
}
