//! Frames that break a rule: each is thrown out with the code of the rule.

use super::child::{FIRST_WINDOW, STREAM_WINDOW, STREAMS_MAX};
use super::honest::Scene;
use super::peer::{self, Out};
use super::wire::{
    DEFAULT, MAX, RAW, codes, data, frame, last, open, servers_stream, stream, types,
};

/// Sends the frames on a session of their own, and asserts the code that it is closed with.
#[track_caller]
fn closes(scene: &Scene, code: u64, frames: &[Vec<u8>]) {
    let mut peer = scene.session();
    peer.send(&frames.concat());
    let reason = peer.expect_close(code);
    assert!(!reason.is_empty() && reason.is_ascii(), "{reason:?}");
    let over = scene.honest.told("over");
    assert!(over.contains("peer misbehaved") && over.contains(&reason), "{over:?}");
}

/// Sends the frames on a lane of a session with two: the lane ends, the session does not.
#[track_caller]
fn ends_the_lane(scene: &Scene, frames: &[Vec<u8>]) {
    let (mut first, keys) = scene.session_and_keys();
    let mut second = scene.dial();
    assert_eq!(second.join(&keys, 1), Ok(()));
    second.send(&frames.concat());
    assert_eq!(second.thrown_out(), Out::LaneEnded, "{frames:x?}");
    first.expect_alive();
}

#[test]
fn an_ack_of_what_was_never_sent_closes_the_session() {
    let scene = Scene::start();
    for position in [1, 1 << 40, MAX] {
        closes(&scene, codes::INVALID_ACK, &[frame(types::ACK, &[0, position], &[])]);
        closes(&scene, codes::INVALID_ACK, &[frame(types::LANE_CLOSED, &[0, position, 0], &[])]);
    }
    scene.end_with(1, 2);
}

#[test]
fn acks_that_go_backwards_or_lead_nowhere_are_nothing() {
    let (scene, mut peer) = Scene::with_session();
    let mut carried = 0;
    // The server sends 6 bytes or more in answer to each of these.
    for index in 0..10 {
        peer.send(&[open(stream(index), DEFAULT), last(stream(index), 0, b"echo")].concat());
        while let Some((kind, body)) = peer.frame() {
            carried += body.len() as u64;
            if kind == types::STREAM_LAST {
                break;
            }
        }
    }
    for position in [carried / 2, 0, carried / 2, 1, 0] {
        peer.send(&frame(types::ACK, &[0, position], &[]));
    }
    // Lanes that never were.
    for lane in [1, 77, MAX] {
        peer.send(&frame(types::ACK, &[lane, MAX], &[]));
        peer.send(&frame(types::LANE_CLOSED, &[lane, MAX, 0], &[]));
    }
    peer.expect_alive();
    scene.end();
}

#[test]
fn more_data_than_credit_closes_the_session() {
    let scene = Scene::start();
    let id = stream(0);
    // One byte beyond the stream's window, far beyond it, and where no byte can be.
    for offset in [STREAM_WINDOW, STREAM_WINDOW * 1000, MAX] {
        closes(&scene, codes::FLOW_CONTROL, &[data(id, offset, b"x")]);
        closes(&scene, codes::FLOW_CONTROL, &[last(id, offset, b"x")]);
    }
    // A final size beyond the window, without a byte sent.
    for size in [STREAM_WINDOW + 1, MAX] {
        closes(&scene, codes::FLOW_CONTROL, &[frame(types::RESET, &[id, 0, size], &[])]);
        closes(&scene, codes::FLOW_CONTROL, &[last(id, size, b"")]);
    }
    scene.end_with(1, 2);
}

#[test]
fn a_stream_that_begins_with_more_than_it_was_promised_closes_the_session() {
    let (scene, mut peer) = Scene::with_session();
    // The last byte of the window takes credit for all of it.
    for index in 0..30 {
        let id = stream(index);
        peer.send(&[open(id, RAW), data(id, FIRST_WINDOW - 1, b"x")].concat());
    }
    peer.expect_alive();
    peer.send(&data(stream(40), STREAM_WINDOW - 1, b"x"));
    peer.expect_close(codes::FLOW_CONTROL);
    scene.end();
}

#[test]
fn an_end_that_moves_closes_the_session() {
    let scene = Scene::start();
    let id = stream(0);
    let open = open(id, RAW);
    let cases: [&[Vec<u8>]; 8] = [
        // Data after the end, and beyond it.
        &[last(id, 0, b"end"), data(id, 3, b"!")],
        &[last(id, 0, b"end"), data(id, 0, b"end!")],
        // Another end: later, earlier, below what has come.
        &[last(id, 0, b"end"), last(id, 0, b"ending")],
        &[last(id, 0, b"ending"), last(id, 0, b"end")],
        &[data(id, 100, b"x"), last(id, 0, b"x")],
        // A reset that says otherwise.
        &[last(id, 0, b"end"), frame(types::RESET, &[id, 0, 4], &[])],
        &[data(id, 0, b"four"), frame(types::RESET, &[id, 0, 3], &[])],
        &[frame(types::RESET, &[id, 0, 9], &[]), frame(types::RESET, &[id, 0, 8], &[])],
    ];
    for frames in cases {
        closes(&scene, codes::FINAL_SIZE, &[std::slice::from_ref(&open), frames].concat());
    }
    scene.end_with(1, 2);
}

#[test]
fn more_streams_than_allowed_close_the_session() {
    let scene = Scene::start();
    for index in [STREAMS_MAX, STREAMS_MAX * 2, MAX >> 2] {
        closes(&scene, codes::STREAM_LIMIT, &[open(stream(index), RAW)]);
        closes(&scene, codes::STREAM_LIMIT, &[data(stream(index), 0, b"x")]);
        closes(&scene, codes::STREAM_LIMIT, &[frame(types::STOP, &[stream(index), 0], &[])]);
    }
    scene.end_with(1, 2);
}

#[test]
fn streams_that_are_not_the_peers_close_the_session() {
    let scene = Scene::start();
    let ours = servers_stream(0);
    for frames in [
        // The server's own, which it has not opened.
        vec![data(ours, 0, b"x")],
        vec![open(ours, RAW)],
        vec![frame(types::RESET, &[ours, 0, 0], &[])],
        vec![frame(types::STOP, &[ours, 0], &[])],
        vec![frame(types::MAX_STREAM_DATA, &[ours, 9], &[])],
        // Of one direction only: there are none.
        vec![data(2, 0, b"x")],
        vec![open(3, RAW)],
    ] {
        closes(&scene, codes::PROTOCOL, &frames);
    }
    scene.end_with(1, 2);
}

#[test]
fn handshake_frames_after_the_handshake_close_the_session() {
    let scene = Scene::start();
    for bytes in [
        peer::create(&[1]),
        peer::created(1, &[9; 16]),
        super::wire::join(&[9; 16], 1, &[9; 32]),
        frame(types::JOINED, &[], &[9; 32]),
        frame(types::REFUSED, &[codes::JOIN_REFUSED], &[]),
    ] {
        closes(&scene, codes::PROTOCOL, &[bytes]);
    }
    scene.end_with(1, 2);
}

#[test]
fn bytes_that_are_no_frames_end_their_lane_only() {
    let scene = Scene::start();
    let id = stream(0);
    let cases = [
        // Announced lengths: one byte too many, and as large as can be said. Nothing is waited or
        // reserved for.
        vec![0x04, 0x80, 0, 0x40, 0],
        vec![0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        // Types that must be understood and are not.
        frame(0x1a, &[], &[]),
        frame(0x40, &[], b"?"),
        frame(MAX - 1, &[], &[]),
        // Bodies that are too short, too long, or say what cannot be.
        frame(types::PING, &[], b"x"),
        frame(types::ACK, &[0], &[]),
        frame(types::ACK, &[0, 0, 0], &[]),
        frame(types::STREAM, &[id], &[]),
        data(id, 0, b""),
        frame(types::OPEN, &[id, 1], b""),
        frame(types::OPEN, &[id, 1], &[b'a'; 301]),
        frame(types::OPEN, &[id, 1], b"\xff\xfe"),
        frame(types::OPEN, &[id, 0], b"elsewhere:22"),
        frame(types::RESET, &[id, 0], &[]),
        frame(types::MAX_DATA, &[], &[0xc0]),
        frame(types::CLOSE, &[0], &[b'x'; 257]),
        frame(types::DRAIN, &[1], &[]),
    ];
    for bytes in cases {
        ends_the_lane(&scene, &[bytes]);
    }
    scene.end_with(1, 4);
}

#[test]
fn frames_that_may_be_ignored_are() {
    let (scene, mut peer) = Scene::with_session();
    // A kind of stream that nobody knows is the stream's own affair.
    peer.send(&frame(types::OPEN, &[stream(0), 9], b"whatever it may want"));
    for kind in [0x3f, 0x7f, 0x01, 0x1b, MAX] {
        peer.send(&frame(kind, &[], &[0xff; 1000]));
    }
    peer.expect_alive();
    scene.end();
}

/// Words of a peer go to logs: bounded, and nothing that a terminal would act on.
#[test]
fn a_peers_words_are_printed_harmlessly() {
    let (scene, mut peer) = Scene::with_session();
    peer.send(&frame(types::CLOSE, &[0x111], "\x1b[2J\r\n\u{202e}evil\0".as_bytes()));
    assert_eq!(peer.thrown_out(), Out::LaneEnded);
    let over = scene.honest.told("over");
    assert!(over.contains("evil") && over.contains("0x111"), "{over:?}");
    assert!(over.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{over:?}");
    scene.end();
}
