//! One direction of a path as packets pass through it: their connection's throttle, if the path has
//! one, then the link they all share.

use super::link::{Link, LinkCounters, LinkSpec};
use super::segment::{End, Segment};
use super::throttle::Throttle;

pub(super) type Packet = Vec<u8>;

/// One direction of one path.
#[derive(Debug)]
pub(super) struct Direction {
    from: End,
    throttle: Option<Throttle<Packet>>,
    /// Changes to the path are applied here.
    pub(super) link: Link<Packet>,
}

impl Direction {
    /// An idle one; `from` is the sending end, `throttle` each connection's own link.
    pub(super) fn new(from: End, link: LinkSpec, throttle: Option<LinkSpec>, seed: u64) -> Self {
        Self { from, throttle: throttle.map(Throttle::new), link: Link::new(link, seed) }
    }

    /// Takes a packet in.
    pub(super) fn enqueue(&mut self, now_ns: u64, packet: Packet) {
        let size = packet.len() as u64;
        let throttled = self.throttle.as_mut().zip(Segment::parse(&packet));
        if let Some((throttle, segment)) = throttled {
            throttle.enqueue(now_ns, segment.connection(self.from), packet, size);
        } else {
            self.link.enqueue(now_ns, packet, size);
        }
    }

    /// The next packet that has arrived by `now_ns`, with its due time.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Option<(u64, Packet)> {
        if let Some(throttle) = &mut self.throttle {
            while let Some((through_ns, packet)) = throttle.take_due(now_ns) {
                let size = packet.len() as u64;
                self.link.enqueue(through_ns, packet, size);
            }
        }
        self.link.take_due(now_ns)
    }

    /// When to look again.
    pub(super) fn next_due_ns(&self) -> Option<u64> {
        let throttle = self.throttle.as_ref().and_then(Throttle::next_due_ns);
        self.link.next_due_ns().into_iter().chain(throttle).min()
    }

    /// What it has done so far.
    pub(super) fn counters(&self) -> LinkCounters {
        let dropped = self.throttle.as_ref().map_or(0, Throttle::overflowed);
        let link = self.link.counters();
        LinkCounters { overflowed: link.overflowed + dropped, ..link }
    }
}
