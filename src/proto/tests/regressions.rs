//! Bugs that the simulator found, each pinned by a test.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::SECOND;
use super::pair::{CLIENT, Pair, Path, SERVER, pattern};
use crate::proto::wire::{Frame, FrameBatch, LaneBuf, StreamKind};
use crate::proto::{
    Code, Config, Event, LaneId, Session, Side, Timer, Undelivered, WriteError, testing,
};

/// Each of several equal lanes left the last chunk to the others, for ever.
#[test]
fn equal_lanes_do_not_wait_for_each_other() {
    for lanes in 2..8 {
        let mut pair = Pair::new(Config::default(), &vec![Path::new(2.0, 10); lanes]);
        let id = pair.open(CLIENT, pattern(520, 1));
        pair.drive_until(SECOND, |pair| pair.ends[SERVER].read.get(&id).is_some_and(|r| r.1));
        assert!(pair.ends[SERVER].read[&id].1, "{lanes} lanes");
    }
}

/// The answer to a PING travelled on another lane, so the pinged lane still counted as unheard and
/// was pinged again at once, every round trip.
#[test]
fn a_lane_that_is_silent_one_way_is_not_pinged_without_end() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 2), Path::new(50.0, 40)]);
    pair.silence_one_way(LaneId::new(1), CLIENT);
    // The client hears the lane later than the server, and so is not the first to ask.
    let id = pair.open(SERVER, pattern(3_000_000, 1));
    pair.drive(100 * SECOND);
    assert!(pair.ends[CLIENT].read[&id].1);
    let pings = pair.ends[SERVER].timers.get(&Timer::Keepalive).copied().unwrap_or(0);
    assert!(pings <= 2 * 100 / 15, "{pings} pings");
}

/// With a window of a few bytes, the first piece out of order cost more memory than the cap derived
/// from the window, and an honest peer was rejected.
#[test]
fn a_tiny_window_takes_a_piece_out_of_order() {
    let config = Config { stream_window: 40, session_window: 640, ..Config::default() };
    let mut pair = Pair::new(config, &[Path::new(50.0, 1)]);
    let id = pair.open(CLIENT, pattern(10, 1));
    let ahead = Frame::Stream { id, offset: 30, fin: false, data: Bytes::from_static(b"ahead") };
    let mut batch = FrameBatch { wire_bytes: 10, frames: vec![ahead] };
    let session = &mut pair.ends[SERVER].session;
    session.handle_frames(pair.now, LaneId::FIRST, &mut batch);
    assert!(!session.is_closed());
    assert!(session.stats().reorder_bytes > 80, "more than twice the window");
}

/// What was late on a silent lane was partly given to that lane again, as was new data: the reader
/// waited until the lane was suspect.
#[test]
fn a_late_lane_gets_neither_what_it_is_late_with_nor_more() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10); 2]);
    let id = pair.open(CLIENT, pattern(20_000_000, 1));
    pair.drive(SECOND);
    pair.set_path(LaneId::new(1), |path| path.silent = true);
    let mut longest = Duration::ZERO;
    while !pair.ends[SERVER].read[&id].1 {
        let before = pair.ends[SERVER].read[&id].0.len();
        let gap = pair.drive_until(SECOND, |pair| pair.ends[SERVER].read[&id].0.len() > before);
        longest = longest.max(gap);
    }
    assert!(longest < Duration::from_millis(100), "{longest:?}");
}

/// A lane whose buffer stayed full of acknowledgements could not be pinged, owed nothing, and was
/// kept for ever.
#[test]
fn a_lane_that_takes_nothing_is_given_up() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10)]);
    pair.drive(SECOND);
    pair.clog(LaneId::FIRST, CLIENT);
    pair.open(SERVER, pattern(3_000_000, 1));
    pair.drive(60 * SECOND);
    let lost = Event::LaneLost { lane: LaneId::FIRST, code: Code::LANE_TIMEOUT };
    assert!(pair.ends[CLIENT].events.contains(&lost));
}

/// A very slow lane took longer for its first frames than the time-out; so did the next lane, and
/// none was ever acknowledged.
#[test]
fn very_slow_lanes_are_waited_for_longer() {
    let mut pair = Pair::new(Config::default(), &[Path::new(0.05, 2)]);
    let id = pair.open(CLIENT, pattern(30_000, 1));
    for next in 1..10 {
        pair.drive(10 * SECOND);
        if pair.ends[SERVER].read.get(&id).is_some_and(|read| read.1) {
            return;
        }
        if pair.ends.iter().any(|end| end.session.lane_count() == 0) {
            pair.lane_down(LaneId::new(next - 1));
            pair.lane_up(LaneId::new(next), Path::new(0.05, 2));
        }
    }
    panic!("{:?}", pair.ends[CLIENT].events);
}

/// Of a thousand lanes that fell silent, those that followed some that had died young were noticed
/// only after minutes.
#[test]
fn a_lane_that_has_carried_is_not_waited_for_longer_because_others_never_did() {
    let mut pair = Pair::new(Config::default(), &[]);
    let id = pair.open(CLIENT, pattern(30_000, 1));
    let dead = |pair: &Pair| pair.ends[CLIENT].session.lane_count() == 0;
    for number in 0..6 {
        let lane = LaneId::new(number);
        pair.lane_up(lane, Path::new(10.0, 10));
        pair.set_path(lane, |path| path.silent = true);
        pair.drive_until(100 * SECOND, dead);
        pair.lane_down(lane);
    }
    let lane = LaneId::new(6);
    pair.lane_up(lane, Path::new(10.0, 10));
    pair.drive(10 * SECOND);
    assert!(pair.ends[SERVER].read[&id].1, "it carries");
    pair.set_path(lane, |path| path.silent = true);
    pair.open(CLIENT, pattern(30_000, 2));
    let took = pair.drive_until(100 * SECOND, dead);
    assert!(took < 3 * SECOND, "{took:?}");
}

/// A lane whose buffer was full while its peer was still heard on it owed nothing, and was waited
/// for without end.
#[test]
fn a_lane_that_takes_nothing_more_is_given_up_though_its_peer_is_heard() {
    let start = testing::start();
    let config = Config { keepalive: Duration::from_millis(250), ..Config::default() };
    let config = Arc::new(config);
    let mut session = Session::new(Side::Client, config.clone(), config.params(), 7, start);
    let [stuck, other] = [LaneId::new(0), LaneId::new(1)];
    for lane in [stuck, other] {
        assert!(session.handle_lane_up(start, lane, Some(Duration::from_millis(20))));
    }
    let lost = (0..500u64).map(|n| start + Duration::from_millis(10 * n)).find(|&now| {
        session.handle_timeout(now);
        for lane in [stuck, other] {
            let mut heard = FrameBatch { frames: vec![Frame::Ping], wire_bytes: 2 };
            session.handle_frames(now, lane, &mut heard);
        }
        // Only one has room whenever it is asked.
        while session.poll_transmit(now, other, usize::MAX, &mut LaneBuf::new()).is_some() {}
        let mut events = std::iter::from_fn(|| session.poll_event());
        events.any(|event| matches!(event, Event::LaneLost { lane, .. } if lane == stuck))
    });
    assert!(lost.is_some_and(|at| at < start + Duration::from_secs(2)), "{lost:?}");
}

/// A writer that waited for queued retransmissions was not told when they had arrived after all.
#[test]
fn a_writer_is_told_of_room_that_news_of_a_lost_lane_makes() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 100)]);
    let [unheard, stuck] = [LaneId::FIRST, LaneId::new(1)];
    pair.open(CLIENT, pattern(10_000_000, 1));
    pair.drive(5 * SECOND);
    pair.silence_one_way(unheard, SERVER);
    let id = pair.ends[CLIENT].session.open(StreamKind::Raw).unwrap();
    pair.ends[SERVER].unread.push(id); // no credit comes that would wake the writer
    for _ in 0..2 {
        pair.ends[CLIENT].session.send_stream(id).write(&mut pattern(250_000, 2)).unwrap();
        pair.drive(SECOND / 20);
    }
    assert_eq!(pair.ends[CLIENT].session.stats().pending_bytes, 0, "all is under way");
    pair.drive(SECOND / 10);
    pair.lane_down(unheard);
    let more = pair.ends[CLIENT].session.send_stream(id).write(&mut pattern(1, 3));
    assert_eq!(more, Err(WriteError::Blocked), "all waits to be sent again");
    pair.ends[CLIENT].events.clear();
    pair.lane_up(stuck, Path::new(50.0, 10));
    pair.clog(stuck, CLIENT);
    pair.drive(SECOND / 5);
    assert!(pair.ends[CLIENT].events.contains(&Event::Writable(id)));
}

/// A client closed its session when a stream's bytes had arrived on one lane and its opening was
/// still in flight on another: the server never saw the stream.
#[test]
fn what_has_arrived_of_a_stream_that_the_peer_does_not_know_yet_is_not_delivered() {
    let (slow, fast) = (Path::new(50.0, 500), Path::new(50.0, 5));
    let mut pair = Pair::new(Config::default(), &[slow]);
    let id = pair.ends[CLIENT].session.open(StreamKind::Raw).unwrap();
    pair.drive(SECOND / 100); // the OPEN is in flight, and stays so for a while
    pair.lane_up(LaneId::new(1), fast);
    pair.drive(SECOND / 20);
    let mut stream = pair.ends[CLIENT].session.send_stream(id);
    stream.write(&mut Bytes::from_static(b"sooner than its opening")).unwrap();
    assert_eq!(stream.await_arrival(), Ok(false));
    stream.finish().unwrap();
    pair.drive(SECOND / 10);
    let undelivered = pair.ends[CLIENT].session.undelivered();
    assert_eq!(undelivered, Undelivered { bytes: 0, streams: 1 }, "all arrived but the opening");
    assert_eq!(pair.ends[CLIENT].session.send_stream(id).await_arrival(), Ok(false));
    pair.drive(SECOND * 2);
    let told = Event::Arrived { id, bytes: 23, ended: true };
    assert!(pair.ends[CLIENT].events.contains(&told), "{:?}", pair.ends[CLIENT].events);
    assert!(pair.ends[CLIENT].session.is_delivered());
}
