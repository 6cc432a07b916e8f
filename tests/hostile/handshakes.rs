//! What is no imux at all, or never becomes a lane.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::honest::{self, Scene};
use super::peer::{self, Out, Peer, client_tls, connect};
use super::wire::{self, codes, frame, types};

/// Sends bytes; what comes back until the server hangs up.
fn talk(scene: &Scene, bytes: &[u8]) -> Vec<u8> {
    let mut socket = connect(scene.server);
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    answer
}

/// The alert in a record that is not encrypted, if this is one.
fn alert(answer: &[u8]) -> Option<u8> {
    match *answer {
        [21, 3, _, 0, 2, _, description, ..] => Some(description),
        _ => None,
    }
}

#[test]
fn plaintext_and_garbage_are_hung_up_on() {
    let scene = Scene::start();
    let noise: Vec<u8> =
        (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let endless_record = [&[22, 3, 1, 0xff, 0xff][..], &noise].concat();
    let empty_records = [22, 3, 1, 0, 0].repeat(1000);
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n".as_slice(),
        &noise,
        &endless_record,
        &empty_records,
        &[],
    ] {
        let mut socket = connect(scene.server);
        let _ = socket.write_all(bytes);
        let _ = socket.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.is_empty() || alert(&answer).is_some(), "{answer:x?}");
    }
    scene.end();
}

#[test]
fn tls_1_2_is_refused_with_an_alert() {
    let scene = Scene::start();
    // No supported_versions, one ECDHE suite.
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    let mut record = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    record.extend(body);
    // protocol_version, or handshake_failure for what else is missing in it
    assert!(matches!(alert(&talk(&scene, &record)), Some(70 | 40)));
    scene.end();
}

#[test]
fn another_protocol_is_refused_with_an_alert() {
    let scene = Scene::start();
    let mut config = (*client_tls(&scene.identity)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let error = Peer::dial(scene.server, config.clone().into()).err().unwrap();
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    // Without any: TLS is agreed on, and that is all.
    config.alpn_protocols = vec![];
    if let Ok(mut lane) = Peer::dial(scene.server, config.into()) {
        lane.send(&peer::create(&[1]));
        assert_eq!(lane.thrown_out(), Out::LaneEnded);
    }
    scene.end();
}

/// Ten seconds from the connection to a session, however busy the peer looks: all at once.
#[test]
fn slow_handshakes_are_cut_off_after_ten_seconds() {
    let scene = Scene::start();
    let begun = Instant::now();
    // Says nothing; says a byte of TLS at a time; is done with TLS and says nothing; a byte of
    // CREATE at a time; frames that may be ignored, one after the other.
    let silent = connect(scene.server);
    let drip = connect(scene.server);
    let mute = scene.dial();
    let (mut slow, mut chatty) = (scene.dial(), scene.dial());
    let dripping = std::thread::spawn(move || {
        let mut drip = drip;
        let hello = [&[22u8, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat();
        for byte in hello.chunks(1) {
            if drip.write_all(byte).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let creating = std::thread::spawn(move || {
        let create = peer::create(&[1]);
        for byte in create.chunks(1) {
            slow.send(byte);
            std::thread::sleep(Duration::from_millis(500));
        }
        slow.thrown_out()
    });
    let chatting = std::thread::spawn(move || {
        while begun.elapsed() < Duration::from_secs(12) {
            chatty.send(&frame(0x3f, &[], b"never mind"));
            std::thread::sleep(Duration::from_millis(50));
        }
        chatty.thrown_out()
    });
    let mut silent = silent;
    assert!(matches!(silent.read(&mut [0; 1]), Ok(0) | Err(_)));
    let mut mute = mute;
    assert_eq!(mute.thrown_out(), Out::LaneEnded);
    // Not before, either.
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    dripping.join().unwrap();
    assert_eq!(creating.join().unwrap(), Out::LaneEnded);
    assert_eq!(chatting.join().unwrap(), Out::LaneEnded);
    scene.end_with(0, 5);
}

/// One address takes all the places it can; another one is let in all the same.
#[test]
fn a_full_door_keeps_no_one_out() {
    let scene = Scene::start();
    let crowd: Vec<_> = (0..300).map(|_| connect(scene.server)).collect();
    // The honest client is at another address, and opens a lane at the end.
    let mut lane = scene.dial();
    lane.create();
    lane.expect_alive();
    drop(crowd);
    scene.end_with(1, 129);
}

/// Whole ones, one after the other, as fast as they can be made: the server stops making them with
/// this source, and with no other. A second later some more are granted.
#[test]
fn floods_of_handshakes_are_hung_up_on() {
    const BURST: usize = 1_000;
    const A_SECOND: f64 = 100.0;
    let scene = Scene::start();
    let dial = || Peer::dial(scene.server, client_tls(&scene.identity));
    let begun = Instant::now();
    let made = (0..).find(|_| dial().is_err()).unwrap();
    let refilled = A_SECOND * begun.elapsed().as_secs_f64();
    assert!((BURST..=BURST + refilled as usize + 1).contains(&made), "{made}");
    let refused = (0..200).filter(|_| dial().is_err()).count();
    assert!(refused >= 100, "{refused} of 200 were refused");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Another address: the bystander's.
    runtime.block_on(async { drop(honest::connect(scene.server, scene.key).await) });
    std::thread::sleep(Duration::from_secs(1));
    scene.session().expect_alive();
    scene.end_with(2, 10);
}

/// Ignorable frames, and how the lane may be used, said again and again in front of CREATE.
#[test]
fn words_before_a_lane_are_bounded() {
    let scene = Scene::start();
    for word in [frame(0x3f, &[], b"never mind"), frame(types::LANE_POLICY, &[0, 0, 0], &[])] {
        let mut lane = scene.dial();
        lane.send(&word.repeat(1_000));
        lane.create();
        lane.expect_alive();
        let mut lane = scene.dial();
        lane.flood(100_000, |_| word.clone());
        lane.send(&peer::create(&[1]));
        assert_eq!(lane.thrown_out(), Out::LaneEnded);
    }
    scene.end_with(2, 4);
}

#[test]
fn only_create_and_join_begin_a_lane() {
    let scene = Scene::start();
    let session = [1; 16];
    let first = [
        frame(types::PING, &[], &[]),
        wire::data(wire::stream(0), 0, b"hello"),
        frame(types::CLOSE, &[0], b"bye"),
        peer::created(1, &session),
        frame(types::JOINED, &[], &[0; 32]),
        frame(types::REFUSED, &[0], &[]),
        // Malformed: no version, too many, one that is cut off, parameters that are.
        peer::create(&[]),
        peer::create(&[9; 17]),
        frame(types::CREATE, &[2, 1], &[]),
        frame(types::CREATE, &[1, 1, 0, 8], &[1]),
        // Longer than a frame may be.
        [&[0x20, 0x80, 0, 0x40, 1][..], &[0; 64]].concat(),
        [0x20, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff].to_vec(),
        // An even type that nobody knows.
        frame(0x30, &[], b"?"),
    ];
    for bytes in first {
        let mut lane = scene.dial();
        lane.send(&bytes);
        assert_eq!(lane.thrown_out(), Out::LaneEnded, "{bytes:x?}");
    }
    scene.end();
}

#[test]
fn no_version_in_common_is_told() {
    let scene = Scene::start();
    let mut lane = scene.dial();
    lane.send(&peer::create(&[2, 3, 0xffff_ffff]));
    let told = lane.thrown_out();
    assert!(matches!(told, Out::Refused { code: codes::VERSION, .. }), "{told:?}");
    // A newer client that speaks the old version too is welcome.
    let mut lane = scene.dial();
    lane.send(&peer::create(&[2, 1]));
    assert_eq!(lane.frame().unwrap().0, types::CREATED);
    scene.end();
}
