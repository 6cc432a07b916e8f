//! What the peer was promised, and the rule by which one stream's part of it grows.

use crate::proto::config::Config;
use crate::proto::count::{Count, span};

/// What was promised.
#[derive(Debug)]
pub(super) struct Room {
    /// The window every stream starts with, and that of streams covered by EARLY_STREAMS.
    pub(super) first: u64,
    pub(super) early: u64,
    /// Promised beyond `first` each: to open streams, and to early ones.
    pub(super) beyond: Count,
    /// Whether it was reported that paused readers hold the session; and how much has to be
    /// received before the next check.
    pub(super) told: bool,
    pub(super) check_at: u64,
}

impl Room {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            first: config.first_window(),
            early: config.early_window(),
            beyond: Count::ZERO,
            told: false,
            check_at: 0,
        }
    }

    /// What an early stream is promised beyond the window every stream starts with.
    pub(super) fn early_beyond(&self) -> u64 {
        span(self.first, self.early)
    }
}

/// The largest window for one stream, between its own `first` bytes and `wish`, while others use
/// `used` of `room` bytes. Half of the room is for fast readers. As the other half fills, the
/// largest window is halved again and again, from `max` down to `first` when nothing is left: many
/// early streams leave something for later ones.
pub(super) fn share(wish: u64, first: u64, max: u64, used: u64, room: u64) -> u64 {
    let halvings = max.checked_div(first).and_then(u64::checked_ilog2).unwrap_or(0).max(1);
    let scarce = (room / 2).max(1);
    let left = room.saturating_sub(used);
    let mut window = wish;
    while window > first {
        let used_then = used.saturating_add(span(first, window)); // a wish may be anything
        let over = used_then.saturating_sub(room / 2);
        let halved = u128::from(over).saturating_mul(halvings.into()).checked_div(scarce.into());
        let most = max >> u32::try_from(halved.unwrap_or(0)).unwrap_or(u32::MAX).min(63);
        if window <= most && span(first, window) <= left {
            break;
        }
        window /= 2;
    }
    window.max(first)
}
