use std::sync::Arc;
use std::time::Duration;

use super::super::allowance::Allowance;
use super::*;
use crate::proto::config::Config;
use crate::proto::session::Session;
use crate::proto::testing;
use crate::proto::testing::pair::{CLIENT, Pair, Path, SERVER, pattern};
use crate::proto::wire::StreamKind;

const K: u64 = 1024;
const M: u64 = 1024 * K;

/// Windows of this many streams in turn, if each takes what it gets and nobody reads.
fn paused(count: usize, wish: u64, first: u64, max: u64, room: u64) -> Vec<u64> {
    let mut used = 0;
    let take = |_| {
        let window = share(wish, first, max, used, room);
        used += window - first;
        window
    };
    (0..count).map(take).collect()
}

#[test]
fn half_of_the_room_is_there_for_whoever_comes_first() {
    assert_eq!(paused(3, 16 * M, 2 * K, 16 * M, 64 * M), [16 * M, 16 * M, 4 * M]);
    assert_eq!(paused(33, M, 2 * K, 16 * M, 64 * M), [M; 33]);
}

#[test]
fn many_that_came_before_leave_something_to_those_that_come_after() {
    for (count, wish, max, room, last) in [
        (100, M, M, 28 * M, 16 * K),
        (500, M, M, 28 * M, 4 * K),
        (7, M, M, 7 * M / 4, 32 * K),
        (20, M, M, 7 * M / 4, 8 * K),
        (100, 16 * M, 16 * M, 56 * M, 32 * K),
    ] {
        let windows = paused(count, wish, 2 * K, max, room);
        assert!(windows[count - 1] >= last, "{count}: {:?}", windows.last());
        let beyond: u64 = windows.iter().map(|window| window - 2 * K).sum();
        assert!(beyond <= room, "{count}: {beyond}");
    }
}

#[test]
fn windows_of_any_size_are_shared_without_fault() {
    for room in [0, 1, 2, 3, 7, 100, u64::MAX / 2] {
        for first in [1, 2, 100, u64::MAX] {
            for wish in [0, 1, 99, u64::MAX] {
                for max in [1, 1000, u64::MAX] {
                    let window = share(wish, first, max, room / 3, room);
                    assert!(window >= first && window - first <= room - room / 3);
                }
            }
        }
    }
}

/// What all streams were promised, recounted.
fn promised(session: &Session) -> u64 {
    let streams = session.streams();
    let first = streams.room.first;
    let open = streams.table.values().map(|stream| stream.recv.promised().max(first));
    let early = streams.remote.early_unseen.get() * (streams.room.early - first);
    open.sum::<u64>() + streams.remote.unseen() * first + early
}

fn assert_room(session: &Session) {
    assert_eq!(session.promised(), promised(session), "the books are wrong");
    let window = session.streams().window.wish();
    assert!(promised(session) <= window / 4 * 3, "{} of {window} bytes", promised(session));
    assert!(window <= session.config().session_window);
}

#[test]
fn however_many_readers_pause_the_others_go_on() {
    let windows = [(8 * M, M, 8 * M), (8 * M, M, M)];
    let (long, short) = (pattern(600_000, 1), pattern(1, 1));
    for (session_window, stream_window_max, session_window_initial) in windows {
        let config = Config {
            session_window,
            stream_window_max,
            session_window_initial,
            ..Config::default()
        };
        for (count, uploads) in [(7, true), (60, true), (60, false)] {
            let mut pair = Pair::new(config.clone(), &[Path::new(1000.0, 5)]);
            let reader = if uploads { SERVER } else { CLIENT };
            let (up, down) = if uploads { (&long, &short) } else { (&short, &long) };
            for _ in 0..count {
                let id = pair.open(CLIENT, up.clone());
                pair.ends[reader].unread.push(id);
                pair.drive_until(Duration::from_secs(1), |pair| {
                    pair.ends[SERVER].accepted.contains(&id)
                });
                pair.ends[SERVER].to_write.insert(id, down.clone());
                pair.drive(Duration::from_millis(12));
                assert_room(&pair.ends[reader].session);
            }
            pair.drive(Duration::from_millis(300));
            let id = pair.open(CLIENT, pattern(200_000, 2));
            pair.drive_until(Duration::from_secs(1), |pair| {
                pair.ends[SERVER].accepted.contains(&id)
            });
            pair.ends[SERVER].to_write.insert(id, pattern(200_000, 3));
            let took = pair.drive_until(Duration::from_secs(60), |pair| {
                pair.ends.iter().all(|end| end.read.get(&id).is_some_and(|(_, ended)| *ended))
            });
            assert!(took < Duration::from_secs(5), "{session_window} {count} {uploads}: {took:?}");
            let told = |end: &testing::pair::End| {
                end.events.iter().filter(|e| matches!(e, Event::ReadersPaused { .. })).count()
            };
            let told_here = told(&pair.ends[reader]);
            assert!(told_here == 1 || (told_here == 0 && count == 7), "{told_here} times");
            assert_eq!(told(&pair.ends[1 - reader]), 0);
            // A stream that is read again has all of it.
            pair.ends[reader].unread.clear();
            pair.drive_until(Duration::from_secs(60), |pair| {
                pair.ends.iter().all(|end| end.session.stream_count() == 0)
            });
            assert!(pair.ends[reader].read.values().all(|(_, ended)| *ended));
            for end in &pair.ends {
                assert_eq!((end.session.stream_count(), end.session.memory()), (0, 0));
                assert_room(&end.session);
            }
        }
    }
}

#[test]
fn the_first_streams_begin_with_more_and_the_others_are_raised() {
    let mut pair = Pair::new(Config::default(), &[Path::new(100.0, 10)]);
    pair.drive(Duration::from_millis(11));
    let credit = |pair: &mut Pair| {
        let id = pair.ends[CLIENT].session.open(StreamKind::Raw).unwrap();
        let left = pair.ends[CLIENT].session.streams().table[&id].send.credit_left();
        pair.ends[CLIENT].read.insert(id, (Vec::new(), false));
        (id, left)
    };
    let begun: Vec<_> = (0..12).map(|_| credit(&mut pair).1).collect();
    assert_eq!(begun, [[M; 8].as_slice(), &[2 * K; 4]].concat());
    // One that sends no more than fits is left alone; one that does is raised within a round trip.
    let (id, _) = credit(&mut pair);
    pair.ends[CLIENT].to_write.insert(id, pattern(100_000, 1));
    pair.drive(Duration::from_millis(30));
    let stream = pair.ends[CLIENT].session.streams().get(id);
    assert!(stream.is_none_or(|stream| stream.send.credit_left() > 400 * K));
    assert_eq!(credit(&mut pair).1, M, "more have come, more are told of");
    // Its own receiving side is announced along with the OPEN.
    pair.drive(Duration::from_millis(11));
    let server = &pair.ends[SERVER].session;
    assert!(server.streams().table.values().all(|stream| stream.send.credit_left() >= M));
}

#[test]
fn a_peer_that_knows_no_early_streams_is_told_of_none() {
    let config = Arc::new(Config::default());
    let peer = crate::proto::wire::Params { early_max_stream_data: 0, ..config.params() };
    let session = |peer| Session::new(Side::Server, config.clone(), peer, 1, testing::start());
    assert!(session(config.params()).streams().due.early_streams);
    assert!(!session(peer).streams().due.early_streams);
}

#[test]
fn sixteen_thousand_streams_are_open_at_once() {
    let mut pair = Pair::new(Config::default(), &[Path::new(1000.0, 5)]);
    pair.drive(Duration::from_millis(50));
    let mut open = 0;
    for _ in 0..20 {
        while open < 16_384 && pair.ends[CLIENT].session.open(StreamKind::Raw).is_some() {
            open += 1;
        }
        pair.drive(Duration::from_millis(50));
    }
    assert_eq!((open, pair.ends[SERVER].session.stream_count()), (16_384, 16_384));
    pair.ends.iter().for_each(|end| assert_room(&end.session));
    // And one of them moves data: idle ones are in nobody's way.
    let id = pair.ends[SERVER].accepted[16_383];
    pair.ends[SERVER].read.clear();
    pair.ends[CLIENT].read.insert(id, (Vec::new(), false));
    pair.ends[SERVER].to_write.insert(id, pattern(3_000_000, 1));
    let took = pair.drive_until(Duration::from_secs(9), |pair| {
        pair.ends[CLIENT].read.get(&id).is_some_and(|(_, ended)| *ended)
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn windows_grow_as_far_as_memory_is_allowed_and_no_further() {
    let config = Config { session_window_initial: 4 * M, ..Config::default() };
    let mut pair = Pair::new(config, &[Path::new(1000.0, 20)]);
    pair.drive(Duration::from_millis(50));
    let allowed = |receive| crate::proto::Allowance { receive, send: 64 * M };
    pair.ends[SERVER].session.set_allowance(allowed(4 * M));
    let id = pair.open(CLIENT, pattern(100_000_000, 1));
    for _ in 0..30 {
        pair.drive(Duration::from_millis(50));
        let session = &pair.ends[SERVER].session;
        assert!(session.promised() <= 3 * M, "{session:?}");
        assert_eq!(session.promised(), promised(session), "the books are wrong");
    }
    let session = &mut pair.ends[SERVER].session;
    assert!(session.memory_due());
    let used = session.use_memory();
    assert!(used.wants.receive > 4 * M && session.memory_refused(), "{used:?} {session:?}");
    session.set_allowance(allowed(64 * M));
    pair.drive(Duration::from_millis(200));
    let session = &mut pair.ends[SERVER].session;
    assert!(session.promised() > 4 * M, "it grows for who reads fast: {session:?}");
    assert!(session.use_memory().wants.receive > 16 * M);
    // With less allowed it goes on within that, once what it was told before is used up.
    session.set_allowance(allowed(M));
    let before = session.streams().window.consumed();
    pair.drive(Duration::from_millis(500));
    let session = &mut pair.ends[SERVER].session;
    assert!(
        session.promised() <= 3 * M / 4 && session.streams().window.consumed() > before,
        "{session:?}"
    );
    session.set_allowance(allowed(64 * M));
    pair.drive_until(Duration::from_secs(30), |pair| pair.ends[SERVER].read[&id].1);
    assert!(pair.ends[SERVER].read[&id].1);
    // What no stream uses any more is returned.
    pair.drive(Duration::from_millis(100));
    let session = &mut pair.ends[SERVER].session;
    let most = 4 * M + 2 * session.streams().promised_early();
    assert!(session.memory_due() && session.use_memory().wants.receive <= most);
}

#[test]
fn a_session_without_streams_gives_back_what_it_began_with_and_finds_it_again() {
    let mut pair = Pair::new(Config::default(), &[Path::new(1000.0, 5)]);
    pair.drive(Duration::from_millis(50));
    let first = crate::proto::Allowance { receive: 16 * M, send: M };
    let session = &mut pair.ends[CLIENT].session;
    session.set_allowance(first);
    session.use_memory();
    session.lend_first_windows();
    assert!(session.memory_due());
    assert_eq!(session.use_memory().wants, crate::proto::Allowance::default());
    session.set_allowance(crate::proto::Allowance { receive: M / 8, send: M / 8 });
    assert!(!session.memory_due());
    let id = pair.open(CLIENT, pattern(1_000, 1));
    let session = &mut pair.ends[CLIENT].session;
    assert!(session.memory_due() && session.use_memory().wants.receive >= 16 * M);
    session.set_allowance(first);
    // Its window is announced in the first flight.
    pair.drive(Duration::from_millis(7));
    let told = pair.ends[SERVER].session.streams().table[&id].send.credit_left();
    assert!(told >= M / 2, "{told}");
}

#[test]
fn what_was_promised_when_more_was_allowed_does_not_stop_the_others() {
    let mut pair = Pair::new(Config::default(), &[Path::new(1000.0, 5)]);
    for _ in 0..20 {
        let id = pair.open(CLIENT, pattern(1_000_000, 1));
        pair.ends[SERVER].unread.push(id);
        pair.drive(Duration::from_millis(20));
    }
    let session = &mut pair.ends[SERVER].session;
    assert!(session.buffered_bytes() > 16 * M);
    session.set_allowance(crate::proto::Allowance { receive: M, send: M });
    let id = pair.open(CLIENT, pattern(2_000_000, 2));
    let took = pair.drive_until(Duration::from_secs(30), |pair| {
        pair.ends[SERVER].read.get(&id).is_some_and(|(_, ended)| *ended)
    });
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_window_that_shrank_with_the_allowance_grows_again_with_it() {
    let mut pair = Pair::new(Config::default(), &[Path::new(1000.0, 5)]);
    let id = pair.open(CLIENT, pattern(300_000_000, 1));
    let little = |wants: Allowance| Allowance { receive: wants.receive.min(16 * M), ..wants };
    let mut drive = |milliseconds, allowed: &dyn Fn(Allowance) -> Allowance| {
        for begun in (0..milliseconds).step_by(10) {
            let session = &mut pair.ends[SERVER].session;
            if session.memory_due() || begun == 0 {
                let wants = session.use_memory().wants;
                session.set_allowance(allowed(wants));
            }
            pair.drive(Duration::from_millis(10));
        }
        let streams = pair.ends[SERVER].session.streams();
        let window = streams.table[&id].recv.window.window();
        (window, streams.promised_early())
    };
    let (window, early) = drive(500, &|wants| wants);
    assert!(window >= 4 * M && early >= 4 * M, "{window}, {early}");
    let (window, early) = drive(300, &little);
    assert!(window <= M && early >= 4 * M, "{window}, {early}");
    let (window, _) = drive(500, &|wants| wants);
    assert!(window >= 4 * M, "{window}");
}
