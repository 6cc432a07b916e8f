//! One direction of one path: pure arithmetic on given times, no clock and no device.
//!
//! ```text
//!   packet ─ lost? ─ queue full? ─▶ queue ─ rate ─▶ wire (delay) ─▶ due
//! ```
//!
//! A packet's service begins when it arrives or when the previous one is through, whichever is
//! later. This is computed from the given times, so that a late caller slows nothing down.

use std::collections::VecDeque;

use crate::stream::Rng;

/// The properties of one direction of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinkSpec {
    /// Bits of IP packets per second.
    pub rate_bps: f64,
    /// One-way delay in nanoseconds.
    pub delay_ns: u64,
    /// Share of packets lost at random, 0 to 1.
    pub loss: f64,
    /// Bytes that may wait for the link, the packet in transmission included.
    pub queue_bytes: u64,
}

/// What a direction has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LinkCounters {
    /// Packets delivered.
    pub packets: u64,
    /// Bytes delivered.
    pub bytes: u64,
    /// Packets lost at random.
    pub lost: u64,
    /// Packets that found the queue full.
    pub overflowed: u64,
    /// Packets swallowed while the path was silent.
    pub swallowed: u64,
    /// Most bytes that ever waited.
    pub queue_peak_bytes: u64,
}

/// One direction of one path, carrying packets of type `P`.
#[derive(Debug)]
pub struct Link<P> {
    spec: LinkSpec,
    rng: Rng,
    silent: bool,
    queue: VecDeque<(P, u64)>,
    /// Invariant: the sum of the sizes in `queue`.
    queued_bytes: u64,
    /// When the head of `queue` will be through; meaningless while `queue` is empty.
    head_done_ns: u64,
    /// In order of delivery; due times never decrease.
    wire: VecDeque<(u64, P)>,
    counters: LinkCounters,
}

impl<P> Link<P> {
    /// An idle link; `seed` decides which packets are lost.
    #[must_use]
    pub fn new(spec: LinkSpec, seed: u64) -> Self {
        Self {
            spec,
            rng: Rng::new(seed),
            silent: false,
            queue: VecDeque::new(),
            queued_bytes: 0,
            head_done_ns: 0,
            wire: VecDeque::new(),
            counters: LinkCounters::default(),
        }
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// Takes a packet of `size` bytes; false if it is dropped.
    pub fn enqueue(&mut self, now_ns: u64, packet: P, size: u64) -> bool {
        self.advance(now_ns);
        if self.silent {
            self.counters.swallowed += 1;
            return false;
        }
        if self.spec.loss > 0.0 && self.rng.unit() < self.spec.loss {
            self.counters.lost += 1;
            return false;
        }
        // A working link carries one packet, however small its queue.
        if !self.queue.is_empty() && self.queued_bytes + size > self.spec.queue_bytes {
            self.counters.overflowed += 1;
            return false;
        }
        if self.queue.is_empty() {
            self.head_done_ns = now_ns + self.service_ns(size);
        }
        self.queue.push_back((packet, size));
        self.queued_bytes += size;
        self.counters.queue_peak_bytes = self.counters.queue_peak_bytes.max(self.queued_bytes);
        true
    }

    /// The next packet that has arrived by `now_ns`, with its due time.
    pub fn take_due(&mut self, now_ns: u64) -> Option<(u64, P)> {
        self.advance(now_ns);
        if self.wire.front()?.0 > now_ns {
            return None;
        }
        self.wire.pop_front()
    }

    /// When the next packet will arrive.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        let queued = || (!self.queue.is_empty()).then(|| self.head_done_ns + self.spec.delay_ns);
        self.wire.front().map(|w| w.0).or_else(queued)
    }

    /// Sets the rate from now on, for the packet in transmission too.
    pub fn set_rate(&mut self, now_ns: u64, rate_bps: f64) {
        self.advance(now_ns);
        let left_ns = self.head_done_ns.saturating_sub(now_ns) as f64;
        self.head_done_ns = now_ns + (left_ns * self.spec.rate_bps / rate_bps) as u64;
        self.spec.rate_bps = rate_bps;
    }

    /// Sets the delay for packets not yet on the wire. After a cut they wait for those before them:
    /// a path does not reorder.
    pub fn set_delay(&mut self, now_ns: u64, delay_ns: u64) {
        self.advance(now_ns);
        self.spec.delay_ns = delay_ns;
    }

    /// Sets the share of losses.
    pub fn set_loss(&mut self, loss: f64) {
        self.spec.loss = loss;
    }

    /// While silent, it swallows everything, packets in flight included.
    pub fn set_silent(&mut self, silent: bool) {
        self.silent = silent;
        if silent {
            self.counters.swallowed += (self.queue.len() + self.wire.len()) as u64;
            self.queue.clear();
            self.wire.clear();
            self.queued_bytes = 0;
        }
    }

    fn service_ns(&self, size: u64) -> u64 {
        (size as f64 * 8e9 / self.spec.rate_bps).round() as u64
    }

    /// Moves onto the wire everything that is through the link by `now_ns`.
    fn advance(&mut self, now_ns: u64) {
        while self.head_done_ns <= now_ns {
            let Some((packet, size)) = self.queue.pop_front() else { return };
            self.queued_bytes -= size;
            self.counters.packets += 1;
            self.counters.bytes += size;
            let last_due = self.wire.back().map_or(0, |w| w.0);
            self.wire.push_back(((self.head_done_ns + self.spec.delay_ns).max(last_due), packet));
            if let Some((_, next)) = self.queue.front() {
                self.head_done_ns += self.service_ns(*next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// 12 Mbit/s: 1500 bytes take a millisecond.
    fn spec() -> LinkSpec {
        LinkSpec { rate_bps: 12e6, delay_ns: 10 * MS, loss: 0.0, queue_bytes: 4500 }
    }

    fn drain(link: &mut Link<u32>, until_ns: u64) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| link.take_due(until_ns)).collect()
    }

    #[test]
    fn packets_are_paced_and_delayed() {
        let mut link = Link::new(spec(), 1);
        for i in 0..3 {
            assert!(link.enqueue(0, i, 1500));
        }
        assert_eq!(link.next_due_ns(), Some(11 * MS));
        assert_eq!(link.take_due(11 * MS - 1), None);
        assert_eq!(drain(&mut link, 100 * MS), [(11 * MS, 0), (12 * MS, 1), (13 * MS, 2)]);
        assert_eq!(link.next_due_ns(), None);
        // After an idle time, the next one starts at its own arrival.
        link.enqueue(100 * MS, 9, 750);
        assert_eq!(link.next_due_ns(), Some(110 * MS + MS / 2));
    }

    #[test]
    fn a_late_caller_slows_nothing() {
        let mut link = Link::new(LinkSpec { queue_bytes: 1_000_000, ..spec() }, 1);
        let mut last = 0;
        for step in 0..100 {
            // Two packets arrive each 2 ms, which is exactly the rate; looked at only every 7 ms.
            link.enqueue(step * 2 * MS, 0, 1500);
            link.enqueue(step * 2 * MS, 0, 1500);
            if step % 7 == 0 {
                while let Some((due, _)) = link.take_due(step * 2 * MS) {
                    last = due;
                }
            }
        }
        while let Some((due, _)) = link.take_due(1000 * MS) {
            last = due;
        }
        assert_eq!(last, 200 * MS + 10 * MS);
    }

    #[test]
    fn a_full_queue_drops_the_newest() {
        let mut link = Link::new(spec(), 1);
        let taken: Vec<bool> = (0..5).map(|i| link.enqueue(0, i, 1500)).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        // One has left, so there is room for one more.
        assert!(link.enqueue(MS, 7, 1500));
        assert!(!link.enqueue(MS, 8, 1500));
        assert_eq!(link.counters().overflowed, 3);
        assert_eq!(link.counters().queue_peak_bytes, 4500);
        let mut tiny = Link::new(LinkSpec { queue_bytes: 1, ..spec() }, 1);
        assert!(tiny.enqueue(0, 1, 1500), "an idle link takes one packet whatever its queue");
    }

    #[test]
    fn losses_are_as_many_as_told_and_the_same_for_a_seed() {
        let run = |seed| {
            let mut link = Link::new(LinkSpec { loss: 0.02, ..spec() }, seed);
            (0..50_000).map(|i| link.enqueue(i * 2 * MS, 0, 1500)).collect::<Vec<_>>()
        };
        let lost = run(1).iter().filter(|taken| !**taken).count();
        assert!((900..1100).contains(&lost), "{lost} of 50000 at 2 %");
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }

    #[test]
    fn a_rate_step_holds_for_the_packet_under_way() {
        let mut link = Link::new(spec(), 1);
        link.enqueue(0, 1, 1500);
        link.enqueue(0, 2, 1500);
        link.set_rate(MS / 2, 1.2e6);
        assert_eq!(drain(&mut link, 1000 * MS), [(15 * MS + MS / 2, 1), (25 * MS + MS / 2, 2)]);
    }

    #[test]
    fn a_shorter_delay_does_not_reorder() {
        let mut link = Link::new(spec(), 1);
        link.enqueue(0, 1, 1500);
        link.set_delay(2 * MS, MS);
        link.enqueue(2 * MS, 2, 1500);
        assert_eq!(drain(&mut link, 1000 * MS), [(11 * MS, 1), (11 * MS, 2)]);
    }

    #[test]
    fn silence_swallows_what_is_on_its_way() {
        let mut link = Link::new(spec(), 1);
        link.enqueue(0, 1, 1500);
        link.enqueue(0, 2, 1500);
        link.set_silent(true);
        assert!(!link.enqueue(MS, 3, 1500));
        link.set_silent(false);
        assert_eq!(drain(&mut link, 1000 * MS), []);
        link.enqueue(1000 * MS, 4, 1500);
        assert_eq!(drain(&mut link, 2000 * MS), [(1011 * MS, 4)]);
        assert_eq!(link.counters().swallowed, 3);
    }
}
