//! Peers that send what they should not in flows of datagrams, or more of it than is good.

use std::time::{Duration, Instant};

use super::honest::Scene;
use super::peer::Peer;
use super::wire::{
    DEFAULT, FLOW, MAX, NAMED, RAW, codes, data, datagram, frame, open, open_flow, part, stream,
    take_varint, types,
};

/// More than the allowance for frames that move nothing.
const MANY: usize = 400_000;

const LOAD: (u64, &str) = (codes::EXCESSIVE_LOAD, "excessive load");

/// The longest that counts.
const TEN_SECONDS: u64 = 10_000;

/// The next datagram's number and content.
fn next_datagram(peer: &mut Peer) -> (u64, Vec<u8>) {
    loop {
        let (kind, body) = peer.required().expect("a datagram");
        if kind == types::DATAGRAM {
            let mut rest = body.as_slice();
            let [_, number, _waited] = [(); 3].map(|()| take_varint(&mut rest).unwrap());
            return (number, rest.to_vec());
        }
    }
}

/// The code with which the other end resets a stream.
fn reset(peer: &mut Peer, stream: u64) -> u64 {
    loop {
        let (kind, body) = peer.required().expect("a RESET");
        let mut rest = body.as_slice();
        if kind == types::RESET && take_varint(&mut rest) == Some(stream) {
            return take_varint(&mut rest).unwrap();
        }
    }
}

#[test]
fn what_comes_twice_late_or_in_pieces_that_do_not_fit_is_dropped_and_the_flow_goes_on() {
    let (scene, mut peer) = Scene::with_session();
    let id = stream(0);
    peer.send(&open_flow(id, TEN_SECONDS, DEFAULT));
    let whole = [1; 3_000];
    let hostile = [
        datagram(id, 0, b"first"),
        datagram(id, 0, b"again"),
        part(id, 1, 3_000, 0, &whole[..2_000]),
        part(id, 1, 3_000, 1_000, &whole[..2_000]),
        part(id, 1, 2_999, 2_000, &whole[..999]),
        datagram(id, 2, b"second"),
        datagram(id, 2, b"again"),
    ];
    peer.send(&hostile.concat());
    let mut number = 0;
    let mut expect = |peer: &mut Peer, expected: &[u8]| {
        assert_eq!(next_datagram(peer), (number, expected.to_vec()));
        number += 1;
    };
    expect(&mut peer, b"first");
    expect(&mut peer, b"second");
    peer.send(&[datagram(id, 1, b"late"), datagram(id, MAX, b"third")].concat());
    expect(&mut peer, b"third");
    peer.send(&[datagram(id, 3, b"late"), datagram(id, MAX, b"again")].concat());
    peer.expect_alive();
    scene.end();
}

#[test]
fn malformed_datagrams_end_their_lane_and_not_the_session() {
    let scene = Scene::start();
    let id = stream(0);
    let wrong = [
        // Nothing, all, more than all, and too little of a datagram; one that is too large.
        part(id, 0, 5_000, 0, b""),
        part(id, 0, 5_000, 0, &[0; 5_000]),
        part(id, 0, 5_000, 4_000, &[0; 1_001]),
        part(id, 0, 5_000, 0, &[0; 1_023]),
        part(id, 0, 65_508, 0, &[0; 2_000]),
        part(id, 0, MAX, MAX, &[0; 2_000]),
        part(id, 0, MAX, MAX - 2_000, &[0; 2_000]),
        frame(types::DATAGRAM, &[id, 0], &[]),
        frame(types::DATAGRAM_PART, &[id, 0, 0, 5_000], &[]),
        frame(types::OPEN, &[stream(1), FLOW], &[]),
        frame(types::OPEN, &[stream(1), FLOW, 200, NAMED], &[b'x'; 301]),
    ];
    let lanes = wrong.len() as u64;
    for wrong in wrong {
        let (mut first, keys) = scene.session_and_keys();
        first.send(&open_flow(id, 200, DEFAULT));
        let mut second = scene.dial();
        assert_eq!(second.join(&keys, 1), Ok(()));
        second.send(&wrong);
        assert_eq!(second.thrown_out(), super::peer::Out::LaneEnded, "{wrong:x?}");
        first.expect_alive();
    }
    scene.end_with(1, 2 * lanes);
}

/// What is no kind for a flow is a kind that is not known: refused, and the session goes on.
#[test]
fn flows_for_what_takes_none_are_refused() {
    let (scene, mut peer) = Scene::with_session();
    for (index, inner) in (0..).zip([3, 4, FLOW, 77, MAX]) {
        peer.send(&frame(types::OPEN, &[stream(index), FLOW, 200, inner], b"x"));
        peer.send(&datagram(stream(index), 0, b"x"));
    }
    peer.send(&open_flow(stream(9), 200, DEFAULT));
    peer.send(&datagram(stream(9), 0, b"hello"));
    assert_eq!(next_datagram(&mut peer), (0, b"hello".to_vec()));
    peer.expect_alive();
    scene.end();
}

/// Bytes of a stream are no part of a flow, datagrams none of a stream.
#[test]
fn flows_and_streams_are_not_mixed_up() {
    let (scene, mut peer) = Scene::with_session();
    let (flow, bytes) = (stream(0), stream(1));
    peer.send(&[open_flow(flow, TEN_SECONDS, DEFAULT), open(bytes, DEFAULT)].concat());
    peer.send(&[data(flow, 0, &[1; 100]), datagram(bytes, 0, &[2; 100])].concat());
    peer.send(&[data(bytes, 0, b"bytes"), datagram(flow, 0, b"datagram")].concat());
    let (mut echoed, mut heard) = (Vec::new(), Vec::new());
    while echoed.is_empty() || heard.is_empty() {
        let (kind, body) = peer.required().unwrap();
        let mut rest = body.as_slice();
        let id = take_varint(&mut rest);
        match kind {
            types::STREAM if id == Some(bytes) => echoed = body[2..].to_vec(),
            types::DATAGRAM => heard = body[3..].to_vec(),
            _ => {}
        }
    }
    assert_eq!((echoed, heard), (b"bytes".to_vec(), b"datagram".to_vec()));
    scene.end();
}

#[test]
fn floods_of_datagrams_for_no_flow_are_thrown_out() {
    let (scene, mut peer) = Scene::with_session();
    peer.flood(MANY, |n| datagram(stream(n % 10), n, &[1; 100]));
    scene.honest.expect_close(&mut peer, &[LOAD]);
    scene.end();
}

/// A tiny datagram costs a look, as an acknowledgement does: a sixteenth. Whoever is not fast
/// enough to be thrown out for them keeps nobody from working.
#[test]
fn floods_of_tiny_datagrams_harm_nobody() {
    let (scene, mut peer) = Scene::with_session();
    peer.send(&open_flow(stream(0), TEN_SECONDS, RAW));
    peer.flood(10 * MANY, |n| datagram(stream(0), n, b"x"));
    scene.end();
}

#[test]
fn flows_opened_and_ended_without_end_are_thrown_out() {
    let (scene, mut peer) = Scene::with_session();
    peer.flood(MANY, |n| {
        let id = stream(n);
        [
            open_flow(id, 200, DEFAULT),
            datagram(id, 0, &[1; 100]),
            frame(types::RESET, &[id, 0x20, 0], &[]),
            frame(types::STOP, &[id, 0x20], &[]),
        ]
        .concat()
    });
    let limit = (codes::STREAM_LIMIT, "stream limit exceeded");
    scene.honest.expect_close(&mut peer, &[LOAD, limit]);
    scene.end();
}

/// As many flows as streams begin with, each filled with `frames` of its datagrams.
fn fill(peer: &mut Peer, mut frames: impl FnMut(u64, u64) -> Vec<u8>) {
    for index in 0..10 {
        peer.send(&open_flow(stream(index), MAX, RAW));
    }
    for number in 0..600 {
        for index in 0..10 {
            let frames = frames(stream(index), number);
            peer.send(&frames);
        }
    }
    peer.expect_alive();
}

/// Nobody reads them, for as long as a flow may be told to keep them.
#[test]
fn datagrams_that_nobody_reads_cost_what_flows_may() {
    let (scene, mut peer) = Scene::with_session();
    fill(&mut peer, |id, number| datagram(id, number, &[1; 8_000]));
    scene.end();
}

#[test]
fn datagrams_behind_gaps_cost_what_flows_may() {
    let (scene, mut peer) = Scene::with_session();
    fill(&mut peer, |id, number| {
        let far = MAX / 700 * (number + 1);
        (0..8).map(|n| datagram(id, far + 2 * n, &[1; 1_000])).collect::<Vec<_>>().concat()
    });
    scene.end();
}

/// Last parts may be small, and each datagram waits for its first part until its deadline.
#[test]
fn parts_of_what_is_never_whole_cost_what_flows_may() {
    let (scene, mut peer) = Scene::with_session();
    fill(&mut peer, |id, number| {
        let begun = part(id, 2 * number, 65_507, 0, &[1; 7_000]);
        let small = part(id, 2 * number + 1, 65_507, 65_490, &[1; 17]);
        [begun, small].concat()
    });
    scene.end();
}

/// Small parts of datagrams that are never whole, as fast as they can be said: however many wait,
/// another one costs no walk through them.
#[test]
fn small_parts_without_end_keep_nobody_from_working() {
    let (scene, mut peer) = Scene::with_session();
    peer.send(&open_flow(stream(0), MAX, RAW));
    peer.flood(MANY, |n| part(stream(0), n + 1, 65_507, 65_491, &[1; 16]));
    peer.expect_alive();
    scene.end();
}

/// It asks for datagrams without end and takes none.
#[test]
fn a_peer_that_reads_no_datagrams_costs_what_flows_may() {
    let (scene, mut peer) = Scene::with_session();
    for index in 0..10 {
        peer.send(&open_flow(stream(index), MAX, NAMED));
    }
    std::thread::sleep(Duration::from_secs(2));
    peer.cut();
    scene.end();
}

/// A flow on which the peer says nothing more ends, and it is told so; datagrams for it are for
/// nobody then.
#[test]
fn an_ended_flow_takes_nothing_more() {
    let (scene, mut peer) = Scene::with_session();
    let id = stream(0);
    peer.send(&open_flow(id, 200, DEFAULT));
    peer.send(&datagram(id, 0, b"hello"));
    assert_eq!(next_datagram(&mut peer), (0, b"hello".to_vec()));
    peer.send(&frame(types::RESET, &[id, 0x20, 0], &[]));
    peer.send(&frame(types::STOP, &[id, 0x20], &[]));
    reset(&mut peer, id);
    let begun = Instant::now();
    for number in 1..100 {
        peer.send(&datagram(id, number, b"hello?"));
    }
    peer.expect_alive();
    while begun.elapsed() < Duration::from_millis(200) {
        if peer.is_readable() {
            let (kind, body) = peer.frame().unwrap();
            assert_ne!(kind, types::DATAGRAM, "{body:?}");
        }
    }
    scene.end();
}
