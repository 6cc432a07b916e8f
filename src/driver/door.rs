//! Who stands at the door: bounds on lanes that have not proven anything.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::chance;
use crate::proto::limits::{WAITING_LANES_MAX, WAITING_LANES_PER_SOURCE_MAX};

/// From here on lanes are dropped at random, more and more of them, so that the door is never quite full.
const EARLY: usize = WAITING_LANES_MAX / 4 * 3;

/// Where a lane comes from, as far as it can be told apart: an IPv4 address, the /64 of an IPv6 address (whoever has one
/// of it has all), or nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source(Option<IpAddr>);

impl Source {
    pub(super) fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << 64);
                IpAddr::V6(Ipv6Addr::from(network))
            }
        }))
    }

    pub(super) fn is_nowhere(self) -> bool {
        self.0.is_none()
    }
}

/// Lanes in their handshake. A newcomer is always let in; where there are too many, one that waits gives way, at random,
/// of the source that has most. An honest handshake takes a fraction of a second and is seldom met by it; one that
/// squats ten seconds nearly always is, and the more it brings along the sooner.
#[derive(Clone, Debug, Default)]
pub(super) struct Door {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// No source without a lane.
    sources: BTreeMap<Source, Vec<Arc<Notify>>>,
    count: usize,
}

/// A place at the door, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    door: Door,
    source: Source,
    taken_away: Arc<Notify>,
}

impl Door {
    /// A place for a lane from `source`.
    pub(super) fn enter(&self, source: Source) -> Place {
        self.enter_with(source, &mut random)
    }

    fn enter_with(&self, source: Source, random: &mut impl FnMut() -> usize) -> Place {
        let taken_away = Arc::<Notify>::default();
        let mut waiting = self.lock();
        if waiting.sources.get(&source).map_or(0, Vec::len) >= WAITING_LANES_PER_SOURCE_MAX {
            waiting.evict(source, random());
        }
        let room = WAITING_LANES_MAX - EARLY;
        if waiting.count >= EARLY && random() % room < waiting.count + 1 - EARLY {
            waiting.evict_of_most(random());
        }
        waiting.sources.entry(source).or_default().push(taken_away.clone());
        waiting.count += 1;
        drop(waiting);
        Place { door: self.clone(), source, taken_away }
    }

    /// Sends one of those that wait away, when there is nothing left to let another in with; `false` if there is none.
    pub(super) fn make_way(&self) -> bool {
        self.lock().evict_of_most(random())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Takes the place of one lane of the source away that has most.
    fn evict_of_most(&mut self, random: usize) -> bool {
        let most = self.sources.iter().max_by_key(|(_, lanes)| lanes.len());
        let Some(source) = most.map(|(source, _)| *source) else { return false };
        self.evict(source, random);
        true
    }

    /// Takes the place of one of a source's lanes away.
    fn evict(&mut self, source: Source, random: usize) {
        let Some(lanes) = self.sources.get_mut(&source) else { return };
        let lane = lanes.swap_remove(random % lanes.len());
        lane.notify_one();
        self.left(source);
    }

    /// One of a source's lanes has left.
    fn left(&mut self, source: Source) {
        self.count -= 1;
        if self.sources.get(&source).is_some_and(Vec::is_empty) {
            self.sources.remove(&source);
        }
    }
}

impl Place {
    /// Waits until another lane needs the place more.
    pub(super) async fn taken_away(&self) {
        self.taken_away.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.door.lock();
        let Some(lanes) = waiting.sources.get_mut(&self.source) else { return };
        let at = lanes.iter().position(|lane| Arc::ptr_eq(lane, &self.taken_away));
        if let Some(at) = at {
            lanes.swap_remove(at);
            waiting.left(self.source);
        }
    }
}

/// Not to be foreseen by those who wait.
fn random() -> usize {
    let mut bytes = [0; 8];
    // Without randomness it is always the same one who leaves: worse, and still a bound.
    let _ = chance::fill(&mut bytes);
    usize::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn source(number: u32) -> Source {
        Source::of(Some(IpAddr::V4(number.into())))
    }

    fn has_gone(place: &Place) -> bool {
        place.taken_away().now_or_never().is_some()
    }

    #[test]
    fn one_source_cannot_fill_the_door() {
        let door = Door::default();
        let greedy: Vec<_> = (0..1_000).map(|_| door.enter(source(1))).collect();
        let other = door.enter(source(2));
        let stayed = greedy.iter().filter(|place| !has_gone(place)).count();
        assert_eq!(stayed, WAITING_LANES_PER_SOURCE_MAX);
        assert!(!has_gone(greedy.last().unwrap()), "the newest is in");
        assert!(!has_gone(&other));
        drop((greedy, other));
        assert!(door.lock().sources.is_empty());
        assert_eq!(door.lock().count, 0);
    }

    #[test]
    fn many_sources_make_each_other_leave_and_not_the_quiet_ones() {
        let door = Door::default();
        let quiet: Vec<_> = (0..50).map(|n| door.enter(source(n))).collect();
        let crowd: Vec<_> = (0..3_000).map(|n| door.enter(source(1_000 + n % 20))).collect();
        assert!(door.lock().count <= WAITING_LANES_MAX);
        assert!(!quiet.iter().any(has_gone));
        drop((quiet, crowd));
        assert_eq!(door.lock().count, 0);
    }

    /// The more there are the more likely one is dropped; when it is full, one always is.
    #[test]
    fn lanes_are_dropped_early_and_at_random() {
        for draw in [0, 1, 64, 127] {
            let door = Door::default();
            let mut random = || draw;
            let _places: Vec<_> =
                (0..2_000).map(|n| door.enter_with(source(n), &mut random)).collect();
            assert_eq!(door.lock().count, EARLY + draw, "{draw}");
        }
        let door = Door::default();
        let _places: Vec<_> = (0..2_000).map(|n| door.enter(source(n))).collect();
        assert!((EARLY..=WAITING_LANES_MAX).contains(&door.lock().count));
    }

    #[test]
    fn one_network_is_one_source() {
        let of = |text: &str| Source::of(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
