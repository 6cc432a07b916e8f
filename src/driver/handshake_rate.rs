//! How often one source may have the server shake hands.
//!
//! A handshake costs the server a signature and two key exchanges before it knows whom it is for;
//! it can cost the client less. Connections beyond the rate are dropped, which costs next to
//! nothing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::door::Source;
use crate::proto::limits::{
    HANDSHAKE_SOURCES_MAX, HANDSHAKES_PER_SOURCE_BURST, HANDSHAKES_PER_SOURCE_PER_SECOND,
};

/// What one handshake costs of its source's allowance.
const COST: Duration = Duration::from_micros(1_000_000 / HANDSHAKES_PER_SOURCE_PER_SECOND as u64);

/// A token bucket per source.
#[derive(Debug, Default)]
pub(super) struct HandshakeRate {
    sources: Mutex<BTreeMap<Source, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// When it will be full again if nothing more is taken. Full buckets are not kept.
    full_at: Instant,
    /// Somebody was turned away since it was last full.
    exceeded: bool,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Granted,
    /// One too many: its source's first for a while, or a later one.
    Refused {
        first: bool,
    },
}

impl HandshakeRate {
    /// Whether a handshake with `source` is granted. A source without an address is this process,
    /// and is always granted one.
    pub(super) fn take(&self, source: Source, now: Instant) -> Turn {
        if source.is_nowhere() {
            return Turn::Granted;
        }
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = source.shares().filter(|(share, _)| !sources.contains_key(share)).count();
        if sources.len() + missing > HANDSHAKE_SOURCES_MAX {
            make_room(&mut sources, now);
        }
        for (share, times) in source.shares() {
            let new = Bucket { full_at: now, exceeded: false };
            let bucket = sources.entry(share).or_insert(new);
            if bucket.full_at <= now {
                *bucket = new;
            }
            let full_at = bucket.full_at + COST / times;
            if full_at.duration_since(now) > COST * HANDSHAKES_PER_SOURCE_BURST {
                let first = !std::mem::replace(&mut bucket.exceeded, true);
                return Turn::Refused { first };
            }
        }
        for (share, times) in source.shares() {
            if let Some(bucket) = sources.get_mut(&share) {
                bucket.full_at += COST / times;
            }
        }
        Turn::Granted
    }

    /// A lane from `source` has proven that it belongs to a session: its handshake no longer
    /// counts.
    pub(super) fn give_back(&self, source: Source) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        for (share, times) in source.shares() {
            if let Some(bucket) = sources.get_mut(&share)
                && let Some(full_at) = bucket.full_at.checked_sub(COST / times)
            {
                bucket.full_at = full_at;
            }
        }
    }
}

/// Forgets sources with a full allowance; failing that, the half that has used least, so that this
/// is rare and does not pardon sources that use theirs up.
fn make_room(sources: &mut BTreeMap<Source, Bucket>, now: Instant) {
    sources.retain(|_, bucket| bucket.full_at > now);
    if sources.len() >= HANDSHAKE_SOURCES_MAX {
        let mut ends: Vec<_> = sources.values().map(|bucket| bucket.full_at).collect();
        let half = ends.len() / 2;
        let median = *ends.select_nth_unstable(half).1;
        let mut excess = half;
        sources.retain(|_, bucket| {
            let goes = excess > 0 && bucket.full_at <= median;
            excess -= usize::from(goes);
            !goes
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::driver::clock;

    fn source(number: u32) -> Source {
        Source::of(Some(IpAddr::V4(number.into())))
    }

    /// How many of `tries` handshakes are granted.
    fn granted(rate: &HandshakeRate, source: Source, now: Instant, tries: u32) -> u32 {
        let granted = (0..tries).filter(|_| rate.take(source, now) == Turn::Granted);
        granted.count() as u32
    }

    #[test]
    fn one_source_has_us_shake_hands_only_so_often() {
        let (rate, now) = (HandshakeRate::default(), clock::now());
        let greedy = granted(&rate, source(1), now, 10_000);
        assert_eq!(greedy, HANDSHAKES_PER_SOURCE_BURST);
        assert_eq!(rate.take(source(1), now), Turn::Refused { first: false });
        // Another source does not suffer.
        assert_eq!(granted(&rate, source(2), now, 100), 100);
        let later = now + Duration::from_secs(1);
        assert_eq!(granted(&rate, source(1), later, 10_000), HANDSHAKES_PER_SOURCE_PER_SECOND);
        // A refusal does not make the wait longer.
        let rested = later + COST * HANDSHAKES_PER_SOURCE_BURST;
        assert_eq!(granted(&rate, source(1), rested, 10_000), HANDSHAKES_PER_SOURCE_BURST);
        let nowhere = Source::of(None);
        assert_eq!(granted(&rate, nowhere, now, 10_000), 10_000);
    }

    #[test]
    fn a_network_of_many_sources_has_us_shake_hands_only_so_often() {
        let of = |third: u32, fourth: u32| {
            Source::of(Some(format!("2001:db8:{third:x}:{fourth:x}::1").parse().unwrap()))
        };
        let (rate, now) = (HandshakeRate::default(), clock::now());
        let of_56: u32 = (0..256).map(|number| granted(&rate, of(1, number), now, 100)).sum();
        assert_eq!(of_56, 2 * HANDSHAKES_PER_SOURCE_BURST);
        let rest: u32 = (256..9_000).map(|number| granted(&rate, of(1, number), now, 1)).sum();
        // Rounding a third of a nanosecond costs at most one handshake.
        assert!((of_56 + rest).abs_diff(3 * HANDSHAKES_PER_SOURCE_BURST) <= 1, "{rest}");
        assert_eq!(granted(&rate, of(2, 0), now, 100), 100);
    }

    #[test]
    fn who_has_proven_something_pays_nothing() {
        let (rate, now) = (HandshakeRate::default(), clock::now());
        for number in 0..5_000 {
            assert_eq!(rate.take(source(1), now), Turn::Granted, "{number}");
            rate.give_back(source(1));
        }
        // No more comes back than was taken.
        for _ in 0..100 {
            rate.give_back(source(1));
        }
        let later = now + Duration::from_secs(100);
        assert_eq!(granted(&rate, source(1), later, 10_000), HANDSHAKES_PER_SOURCE_BURST);
    }

    #[test]
    fn the_first_refusal_is_told_apart() {
        let (rate, now) = (HandshakeRate::default(), clock::now());
        let exceed = |now| {
            granted(&rate, source(1), now, HANDSHAKES_PER_SOURCE_BURST);
            [(); 3].map(|()| rate.take(source(1), now))
        };
        let expected = [true, false, false].map(|first| Turn::Refused { first });
        assert_eq!(exceed(now), expected);
        assert_eq!(exceed(now + COST), [Turn::Refused { first: false }; 3]);
        assert_eq!(exceed(now + COST * (HANDSHAKES_PER_SOURCE_BURST + 1)), expected);
    }

    #[test]
    fn sources_are_forgotten_and_the_greedy_ones_last() {
        let (rate, now) = (HandshakeRate::default(), clock::now());
        granted(&rate, source(0), now, 10_000);
        for number in 1..200_000 {
            assert_eq!(rate.take(source(number), now), Turn::Granted);
            assert!(rate.sources.lock().unwrap().len() <= HANDSHAKE_SOURCES_MAX);
        }
        assert_eq!(rate.take(source(0), now), Turn::Refused { first: false });
        // Later all of them are full again, and gone with the next arrival.
        let rested = now + COST * HANDSHAKES_PER_SOURCE_BURST;
        let left = HANDSHAKE_SOURCES_MAX - rate.sources.lock().unwrap().len();
        for number in 0..=left as u32 {
            rate.take(source(300_000 + number), rested);
        }
        assert_eq!(rate.sources.lock().unwrap().len(), left + 1);
    }
}
