//! Bounds on flows that are opened for whoever sends datagrams. Senders may be many, and forged.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::driver::FLOWS_PER_SESSION_MAX;

/// Flows at once: three quarters of what a session may have. One that was ended counts there until
/// the peer knows.
const FLOWS_MAX: usize = FLOWS_PER_SESSION_MAX as usize / 4 * 3;

/// Flows of one source at once.
const FLOWS_PER_SOURCE_MAX: usize = FLOWS_MAX / 2;

/// New flows a second, on average. Each costs some four frames that carry nothing, of which the
/// peer takes 50,000 a second.
const NEW_PER_SECOND: u32 = 4_000;

/// All flows that one client's senders have. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Flows(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// How often any of them was used.
    uses: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// In the order in which they came.
    held: BTreeMap<u64, Arc<Held>>,
    rate: Rate,
}

#[derive(Debug)]
struct Held {
    source: IpAddr,
    /// When it was used last, in uses of any.
    used: AtomicU64,
    gives_way: Notify,
}

/// One flow's place, given back when dropped.
#[derive(Debug)]
pub(super) struct FlowPlace {
    flows: Flows,
    number: u64,
    held: Arc<Held>,
}

impl Flows {
    /// A place for one more flow of this source. The one that was idle the longest gives way to it,
    /// of the source or of all, if there are as many as there may be. `None`: too many came in too
    /// short a time.
    pub(super) fn enter(&self, source: IpAddr) -> Option<FlowPlace> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.rate.allows(Instant::now()) {
            return None;
        }
        let source = network(source);
        if state.held.values().filter(|held| held.source == source).count() >= FLOWS_PER_SOURCE_MAX
        {
            state.end_one(|held| held.source == source);
        }
        if state.held.len() >= FLOWS_MAX {
            state.end_one(|_| true);
        }
        let (number, used) = (state.next, AtomicU64::new(self.next_use()));
        state.next += 1;
        let held = Arc::new(Held { source, used, gives_way: Notify::new() });
        state.held.insert(number, held.clone());
        drop(state);
        Some(FlowPlace { flows: self.clone(), number, held })
    }

    /// Has the one that was idle the longest end: the peer has less room than that.
    pub(super) fn make_room(&self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).end_one(|_| true);
    }

    fn next_use(&self) -> u64 {
        self.0.uses.fetch_add(1, Ordering::Relaxed)
    }
}

impl State {
    /// Has the one of these that was idle the longest end.
    fn end_one(&mut self, of: impl Fn(&Held) -> bool) {
        let these = self.held.iter().filter(|(_, held)| of(held));
        let longest = these.min_by_key(|(_, held)| held.used.load(Ordering::Relaxed));
        if let Some(held) = longest.map(|(at, _)| *at).and_then(|at| self.held.remove(&at)) {
            held.gives_way.notify_one();
        }
    }
}

impl FlowPlace {
    /// Something came or went.
    pub(super) fn used(&self) {
        self.held.used.store(self.flows.next_use(), Ordering::Relaxed);
    }

    /// Waits until its flow is to end, to make room for another. Cancel safe.
    pub(super) async fn gives_way(&self) {
        self.held.gives_way.notified().await;
    }
}

impl Drop for FlowPlace {
    fn drop(&mut self) {
        let mut state = self.flows.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.held.remove(&self.number);
    }
}

/// What counts as one source: an IPv4 address, or an IPv6 network of 64 bits.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        ip => ip,
    }
}

/// Bounds how many come in a second; as many as there may be at once come in a burst.
#[derive(Debug, Default)]
struct Rate {
    came: f64,
    at: Option<Instant>,
}

impl Rate {
    fn allows(&mut self, now: Instant) -> bool {
        let passed = self.at.map_or(Duration::ZERO, |at| now.duration_since(at));
        self.at = Some(now);
        self.came = (self.came - passed.as_secs_f64() * f64::from(NEW_PER_SECOND)).max(0.0);
        let allowed = self.came < FLOWS_MAX as f64;
        self.came += f64::from(u8::from(allowed));
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(place: &FlowPlace) -> bool {
        use futures::FutureExt;
        place.gives_way().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_gives_way_of_a_source_and_of_all() {
        let flows = Flows::default();
        let source = |number: u32| IpAddr::V4(number.into());
        let mut first: Vec<_> = (0..FLOWS_PER_SOURCE_MAX).map(|_| flows.enter(source(1))).collect();
        first[0].as_ref().unwrap().used();
        let _more = flows.enter(source(1)).unwrap();
        let gone: Vec<_> = first.iter().map(|it| ended(it.as_ref().unwrap())).collect();
        assert_eq!(gone.iter().position(|gone| *gone), Some(1));
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
        // Others still find room, until there is none.
        tokio::time::advance(Duration::from_secs(1)).await;
        let others: Vec<_> = (0..FLOWS_MAX - FLOWS_PER_SOURCE_MAX)
            .map(|at| flows.enter(source(2 + at as u32)))
            .collect();
        assert!(others.iter().all(Option::is_some));
        assert!(!ended(first[2].as_ref().unwrap()));
        let _last = flows.enter(source(9_999)).unwrap();
        assert!(ended(first[2].as_ref().unwrap()));
        assert!(!others.iter().flatten().any(ended));
        // One that ends by itself makes room.
        first.truncate(5);
        tokio::time::advance(Duration::from_secs(1)).await;
        let _new = flows.enter(source(9_998)).unwrap();
        assert!(!ended(first[3].as_ref().unwrap()));
        drop((first, others));
        assert!(flows.0.state.lock().unwrap().held.len() <= 3);
    }

    #[tokio::test(start_paused = true)]
    async fn many_come_in_a_burst_and_then_so_many_a_second() {
        let flows = Flows::default();
        let came = |tries: u32| {
            let new = |at: &u32| flows.enter(IpAddr::V4((*at).into())).is_some();
            (0..tries).filter(new).count()
        };
        assert_eq!(came(10_000), FLOWS_MAX);
        tokio::time::advance(Duration::from_millis(100)).await;
        let more = came(10_000);
        assert!((399..=401).contains(&more), "{more}");
    }

    #[test]
    fn a_source_is_an_address_or_a_network() {
        let same = |one: &str, other: &str| {
            network(one.parse().unwrap()) == network(other.parse().unwrap())
        };
        assert!(
            same("2001:db8::1", "2001:db8::ffff:0:0:9") && same("192.0.2.1", "::ffff:192.0.2.1")
        );
        assert!(!same("2001:db8::1", "2001:db8:0:1::1") && !same("192.0.2.1", "192.0.2.2"));
    }
}
