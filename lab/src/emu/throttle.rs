//! A separate rate for each TCP connection in front of a path's link, as carriers do that "shape
//! flows". It is why users run several lanes on one link.

use std::collections::HashMap;

use super::link::{Link, LinkSpec};
use super::segment::Connection;

/// A queue and a rate per connection, for one direction of one path.
#[derive(Debug)]
pub struct Throttle<P> {
    /// Each connection's link.
    spec: LinkSpec,
    // Looked up by key; the order among packets due at the same time does not matter.
    connections: HashMap<Connection, Link<P>>,
}

impl<P> Throttle<P> {
    /// A link like `spec` for each connection.
    #[must_use]
    pub fn new(spec: LinkSpec) -> Self {
        Self { spec, connections: HashMap::new() }
    }

    /// Takes a packet of `size` bytes; drops it if its connection's queue is full.
    pub fn enqueue(&mut self, now_ns: u64, connection: Connection, packet: P, size: u64) {
        let link = self.connections.entry(connection).or_insert_with(|| Link::new(self.spec, 0));
        link.enqueue(now_ns, packet, size);
    }

    /// The next packet that is through by `now_ns`, with the time it was.
    pub fn take_due(&mut self, now_ns: u64) -> Option<(u64, P)> {
        let waiting = self.connections.values_mut().filter(|link| link.next_due_ns().is_some());
        waiting.min_by_key(|link| link.next_due_ns())?.take_due(now_ns)
    }

    /// When the next packet will be through.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        self.connections.values().filter_map(Link::next_due_ns).min()
    }

    /// Packets that found their connection's queue full.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.connections.values().map(|link| link.counters().overflowed).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MS: u64 = 1_000_000;

    fn connection(port: u16) -> Connection {
        let host = (Ipv4Addr::LOCALHOST, port);
        Connection { client: host, server: host }
    }

    /// 12 Mbit/s: 1500 bytes take a millisecond.
    fn throttle(queue_bytes: u64) -> Throttle<u32> {
        Throttle::new(LinkSpec { rate_bps: 12e6, delay_ns: 0, loss: 0.0, queue_bytes })
    }

    fn drain(throttle: &mut Throttle<u32>) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| throttle.take_due(1000 * MS)).collect()
    }

    #[test]
    fn each_connection_has_the_rate_for_itself() {
        let mut throttle = throttle(4500);
        for i in 0..3 {
            throttle.enqueue(0, connection(1), i, 1500);
        }
        // Through just after the first: of two at the same time either may come first.
        throttle.enqueue(MS / 2 + 1, connection(2), 9, 750);
        assert_eq!(throttle.next_due_ns(), Some(MS));
        assert!(throttle.take_due(MS - 1).is_none());
        assert_eq!(throttle.take_due(MS), Some((MS, 0)));
        assert_eq!(drain(&mut throttle), [(MS + 1, 9), (2 * MS, 1), (3 * MS, 2)]);
        assert_eq!(throttle.next_due_ns(), None);
    }

    #[test]
    fn a_full_queue_drops_of_its_own_connection_only() {
        let mut throttle = throttle(3000);
        for i in 0..4 {
            throttle.enqueue(0, connection(1), i, 1500);
        }
        throttle.enqueue(0, connection(2), 7, 1500);
        let mut packets: Vec<u32> = drain(&mut throttle).into_iter().map(|(_, p)| p).collect();
        packets.sort_unstable();
        assert_eq!(packets, [0, 1, 7]);
        assert_eq!(throttle.overflowed(), 2);
    }
}
