//! Datagrams through the program: clients that send where they may not, servers that send what was
//! not asked for, and those that know no flows.

use std::fs::{self, Permissions};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use imux::trust::Identity;

use super::peer::{Peer, client_tls};
use super::reverse::{DIAL_FORBIDDEN, LISTENERS, Trap, VISITOR, asked, reset};
use super::support::process::{Imux, field};
use super::wire::{
    DEFAULT, FLOW, NAMED, RAW, datagram, frame, servers_stream, stream, take_varint, types,
};

/// The parameter flows_max, at 32.
const FLOWS: [u8; 3] = [7, 1, 32];

fn flow_to(index: u64, name: &str) -> Vec<u8> {
    frame(types::OPEN, &[stream(index), FLOW, 1_000, NAMED], name.as_bytes())
}

/// Whether a datagram comes there.
fn comes(socket: &UdpSocket, within: Duration) -> bool {
    socket.set_read_timeout(Some(within)).unwrap();
    socket.recv(&mut [0; 64]).is_ok()
}

#[test]
fn flows_to_forbidden_places_are_refused_and_nothing_is_sent() {
    let [listed, other] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    let [at, elsewhere] = [&listed, &other].map(|socket| socket.local_addr().unwrap());
    let home = tempfile::tempdir().unwrap();
    let identity = Identity::generate().unwrap();
    let list = home.path().join("authorized_clients");
    let rules =
        format!("dial=\"udp:{at}\",dial=\"udp:*:*\",dial=\"udp:224.0.0.0/4:*\",dial=\"*:*\"");
    fs::write(&list, format!("{rules} {}\n", identity.fingerprint())).unwrap();
    fs::set_permissions(&list, Permissions::from_mode(0o600)).unwrap();
    let args = ["server", "--listen", "127.0.0.1:0", "--dial", "127.0.0.1:9"];
    let server = Imux::start(home.path(), &args);
    let place: SocketAddr = field(&server.line("server ready"), "address").parse().unwrap();
    let mut lane = Peer::dial(place, client_tls(&identity)).unwrap();
    lane.create();
    let names = [
        elsewhere.to_string(),
        format!("localhost:{}", elsewhere.port()),
        format!("[::ffff:127.0.0.1]:{}", elsewhere.port()),
        format!("0.0.0.0:{}", elsewhere.port()),
        format!("127.255.255.255:{}", elsewhere.port()),
        "224.0.0.251:5353".to_owned(),
        "[::ffff:224.0.0.251]:5353".to_owned(),
        "255.255.255.255:67".to_owned(),
        "[ff02::fb]:5353".to_owned(),
        "169.254.169.254:53".to_owned(),
        "[64:ff9b::e000:fb]:5353".to_owned(),
        format!("udp:{at}"),
        "unix:/run/app.sock".to_owned(),
        "\x1b]0;owned\x07:1".to_owned(),
        "127.0.0.1".to_owned(),
    ];
    for (index, name) in (0..).zip(&names) {
        lane.send(&[flow_to(index, name), datagram(stream(index), 0, b"forbidden")].concat());
        assert_eq!(reset(&mut lane, stream(index)), DIAL_FORBIDDEN, "{name}");
    }
    let index = names.len() as u64;
    let kinds = [DEFAULT, RAW].map(|kind| vec![FLOW, 1_000, kind]);
    let visitor = vec![FLOW, 1_000, VISITOR, 0];
    for (index, kind) in (index..).zip(kinds.into_iter().chain([visitor])) {
        let open = [&[stream(index)], &kind[..]].concat();
        lane.send(&frame(types::OPEN, &open, &[]));
        assert_eq!(reset(&mut lane, stream(index)), DIAL_FORBIDDEN, "{kind:?}");
    }
    // Nor does a stream lead where datagrams may go.
    for (index, name) in (index + 10..).zip([format!("udp:{at}"), at.to_string()]) {
        lane.send(&frame(types::OPEN, &[stream(index), NAMED], name.as_bytes()));
        assert_eq!(reset(&mut lane, stream(index)), DIAL_FORBIDDEN, "{name}");
    }
    assert!(!comes(&other, Duration::from_millis(300)));
    assert!(!server.log().contains('\x1b'));
    // What is allowed goes through.
    let index = index + 20;
    let open = flow_to(index, &at.to_string());
    lane.send(&[open, datagram(stream(index), 0, b"allowed")].concat());
    assert!(comes(&listed, Duration::from_secs(10)));
    lane.expect_alive();
}

#[test]
fn a_hostile_server_has_datagrams_only_where_a_client_has_named_them() {
    let service = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = service.local_addr().unwrap();
    let trap = Trap::set(&["-R", &format!("udp:0.0.0.0:8080:{to}")]);
    let mut lane = trap.session(&[&LISTENERS[..], &FLOWS].concat());
    let (_, number, place) = asked(&mut lane);
    assert_eq!((number, place.as_str()), (0, "udp:0.0.0.0:8080"));
    let open = |index, kind: &[u64], rest: &[u8]| {
        frame(types::OPEN, &[&[servers_stream(index)], kind].concat(), rest)
    };
    let hostile = [
        open(0, &[FLOW, 200, VISITOR, 1], b"192.0.2.1:1"),
        open(1, &[VISITOR, 0], b"192.0.2.1:1"),
        open(2, &[FLOW, 200, NAMED], to.to_string().as_bytes()),
        open(3, &[FLOW, 200, DEFAULT], b""),
        open(4, &[FLOW, 200, RAW], b""),
    ];
    for (index, opened) in (0..).zip(hostile) {
        lane.send(&[opened, datagram(servers_stream(index), 0, b"hostile")].concat());
        assert_eq!(reset(&mut lane, servers_stream(index)), DIAL_FORBIDDEN, "{index}");
    }
    assert!(!comes(&service, Duration::from_millis(300)));
    for (index, source) in (5..).zip(["192.0.2.1:1", "", "nonsense \x1b[2J"]) {
        let opened = open(index, &[FLOW, 200, VISITOR, 0], source.as_bytes());
        lane.send(&[opened, datagram(servers_stream(index), 0, b"asked for")].concat());
        assert!(comes(&service, Duration::from_secs(10)), "{source}");
    }
    assert!(!trap.client.log().contains('\x1b'));
    lane.expect_alive();
}

#[test]
fn a_server_that_knows_no_flows_is_told_of_once() {
    let mut trap = Trap::set(&["-R", "udp:0.0.0.0:8080:127.0.0.1:1"]);
    let _lane = trap.session(&LISTENERS);
    assert_eq!(trap.client.exit_code(), Some(8));
    trap.client.line("carries no datagrams (UDP): update it");

    let trap = Trap::set(&["-L", "udp:127.0.0.1:0:192.0.2.1:53"]);
    let mut lane = trap.session(&LISTENERS);
    let ready = trap.client.line("client ready");
    let at = field(&ready, "address").strip_prefix("udp:").unwrap();
    for _ in 0..20 {
        let program = UdpSocket::bind("127.0.0.1:0").unwrap();
        program.send_to(b"?", at).unwrap();
    }
    let told = trap.client.line("datagrams are not carried");
    assert!(told.contains("carries no datagrams (UDP): update it"), "{told}");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(trap.client.count("datagrams are not carried"), 1);
    lane.expect_alive();
}

#[test]
fn a_client_opens_no_more_flows_than_its_server_takes() {
    let trap = Trap::set(&["-L", "udp:127.0.0.1:0:192.0.2.1:53"]);
    let mut lane = trap.session(&[7, 1, 4]);
    let ready = trap.client.line("client ready");
    let at = field(&ready, "address").strip_prefix("udp:").unwrap();
    let programs: Vec<_> = (0..20).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    for program in &programs {
        program.send_to(b"?", at).unwrap();
    }
    let mut opened = 0;
    while opened < 4 {
        let (kind, body) = lane.required().expect("an OPEN");
        if kind == types::OPEN {
            let mut rest = body.as_slice();
            take_varint(&mut rest).unwrap();
            assert_eq!(take_varint(&mut rest), Some(FLOW));
            opened += 1;
        }
        lane.acknowledge();
    }
    trap.client.line("as many flows are open as the peer allows");
    lane.expect_alive();
}
