//! Any number of tasks that wait for one thing in a session.

use std::collections::BTreeMap;
use std::task::{Context, Waker};

/// One waker per waiter, replaced when it is polled again and gone with its future.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Waiters {
    /// Notes whom to wake for the waiter known by `key`; a new one gets its key.
    pub(super) fn note(&mut self, key: &mut Option<u64>, cx: &Context<'_>) {
        let key = *key.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let waker = self.wakers.entry(key).or_insert_with(|| cx.waker().clone());
        waker.clone_from(cx.waker());
    }

    /// Removes a waiter that no longer waits; returns its waker.
    pub(super) fn remove(&mut self, key: u64) -> Option<Waker> {
        self.wakers.remove(&key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wakers.is_empty()
    }

    /// Removes them all, to be woken.
    pub(super) fn wake(&mut self, wake: &mut Vec<Waker>) {
        wake.extend(std::mem::take(&mut self.wakers).into_values());
    }
}
