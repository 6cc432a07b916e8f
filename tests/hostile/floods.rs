//! Peers that keep the server busy, or have it remember things, within the rules and beyond.

use std::time::Duration;

use super::child::{FIRST_WINDOW, STREAMS_MAX};
use super::honest::Scene;
use super::wire::{DEFAULT, MAX, NAMED, RAW, codes, data, frame, last, open, stream, types};

/// More than the allowance for frames that move nothing.
const MANY: usize = 400_000;

const LOAD: (u64, &str) = (codes::EXCESSIVE_LOAD, "excessive load");

/// Floods a session; it has to be closed for the load.
#[track_caller]
fn too_much(scene: &Scene, frames: impl FnMut(u64) -> Vec<u8>) {
    let mut peer = scene.session();
    peer.flood(MANY, frames);
    scene.honest.expect_close(&mut peer, &[LOAD]);
}

#[test]
fn floods_of_pings_are_thrown_out() {
    let scene = Scene::start();
    too_much(&scene, |_| frame(types::PING, &[], &[]));
    scene.end();
}

#[test]
fn floods_of_ignorable_frames_are_thrown_out() {
    let scene = Scene::start();
    too_much(&scene, |n| frame(0x3f, &[n], &[]));
    scene.end();
}

#[test]
fn floods_of_credit_are_thrown_out() {
    let scene = Scene::start();
    too_much(&scene, |n| frame(types::MAX_DATA, &[n], &[]));
    too_much(&scene, |n| frame(types::MAX_STREAMS, &[n], &[]));
    too_much(&scene, |n| frame(types::MAX_STREAM_DATA, &[stream(n % 10), n], &[]));
    scene.end();
}

#[test]
fn floods_of_stops_and_resets_are_thrown_out() {
    let scene = Scene::start();
    too_much(&scene, |n| frame(types::STOP, &[stream(n % 10), 0], &[]));
    too_much(&scene, |n| frame(types::RESET, &[stream(n % 10), 0, 0], &[]));
    scene.end();
}

/// Streams opened and given up as fast as they can be said. They are served and forgotten at the
/// honest end's pace, so the number is exceeded sooner or later, or the load.
#[test]
fn streams_opened_and_reset_without_end_are_thrown_out() {
    let (scene, mut peer) = Scene::with_session();
    peer.flood(MANY, |n| {
        let id = stream(n);
        [
            open(id, DEFAULT),
            frame(types::RESET, &[id, 0x20, 0], &[]),
            frame(types::STOP, &[id, 0x20], &[]),
        ]
        .concat()
    });
    let limit = (codes::STREAM_LIMIT, "stream limit exceeded");
    scene.honest.expect_close(&mut peer, &[LOAD, limit]);
    scene.end();
}

#[test]
fn floods_of_tiny_frames_are_thrown_out() {
    let scene = Scene::start();
    // In order and to be read; the same byte again and again.
    too_much(&scene, |n| data(stream(0), n.min(FIRST_WINDOW - 1), b"x"));
    too_much(&scene, |_| data(stream(0), 7, b"x"));
    scene.end();
}

#[test]
fn floods_of_lane_notices_are_thrown_out() {
    let scene = Scene::start();
    too_much(&scene, |n| frame(types::LANE_CLOSED, &[n + 1, 0, 0], &[]));
    scene.end();
}

#[test]
fn too_many_gaps_in_a_stream_are_thrown_out() {
    let (scene, mut peer) = Scene::with_session();
    peer.send(&open(stream(0), RAW));
    // It has more once a quarter of what it began with has come.
    peer.send(&data(stream(0), 20, &[1; 1_000]));
    peer.expect_alive();
    std::thread::sleep(Duration::from_millis(100));
    peer.flood(5_000, |n| data(stream(0), (n + 1) * 20, &[1; 16]));
    let reason = scene.honest.expect_close(&mut peer, &[LOAD]);
    assert!(reason.contains("gaps"), "{reason}");
    scene.end();
}

#[test]
fn small_pieces_out_of_order_in_many_streams_are_thrown_out() {
    let (scene, mut peer) = Scene::with_session();
    // Few gaps each, many together: 16 bytes that cost ten times as much to remember. No more than
    // a stream begins with, and no more streams at once than the server has allowed by then.
    let (per_stream, streams) = (110, 20);
    let piece = |n: u64| data(stream(n / per_stream), (n % per_stream + 1) * 17, &[1; 16]);
    for group in 0..22 {
        peer.flood((streams * per_stream) as usize, |n| piece(n + group * streams * per_stream));
        peer.expect_alive();
        peer.acknowledge();
    }
    for group in 22..27 {
        peer.flood((streams * per_stream) as usize, |n| piece(n + group * streams * per_stream));
        std::thread::sleep(Duration::from_millis(10));
    }
    let reason = scene.honest.expect_close(&mut peer, &[LOAD]);
    assert!(reason.contains("out of order"), "{reason}");
    scene.end();
}

/// All the window, out of order, and never the first byte: that is allowed, and costs what was
/// granted.
#[test]
fn a_window_full_of_bytes_out_of_order_costs_the_window() {
    let (scene, mut peer) = Scene::with_session();
    for index in 0..30 {
        peer.send(&open(stream(index), RAW));
        let mut offset = 1;
        while offset < FIRST_WINDOW {
            let length = (FIRST_WINDOW - offset).min(8_000) as usize;
            peer.send(&data(stream(index), offset, &vec![1; length]));
            offset += length as u64;
        }
    }
    peer.expect_alive();
    scene.end();
}

/// Each frame is cut at a record's end, so that it is pieced together before it is understood; what
/// is kept of it must not hold on to more than it is.
#[test]
fn pieces_that_straddle_records_cost_what_they_are() {
    let (scene, mut peer) = Scene::with_session();
    peer.send(&open(stream(0), RAW));
    // A big frame that makes the buffer big and is gone, and a small one out of order behind it.
    let filler = frame(0x3f, &[], &[0; 9_000]);
    for nth in 0..2_000 {
        let small = data(stream(0), 40 + nth * 40, &[1; 20]);
        let (a, b) = filler.split_at(8_500);
        let (c, d) = small.split_at(10);
        peer.send(a);
        peer.send(&[b, c].concat());
        peer.send(d);
    }
    peer.expect_alive();
    scene.end();
}

/// The peer asks for endless data, grants credit without end, and reads nothing: its window is
/// closed, TCP's is.
#[test]
fn a_peer_that_reads_nothing_costs_what_a_stream_may() {
    let (scene, mut peer) = Scene::with_session();
    for index in 0..8 {
        peer.send(&open(stream(index), NAMED));
    }
    std::thread::sleep(Duration::from_secs(2));
    peer.cut();
    scene.end();
}

/// It reads everything and acknowledges nothing: what it has not acknowledged has to be kept for
/// it.
#[test]
fn a_peer_that_acknowledges_nothing_costs_what_a_session_may() {
    let (scene, mut peer) = Scene::with_session();
    for index in 0..30 {
        peer.send(&open(stream(index), NAMED));
    }
    let got = peer.drain(Duration::from_secs(3));
    eprintln!("{} KiB were sent to a peer that acknowledges nothing", got >> 10);
    scene.end();
}

/// As before, and it comes back with new lanes again and again.
#[test]
fn lanes_that_come_and_go_without_acknowledging_cost_what_a_session_may() {
    let scene = Scene::start();
    let (mut first, keys) = scene.session_and_keys();
    for index in 0..30 {
        first.send(&open(stream(index), NAMED));
    }
    for number in 1..40 {
        let mut lane = scene.dial();
        assert_eq!(lane.join(&keys, number), Ok(()));
        lane.drain(Duration::from_millis(50));
        lane.cut();
    }
    scene.end_with(1, 4);
}

/// Every stream makes the server answer with a reset, and none of the answers is read.
#[test]
fn resets_queued_behind_a_closed_window_are_bounded() {
    let (scene, mut peer) = Scene::with_session();
    // Fill the way back first.
    peer.send(&open(stream(0), NAMED));
    std::thread::sleep(Duration::from_millis(300));
    for index in 1..STREAMS_MAX {
        peer.send(
            &[open(stream(index), DEFAULT), frame(types::STOP, &[stream(index), 0x20], &[])]
                .concat(),
        );
    }
    // And over the limit, since none of them can be forgotten.
    peer.send(&open(stream(STREAMS_MAX), DEFAULT));
    std::thread::sleep(Duration::from_millis(300));
    let over = scene.honest.told("over");
    assert!(over.contains("more streams than were allowed"), "{over}");
    scene.end();
}

/// Acknowledgements cost a look each: a sixteenth of another frame that moves nothing.
#[test]
fn floods_of_acks_are_thrown_out() {
    let (scene, mut peer) = Scene::with_session();
    peer.flood(20 * MANY, |n| frame(types::ACK, &[n % 3, 0], &[]));
    scene.honest.expect_close(&mut peer, &[LOAD]);
    scene.end();
}

#[test]
fn a_thousand_idle_streams_cost_little_and_harm_nobody() {
    let (scene, mut peer) = Scene::with_session();
    for index in 0..STREAMS_MAX {
        peer.send(
            &[open(stream(index), DEFAULT), data(stream(index), 0, b"0123456789abcdef")].concat(),
        );
        // No more at once than the server has allowed by then; twenty it allows before it says a
        // word.
        if index % 20 == 19 {
            peer.expect_alive();
            peer.acknowledge();
            while peer.streams_max < (index + 21).min(STREAMS_MAX) {
                peer.frame().unwrap();
            }
        }
    }
    peer.expect_alive();
    scene.end();
}

/// Sessions without end from one client.
#[test]
fn floods_of_sessions_are_refused() {
    let scene = Scene::start();
    let mut sessions = Vec::new();
    let refused = loop {
        let mut lane = scene.dial();
        lane.send(&super::peer::create(&[1]));
        match lane.frame() {
            Some((types::CREATED, _)) => sessions.push(lane),
            Some((types::REFUSED, body)) => break body,
            other => panic!("{other:x?}"),
        }
        assert!(sessions.len() < 1_100, "there is no bound");
    };
    assert_eq!(u64::from(refused[0]), codes::EXCESSIVE_LOAD);
    eprintln!("{} sessions of one client", sessions.len());
    scene.end_with(0, sessions.len() as u64 + 1);
}

/// Credit in absurd amounts, and none at all, change nothing for others.
#[test]
fn absurd_credit_is_taken_for_what_it_is() {
    let (scene, mut peer) = Scene::with_session();
    for max in [0, 1, MAX, 0] {
        peer.send(&frame(types::MAX_DATA, &[max], &[]));
        peer.send(&frame(types::MAX_STREAMS, &[max], &[]));
        peer.send(&frame(types::MAX_STREAM_DATA, &[stream(0), max], &[]));
    }
    peer.send(&[open(stream(0), DEFAULT), last(stream(0), 0, b"still there")].concat());
    peer.expect_alive();
    scene.end();
}
