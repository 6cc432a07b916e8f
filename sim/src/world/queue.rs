//! What is to happen, in order of time; at one instant, in the order requested.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::net::Time;

/// Events waiting for their time.
#[derive(Debug)]
pub(super) struct Queue<E> {
    heap: BinaryHeap<Reverse<Entry<E>>>,
    /// How many were ever pushed.
    pushed: u64,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Self {
        Self { heap: BinaryHeap::new(), pushed: 0 }
    }

    pub(super) fn push(&mut self, time: Time, event: E) {
        self.pushed += 1;
        self.heap.push(Reverse(Entry { order: (time, self.pushed), event }));
    }

    pub(super) fn pop(&mut self) -> Option<(Time, E)> {
        self.heap.pop().map(|Reverse(entry)| (entry.order.0, entry.event))
    }
}

/// An event, ignored by the heap's order.
#[derive(Debug)]
struct Entry<E> {
    order: (Time, u64),
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl<E> Eq for Entry<E> {}
impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.cmp(&other.order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_comes_first_and_then_who_asked_first() {
        let mut queue = Queue::new();
        for (time, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (1, 'b'), (9, 'e')] {
            queue.push(time, event);
        }
        let popped: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(popped, [(1, 'a'), (1, 'b'), (5, 'c'), (5, 'd'), (9, 'e')]);
    }
}
