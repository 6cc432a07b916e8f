//! Credit in absolute offsets (RFC 9000, section 4), and the size of the window behind it.

use std::time::{Duration, Instant};

/// What the peer lets this end send.
#[derive(Clone, Copy, Debug)]
pub(in crate::proto) struct SendCredit {
    /// Invariant: used <= max.
    used: u64,
    max: u64,
}

impl SendCredit {
    pub(in crate::proto) fn new(max: u64) -> Self {
        Self { used: 0, max }
    }

    pub(in crate::proto) fn used(&self) -> u64 {
        self.used
    }

    pub(in crate::proto) fn max(&self) -> u64 {
        self.max
    }

    pub(in crate::proto) fn left(&self) -> u64 {
        self.max.saturating_sub(self.used)
    }

    pub(in crate::proto) fn take(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.left());
        self.used = self.used.saturating_add(bytes);
    }

    /// Credit only grows: frames may overtake each other on different lanes.
    pub(in crate::proto) fn raise(&mut self, max: u64) -> bool {
        let news = max > self.max;
        self.max = self.max.max(max);
        news
    }
}

/// What this end lets the peer send: `window` bytes beyond what was consumed. The window doubles
/// when it was used up faster than credit can come back, so that it finds the bandwidth-delay
/// product by itself; a reader that does not read never sees it grow.
#[derive(Clone, Copy, Debug)]
pub(in crate::proto) struct ReceiveWindow {
    /// The limit the peer knows. Invariant: received <= announced.
    announced: u64,
    received: u64,
    /// Invariant: consumed <= received.
    consumed: u64,
    window: u64,
    window_max: u64,
    /// Since when this window has been measured, and what was consumed then.
    epoch: Option<(Instant, u64)>,
}

/// The peer sent more than it was allowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proto) struct Overrun;

impl ReceiveWindow {
    pub(in crate::proto) fn new(window: u64, window_max: u64) -> Self {
        Self {
            announced: window,
            received: 0,
            consumed: 0,
            window,
            window_max: window_max.max(window),
            epoch: None,
        }
    }

    /// Counts bytes (not counted before) against the credit.
    pub(in crate::proto) fn receive(&mut self, bytes: u64) -> Result<(), Overrun> {
        let received = self.received.checked_add(bytes).ok_or(Overrun)?;
        if received > self.announced {
            return Err(Overrun);
        }
        self.received = received;
        Ok(())
    }

    pub(in crate::proto) fn received(&self) -> u64 {
        self.received
    }

    pub(in crate::proto) fn consumed(&self) -> u64 {
        self.consumed
    }

    pub(in crate::proto) fn announced(&self) -> u64 {
        self.announced
    }

    /// Bytes received (or skipped over) and not consumed.
    pub(in crate::proto) fn unconsumed(&self) -> u64 {
        self.received.saturating_sub(self.consumed)
    }

    pub(in crate::proto) fn window(&self) -> u64 {
        self.window
    }

    /// Counts bytes the application has taken.
    pub(in crate::proto) fn consume(&mut self, bytes: u64) {
        self.consumed = self.consumed.saturating_add(bytes);
        debug_assert!(self.consumed <= self.received);
    }

    /// Whether enough was consumed to be worth telling the peer: a quarter of the window.
    pub(in crate::proto) fn update_due(&self) -> bool {
        let target = self.consumed.saturating_add(self.window);
        target.saturating_sub(self.announced) >= (self.window / 4).max(1)
    }

    /// Doubles the window if half of it was consumed within a round trip: the peer would wait for
    /// credit otherwise. `room` bounds the growth. Returns the bytes it grew by.
    pub(in crate::proto) fn tune(&mut self, now: Instant, round_trip: Duration, room: u64) -> u64 {
        let (since, consumed_then) = *self.epoch.get_or_insert((now, self.consumed));
        let consumed = self.consumed.saturating_sub(consumed_then);
        if consumed < self.window / 2 {
            return 0;
        }
        let took = now.saturating_duration_since(since);
        self.epoch = Some((now, self.consumed));
        if took > round_trip.saturating_mul(2) {
            return 0;
        }
        self.double(room)
    }

    /// Doubles the window if it is nearly used up although the reader has taken nearly all it could:
    /// what fills it then waits for bytes of a slower lane. `ready` bytes wait for the reader.
    pub(in crate::proto) fn tune_reordered(&mut self, ready: u64, room: u64) -> u64 {
        let left = self.consumed.saturating_add(self.window).saturating_sub(self.received);
        let few = self.window / 4;
        if left > few || ready > few {
            return 0;
        }
        self.double(room)
    }

    fn double(&mut self, room: u64) -> u64 {
        let grown = self.window.saturating_mul(2).min(self.window_max);
        let growth = grown.saturating_sub(self.window).min(room);
        self.window = self.window.saturating_add(growth);
        growth
    }

    /// Sets the window from outside. One that becomes smaller is kept to as bytes are consumed: what was announced stays.
    pub(in crate::proto) fn resize(&mut self, window: u64) {
        self.window = window.min(self.window_max);
    }

    /// Bytes that the peer may still make this end keep: unread ones, and those its credit is left for.
    pub(in crate::proto) fn promised(&self) -> u64 {
        self.announced.saturating_sub(self.consumed)
    }

    /// Whether the peer has used half of the window and more.
    pub(in crate::proto) fn is_half_used(&self) -> bool {
        self.announced.saturating_sub(self.received) <= self.window / 2
    }

    /// The new limit to announce; it is taken as announced from here on.
    pub(in crate::proto) fn announce(&mut self) -> u64 {
        self.announced = self.announced.max(self.consumed.saturating_add(self.window));
        self.announced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_grows_only_for_a_fast_reader() {
        let start = crate::proto::testing::start();
        let rtt = Duration::from_millis(10);
        let mut fast = ReceiveWindow::new(1000, 8000);
        let mut slow = fast;
        for step in 1..20u32 {
            for (window, pace) in [(&mut fast, 1), (&mut slow, 100)] {
                let bytes = window.announced - window.received;
                window.receive(bytes).unwrap();
                window.consume(bytes);
                window.tune(start + rtt * step * pace, rtt, u64::MAX);
                window.announce();
            }
        }
        assert_eq!((fast.window(), slow.window()), (8000, 1000));
    }

    #[test]
    fn a_window_grows_when_it_is_full_of_what_waits_for_a_slow_lane() {
        let mut window = ReceiveWindow::new(1000, 4000);
        window.receive(700).unwrap();
        assert_eq!(window.tune_reordered(0, u64::MAX), 0, "there is room");
        window.receive(100).unwrap();
        assert_eq!(window.tune_reordered(800, u64::MAX), 0, "the reader does not read");
        assert_eq!(window.tune_reordered(0, 0), 0, "the session has no more");
        assert_eq!(window.tune_reordered(0, u64::MAX), 1000);
        assert_eq!(window.tune_reordered(0, u64::MAX), 0, "there is room again");
        assert!(window.update_due());
        assert_eq!(window.announce(), 2000);
    }

    #[test]
    fn more_than_announced_is_an_overrun() {
        let mut window = ReceiveWindow::new(10, 10);
        assert_eq!(window.receive(10), Ok(()));
        assert_eq!(window.receive(1), Err(Overrun));
        window.consume(4);
        assert!(window.update_due());
        assert_eq!(window.announce(), 14);
        assert_eq!(window.receive(4), Ok(()));
        assert_eq!(window.receive(u64::MAX), Err(Overrun));
    }
}
