//! Credit in absolute offsets (RFC 9000, section 4), and the size of the window behind it.

use std::time::{Duration, Instant};

use crate::proto::count::{end_of, span};

/// What the peer lets this end send.
#[derive(Clone, Copy, Debug)]
pub struct SendCredit {
    /// Invariant: used <= max.
    used: u64,
    max: u64,
}

impl SendCredit {
    pub fn new(max: u64) -> Self {
        Self { used: 0, max }
    }

    pub fn used(&self) -> u64 {
        self.used
    }

    pub fn max(&self) -> u64 {
        self.max
    }

    pub fn left(&self) -> u64 {
        span(self.used, self.max)
    }

    pub fn take(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.left());
        self.used = end_of(self.used, bytes);
    }

    /// Credit only grows: frames may overtake each other on different lanes.
    pub fn raise(&mut self, max: u64) -> bool {
        let news = max > self.max;
        self.max = self.max.max(max);
        news
    }
}

/// What this end lets the peer send: some way beyond what was consumed. The wish is decided here:
/// it doubles when used up faster than credit can return, and so finds the bandwidth-delay product;
/// a reader that does not read never makes it grow. How much of it is granted depends on what all
/// others hold, and is decided elsewhere (`streams::room`).
#[derive(Clone, Copy, Debug)]
pub struct ReceiveWindow {
    /// The limit the peer knows. Invariant: received <= announced.
    announced: u64,
    received: u64,
    /// Invariant: consumed <= received.
    consumed: u64,
    /// How far beyond what was consumed the peer may be, as last granted.
    window: u64,
    wish: u64,
    wish_max: u64,
    /// What the peer could send when it was last told.
    lead: u64,
    /// Since when the window's use has been measured, and what was consumed then.
    epoch: Option<(Instant, u64)>,
}

/// The peer sent more than it was allowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

impl ReceiveWindow {
    /// `announced` is what the peer knows initially.
    pub fn new(announced: u64, wish: u64, wish_max: u64) -> Self {
        Self {
            announced,
            received: 0,
            consumed: 0,
            window: announced,
            wish,
            wish_max: wish_max.max(wish),
            lead: announced,
            epoch: None,
        }
    }

    /// Counts bytes (not counted before) against the credit.
    pub fn receive(&mut self, bytes: u64) -> Result<(), Overrun> {
        let received = self.received.checked_add(bytes).ok_or(Overrun)?;
        if received > self.announced {
            return Err(Overrun);
        }
        self.received = received;
        Ok(())
    }

    pub fn received(&self) -> u64 {
        self.received
    }

    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    pub fn announced(&self) -> u64 {
        self.announced
    }

    /// Bytes received (or skipped) and not consumed.
    pub fn unconsumed(&self) -> u64 {
        span(self.consumed, self.received)
    }

    /// Bytes that the peer may still make this end keep: unread ones, and remaining credit.
    pub fn promised(&self) -> u64 {
        span(self.consumed, self.announced)
    }

    /// How far beyond what was consumed the peer may be, as last granted.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// What would be granted if there were room for everything.
    pub fn wish(&self) -> u64 {
        self.wish
    }

    /// Counts bytes the application has taken.
    pub fn consume(&mut self, bytes: u64) {
        self.consumed = end_of(self.consumed, bytes);
        debug_assert!(self.consumed <= self.received);
    }

    /// Whether to tell the peer that it may be `window` bytes ahead: it has used a quarter of what
    /// it could send when last told, and there is something to tell. Measured by what it has left,
    /// not by what was consumed: bytes that nobody reads must not stop those that somebody reads.
    pub fn update_due(&self, window: u64) -> bool {
        let left = span(self.received, self.announced);
        let gain = end_of(self.consumed, window).saturating_sub(self.announced);
        let used_some = left <= span(self.lead / 4, self.lead);
        // Not for each of many small reads while the buffer is full.
        used_some && gain >= (window / 16).max(1)
    }

    /// Doubles the wish if half of the window was consumed within two round trips: otherwise the
    /// peer would wait for credit. `true`: it was, and the peer should be told soon.
    pub fn tune(&mut self, now: Instant, round_trip: Duration) -> bool {
        let (since, consumed_then) = *self.epoch.get_or_insert((now, self.consumed));
        let consumed = span(consumed_then, self.consumed);
        if consumed < (self.window / 2).max(1) {
            return false;
        }
        let took = now.saturating_duration_since(since);
        self.epoch = Some((now, self.consumed));
        let fast = took <= round_trip.saturating_mul(2);
        if fast {
            self.double();
        }
        fast
    }

    /// Doubles the wish if the window is nearly used up although the reader has taken nearly all it
    /// could: the rest then waits for a slower lane's bytes. `ready` bytes wait for the reader.
    pub fn tune_reordered(&mut self, ready: u64) -> bool {
        let left = end_of(self.consumed, self.window).saturating_sub(self.received);
        let few = self.window / 4;
        left <= few && ready <= few && self.double()
    }

    /// Wishing for more is useless while less than the wish is granted.
    fn double(&mut self) -> bool {
        let grown = self.wish.saturating_mul(2).min(self.wish_max);
        let grows = self.window >= self.wish && grown > self.wish;
        if grows {
            self.wish = grown;
        }
        grows
    }

    /// Wishes for at least this much, as far as allowed.
    pub fn wish_for(&mut self, wish: u64) {
        self.wish = self.wish.max(wish.min(self.wish_max));
    }

    /// The new limit to announce, with `window` bytes granted; counts as announced from here on.
    pub fn announce(&mut self, window: u64) -> u64 {
        self.window = window;
        self.announced = self.announced.max(end_of(self.consumed, window));
        self.lead = span(self.received, self.announced);
        self.announced
    }

    /// The peer knows, other than from an explicit limit, that it may send up to `max`.
    pub fn raise_to(&mut self, max: u64) {
        if max > self.announced {
            self.announced = max;
            self.lead = span(self.received, max);
            self.window = self.window.max(span(self.consumed, max));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_only_for_a_fast_reader() {
        let start = crate::proto::testing::start();
        let rtt = Duration::from_millis(10);
        let mut fast = ReceiveWindow::new(1000, 1000, 8000);
        let mut slow = fast;
        for step in 1..20u32 {
            for (window, pace) in [(&mut fast, 1), (&mut slow, 100)] {
                let bytes = window.announced - window.received;
                window.receive(bytes).unwrap();
                window.consume(bytes);
                window.tune(start + rtt * step * pace, rtt);
                window.announce(window.wish());
            }
        }
        assert_eq!((fast.window(), slow.window()), (8000, 1000));
    }

    #[test]
    fn nobody_wishes_for_more_than_is_granted_anyway() {
        let start = crate::proto::testing::start();
        let mut window = ReceiveWindow::new(100, 1000, 8000);
        for _ in 0..10 {
            window.receive(100).unwrap();
            window.consume(100);
            window.tune(start, Duration::from_millis(10));
            window.announce(100);
        }
        assert_eq!(window.wish(), 1000);
    }

    #[test]
    fn a_window_grows_when_it_is_full_of_what_waits_for_a_slow_lane() {
        let mut window = ReceiveWindow::new(1000, 1000, 4000);
        window.receive(700).unwrap();
        assert!(!window.tune_reordered(0), "there is room");
        window.receive(100).unwrap();
        assert!(!window.tune_reordered(800), "the reader does not read");
        assert!(window.tune_reordered(0));
        assert!(!window.tune_reordered(0), "it has not been granted yet");
        assert_eq!(window.announce(2000), 2000);
        assert!(!window.tune_reordered(0), "there is room again");
    }

    #[test]
    fn the_peer_is_told_when_it_has_used_a_quarter_of_what_it_had() {
        let mut window = ReceiveWindow::new(1000, 1000, 1000);
        window.receive(249).unwrap();
        window.consume(249);
        assert!(!window.update_due(1000));
        window.receive(1).unwrap();
        window.consume(1);
        assert!(window.update_due(1000));
        assert_eq!(window.announce(1000), 1250);
        assert!(!window.update_due(1000), "it has just been told");
    }

    #[test]
    fn what_nobody_reads_does_not_keep_the_rest_from_moving() {
        // Nine tenths are held by streams nobody reads; the rest keeps circulating.
        let mut window = ReceiveWindow::new(1000, 1000, 1000);
        window.receive(900).unwrap();
        for _ in 0..100 {
            let left = window.announced() - window.received();
            window.receive(left).unwrap();
            window.consume(left);
            assert!(window.update_due(1000), "{window:?}");
            window.announce(1000);
        }
        assert_eq!(window.consumed(), 10_000);
    }

    #[test]
    fn more_than_announced_is_an_overrun() {
        let mut window = ReceiveWindow::new(10, 10, 10);
        assert_eq!(window.receive(10), Ok(()));
        assert_eq!(window.receive(1), Err(Overrun));
        window.consume(4);
        assert!(window.update_due(10));
        assert_eq!(window.announce(10), 14);
        assert_eq!(window.receive(4), Ok(()));
        assert_eq!(window.receive(u64::MAX), Err(Overrun));
    }
}
