//! Flows over lanes.

use std::time::Duration;

use bytes::Bytes;

use crate::proto::ids::StreamId;
use crate::proto::testing::pair::{CLIENT, Pair, Path, SERVER, pattern};
use crate::proto::wire::{Datagram, Frame, FrameBatch, Params, StreamKind};
use crate::proto::{
    Code, Config, DatagramError, Event, LaneId, LanePolicy, ReadError, Session, Side, Tier,
};

const DEADLINE: Duration = Duration::from_millis(200);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The numbers of what has come, which is unchanged; `len` is the length by number.
fn numbers(pair: &Pair, end: usize, id: StreamId, len: impl Fn(usize) -> usize) -> Vec<usize> {
    let received = &pair.ends[end].datagrams[&id];
    let mut next = 0;
    let mut numbers = Vec::new();
    for (_, data) in received {
        let found = (next..next + 5_000).find(|&n| pattern(len(n), n as u64) == *data);
        let number = found.expect("in order, unchanged, and once");
        numbers.push(number);
        next = number + 1;
    }
    numbers
}

/// Sends `count` datagrams, one every `every`; returns how long each took that came.
fn paced(pair: &mut Pair, id: StreamId, count: usize, every: Duration) -> Vec<Duration> {
    let begun = pair.now;
    for number in 0..count {
        pair.send(CLIENT, id, number, 1_000);
        pair.wait(every);
    }
    pair.wait(ms(300));
    let came = numbers(pair, SERVER, id, |_| 1_000);
    let received = &pair.ends[SERVER].datagrams[&id];
    let sent_at = |number: usize| begun + every * number as u32;
    let mut took: Vec<Duration> =
        received.iter().zip(came).map(|((at, _), number)| *at - sent_at(number)).collect();
    took.sort_unstable();
    took
}

#[test]
fn datagrams_arrive_once_in_order_and_unchanged_whatever_their_length() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10), Path::new(50.0, 20)]);
    let id = pair.open_flow(CLIENT, DEADLINE);
    let len =
        |number: usize| [1_400, 40, 2_000, 2_001, 9_000, 0, 16, 30_000][number % 8] + number / 8;
    for number in 0..400 {
        pair.send(CLIENT, id, number, len(number));
        pair.wait(ms(3));
    }
    pair.send(CLIENT, id, 400, 65_507);
    pair.wait(ms(400));
    let came = numbers(&pair, SERVER, id, |n| if n == 400 { 65_507 } else { len(n) });
    assert_eq!(came, (0..=400).collect::<Vec<_>>());
    // And back.
    for number in 0..10 {
        pair.send(SERVER, id, number, 1_000);
    }
    pair.wait(ms(100));
    assert_eq!(numbers(&pair, CLIENT, id, |_| 1_000), (0..10).collect::<Vec<_>>());
    let stats = pair.ends[CLIENT].session.flow(id).stats().unwrap();
    assert_eq!((stats.sent, stats.received, stats.dropped(), stats.missing), (401, 10, 0, 0));
    let (large, max) = (Bytes::from(vec![0; 65_508]), DatagramError::TooLarge(65_508));
    let now = pair.now;
    assert_eq!(pair.ends[CLIENT].session.flow(id).send(now, large), Err(max));
    for end in &pair.ends {
        assert_eq!(end.session.flow_bytes(), 0);
    }
}

#[test]
fn datagrams_beside_bulk_are_as_soon_as_without_on_express_lanes_and_both_go_on() {
    let paths = [Path::new(40.0, 10), Path::new(40.0, 15)];
    let mut idle = Pair::new(Config::default(), &paths);
    let id = idle.open_flow(CLIENT, DEADLINE);
    let alone = paced(&mut idle, id, 200, ms(10));
    assert_eq!(alone.len(), 200);

    let mut busy = Pair::new(Config::default(), &paths);
    let bulk = busy.open(CLIENT, pattern(40_000_000, 1));
    busy.wait(ms(1_000));
    // The first ones tell that they wait behind bulk; whoever dials makes express lanes then.
    let first = busy.open_flow(CLIENT, DEADLINE);
    busy.send(CLIENT, first, 0, 1_000);
    busy.wait(ms(100));
    assert!(busy.ends[CLIENT].events.contains(&Event::ExpressWanted));
    for (number, path) in [2, 3].into_iter().zip(paths) {
        let lane = LaneId::new(number);
        busy.lane_up(lane, path);
        let policy = LanePolicy { tier: Tier::Express, ..LanePolicy::default() };
        let now = busy.now;
        busy.ends.iter_mut().for_each(|end| end.session.handle_lane_policy(now, lane, policy));
    }
    let before = busy.ends[SERVER].read[&bulk].0.len();
    let id = busy.open_flow(CLIENT, DEADLINE);
    let beside = paced(&mut busy, id, 200, ms(10));
    assert!(beside.len() >= 198, "{}", beside.len());
    let moved = busy.ends[SERVER].read[&bulk].0.len() - before;
    assert!(moved > 15_000_000, "{moved} bytes of bulk in two seconds");
    assert!(beside[99] < alone[100] + ms(5), "{:?} {:?}", alone[100], beside[99]);
}

#[test]
fn a_flood_of_datagrams_leaves_bulk_its_share() {
    let mut pair = Pair::new(Config::default(), &[Path::new(20.0, 10)]);
    let bulk = pair.open(CLIENT, pattern(20_000_000, 1));
    let id = pair.open_flow(CLIENT, DEADLINE);
    pair.wait(ms(500));
    let before = pair.ends[SERVER].read[&bulk].0.len();
    for number in 0..1_000 {
        (0..5).for_each(|n| pair.send(CLIENT, id, number * 5 + n, 1_400));
        pair.wait(ms(2));
    }
    let moved = pair.ends[SERVER].read[&bulk].0.len() - before;
    let came = pair.ends[SERVER].datagrams[&id].len();
    // Of 5,000,000 bytes that the lane carries in that time.
    assert!(moved > 1_500_000, "{moved} bytes of bulk");
    assert!(came * 1_400 > 1_500_000, "{came} datagrams");
    let stats = pair.ends[CLIENT].session.flow(id).stats().unwrap();
    assert!(stats.expired + stats.crowded > 1_000, "{stats:?}");
    assert!(pair.ends[CLIENT].session.flow_bytes() <= 4 << 20);
}

#[test]
fn a_lane_that_stalls_is_left_and_nothing_comes_after_its_deadline() {
    let mut pair = Pair::new(Config::default(), &[Path::new(20.0, 10), Path::new(20.0, 30)]);
    let id = pair.open_flow(CLIENT, DEADLINE);
    let begun = pair.now;
    for number in 0..1_000 {
        pair.send(CLIENT, id, number, 1_000);
        pair.wait(ms(5));
        if number == 300 {
            pair.clog(LaneId::new(0), CLIENT);
        }
    }
    pair.wait(ms(500));
    let came = numbers(&pair, SERVER, id, |_| 1_000);
    assert!(came.len() > 900, "{}", came.len());
    for ((at, _), number) in pair.ends[SERVER].datagrams[&id].iter().zip(came) {
        let took = *at - (begun + ms(5) * number as u32);
        assert!(took <= DEADLINE + ms(31), "number {number} took {took:?}");
    }
}

#[test]
fn with_no_lane_datagrams_grow_old_and_are_dropped_and_the_newest_go_on() {
    let mut pair = Pair::new(Config::default(), &[Path::new(20.0, 10)]);
    let id = pair.open_flow(CLIENT, DEADLINE);
    pair.send(CLIENT, id, 0, 1_000);
    pair.wait(ms(100));
    pair.lane_down(LaneId::new(0));
    for number in 1..100 {
        pair.send(CLIENT, id, number, 1_000);
        pair.wait(ms(10));
    }
    pair.lane_up(LaneId::new(1), Path::new(20.0, 10));
    pair.wait(ms(300));
    let came = numbers(&pair, SERVER, id, |_| 1_000);
    assert!(came.len() > 15 && came.len() < 25 && came.last() == Some(&99), "{came:?}");
    let stats = pair.ends[CLIENT].session.flow(id).stats().unwrap();
    assert_eq!(stats.expired as usize, 100 - came.len(), "{stats:?}");
    let other_end = pair.ends[SERVER].session.flow(id).stats().unwrap();
    assert_eq!(other_end.missing, 0, "what was never sent is not waited for");
}

#[test]
fn what_a_dead_lane_had_is_gone_and_a_redundant_flow_loses_nothing() {
    for redundant in [false, true] {
        let mut pair = Pair::new(Config::default(), &[Path::new(20.0, 20), Path::new(20.0, 25)]);
        let id = pair.open_flow(CLIENT, DEADLINE);
        if redundant {
            pair.ends[CLIENT].session.send_stream(id).set_redundant();
        }
        pair.send(CLIENT, id, 0, 1_000);
        pair.wait(ms(200));
        for number in 1..200 {
            pair.send(CLIENT, id, number, 1_000);
            pair.wait(ms(2));
            if number == 100 {
                pair.lane_down(LaneId::new(0));
            }
        }
        pair.wait(ms(300));
        let came = numbers(&pair, SERVER, id, |_| 1_000);
        let lost = 200 - came.len();
        assert!(if redundant { lost == 0 } else { (1..=20).contains(&lost) }, "{lost} lost");
        let (ours, theirs) = (&pair.ends[CLIENT].session, &pair.ends[SERVER].session);
        assert_eq!((ours.flow_bytes(), theirs.flow_bytes()), (0, 0));
        let twice = pair.ends[SERVER].session.flow(id).stats().unwrap().behind;
        assert!(if redundant { twice > 50 } else { twice == 0 }, "{twice} came twice");
    }
}

#[test]
fn both_ends_of_a_redundant_flow_send_twice() {
    let mut pair = Pair::new(Config::default(), &[Path::new(20.0, 20), Path::new(20.0, 25)]);
    let id = pair.open_flow(CLIENT, DEADLINE);
    pair.ends[CLIENT].session.send_stream(id).set_redundant();
    pair.send(CLIENT, id, 0, 100);
    pair.wait(ms(100));
    for number in 0..50 {
        pair.send(SERVER, id, number, 3_000);
        pair.wait(ms(5));
    }
    pair.wait(ms(100));
    assert_eq!(numbers(&pair, CLIENT, id, |_| 3_000).len(), 50);
    let stats = pair.ends[CLIENT].session.flow(id).stats().unwrap();
    assert!(stats.behind >= 50 && stats.missing == 0, "{stats:?}");
}

#[test]
fn a_flow_ends_at_both_ends_and_is_forgotten() {
    let mut pair = Pair::new(Config::default(), &[Path::new(20.0, 10)]);
    let id = pair.open_flow(CLIENT, DEADLINE);
    pair.send(CLIENT, id, 0, 1_000);
    pair.wait(ms(100));
    assert_eq!(pair.ends[SERVER].session.flow_count(), 1);
    pair.ends[CLIENT].session.flow(id).close(Code::application(7));
    pair.wait(ms(100));
    let now = pair.now;
    let theirs = &mut pair.ends[SERVER].session;
    assert_eq!(theirs.flow(id).recv(now), Err(ReadError::Reset(Code::application(7))));
    let sent = theirs.flow(id).send(now, Bytes::new());
    assert_eq!(sent, Err(DatagramError::Ended(Code::application(7))));
    theirs.flow(id).close(Code::NONE);
    pair.wait(ms(200));
    for end in &mut pair.ends {
        assert_eq!((end.session.flow_count(), end.session.stream_count()), (0, 0));
        assert_eq!(end.session.flow(id).recv(now), Err(ReadError::Closed));
        assert_eq!(end.session.flow(id).send(now, Bytes::new()), Err(DatagramError::Closed));
    }
}

#[test]
fn a_flow_on_which_nothing_comes_or_goes_ends() {
    let mut pair = Pair::new(Config::default(), &[Path::new(20.0, 10)]);
    let id = pair.open_flow(CLIENT, DEADLINE);
    pair.ends[CLIENT].session.flow(id).set_idle_timeout(ms(1_000));
    for number in 0..10 {
        pair.send(CLIENT, id, number, 10);
        pair.wait(ms(900));
    }
    assert_eq!(pair.ends[SERVER].datagrams[&id].len(), 10);
    pair.wait(ms(300));
    let now = pair.now;
    for end in &mut pair.ends {
        let over = end.session.flow(id).recv(now);
        assert_eq!(over, Err(ReadError::Reset(Code::FLOW_IDLE)));
    }
}

#[test]
fn a_peer_that_knows_no_flows_is_asked_for_none() {
    let config = std::sync::Arc::new(Config::default());
    let now = crate::proto::testing::start();
    let older = Params { flows_max: 0, ..config.params() };
    let mut session = Session::new(Side::Client, config, older, 1, now);
    assert_eq!((session.granted_flows(), session.may_open_flow()), (0, false));
    assert_eq!(session.open_flow(now, DEADLINE, StreamKind::Raw), None);
    assert!(session.open(StreamKind::Raw).is_some());
    let flow = StreamKind::Flow { deadline_ms: 1, kind: Box::new(StreamKind::Raw) };
    assert_eq!(session.open(flow), None, "not in this way");
}

#[test]
fn one_flow_too_many_is_refused_and_what_is_for_no_flow_is_ignored() {
    let config = std::sync::Arc::new(Config::default());
    let now = crate::proto::testing::start();
    let mut session = Session::new(Side::Server, config.clone(), config.params(), 1, now);
    assert!(session.handle_lane_up(now, LaneId::FIRST, None));
    let id = |index| StreamId::new(Side::Client, crate::proto::Dir::Bi, index);
    let hear = |session: &mut Session, frame| {
        let mut batch = FrameBatch { frames: vec![frame], wire_bytes: 10 };
        session.handle_frames(now, LaneId::FIRST, &mut batch);
    };
    let open = |index| {
        let kind = StreamKind::Flow { deadline_ms: 200, kind: Box::new(StreamKind::Raw) };
        Frame::Open { id: id(index), kind }
    };
    let granted =
        config.params().initial_max_streams.min(crate::proto::limits::FLOWS_PER_SESSION_MAX);
    for index in 0..granted {
        hear(&mut session, open(index));
    }
    let flows = std::iter::from_fn(|| session.accept()).count() as u64;
    assert_eq!((flows, session.flow_count() as u64), (granted, granted));
    let data = Bytes::from_static(b"0123456789abcdef");
    for index in [0, granted, 1 << 40] {
        let data = data.clone();
        let (number, total) = (0, data.len());
        let datagram = Datagram { id: id(index), number, waited_ms: 0, total, offset: 0, data };
        hear(&mut session, Frame::Datagram(datagram));
    }
    assert_eq!(session.flow(id(0)).recv(now), Ok(data));
    assert_eq!((session.flow_bytes(), session.is_closed()), (0, false));
    assert_eq!(session.stream_count() as u64, granted, "a datagram opens nothing");
}

/// The opening came last, on a slower lane: the flow stayed until it was idle.
#[test]
fn a_flow_whose_end_comes_before_its_opening_is_over() {
    let config = std::sync::Arc::new(Config::default());
    let now = crate::proto::testing::start();
    let id = StreamId::new(Side::Client, crate::proto::Dir::Bi, 0);
    let code = Code::SHUTDOWN;
    let ends = [Frame::Reset { id, code, final_size: 0 }, Frame::Stop { id, code }];
    for end in ends {
        let mut session = Session::new(Side::Server, config.clone(), config.params(), 1, now);
        assert!(session.handle_lane_up(now, LaneId::FIRST, None));
        let kind = StreamKind::Flow { deadline_ms: 200, kind: Box::new(StreamKind::Raw) };
        let frames = vec![end, Frame::Open { id, kind }];
        let mut batch = FrameBatch { frames, wire_bytes: 20 };
        session.handle_frames(now, LaneId::FIRST, &mut batch);
        assert_eq!(session.flow(id).recv(now), Err(ReadError::Reset(code)));
        session.flow(id).close(Code::NONE);
        assert_eq!(session.flow_count(), 0);
    }
}

#[test]
fn a_reader_that_stops_costs_its_flow_and_nobody_else() {
    let mut pair = Pair::new(Config::default(), &[Path::new(200.0, 5)]);
    let (stopped, other) = (pair.open_flow(CLIENT, DEADLINE), pair.open_flow(CLIENT, DEADLINE));
    pair.ends[SERVER].unread.push(stopped);
    for number in 0..3_000 {
        pair.send(CLIENT, stopped, number, 1_400);
        pair.send(CLIENT, other, number, 1_000);
        pair.wait(ms(1));
        assert!(pair.ends[SERVER].session.flow_bytes() < 600_000, "200 ms of it");
    }
    pair.wait(ms(400));
    assert_eq!(numbers(&pair, SERVER, other, |_| 1_000).len(), 3_000);
    assert_eq!(pair.ends[SERVER].session.flow_bytes(), 0);
    let stats = pair.ends[SERVER].session.flow(stopped).stats().unwrap();
    assert_eq!((stats.unread, stats.received), (3_000, 0), "{stats:?}");
}

#[test]
fn a_million_datagrams_leave_nothing_behind() {
    let mut pair = Pair::new(Config::default(), &[Path::new(400.0, 2), Path::new(400.0, 3)]);
    let id = pair.open_flow(CLIENT, DEADLINE);
    for _ in 0..5_000 {
        let datagrams = (0..200).map(|_| Bytes::from_static(&[7; 40]));
        let now = pair.now;
        for data in datagrams {
            pair.ends[CLIENT].session.flow(id).send(now, data).unwrap();
        }
        pair.wait(ms(2));
        pair.ends[SERVER].datagrams.values_mut().for_each(Vec::clear);
    }
    pair.wait(ms(300));
    let sent = pair.ends[CLIENT].session.flow(id).stats().unwrap();
    let received = pair.ends[SERVER].session.flow(id).stats().unwrap();
    assert_eq!((sent.sent, received.received), (1_000_000, 1_000_000), "{sent:?} {received:?}");
    for end in &pair.ends {
        assert_eq!((end.session.memory(), end.session.flow_bytes()), (0, 0));
        let stats = end.session.stats();
        assert!(stats.lanes.iter().all(|lane| lane.in_flight_bytes == 0), "{stats:?}");
    }
}
