//! The core on virtual time: a pair of sessions and the lanes between them.

mod flows;
mod policy;
mod random;
mod regressions;

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::pair::{CLIENT, Pair, Path, SERVER, pattern};
use super::testing::pair;
use super::wire::{Frame, FrameBatch, Secret, StreamKind};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// One transfer from client to server over warmed-up `paths`; returns how long it took.
fn transfer(scheduler: SchedulerKind, paths: &[Path], bytes: usize) -> (Pair, Duration) {
    let mut pair = Pair::new(Config { scheduler, ..Config::default() }, paths);
    pair.open(CLIENT, pattern(8_000_000, 9));
    pair.drive(20 * SECOND);
    let data = pattern(bytes, 1);
    let id = pair.open(CLIENT, data.clone());
    let took = pair.drive_until(60 * SECOND, |pair| {
        pair.ends[SERVER].read.get(&id).is_some_and(|(_, ended)| *ended)
    });
    assert!(pair.ends[SERVER].read[&id].0 == data[..], "the bytes arrived unharmed");
    (pair, took)
}

/// Ideal: the shortest time in which the lanes together could have delivered it.
fn ideal(paths: &[Path], bytes: usize) -> Duration {
    let mut time = Duration::ZERO;
    while paths
        .iter()
        .map(|path| path.bytes_per_second * time.saturating_sub(path.delay).as_secs_f64())
        .sum::<f64>()
        < bytes as f64
    {
        time += Duration::from_micros(100);
    }
    time
}

#[test]
fn one_lane_is_filled() {
    let paths = [Path::new(50.0, 10)];
    let (_, took) = transfer(SchedulerKind::Imux, &paths, 5_000_000);
    assert!(took < ideal(&paths, 5_000_000).mul_f64(1.05), "{took:?}");
}

#[test]
fn two_equal_lanes_are_both_filled() {
    let paths = [Path::new(50.0, 10), Path::new(50.0, 10)];
    let (pair, took) = transfer(SchedulerKind::Imux, &paths, 10_000_000);
    assert!(took < ideal(&paths, 10_000_000).mul_f64(1.1), "{took:?}");
    let stats = pair.ends[CLIENT].session.stats();
    assert!(stats.resent_bytes * 50 <= stats.sent_bytes, "{stats:?}");
}

#[test]
fn unequal_lanes_are_never_slower_than_the_best_alone() {
    let cases =
        [(50.0, 10, 50.0, 100), (50.0, 10, 5.0, 10), (100.0, 5, 1.0, 200), (8.0, 50, 80.0, 5)];
    for (rate_a, delay_a, rate_b, delay_b) in cases {
        let paths = [Path::new(rate_a, delay_a), Path::new(rate_b, delay_b)];
        for bytes in [100_000, 1_000_000, 10_000_000] {
            let alone = paths.iter().map(|path| ideal(&[*path], bytes)).min().unwrap();
            let best = ideal(&paths, bytes);
            let (_, took) = transfer(SchedulerKind::Imux, &paths, bytes);
            let bound = alone.mul_f64(1.03).max(best.mul_f64(1.2)) + Duration::from_millis(10);
            assert!(took < bound, "{paths:?} {bytes} B: {took:?}, alone {alone:?}, ideal {best:?}");
        }
    }
}

#[test]
fn every_scheduler_delivers() {
    let paths = [Path::new(50.0, 10), Path::new(10.0, 40), Path::new(2.0, 80)];
    for scheduler in SchedulerKind::ALL {
        transfer(scheduler, &paths, 3_000_000);
    }
}

#[test]
fn a_silent_lane_loses_nothing_and_holds_nothing_up_for_long() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10), Path::new(50.0, 10)]);
    let data = pattern(6_000_000, 2);
    let id = pair.open(CLIENT, data.clone());
    pair.drive(SECOND / 4);
    pair.set_path(LaneId::new(1), |path| path.silent = true);
    let took = pair.drive_until(20 * SECOND, |pair| pair.ends[SERVER].read[&id].1);
    assert!(pair.ends[SERVER].read[&id].0 == data[..]);
    assert!(took < Duration::from_millis(1100), "{took:?}");
    pair.drive(5 * SECOND);
    let lost = Event::LaneLost { lane: LaneId::new(1), code: Code::LANE_TIMEOUT };
    assert!(pair.ends[CLIENT].events.contains(&lost));
    assert!(pair.ends[SERVER].events.contains(&lost), "the peer is told");
}

#[test]
fn a_session_survives_the_loss_of_all_lanes() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10), Path::new(20.0, 30)]);
    let data = pattern(4_000_000, 3);
    let up = pair.open(CLIENT, data.clone());
    pair.drive(SECOND / 5);
    let down = pair.ends[SERVER].accepted[0];
    assert_eq!(up, down);
    pair.ends[SERVER].to_write.insert(down, data.clone());
    pair.drive(SECOND / 5);
    pair.lane_down(LaneId::new(0));
    pair.lane_down(LaneId::new(1));
    pair.drive(10 * SECOND);
    pair.lane_up(LaneId::new(2), Path::new(50.0, 10));
    pair.drive_until(20 * SECOND, |pair| pair.ends.iter().all(|end| end.read[&up].1));
    for end in &pair.ends {
        assert!(end.read[&up].0 == data[..]);
    }
    pair.drive(SECOND);
    for end in &pair.ends {
        assert_eq!(end.session.stream_count(), 0, "finished streams are forgotten");
        assert_eq!(end.session.memory(), 0);
        assert!(end.session.poll_timeout().is_some_and(|(_, timer)| timer == Timer::Keepalive));
    }
}

#[test]
fn the_grace_time_ends_a_session_without_lanes() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10)]);
    pair.drive(SECOND);
    pair.lane_down(LaneId::new(0));
    pair.drive(121 * SECOND);
    for end in &pair.ends {
        assert_eq!(end.events, [Event::Closed(SessionError::GraceExpired)]);
    }
}

#[test]
fn first_bytes_travel_with_the_opening() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10)]);
    let id = pair.open(CLIENT, Bytes::from_static(b"GET /"));
    let took = pair.drive_until(SECOND, |pair| pair.ends[SERVER].read.contains_key(&id));
    assert!(took < Duration::from_millis(11), "half a round trip: {took:?}");
    assert_eq!(pair.ends[SERVER].read[&id].0, b"GET /");
}

/// Until then its opener may open it elsewhere.
#[test]
fn a_stream_begins_when_a_lane_is_first_given_some_of_it() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10)]);
    pair.drive(SECOND);
    pair.lane_down(LaneId::new(0));
    let id = pair.open(CLIENT, pattern(100_000, 4));
    pair.drive(10 * SECOND);
    let begun = |pair: &Pair, end: usize| {
        pair.ends[end].events.iter().filter(|event| matches!(event, Event::Begun(_))).count()
    };
    assert_eq!(begun(&pair, CLIENT), 0, "no lane has it");
    pair.lane_up(LaneId::new(1), Path::new(50.0, 10));
    pair.drive(SECOND / 200);
    assert!(pair.ends[CLIENT].events.contains(&Event::Begun(id)));
    // That lane is lost, and another delivers everything again.
    pair.lane_down(LaneId::new(1));
    pair.lane_up(LaneId::new(2), Path::new(50.0, 10));
    pair.drive_until(20 * SECOND, |pair| pair.ends[SERVER].read.get(&id).is_some_and(|it| it.1));
    assert_eq!((begun(&pair, CLIENT), begun(&pair, SERVER)), (1, 0));
}

#[test]
fn a_reset_reaches_both_ends() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10), Path::new(5.0, 40)]);
    let id = pair.open(CLIENT, pattern(5_000_000, 4));
    pair.drive(SECOND / 10);
    pair.ends[CLIENT].to_write.clear();
    pair.ends[CLIENT].session.send_stream(id).reset(Code::RESET);
    pair.ends[CLIENT].session.recv_stream(id).stop(Code::RESET);
    pair.drive(2 * SECOND);
    assert_eq!(pair.ends[SERVER].resets.get(&id), Some(&Code::RESET));
    let write = pair.ends[SERVER].session.send_stream(id).write(&mut Bytes::from_static(b"x"));
    assert!(
        matches!(write, Err(WriteError::Stopped(Code::RESET) | WriteError::Closed)),
        "{write:?}"
    );
    pair.ends[SERVER].session.send_stream(id).reset(Code::RESET);
    pair.drive(2 * SECOND);
    for end in &pair.ends {
        assert_eq!((end.session.stream_count(), end.session.memory()), (0, 0));
    }
}

#[test]
fn a_reset_in_order_is_told_after_all_that_was_written() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 100), Path::new(50.0, 1)]);
    let bytes = pattern(300_000, 4);
    pair.drive(SECOND / 2); // credit for first streams has come
    let id = pair.ends[CLIENT].session.open(StreamKind::Raw).unwrap();
    let mut stream = pair.ends[CLIENT].session.send_stream(id);
    assert_eq!(stream.write(&mut bytes.clone()), Ok(bytes.len()));
    stream.finish_with(Code::application(7));
    assert_eq!(stream.write(&mut Bytes::from_static(b"x")), Err(WriteError::Closed));
    // Likewise on a lane that is lost along with what it carries.
    pair.drive(SECOND / 50);
    pair.lane_down(LaneId::FIRST);
    pair.drive(2 * SECOND);
    assert!(pair.ends[SERVER].read[&id].0 == bytes, "{}", pair.ends[SERVER].read[&id].0.len());
    assert_eq!(pair.ends[SERVER].resets.get(&id), Some(&Code::application(7)));
}

#[test]
fn a_reset_cuts_one_in_order_short_and_so_does_a_stop() {
    for by_peer in [false, true] {
        let mut pair = Pair::new(Config::default(), &[Path::new(1.0, 10)]);
        pair.drive(SECOND / 2); // credit for first streams has come
        let id = pair.ends[CLIENT].session.open(StreamKind::Raw).unwrap();
        let mut stream = pair.ends[CLIENT].session.send_stream(id);
        stream.write(&mut pattern(250_000, 4)).unwrap();
        stream.finish_with(Code::RESET);
        if !by_peer {
            stream.reset(Code::BROKEN_OFF);
        }
        pair.drive(SECOND / 2);
        if by_peer {
            pair.ends[SERVER].session.recv_stream(id).stop(Code::BROKEN_OFF);
        }
        pair.drive(SECOND);
        assert_eq!(pair.ends[CLIENT].session.memory(), 0, "nothing is sent any more");
        let told = pair.ends[SERVER].resets.get(&id);
        assert_eq!(told, (!by_peer).then_some(&Code::BROKEN_OFF));
        let read = pair.ends[SERVER].read.get(&id).map_or(0, |(read, _)| read.len());
        assert!(read < 100_000, "{read}");
    }
}

#[test]
fn a_stopped_reader_costs_its_window_and_no_one_elses_time() {
    let config = Config::default();
    let mut pair = Pair::new(config.clone(), &[Path::new(100.0, 5)]);
    let stuck = pair.open(CLIENT, pattern(5_000_000, 5));
    pair.ends[SERVER].unread.push(stuck);
    pair.drive(SECOND);
    let other = pair.open(CLIENT, pattern(5_000_000, 6));
    let took = pair.drive_until(9 * SECOND, |pair| {
        pair.ends[SERVER].read.get(&other).is_some_and(|(_, ended)| *ended)
    });
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(pair.ends[SERVER].session.memory() <= config.stream_window);
    pair.ends[SERVER].unread.clear();
    pair.drive(9 * SECOND);
    assert!(pair.ends[SERVER].read[&stuck].1);
}

#[test]
fn idle_sessions_do_next_to_nothing() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10); 4]);
    for _ in 0..1000 {
        pair.open(CLIENT, Bytes::from_static(b"hello"));
    }
    pair.drive(2 * SECOND);
    pair.ends.iter_mut().for_each(|end| end.timers.clear());
    pair.drive(600 * SECOND);
    for end in &pair.ends {
        let fired: u64 = end.timers.values().sum();
        assert!(fired <= 4 * 4 * 600 / 15, "{:?}", end.timers);
    }
}

/// Feeds a made-up peer's frames to a server session.
fn hostile(frames: Vec<Frame>) -> Vec<Event> {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10)]);
    pair.drive(Duration::from_nanos(1)); // first streams are promised more than others
    let now = pair.now;
    let session = &mut pair.ends[SERVER].session;
    let mut batch = FrameBatch { wire_bytes: frames.len() as u64, frames };
    session.handle_frames(now, LaneId::FIRST, &mut batch);
    std::iter::from_fn(|| session.poll_event()).collect()
}

fn datagram(id: StreamId, len: usize) -> Frame {
    let data = Bytes::from(vec![0; len]);
    let (number, total) = (0, len);
    Frame::Datagram(super::wire::Datagram { id, number, waited_ms: 0, total, offset: 0, data })
}

/// For a flow that is open.
fn flood_of_tiny_datagrams(id: StreamId) -> Vec<Frame> {
    let kind = StreamKind::Flow { deadline_ms: 200, kind: Box::new(StreamKind::Raw) };
    let mut frames = vec![Frame::Open { id, kind }];
    frames.resize(16 * 100_001, datagram(id, 1));
    frames
}

fn closed_with(events: &[Event]) -> Option<Code> {
    events.iter().find_map(|event| match event {
        Event::Closed(SessionError::PeerMisbehaved { code, .. }) => Some(*code),
        _ => None,
    })
}

#[test]
fn a_peer_that_breaks_the_rules_is_told_which() {
    let theirs = StreamId::new(Side::Client, Dir::Bi, 0);
    let ours = StreamId::new(Side::Server, Dir::Bi, 0);
    let beyond = StreamId::new(Side::Client, Dir::Bi, Config::default().streams_max);
    let data = |id, offset, len, fin| Frame::Stream {
        id,
        offset,
        fin,
        data: BytesMut::zeroed(len).freeze(),
    };
    let cases = [
        (vec![Frame::Ack { lane: LaneId::FIRST, position: 1_000 }], Code::INVALID_ACK),
        (vec![data(theirs, Config::default().stream_window, 1, false)], Code::FLOW_CONTROL),
        (vec![data(theirs, u64::MAX >> 2, 100, false)], Code::FLOW_CONTROL),
        (vec![data(theirs, 0, 10, true), data(theirs, 10, 1, false)], Code::FINAL_SIZE),
        (vec![data(theirs, 10, 10, false), data(theirs, 0, 10, true)], Code::FINAL_SIZE),
        (vec![data(ours, 0, 1, false)], Code::PROTOCOL),
        (vec![data(StreamId::new(Side::Client, Dir::Uni, 0), 0, 1, false)], Code::PROTOCOL),
        (vec![data(beyond, 0, 1, false)], Code::STREAM_LIMIT),
        (vec![Frame::Open { id: ours, kind: StreamKind::Raw }], Code::PROTOCOL),
        (vec![Frame::Joined { mac: [0; 32] }], Code::PROTOCOL),
        (vec![Frame::NextKey { announcement: vec![0; 96].into() }], Code::PROTOCOL),
        (vec![Frame::Invitation { secret: Secret([0; 32]) }], Code::PROTOCOL),
        (vec![Frame::Ping; 100_001], Code::EXCESSIVE_LOAD),
        (vec![datagram(theirs, 100); 100_001], Code::EXCESSIVE_LOAD),
        (flood_of_tiny_datagrams(theirs), Code::EXCESSIVE_LOAD),
        (vec![data(theirs, 7, 1, false); 100_001], Code::EXCESSIVE_LOAD),
        ((1..5000).map(|n| data(theirs, n * 2, 1, false)).collect(), Code::EXCESSIVE_LOAD),
    ];
    for (frames, code) in cases {
        let first = frames[0].clone();
        assert_eq!(closed_with(&hostile(frames)), Some(code), "{first:?}");
    }
}

#[test]
fn a_closed_session_says_so_on_its_lanes() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10); 2]);
    pair.drive(SECOND);
    pair.ends[CLIENT].session.close(Code::SHUTDOWN);
    pair.drive_until(SECOND, |pair| pair.ends[CLIENT].session.is_close_sent());
    pair.drive(SECOND);
    let told = SessionError::ClosedByPeer { code: Code::SHUTDOWN, reason: String::new() };
    assert_eq!(pair.ends[SERVER].events, [Event::Closed(told)]);
}

#[test]
fn draining_lets_streams_finish_and_no_new_ones_in() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10)]);
    let id = pair.open(CLIENT, pattern(2_000_000, 8));
    pair.drive(SECOND / 20);
    pair.ends[SERVER].session.drain();
    let late = pair.open(CLIENT, Bytes::from_static(b"too late"));
    pair.drive(5 * SECOND);
    assert!(pair.ends[SERVER].read[&id].1);
    assert_eq!(pair.ends[CLIENT].session.open(StreamKind::Raw), None);
    assert!(!pair.ends[SERVER].read.contains_key(&late));
    assert_eq!(pair.ends[CLIENT].resets.get(&late), Some(&Code::SHUTDOWN));
}

#[test]
fn a_next_key_is_announced_again_when_its_lanes_are_lost() {
    let mut pair = Pair::new(Config::default(), &[Path::new(50.0, 10); 2]);
    pair.drive(SECOND);
    let announcement = Bytes::from(vec![7; 96]);
    pair.ends[SERVER].session.announce_next_key(announcement.clone());
    // In flight, not arrived.
    pair.drive(SECOND / 500);
    pair.lane_down(LaneId::FIRST);
    pair.lane_down(LaneId::FIRST.next());
    let told = |pair: &Pair| {
        let events = &pair.ends[CLIENT].events;
        events.iter().filter(|event| **event == Event::NextKey(announcement.clone())).count()
    };
    assert_eq!(told(&pair), 0);
    pair.lane_up(LaneId::new(2), Path::new(50.0, 10));
    pair.drive(5 * SECOND);
    assert_eq!(told(&pair), 1);
}
