//! How much a session may keep for its peer at every step.

use imux::proto::limits::{
    REORDER_OVERHEAD_BYTES, REORDER_OVERHEAD_FACTOR, SEGMENT_OVERHEAD_BYTES, UNACKED_WINDOWS,
};
use imux::proto::{Config, SessionStats};

/// Smaller windows count as this for data kept until acknowledged.
const UNACKED_WINDOW_MIN: u64 = 256 * 1024;

/// The bounds implied by a session's settings, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// For data waiting for earlier data, bookkeeping included.
    pub reorder: u64,
    /// For that plus unread and unacknowledged data.
    pub all: u64,
}

impl Bounds {
    pub fn new(config: &Config) -> Self {
        let window = config.session_window;
        // One piece may arrive on top of what was already too much.
        let reorder = window
            .saturating_mul(REORDER_OVERHEAD_FACTOR)
            .saturating_add(REORDER_OVERHEAD_BYTES + SEGMENT_OVERHEAD_BYTES);
        let unacked = window.max(UNACKED_WINDOW_MIN).saturating_mul(UNACKED_WINDOWS);
        Self { reorder, all: reorder.saturating_add(window).saturating_add(unacked) }
    }

    /// `kept`: what the session reports to keep in all.
    pub fn check(&self, stats: &SessionStats, kept: u64) -> Result<(), String> {
        if stats.reorder_bytes > self.reorder {
            return Err(format!("reorder memory of {} bytes", stats.reorder_bytes));
        }
        if kept > self.all {
            return Err(format!("memory of {kept} bytes, {} are allowed", self.all));
        }
        Ok(())
    }
}

/// What an end may keep unacknowledged for its peer, under a budget for many sessions.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    most: u64,
    /// What was held under a larger allowance: it shrinks as it is acknowledged and no longer
    /// grows.
    before: u64,
}

impl Held {
    pub fn unbounded() -> Self {
        Self { most: u64::MAX, before: 0 }
    }

    /// From now on `send` bytes are allowed, with `held` so far.
    pub fn allow(&mut self, send: u64, held: u64) {
        *self = Self { most: send, before: held };
    }

    pub fn check(&mut self, held: u64) -> Result<(), String> {
        let most = self.most.max(self.before);
        if held > most {
            return Err(format!("{held} bytes are held until acknowledged, {most} may be"));
        }
        self.before = self.before.min(held);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use imux::proto::{Session, Side};

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be made any other way")]
    fn stats(reorder_bytes: u64) -> SessionStats {
        let config = Config::default();
        let peer = config.params();
        let now = std::time::Instant::now();
        let session = Session::new(Side::Client, Arc::new(config), peer, 1, now);
        SessionStats { reorder_bytes, ..session.stats() }
    }

    #[test]
    fn the_bounds_follow_from_the_window() {
        let bounds = Bounds::new(&Config::default().with_session_window(1_000_000).unwrap());
        let overhead = 4_097 * 160;
        assert_eq!(bounds.reorder, 2_000_000 + overhead);
        assert_eq!(bounds.all, bounds.reorder + 1_000_000 + 2_000_000);
    }

    #[test]
    fn what_is_beyond_them_is_told_of() {
        let bounds = Bounds { reorder: 100, all: 500 };
        assert_eq!(bounds.check(&stats(100), 500), Ok(()));
        assert!(bounds.check(&stats(101), 0).unwrap_err().contains("reorder memory"));
        assert!(bounds.check(&stats(0), 501).unwrap_err().contains("501 bytes"));
    }

    #[test]
    fn what_was_held_when_more_was_allowed_does_not_grow() {
        let mut held = Held::unbounded();
        assert_eq!(held.check(500), Ok(()));
        held.allow(100, 500);
        assert_eq!(held.check(500), Ok(()));
        assert_eq!(held.check(300), Ok(()));
        held.check(301).unwrap_err();
        assert_eq!(held.check(50), Ok(()));
        assert_eq!(held.check(100), Ok(()), "so many are allowed");
        held.check(101).unwrap_err();
    }
}
