use super::*;
use crate::proto::ids::{Dir, Side, StreamId};
use crate::proto::testing;

const DEADLINE: Duration = Duration::from_millis(200);
const ROOM: u64 = 1 << 20;

fn datagram(number: u64, data: &'static [u8]) -> Datagram {
    let id = StreamId::new(Side::Client, Dir::Bi, 0);
    let total = data.len();
    Datagram { id, number, waited_ms: 0, total, offset: 0, data: Bytes::from_static(data) }
}

struct Receiver {
    start: Instant,
    inbox: Inbox,
    stats: FlowStats,
}

impl Receiver {
    fn new() -> Self {
        Self { start: testing::start(), inbox: Inbox::default(), stats: FlowStats::default() }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn receive(&mut self, ms: u64, datagram: Datagram) {
        self.inbox.receive(self.at(ms), datagram, DEADLINE, ROOM, &mut self.stats);
    }

    fn expire(&mut self, ms: u64) {
        self.inbox.expire(self.at(ms), &mut self.stats);
    }

    fn read(&mut self) -> Vec<Bytes> {
        std::iter::from_fn(|| self.inbox.take_ready()).collect()
    }
}

#[test]
fn what_overtakes_waits_a_while_for_what_it_has_overtaken() {
    let mut receiver = Receiver::new();
    receiver.receive(0, datagram(0, b"a"));
    receiver.receive(0, datagram(2, b"c"));
    receiver.receive(10, datagram(3, b"d"));
    assert_eq!(receiver.read(), ["a"]);
    receiver.receive(40, datagram(1, b"b"));
    assert_eq!(receiver.read(), ["b", "c", "d"]);
    assert_eq!((receiver.inbox.bytes(), receiver.stats), (0, FlowStats::default()));
}

#[test]
fn it_goes_on_without_what_does_not_come_and_that_is_late_then() {
    let mut receiver = Receiver::new();
    receiver.receive(0, datagram(2, b"c"));
    receiver.receive(20, datagram(4, b"e"));
    assert_eq!(receiver.inbox.expires_at(), Some(receiver.at(50)));
    receiver.expire(49);
    assert!(!receiver.inbox.is_readable());
    receiver.expire(50);
    assert_eq!(receiver.read(), ["c"]);
    receiver.receive(60, datagram(1, b"b"));
    receiver.receive(60, datagram(2, b"c"));
    receiver.receive(60, datagram(3, b"d"));
    assert_eq!(receiver.read(), ["d", "e"]);
    assert_eq!((receiver.stats.missing, receiver.stats.behind), (2, 2));
}

#[test]
fn nothing_waits_for_others_beyond_its_deadline() {
    for (waited_ms, hold) in [(0, 50), (170, 30), (200, 0), (u64::MAX, 0)] {
        let mut receiver = Receiver::new();
        receiver.receive(0, Datagram { waited_ms, ..datagram(1, b"b") });
        if hold > 0 {
            receiver.expire(hold - 1);
            assert!(!receiver.inbox.is_readable(), "waited {waited_ms} ms");
        }
        receiver.expire(hold);
        assert_eq!(receiver.read(), ["b"], "waited {waited_ms} ms");
    }
}

#[test]
fn a_missing_part_drops_the_whole_and_the_others_go_on() {
    let mut receiver = Receiver::new();
    let part = |number, offset, data| Datagram { total: 6, offset, ..datagram(number, data) };
    receiver.receive(0, part(0, 0, b"abc"));
    receiver.receive(0, part(1, 3, b"def"));
    receiver.receive(0, part(1, 3, b"def"));
    receiver.receive(5, part(1, 0, b"abc"));
    assert_eq!(receiver.read(), [""; 0], "an earlier one is being put together");
    receiver.expire(55);
    assert_eq!(receiver.read(), ["abcdef"]);
    receiver.receive(56, part(0, 3, b"def"));
    assert_eq!((receiver.stats.incomplete, receiver.stats.behind), (1, 2));
    assert_eq!(receiver.inbox.bytes(), 0);
    // Parts that contradict each other are none; nor is one kept for longer than the deadline.
    receiver.receive(60, part(2, 0, b"abc"));
    receiver.receive(60, part(2, 2, b"cd"));
    assert_eq!((receiver.stats.incomplete, receiver.inbox.bytes()), (2, 0));
    receiver.receive(60, part(3, 0, b"abc"));
    receiver.expire(260);
    assert_eq!((receiver.stats.incomplete, receiver.inbox.bytes()), (3, 0));
}

#[test]
fn what_nobody_reads_is_dropped_oldest_first_by_age_and_by_room() {
    let mut receiver = Receiver::new();
    for number in 0..10 {
        receiver.receive(number * 30, datagram(number, b"x"));
    }
    receiver.expire(270);
    assert_eq!((receiver.stats.unread, receiver.read().len()), (3, 7));
    let room = 3 * cost(&Bytes::from_static(b"12345"));
    for (number, data) in [b"aaaaa", b"bbbbb", b"ccccc", b"ddddd"].into_iter().enumerate() {
        let datagram = datagram(10 + number as u64, data);
        receiver.inbox.receive(receiver.at(300), datagram, DEADLINE, room, &mut receiver.stats);
    }
    assert_eq!(receiver.stats.crowded, 1);
    assert_eq!(receiver.read(), ["bbbbb", "ccccc", "ddddd"]);
    let held = Datagram { number: 90, ..datagram(0, b"12345") };
    for number in 90..95 {
        let datagram = Datagram { number, ..held.clone() };
        receiver.inbox.receive(receiver.at(300), datagram, DEADLINE, room, &mut receiver.stats);
    }
    assert_eq!((receiver.stats.crowded, receiver.inbox.bytes()), (3, room), "none is ready");
}

#[test]
fn numbers_that_jump_cost_no_more_than_what_is_held() {
    let mut receiver = Receiver::new();
    for nth in 0..3 * DATAGRAMS_HELD_MAX as u64 {
        receiver.receive(0, datagram(1 + nth * 1_000_000_007, b"x"));
        assert!(receiver.inbox.held.len() <= DATAGRAMS_HELD_MAX + 1);
    }
    receiver.receive(0, datagram(u64::MAX >> 2, b"x"));
    receiver.expire(50);
    let count = 3 * DATAGRAMS_HELD_MAX + 1;
    assert_eq!(receiver.read().len(), count);
    assert_eq!(receiver.inbox.bytes(), 0);
}
