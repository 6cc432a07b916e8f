//! Who stands at the door: bounds on lanes that have not proven anything yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Lanes in their handshake at once: each costs a task, a socket and a TLS state, some 60 KB.
const WAITING_MAX: usize = 512;

/// Of these, from one source address: a user with 20 lanes on each of five links comes back after
/// an outage with all of them at once.
const WAITING_PER_SOURCE_MAX: usize = 128;

/// Counts lanes in their handshake.
#[derive(Clone, Debug, Default)]
pub(super) struct Door {
    waiting: Arc<Mutex<BTreeMap<Option<IpAddr>, usize>>>,
}

/// A place at the door, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    door: Door,
    source: Option<IpAddr>,
}

impl Door {
    /// A place for a lane from `source`, or `None` if there are too many.
    pub(super) fn enter(&self, source: Option<IpAddr>) -> Option<Place> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = waiting.values().sum();
        let same = waiting.get(&source).copied().unwrap_or(0);
        if all >= WAITING_MAX || same >= WAITING_PER_SOURCE_MAX {
            return None;
        }
        waiting.insert(source, same + 1);
        drop(waiting);
        Some(Place { door: self.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.door.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = waiting.get_mut(&self.source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                waiting.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_cannot_fill_the_door() {
        let door = Door::default();
        let greedy = Some(IpAddr::from([192, 0, 2, 1]));
        let mut places: Vec<_> = (0..WAITING_PER_SOURCE_MAX).map(|_| door.enter(greedy)).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(door.enter(greedy).is_none());
        assert!(door.enter(Some(IpAddr::from([192, 0, 2, 2]))).is_some());
        places.pop();
        assert!(door.enter(greedy).is_some());
        drop(places);
        assert!(door.waiting.lock().unwrap().is_empty());
    }
}
