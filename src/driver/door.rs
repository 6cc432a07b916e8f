//! The door: bounds on lanes that have not proven anything yet.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::chance;
use crate::proto::limits::{WAITING_LANES_MAX, WAITING_LANES_PER_SOURCE_MAX};

/// From this many on, more and more lanes are dropped at random, so that the door is never quite
/// full.
const EARLY: usize = WAITING_LANES_MAX / 4 * 3;

/// Where a lane comes from: an IPv4 address, an IPv6 address's /64 (whoever has one address in it
/// has them all), or nowhere. Or a network of these, by its address and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source(Option<(IpAddr, u8)>);

/// A /56 or a /48 holds 256 or 65,536 sources: together they get this many times one source's
/// share.
const WIDER: [(u8, u32); 2] = [(56, 2), (48, 3)];

impl Source {
    pub(super) fn of(address: Option<IpAddr>) -> Self {
        Self(address.map(|address| match address.to_canonical() {
            IpAddr::V4(address) => (IpAddr::V4(address), 32),
            IpAddr::V6(address) => (network(address, 64), 64),
        }))
    }

    pub(super) fn is_nowhere(self) -> bool {
        self.0.is_none()
    }

    /// The source itself and its networks, each with its share as a multiple of one source's.
    pub(super) fn shares(self) -> impl Iterator<Item = (Self, u32)> {
        let wider = WIDER.into_iter().filter_map(move |(length, times)| match self.0 {
            Some((IpAddr::V6(address), _)) => {
                Some((Self(Some((network(address, length), length))), times))
            }
            _ => None,
        });
        std::iter::once((self, 1)).chain(wider)
    }

    /// Whether `other` is this source or in this network.
    pub(super) fn has(self, other: Self) -> bool {
        other.shares().any(|(network, _)| network == self)
    }
}

fn network(address: Ipv6Addr, length: u8) -> IpAddr {
    let host_bits = 128_u32.saturating_sub(length.into());
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
    IpAddr::V6(Ipv6Addr::from(u128::from(address) & mask))
}

/// Lanes in their handshake. A newcomer is always let in; if there are too many, a random waiting
/// lane of the source with the most gives way. An honest handshake takes a fraction of a second and
/// is rarely hit; one that squats for ten seconds nearly always is, the sooner the more it brings
/// along.
#[derive(Clone, Debug, Default)]
pub(super) struct Door {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Only sources with a lane.
    sources: BTreeMap<Source, Vec<Arc<Notify>>>,
    count: usize,
}

/// Lets one lane wait at the door; given back on drop.
#[derive(Debug)]
pub(super) struct Ticket {
    door: Door,
    source: Source,
    taken_away: Arc<Notify>,
}

impl Door {
    /// Lets a lane from `source` wait.
    pub(super) fn enter(&self, source: Source) -> Ticket {
        self.enter_with(source, &mut random)
    }

    fn enter_with(&self, source: Source, random: &mut impl FnMut() -> usize) -> Ticket {
        let taken_away = Arc::<Notify>::default();
        let mut waiting = self.lock();
        for (network, times) in source.shares() {
            if waiting.count_in(network) >= WAITING_LANES_PER_SOURCE_MAX * times as usize {
                waiting.evict_of_most_in(Some(network), random());
            }
        }
        let room = WAITING_LANES_MAX - EARLY;
        if waiting.count >= EARLY && random() % room < waiting.count + 1 - EARLY {
            waiting.evict_of_most_in(None, random());
        }
        waiting.sources.entry(source).or_default().push(taken_away.clone());
        waiting.count += 1;
        drop(waiting);
        Ticket { door: self.clone(), source, taken_away }
    }

    /// Evicts one waiting lane, so that what it holds can let another in; `false` if there is none.
    pub(super) fn make_way(&self) -> bool {
        self.lock().evict_of_most_in(None, random())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn count_in(&self, network: Source) -> usize {
        let inside = self.sources.iter().filter(|(source, _)| network.has(**source));
        inside.map(|(_, lanes)| lanes.len()).sum()
    }

    /// Evicts one lane of the source with the most, in a network or overall.
    fn evict_of_most_in(&mut self, network: Option<Source>, random: usize) -> bool {
        let inside = |source| network.is_none_or(|network| network.has(source));
        let sources = self.sources.iter().filter(|(source, _)| inside(**source));
        let most = sources.max_by_key(|(_, lanes)| lanes.len());
        let Some(source) = most.map(|(source, _)| *source) else { return false };
        self.evict(source, random);
        true
    }

    /// Evicts one of a source's lanes.
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

impl Ticket {
    /// Waits until another lane needs it more.
    pub(super) async fn taken_away(&self) {
        self.taken_away.notified().await;
    }
}

impl Drop for Ticket {
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

/// Unpredictable to those waiting.
fn random() -> usize {
    let mut bytes = [0; 8];
    // Without randomness the same one always leaves: worse, but still a bound.
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

    fn has_gone(place: &Ticket) -> bool {
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

    /// The more lanes there are, the likelier one is dropped; at a full door one always is.
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
        assert_eq!(of("192.0.2.1").shares().count(), 1);
        let shares: Vec<_> = of("2001:db8:1:203::1").shares().collect();
        assert_eq!(shares.len(), 3);
        let has = |number: usize, other| shares[number].0.has(of(other));
        assert!(has(1, "2001:db8:1:2ff::1") && !has(1, "2001:db8:1:303::1"));
        assert!(has(2, "2001:db8:1:ffff::1") && !has(2, "2001:db8:2:203::1"));
        // A network of zeros is not the source with that address.
        let zeros: Vec<_> = of("2001:db8:1::1").shares().map(|(network, _)| network).collect();
        assert!(zeros[0] != zeros[1] && zeros[1] != zeros[2]);
    }

    #[test]
    fn a_network_of_many_sources_cannot_fill_the_door() {
        let of = |prefix: &str, number: u32| {
            Source::of(Some(format!("2001:db8:{prefix}{number:02x}::1").parse().unwrap()))
        };
        let door = Door::default();
        let other = door.enter(source(2));
        let crowd: Vec<_> = (0..2_000).map(|number| door.enter(of("1:1", number % 256))).collect();
        let stayed = |places: &[Ticket]| places.iter().filter(|place| !has_gone(place)).count();
        assert_eq!(stayed(&crowd), 2 * WAITING_LANES_PER_SOURCE_MAX);
        assert!(!has_gone(&other));
        drop(crowd);
        let crowd: Vec<_> = (0..2_000_u32)
            .map(|number| door.enter(of(&format!("1:{:02x}", number % 200), number / 200)))
            .collect();
        assert!(stayed(&crowd) <= 3 * WAITING_LANES_PER_SOURCE_MAX);
        drop((crowd, other));
        assert_eq!(door.lock().count, 0);
    }
}
