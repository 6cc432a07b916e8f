//! A server's sessions, how many there may be, and which gives way to a new one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::door::Source;
use super::greeting::Agreed;
use super::owner::{Holder, Owner};
use super::shared::Shared;
use crate::proto::{Code, SessionId, limits};

/// How many sessions a server keeps at once, including those waiting for a lane to come back. At
/// the limit, one without lanes gives way to a new one; if all have lanes, the new one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// In all.
    pub all: usize,
    /// Created from one source: an IPv4 address, or an IPv6 /64. From an IPv6 /56 or /48 twice or
    /// three times as many.
    pub per_source: usize,
    /// Created with one client key.
    pub per_client: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            all: limits::SESSIONS_MAX,
            per_source: limits::SESSIONS_PER_SOURCE_MAX,
            per_client: limits::SESSIONS_PER_CLIENT_MAX,
        }
    }
}

/// A session, and what a JOIN must match.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) agreed: Agreed,
    pub(super) owner: Owner,
    pub(super) shared: Weak<Shared>,
    /// How many handshakes its lanes have given back to their sources.
    pub(super) given_back: usize,
}

impl Known {
    /// Whether one more lane's handshake may be given back. At most as many as a session may have
    /// lanes: one whose lanes come and go endlessly pays for handshakes like a stranger.
    pub(super) fn may_give_back(&mut self) -> bool {
        let may = self.given_back < limits::LANES_MAX;
        self.given_back += usize::from(may);
        may
    }
}

/// The table itself. Its lock is a leaf: no session is inspected under it.
#[derive(Debug)]
pub(super) struct Table {
    limits: SessionLimits,
    known: Mutex<BTreeMap<SessionId, Known>>,
}

/// Which bound keeps a session out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Client,
    /// The source's own, or that of one of its networks.
    Source(Source),
    All,
}

impl Full {
    fn reason(self) -> &'static str {
        match self {
            Self::Client => "too many sessions of this client",
            Self::Source(_) => "too many sessions from this address",
            Self::All => "too many sessions",
        }
    }

    /// Whether a session of `other`'s takes room that one of `owner`'s lacks.
    fn is_held_by(self, other: &Owner, owner: &Owner) -> bool {
        match self {
            Self::Client => other.client == owner.client,
            Self::Source(network) => network.has(other.source),
            Self::All => true,
        }
    }
}

/// A session without lanes.
#[derive(Clone, Copy, Debug)]
struct Idle {
    id: SessionId,
    owner: Owner,
    has_streams: bool,
    since: Instant,
}

impl Table {
    pub(super) fn new(limits: SessionLimits) -> Self {
        Self { limits, known: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The living sessions. The table holds none of them open.
    pub(super) fn living(&self) -> Vec<Arc<Shared>> {
        self.lock().values().filter_map(|known| known.shared.upgrade()).collect()
    }

    /// Adds a session; if it would be one too many, others end to make room, as long as any may.
    ///
    /// # Errors
    /// Why there is no room.
    pub(super) fn insert(&self, id: SessionId, new: &Known) -> Result<(), &'static str> {
        loop {
            let full = {
                let mut known = self.lock();
                match too_many(known.values().map(|known| &known.owner), &new.owner, &self.limits) {
                    Some(full) => full,
                    None => {
                        known.insert(id, new.clone());
                        return Ok(());
                    }
                }
            };
            self.make_way(full, &new.owner).ok_or(full.reason())?;
        }
    }

    /// Ends a session whose room one of `owner`'s needs. `None`: none may end.
    fn make_way(&self, full: Full, owner: &Owner) -> Option<()> {
        let out = who_gives_way(&self.idle(full, owner), owner)?;
        let shared = self.lock().get(&out).and_then(|known| known.shared.upgrade());
        let still_idle = shared.is_none_or(|shared| {
            shared.with(|state, _| {
                let idle = state.core.alone_since().is_some() && state.kept == 0;
                if idle {
                    state.core.close(Code::EXCESSIVE_LOAD);
                }
                idle
            })
        });
        if still_idle {
            tracing::info!(session = %out, "a session without lanes gives way to a new one");
            self.lock().remove(&out);
        }
        // Otherwise a lane has come back meanwhile: the next look will see that.
        Some(())
    }

    /// The sessions without lanes that take room `owner` lacks.
    fn idle(&self, full: Full, owner: &Owner) -> Vec<Idle> {
        let holding = |(id, known): (&SessionId, &Known)| {
            full.is_held_by(&known.owner, owner).then(|| (*id, known.owner, known.shared.upgrade()))
        };
        let held: Vec<_> = self.lock().iter().filter_map(holding).collect();
        let alone = |(id, owner, shared): (SessionId, Owner, Option<Arc<Shared>>)| {
            let idle = |since, has_streams| Idle { id, owner, has_streams, since };
            // A dead session is about to be forgotten.
            let Some(shared) = shared else { return Some(idle(super::clock::now(), false)) };
            shared.peek(|state| {
                // Others still connect to its listeners.
                if state.kept > 0 {
                    return None;
                }
                let since = state.core.alone_since()?;
                Some(idle(since, state.core.stream_count() > 0))
            })
        };
        held.into_iter().filter_map(alone).collect()
    }
}

/// Which bound has no room for one more session of `owner`'s: the narrowest, as whoever gives way
/// there makes room in the wider ones, too.
fn too_many<'a>(
    sessions: impl Iterator<Item = &'a Owner>,
    owner: &Owner,
    limits: &SessionLimits,
) -> Option<Full> {
    let (mut all, mut of_client) = (0usize, 0usize);
    let mut of_source: Vec<_> = owner.source.shares().map(|share| (share, 0usize)).collect();
    for other in sessions {
        all += 1;
        of_client += usize::from(owner.client.is_some() && other.client == owner.client);
        for ((network, _), count) in &mut of_source {
            *count += usize::from(network.has(other.source));
        }
    }
    let full = |((_, times), count): &&((Source, u32), usize)| {
        *count >= limits.per_source.saturating_mul(*times as usize)
    };
    let source = of_source.iter().find(full).map(|((network, _), _)| Full::Source(*network));
    match source {
        _ if of_client >= limits.per_client => Some(Full::Client),
        Some(full) => Some(full),
        None => (all >= limits.all).then_some(Full::All),
    }
}

/// Which idle session gives way: strangers' first; then those of whoever keeps most of them; then
/// one without streams; then the one that has waited longest. A stranger never takes a listed
/// client's place.
fn who_gives_way(idle: &[Idle], newcomer: &Owner) -> Option<SessionId> {
    let mut kept = BTreeMap::<Holder, usize>::new();
    for one in idle {
        *kept.entry(one.owner.holder()).or_default() += 1;
    }
    let may_end = idle.iter().filter(|one| newcomer.listed || !one.owner.listed);
    let first = may_end.min_by_key(|one| {
        let most = Reverse(kept.get(&one.owner.holder()).copied());
        (one.owner.listed, most, one.has_streams, one.since)
    });
    first.map(|one| one.id)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;
    use crate::trust::Fingerprint;

    fn source(number: u32) -> Source {
        Source::of(Some(IpAddr::V4(number.into())))
    }

    fn stranger(number: u32) -> Owner {
        Owner { client: None, source: source(number), listed: false }
    }

    fn key(byte: u8) -> Option<Fingerprint> {
        Some(Fingerprint::from_bytes([byte; 32]))
    }

    fn listed(byte: u8) -> Owner {
        Owner { client: key(byte), source: source(1_000 + u32::from(byte)), listed: true }
    }

    /// The number of the one that gives way, among sessions listed in the order they began to wait.
    fn first(idle: &[(Owner, bool)], newcomer: Owner) -> Option<u8> {
        let begun = super::super::clock::now();
        let number = |(nth, &(owner, has_streams)): (usize, &(Owner, bool))| Idle {
            id: SessionId::new([nth as u8; SessionId::LEN]),
            owner,
            has_streams,
            since: begun + Duration::from_secs(nth as u64),
        };
        let idle: Vec<_> = idle.iter().enumerate().map(number).collect();
        who_gives_way(&idle, &newcomer).map(|id| id.as_bytes()[0])
    }

    #[test]
    fn sessions_are_bounded_by_client_and_by_source() {
        let limits = SessionLimits::default();
        let owner = |client, number| Owner { client, source: source(number), listed: false };
        let too_many = |owners: &[Owner], owner| too_many(owners.iter(), &owner, &limits);
        let own = vec![owner(key(1), 1); limits.per_client];
        assert_eq!(too_many(&own[1..], owner(key(1), 1)), None);
        assert_eq!(too_many(&own, owner(key(1), 2)), Some(Full::Client));
        assert_eq!(too_many(&own, owner(key(2), 2)), None);
        assert_eq!(too_many(&own, owner(None, 1)), None);
        let near = vec![owner(None, 1); limits.per_source];
        assert_eq!(too_many(&near, owner(key(2), 1)), Some(Full::Source(source(1))));
        assert_eq!(too_many(&near, owner(None, 2)), None);
        let v6 = |number: usize| Owner {
            source: Source::of(Some(
                format!("2001:db8:1:1{:02x}::1", number % 256).parse().unwrap(),
            )),
            ..owner(None, 0)
        };
        let wide: Vec<_> = (0..2 * limits.per_source).map(v6).collect();
        assert!(
            matches!(too_many(&wide, v6(77)), Some(Full::Source(network)) if network.has(v6(78).source))
        );
        assert_eq!(too_many(&wide[1..], v6(77)), None);
        let all: Vec<_> = (0..limits.all as u32).map(|n| owner(None, n)).collect();
        assert_eq!(too_many(&all, owner(key(1), u32::MAX)), Some(Full::All));
        assert_eq!(too_many(&all[1..], owner(key(1), u32::MAX)), None);
    }

    #[test]
    fn strangers_give_way_before_listed_clients_whatever_either_has() {
        let many =
            [(listed(1), false), (listed(1), false), (listed(1), false), (stranger(1), true)];
        assert_eq!(first(&many, listed(2)), Some(3));
        assert_eq!(first(&many, stranger(2)), Some(3));
    }

    #[test]
    fn whoever_keeps_most_gives_way_and_an_open_stream_protects_nobody() {
        let many = [(stranger(1), false), (stranger(2), true), (stranger(2), true)];
        assert_eq!(first(&many, stranger(3)), Some(1));
    }

    #[test]
    fn of_one_holder_those_without_streams_go_first_and_then_who_waited_longest() {
        let one = [(stranger(1), true), (stranger(1), false), (stranger(1), false)];
        assert_eq!(first(&one, stranger(2)), Some(1));
        let all_with = [(stranger(1), true), (stranger(1), true)];
        assert_eq!(first(&all_with, stranger(2)), Some(0));
    }

    /// A stranger's keys cost nothing: whatever comes from one place counts as one stranger.
    #[test]
    fn strangers_are_told_apart_by_where_they_come_from_and_listed_clients_by_their_keys() {
        let keyed =
            |byte, number| Owner { client: key(byte), source: source(number), listed: false };
        let strangers = [(keyed(9, 5), false), (keyed(1, 1), false), (keyed(2, 1), false)];
        assert_eq!(first(&strangers, stranger(3)), Some(1));
        let at = |byte, number| Owner { source: source(number), ..listed(byte) };
        let clients = [(at(9, 7), false), (at(8, 7), false), (at(1, 1), false), (at(1, 2), false)];
        assert_eq!(first(&clients, listed(3)), Some(2));
    }

    #[test]
    fn a_listed_client_gives_way_to_another_and_to_no_stranger() {
        let one = [(listed(1), false)];
        assert_eq!(first(&one, listed(2)), Some(0));
        assert_eq!(first(&one, stranger(2)), None);
        assert_eq!(first(&[], listed(2)), None);
    }
}
