//! Hostile servers, which an honest client has pinned or not.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use imux::trust::{Identity, server_config};
use rustls::ServerConfig;

use super::child::STREAMS_MAX;
use super::honest::Honest;
use super::peer::{self, Keys, Out, Peer};
use super::wire::{MAX, RAW, codes, data, frame, open, servers_stream, types};

/// A hostile server and an honest client that has pinned its key and wants two lanes.
struct Trap {
    honest: Honest,
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl Trap {
    fn set() -> Self {
        let identity = Identity::generate().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let honest = Honest::start(&format!("client {address} {}", identity.fingerprint()));
        Self { honest, listener, config: server_config(&identity).unwrap() }
    }

    /// The client's next lane.
    fn lane(&self) -> Peer {
        Peer::accept(&self.listener, self.config.clone()).unwrap()
    }

    /// Both lanes: one that asked for a session, whichever it was, and the other, which has not
    /// joined yet.
    fn session(&self) -> (Peer, Keys, Peer) {
        let (mut first, second) = self.lanes();
        let keys = first.created();
        self.honest.told("connected");
        (first, keys, second)
    }

    /// Both lanes; the first is the one that speaks first.
    fn lanes(&self) -> (Peer, Peer) {
        let (mut first, mut second) = (self.lane(), self.lane());
        while !first.is_readable() {
            std::mem::swap(&mut first, &mut second);
        }
        (first, second)
    }

    /// The lane that asks for a session, asked; and the other.
    fn asked(&self) -> (Peer, Peer) {
        let (mut first, second) = self.lanes();
        let (kind, _) = first.required().unwrap();
        assert_eq!(kind, types::CREATE);
        (first, second)
    }

    /// What the client's session ends with.
    #[track_caller]
    fn closes(self, code: u64, frames: &[Vec<u8>]) {
        let (mut first, _keys, _second) = self.session();
        first.send(&frames.concat());
        let reason = first.expect_close(code);
        let over = self.honest.told("over");
        assert!(over.contains("peer misbehaved") && over.contains(&reason), "{over:?}");
    }
}

#[test]
fn a_server_that_breaks_the_rules_is_told_which() {
    let ours = servers_stream;
    let theirs = super::wire::stream(0);
    Trap::set().closes(codes::INVALID_ACK, &[frame(types::ACK, &[0, 1 << 30], &[])]);
    Trap::set().closes(codes::FLOW_CONTROL, &[data(ours(0), MAX, b"x")]);
    Trap::set().closes(codes::STREAM_LIMIT, &[open(ours(STREAMS_MAX), RAW)]);
    Trap::set().closes(codes::PROTOCOL, &[data(theirs, 0, b"never opened")]);
    Trap::set().closes(codes::PROTOCOL, &[peer::created(1, &[1; 16])]);
}

#[test]
fn a_server_that_floods_is_left() {
    let trap = Trap::set();
    let (mut first, _keys, _second) = trap.session();
    first.flood(400_000, |_| frame(types::PING, &[], &[]));
    let load = (codes::EXCESSIVE_LOAD, "excessive load");
    let over = trap.honest.expect_close(&mut first, &[load]);
    assert!(over.contains("move nothing"), "{over}");
}

#[test]
fn a_server_that_cannot_prove_the_session_gets_nothing() {
    for wrong in ["mac", "reflected", "refused", "nothing"] {
        let mut trap = Trap::set();
        let (mut first, keys, mut second) = trap.session();
        let (kind, join) = second.required().unwrap();
        assert_eq!(kind, types::JOIN);
        let number = u64::from(join[16]);
        // Frames behind a wrong proof must not be acted upon.
        let close = frame(types::CLOSE, &[0x111], b"taken for the server");
        let answer = match wrong {
            "mac" => frame(types::JOINED, &[], &[7; 32]),
            "reflected" => frame(types::JOINED, &[], &second.proof(&keys, b'c', number)),
            "refused" => frame(types::REFUSED, &[codes::JOIN_REFUSED], &[]),
            _ => frame(types::PING, &[], &[]),
        };
        second.send(&[answer, close].concat());
        assert_eq!(second.thrown_out(), Out::LaneEnded, "{wrong}");
        // The session is none the worse.
        first.expect_alive();
        assert_eq!(trap.honest.ask("lanes"), "1", "{wrong}");
    }
}

#[test]
fn a_second_lane_with_another_key_is_told_nothing() {
    let trap = Trap::set();
    let (mut first, _keys, second) = trap.session();
    second.cut();
    // The next one ends at another server, whose key the client has not decided on.
    let other = server_config(&Identity::generate().unwrap()).unwrap();
    let mut lane = Peer::accept(&trap.listener, other).unwrap();
    assert_eq!(lane.frame(), None, "not even a JOIN");
    first.expect_alive();
}

#[test]
fn a_server_with_another_key_than_the_pinned_one_is_told_nothing() {
    let identity = Identity::generate().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, pinned) = (listener.local_addr().unwrap(), Identity::generate().unwrap());
    let honest = Honest::start(&format!("client {address} {}", pinned.fingerprint()));
    let mut lane = Peer::accept(&listener, server_config(&identity).unwrap()).unwrap();
    assert_eq!(lane.frame(), None);
    assert!(honest.told("failed").contains(&identity.fingerprint().to_string()));
}

#[test]
fn a_server_with_another_version_is_left() {
    for version in [0, 2, 0xffff_ffff] {
        let trap = Trap::set();
        let (mut lane, _other) = trap.asked();
        lane.send(&peer::created(version, &[1; 16]));
        let told = trap.honest.told("failed");
        assert!(told.contains("version"), "{told}");
    }
}

#[test]
fn a_servers_words_are_printed_harmlessly() {
    let trap = Trap::set();
    let (mut lane, _other) = trap.asked();
    lane.send(&frame(types::REFUSED, &[0x0a], "\x1b]0;owned\x07no\u{202e}".as_bytes()));
    let told = trap.honest.told("failed");
    assert!(told.contains("no") && told.is_ascii(), "{told:?}");
    assert!(!told.contains(|letter: char| letter.is_control()), "{told:?}");
}

#[test]
fn a_server_that_is_none_is_an_error_and_no_hang() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let key = Identity::generate().unwrap().fingerprint();
    let honest = Honest::start(&format!("client {address} {key}"));
    // One lane's failure is its link's.
    let (mut socket, _) = listener.accept().unwrap();
    let mut hello = [0; 5];
    socket.read_exact(&mut hello).unwrap();
    assert_eq!(hello[0], 22, "a ClientHello");
    socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    assert!(!honest.told("failed").is_empty());
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let trap = Trap::set();
    let _lanes = (trap.lane(), trap.lane());
    let told = trap.honest.told("failed");
    assert!(told.contains("timed out"), "{told}");
}
