//! Connections that a server takes for a client: servers that open what was not asked for, and
//! clients that ask for what they may not have. The honest end is the program.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use imux::trust::{Identity, server_config};
use rustls::ServerConfig;
use tempfile::TempDir;

use super::peer::{Peer, client_tls};
use super::support::process::{Imux, field};
use super::wire::{
    self, DEFAULT, FLOW, RAW, codes, frame, open, servers_stream, stream, take_varint, types,
    varint,
};

const LISTENING: u64 = 4;
pub(crate) const VISITOR: u64 = 5;
pub(crate) const DIAL_FORBIDDEN: u64 = 0x25;
const LISTEN_FORBIDDEN: u64 = 0x28;
const LISTEN_IN_USE: u64 = 0x29;

/// The parameter listeners_max, at 32.
pub(crate) const LISTENERS: [u8; 3] = [6, 1, 32];

/// A hostile server, and the program's client.
pub(crate) struct Trap {
    _home: TempDir,
    pub(crate) client: Imux,
    listener: TcpListener,
    config: Arc<ServerConfig>,
}

impl Trap {
    pub(crate) fn set(how: &[&str]) -> Self {
        let identity = Identity::generate().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at, key) = (listener.local_addr().unwrap(), identity.fingerprint().to_string());
        let home = tempfile::tempdir().unwrap();
        let to = ["client", "--bind=any=1,express=no", "--dial", &at.to_string(), "--pin", &key];
        let client = Imux::start(home.path(), &[&to, how].concat());
        Self { _home: home, client, listener, config: server_config(&identity).unwrap() }
    }

    /// The client's lane, with a session that has these parameters besides.
    pub(crate) fn session(&self, more: &[u8]) -> Peer {
        let mut lane = Peer::accept(&self.listener, self.config.clone()).unwrap();
        // It may have come with the last of the handshake.
        while !lane.is_readable() {}
        let (kind, _) = lane.required().expect("CREATE");
        assert_eq!(kind, types::CREATE);
        let mut body = [0x5e; 16].to_vec();
        body.extend(wire::parameters(wire::MAX, wire::MAX, 10));
        body.extend(more);
        lane.send(&frame(types::CREATED, &[1], &body));
        lane
    }
}

/// What the client asks for: the stream, the number, the place.
pub(crate) fn asked(lane: &mut Peer) -> (u64, u64, String) {
    loop {
        let (kind, body) = lane.required().expect("an OPEN");
        let mut rest = body.as_slice();
        if kind == types::OPEN {
            let stream = take_varint(&mut rest).unwrap();
            assert_eq!(take_varint(&mut rest), Some(LISTENING), "{body:?}");
            let number = take_varint(&mut rest).unwrap();
            return (stream, number, String::from_utf8(rest.to_vec()).unwrap());
        }
    }
}

/// The code with which the other end resets a stream.
pub(crate) fn reset(lane: &mut Peer, stream: u64) -> u64 {
    loop {
        let (kind, body) = lane.required().expect("a RESET");
        let mut rest = body.as_slice();
        if kind == types::RESET && take_varint(&mut rest) == Some(stream) {
            return take_varint(&mut rest).unwrap();
        }
    }
}

fn visitor(index: u64, number: u64, source: &str) -> Vec<u8> {
    frame(types::OPEN, &[servers_stream(index), VISITOR, number], source.as_bytes())
}

fn comes(destination: &TcpListener, within: Duration) -> bool {
    destination.set_nonblocking(true).unwrap();
    let until = Instant::now() + within;
    while Instant::now() < until {
        if destination.accept().is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

#[test]
fn a_hostile_server_reaches_only_what_a_client_has_named() {
    let destination = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = destination.local_addr().unwrap();
    let trap = Trap::set(&["-R", &format!("0.0.0.0:8080:{to}")]);
    let mut lane = trap.session(&LISTENERS);
    let (_, number, place) = asked(&mut lane);
    assert_eq!((number, place.as_str()), (0, "0.0.0.0:8080"));
    // Whatever it opens but a visitor of that number is refused, and nothing is dialled.
    let named = |index, to: &str| frame(types::OPEN, &[servers_stream(index), 1], to.as_bytes());
    let hostile = [
        visitor(0, 1, "192.0.2.1:1"),
        visitor(1, wire::MAX, ""),
        open(servers_stream(2), DEFAULT),
        open(servers_stream(3), RAW),
        named(4, &to.to_string()),
        frame(types::OPEN, &[servers_stream(5), 3, 1], to.to_string().as_bytes()),
        frame(types::OPEN, &[servers_stream(6), LISTENING, 0], b"0.0.0.0:8081"),
        frame(types::OPEN, &[servers_stream(7), 77], &[]),
        frame(types::OPEN, &[servers_stream(8), FLOW, 200, VISITOR, 0], b"192.0.2.1:1"),
    ];
    for (index, open) in (0..).zip(hostile) {
        lane.send(&open);
        assert_eq!(reset(&mut lane, servers_stream(index)), DIAL_FORBIDDEN, "{index}");
    }
    assert!(!comes(&destination, Duration::from_millis(300)));
    assert!(trap.client.line("what it was not asked for").contains("number: 1"));
    // What it was asked for is taken to where the client says, whatever is said of who comes.
    for (index, source) in (9..).zip(["192.0.2.1:1", "", "nonsense \x1b[2J"]) {
        lane.send(&visitor(index, 0, source));
        assert!(comes(&destination, Duration::from_secs(10)), "{source}");
    }
    assert!(!trap.client.log().contains('\x1b'));
    lane.expect_alive();
}

#[test]
fn a_client_without_such_a_forward_takes_no_streams_of_its_server() {
    let destination = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = destination.local_addr().unwrap().to_string();
    let trap = Trap::set(&["--listen", "127.0.0.1:0", "--to", &to]);
    let mut lane = trap.session(&LISTENERS);
    for (index, open) in [visitor(0, 0, ""), open(servers_stream(1), DEFAULT)].iter().enumerate() {
        lane.send(open);
        assert_eq!(reset(&mut lane, servers_stream(index as u64)), DIAL_FORBIDDEN);
    }
    assert!(!comes(&destination, Duration::from_millis(300)));
    lane.expect_alive();
}

#[test]
fn a_server_that_knows_no_such_thing_is_not_asked_and_told_of() {
    let mut trap = Trap::set(&["-R", "0.0.0.0:8080:127.0.0.1:1"]);
    let _lane = trap.session(&[]);
    assert_eq!(trap.client.exit_code(), Some(8));
    let told = trap.client.line("takes no connections for its clients");
    assert!(told.contains("update it, or leave -R out"), "{told}");
}

/// The program's server, and a hostile client's session with it.
fn server(how: &[&str]) -> (TempDir, Imux, Peer) {
    let home = tempfile::tempdir().unwrap();
    let args = ["server", "--listen", "127.0.0.1:0", "--dial", "127.0.0.1:9"];
    let server = Imux::start(home.path(), &[&args, how].concat());
    let at: SocketAddr = field(&server.line("server ready"), "address").parse().unwrap();
    let mut lane = Peer::dial(at, client_tls(&Identity::generate().unwrap())).unwrap();
    lane.create();
    (home, server, lane)
}

fn ask(index: u64, place: &str) -> Vec<u8> {
    let mut body = Vec::new();
    [stream(index), LISTENING, index].iter().for_each(|&number| varint(&mut body, number));
    body.extend(place.as_bytes());
    frame(types::OPEN, &[], &body)
}

#[test]
fn a_client_that_asks_for_hundreds_of_ports_gets_what_one_may_have() {
    // Addresses of this machine at which nobody listens.
    let (_home, server, mut lane) = server(&["--allow-listen", "127.31.0.0/16:*"]);
    let all = 200;
    let open = |number: &u16| TcpStream::connect(("127.31.7.7", 2_000 + number)).is_ok();
    // Some program of the machine's listens there at all addresses.
    let others: Vec<_> = (0..all as u16).filter(open).collect();
    for index in 0..all {
        lane.send(&ask(index, &format!("127.31.7.7:{}", 2_000 + index)));
    }
    let (mut refused, mut taken, mut granted) = (Vec::new(), 0, 0);
    while refused.len() + taken + granted < all as usize {
        let (kind, body) = lane.required().unwrap();
        let mut rest = body.as_slice();
        let number = take_varint(&mut rest).unwrap_or_default() >> 2;
        match kind {
            types::STREAM => granted += 1,
            types::RESET => match take_varint(&mut rest).unwrap() {
                codes::EXCESSIVE_LOAD => refused.push(number as u16),
                LISTEN_IN_USE => taken += 1,
                code => panic!("{number}: {code:#x}"),
            },
            _ => {}
        }
        lane.acknowledge();
    }
    assert_eq!(granted, 32);
    refused.retain(|number| open(number) && !others.contains(number));
    assert!(refused.is_empty(), "refused, and open all the same: {refused:?}");
    lane.expect_alive();
    // They go with their session.
    lane.send(&frame(types::CLOSE, &[0], &[]));
    server.nth_line("no more connections are taken for a client", 32);
}

#[test]
fn a_client_that_asks_for_what_it_may_not_have_is_refused_and_nothing_listens() {
    let (_home, server, mut lane) = server(&["--allow-listen", "127.31.0.0/16:*"]);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let unix = format!("unix:{}", socket.display());
    let places = [
        "127.31.7.8:80",
        "127.31.7.8:1023",
        "0.0.0.0:8080",
        "[::]:8080",
        "localhost:8080",
        "[::ffff:0.0.0.0]:8080",
        &unix,
        "db.example:8080",
        "127.31.7.8",
        "\x1b]0;owned\x07:1",
        "127.31.7.8:65536",
    ];
    for (index, place) in (0..).zip(places) {
        lane.send(&ask(index, place));
        assert_eq!(reset(&mut lane, stream(index)), LISTEN_FORBIDDEN, "{place}");
    }
    TcpStream::connect("127.31.7.8:80").unwrap_err();
    assert!(!socket.exists());
    assert!(!server.log().contains('\x1b'));
    // An empty place is no OPEN at all.
    lane.send(&ask(50, ""));
    while lane.frame().is_some() {}
}
