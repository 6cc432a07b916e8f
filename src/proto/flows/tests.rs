use super::*;
use crate::proto::ids::Dir;
use crate::proto::limits::DATAGRAM_OVERHEAD_BYTES;
use crate::proto::testing;

fn id(side: Side, index: u64) -> StreamId {
    StreamId::new(side, Dir::Bi, index)
}

/// Instants by the milliseconds from one.
fn clock() -> impl Fn(u64) -> Instant {
    let start = testing::start();
    move |ms| start + Duration::from_millis(ms)
}

fn flows(now: Instant, count: u64) -> Flows {
    let mut flows = Flows::new(Side::Client, count);
    for index in 0..count {
        assert!(flows.may_open());
        assert!(flows.add(now, id(Side::Client, index), 200));
    }
    flows
}

fn send(flows: &mut Flows, now: Instant, index: u64, len: usize) {
    flows.send(now, id(Side::Client, index), Bytes::from(vec![0; len])).unwrap();
}

#[test]
fn flows_take_turns_and_each_keeps_its_order() {
    let at = clock();
    let mut flows = flows(at(0), 3);
    for (index, count) in [(0, 100), (1, 100), (2, 1)] {
        (0..count).for_each(|_| send(&mut flows, at(0), index, 1_000));
    }
    let mut order = Vec::new();
    while let Some(Outgoing { datagram, .. }) = flows.take(at(1), LaneId::FIRST) {
        order.push((datagram.id.index(), datagram.number));
    }
    let of = |index| order.iter().filter(move |(flow, _)| *flow == index).map(|(_, n)| *n);
    assert!(of(0).eq(0..100) && of(1).eq(0..100) && of(2).eq([0]));
    let first = |index| order.iter().position(|(flow, _)| *flow == index).unwrap();
    assert!(first(1) < 40 && first(2) < 80, "{order:?}");
    assert_eq!((flows.bytes(), flows.wait()), (0, false));
    assert_eq!(flows.sums().sent, 201);
}

#[test]
fn one_flow_leaves_room_for_others_and_all_together_have_a_bound() {
    let at = clock();
    let mut flows = flows(at(0), 8);
    for index in 0..8 {
        (0..6_000).for_each(|_| send(&mut flows, at(0), index, 1_400));
        let kept = flows.table[&id(Side::Client, index)].outbox.bytes();
        assert!(flows.bytes() <= FLOWS_BYTES_MAX && kept > 10_000, "{index}: {kept}");
    }
    let stats = flows.sums();
    let kept = flows.bytes() / (1_400 + DATAGRAM_OVERHEAD_BYTES);
    assert_eq!(stats.crowded + kept, 8 * 6_000);
    flows.set_bytes_max(70_000);
    send(&mut flows, at(1), 0, DATAGRAM_BYTES_MAX);
    assert!(flows.sums().crowded > stats.crowded, "there is less room now");
}

#[test]
fn a_check_drops_what_is_too_old_and_ends_what_is_idle_and_leaves_nothing() {
    let at = clock();
    let mut flows = flows(at(0), 2);
    flows.set_idle_timeout(id(Side::Client, 1), Duration::from_secs(1));
    send(&mut flows, at(0), 0, 10);
    let due = flows.timeout().unwrap();
    assert!(due > at(200) && due < at(201), "just after its deadline");
    let checked = flows.check(due);
    assert!(checked.idle.is_empty() && checked.readable.is_empty());
    assert_eq!((flows.sums().expired, flows.bytes()), (1, 0));
    assert_eq!(flows.timeout(), Some(at(1_000)));
    assert_eq!(flows.check(at(1_000)).idle, [id(Side::Client, 1)]);
    assert!(!flows.on_end(id(Side::Client, 1), Code::FLOW_IDLE), "nobody waits");
    let ended = flows.send(at(1_000), id(Side::Client, 1), Bytes::new());
    assert_eq!(ended, Err(DatagramError::Ended(Code::FLOW_IDLE)));
    let read = flows.recv(at(1_000), id(Side::Client, 1));
    assert_eq!(read, Err(ReadError::Reset(Code::FLOW_IDLE)));
    flows.remove(id(Side::Client, 0));
    flows.remove(id(Side::Client, 1));
    assert_eq!((flows.len(), flows.sums().expired), (0, 1), "what became of them is still known");
}

#[test]
fn a_peer_has_no_more_flows_than_its_limit() {
    let at = clock();
    let mut flows = Flows::new(Side::Client, 1);
    for index in 0..FLOWS_PER_SESSION_MAX {
        assert!(flows.add(at(0), id(Side::Server, index), 0));
    }
    assert!(!flows.add(at(0), id(Side::Server, FLOWS_PER_SESSION_MAX), 0));
    assert!(flows.may_open() && flows.add(at(0), id(Side::Client, 0), u64::MAX));
    assert!(!flows.may_open());
    let deadline = |side| flows.get(id(side, 0)).map(|flow| flow.deadline);
    assert_eq!(deadline(Side::Client), Some(FLOW_DEADLINE_MAX));
    assert_eq!(deadline(Side::Server), Some(Duration::from_millis(1)));
}

#[test]
fn what_is_to_go_twice_waits_for_its_lane_until_its_deadline() {
    let at = clock();
    let mut flows = flows(at(0), 1);
    let (one, other) = (LaneId::new(1), LaneId::new(2));
    for ms in [0, 100] {
        send(&mut flows, at(ms), 0, 500);
        let first = flows.take(at(ms), one).unwrap();
        assert!(first.needs_open);
        flows.give_second(other, first);
    }
    flows.on_open_sent(id(Side::Client, 0), other);
    assert_eq!(flows.next_second(at(250), one), None);
    assert_eq!(flows.next_second(at(250), other), Some(500));
    let (datagram, needs_open) = flows.take_second(at(250), other).unwrap();
    assert_eq!((datagram.number, datagram.waited_ms, needs_open), (1, 150, false));
    flows.prune(at(250));
    assert_eq!((flows.bytes(), flows.wait()), (0, false));
    send(&mut flows, at(300), 0, 500);
    let first = flows.take(at(300), one).unwrap();
    flows.give_second(other, first);
    flows.forget_lane(other);
    assert_eq!((flows.bytes(), flows.wait()), (0, false));
}

#[test]
fn however_many_lanes_come_and_go_a_flow_remembers_those_there_are() {
    let at = clock();
    let mut flows = flows(at(0), 1);
    let flow = id(Side::Client, 0);
    for number in 0..1_000 {
        flows.on_open_sent(flow, LaneId::new(number));
        flows.on_lane_gone(LaneId::new(number));
    }
    assert!(flows.table[&flow].opened_on.is_empty());
}

#[test]
fn datagrams_go_ahead_of_bulk_until_they_have_had_their_share() {
    let at = clock();
    let mut flows = flows(at(0), 1);
    flows.charge_turn(10 * TURN_BYTES, false);
    assert!(flows.has_turn(), "no bulk waits");
    flows.charge_turn(TURN_BYTES, true);
    assert!(!flows.has_turn());
    flows.return_turn(1);
    assert!(flows.has_turn());
}

#[test]
fn what_is_too_old_is_not_given_to_a_lane_whichever_flow_comes_next() {
    let at = clock();
    let mut flows = flows(at(0), 2);
    send(&mut flows, at(150), 0, 100);
    for ms in [0, 0, 160] {
        send(&mut flows, at(ms), 1, 100);
    }
    flows.prune(at(250));
    let mut given = Vec::new();
    while let Some(Outgoing { datagram, since, .. }) = flows.take(at(250), LaneId::FIRST) {
        given.push((datagram.id.index(), since));
    }
    assert_eq!(given, [(0, at(150)), (1, at(160))]);
    assert_eq!((flows.sums().expired, flows.bytes(), flows.wait()), (2, 0, false));
}
