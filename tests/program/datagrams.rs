//! Datagrams through both programs: `-L udp:`.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::support::pair::Pair;
use crate::support::process::{Imux, field, run};
use crate::support::relay::{Death, Relay};
use crate::support::{bounded, eventually};

mod bounds;
mod reverse;

/// A service that sends every datagram back; ends when dropped.
struct Echo {
    addr: SocketAddr,
    task: AbortHandle,
}

impl Echo {
    async fn start() -> Self {
        Self::start_at("127.0.0.1:0").await
    }

    async fn start_at(place: &str) -> Self {
        let socket = UdpSocket::bind(place).await.unwrap();
        let addr = socket.local_addr().unwrap();
        let echo = async move {
            let mut space = vec![0; 65_536];
            loop {
                // Nobody may listen for what was sent before.
                if let Ok((len, from)) = socket.recv_from(&mut space).await {
                    let _ = socket.send_to(&space[..len], from).await;
                }
            }
        };
        Self { addr, task: tokio::spawn(echo).abort_handle() }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a client takes datagrams: the `number`th such place.
fn place(client: &Imux, number: usize) -> SocketAddr {
    let line = client.nth_line("client ready", number);
    field(&line, "address").strip_prefix("udp:").expect(&line).parse().unwrap()
}

/// A program that sends datagrams there.
async fn program(to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(any).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

/// The next datagram, if one comes soon.
async fn next(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut space = vec![0; 65_536];
    let received = timeout(Duration::from_secs(5), socket.recv(&mut space)).await;
    received.ok().map(|len| space[..len.unwrap()].to_vec())
}

/// Sends it until it comes back: datagrams may be lost while lanes die, or a service starts.
async fn comes_back(socket: &UdpSocket, datagram: &[u8]) {
    for _ in 0..100 {
        // What was refused before is told by the next call.
        let _ = socket.send(datagram).await;
        let mut space = vec![0; 65_536];
        let received = timeout(Duration::from_millis(200), socket.recv(&mut space)).await;
        if received.is_ok_and(|len| len.is_ok_and(|len| space[..len] == *datagram)) {
            return;
        }
    }
    panic!("{} bytes did not come back", datagram.len());
}

/// Nothing comes back, though it is sent several times.
async fn stays_away(socket: &UdpSocket) {
    for _ in 0..5 {
        let _ = socket.send(b"?").await;
        let mut space = [0; 16];
        let received = timeout(Duration::from_millis(100), socket.recv(&mut space)).await;
        assert!(!received.is_ok_and(|received| received.is_ok()), "something came back");
    }
}

/// A server that lets its client go there, and a client with these forwards.
fn pair(rules: &[String], how: &[&str]) -> (Pair, Imux) {
    let rules: Vec<_> = rules.iter().map(|rule| format!("dial=\"{rule}\"")).collect();
    let pair = Pair::server("127.0.0.1:9", Some(&rules.join(",")));
    let client = pair.client(how);
    (pair, client)
}

/// What leads from any port of this machine to `to`.
fn to(to: SocketAddr) -> String {
    format!("udp:127.0.0.1:0:{to}")
}

#[test]
fn datagrams_of_any_length_go_there_and_back() {
    bounded(60, async {
        let echo = Echo::start().await;
        let (pair, client) = pair(&[format!("udp:{}", echo.addr)], &["-L", &to(echo.addr)]);
        let socket = program(place(&client, 1)).await;
        for len in [0, 1, 1_200, 9_000, 65_507, 0, 3] {
            socket.send(&vec![len as u8; len]).await.unwrap();
            assert_eq!(next(&socket).await, Some(vec![len as u8; len]), "{len} bytes");
        }
        // In order, and none lost.
        for number in 0..1_000_u32 {
            socket.send(&number.to_be_bytes()).await.unwrap();
            if number % 20 == 19 {
                for number in number - 19..=number {
                    assert_eq!(next(&socket).await, Some(number.to_be_bytes().to_vec()));
                }
            }
        }
        // Each program has answers of its own.
        let others = [program(place(&client, 1)).await, program(place(&client, 1)).await];
        for (number, other) in others.iter().enumerate() {
            other.send(&[number as u8]).await.unwrap();
        }
        for (number, other) in others.iter().enumerate() {
            assert_eq!(next(other).await, Some(vec![number as u8]));
        }
        assert_eq!((client.count("WARN"), pair.server.count("WARN")), (0, 0));
    });
}

#[test]
fn datagrams_go_by_ipv6_by_names_and_from_every_address_of_a_machine() {
    bounded(60, async {
        let (four, six) = (Echo::start().await, Echo::start_at("[::1]:0").await);
        let rules = [format!("udp:{}", six.addr), format!("udp:localhost:{}", four.addr.port())];
        let name = format!("localhost:{}", four.addr.port());
        let forwards = [
            format!("udp:[::1]:0:{}", six.addr),
            format!("udp:0.0.0.0:0:{name}"),
            format!("udp:[::]:0:{name}"),
        ];
        let how: Vec<_> = forwards.iter().flat_map(|it| ["-L", it.as_str()]).collect();
        let (_pair, client) = pair(&rules, &how);
        comes_back(&program(place(&client, 1)).await, b"six").await;
        for number in [2, 3] {
            let port = place(&client, number).port();
            // The answer comes from where it was asked, or the program does not hear it.
            for asked in ["127.0.0.1", "127.0.0.7"] {
                let to = SocketAddr::new(asked.parse().unwrap(), port);
                comes_back(&program(to).await, b"four").await;
            }
        }
        let to = SocketAddr::new("::1".parse().unwrap(), place(&client, 3).port());
        comes_back(&program(to).await, b"six").await;
    });
}

#[test]
fn only_a_rule_about_udp_lets_datagrams_go_and_never_to_many() {
    bounded(60, async {
        let echo = Echo::start().await;
        let (at, port) = (echo.addr, echo.addr.port());
        for (rule, wanted, goes) in [
            (format!("udp:{at}"), at.to_string(), true),
            (format!("udp:127.0.0.1:*\",dial=\"{at}"), at.to_string(), true),
            // Without `udp:` a rule means connections.
            (at.to_string(), at.to_string(), false),
            ("*:*".to_owned(), at.to_string(), false),
            // `*` and networks do not mean loopback, nor a name.
            ("udp:*:*".to_owned(), at.to_string(), false),
            ("udp:127.0.0.0/8:*".to_owned(), at.to_string(), false),
            (format!("udp:{at}"), format!("localhost:{port}"), false),
            ("udp:192.0.2.1:9".to_owned(), at.to_string(), false),
            // A network's broadcast address, which only the kernel knows.
            ("udp:127.255.255.255:*".to_owned(), format!("127.255.255.255:{port}"), false),
        ] {
            let (pair, client) =
                pair(std::slice::from_ref(&rule), &["-L", &format!("udp:127.0.0.1:0:{wanted}")]);
            let socket = program(place(&client, 1)).await;
            if goes {
                comes_back(&socket, b"!").await;
                continue;
            }
            stays_away(&socket).await;
            // Each end says so once, however many come.
            let told = client.line("datagrams are not carried");
            assert!(told.contains("destination not allowed"), "{told}");
            assert_eq!(client.count("datagrams are not carried"), 1, "{rule}");
            pair.server.line("cannot reach the destination");
        }
        for many in ["224.0.0.251", "255.255.255.255", "[ff02::fb]"] {
            let folder = tempfile::tempdir().unwrap();
            let (code, _, told) = run(
                folder.path(),
                &["client", "--dial=127.0.0.1:9", "-L", &format!("udp:0:{many}:5353")],
            );
            assert_eq!(code, 2, "{told}");
            assert!(told.contains("multicast or broadcast"), "{told}");
        }
    });
}

#[test]
fn a_stream_does_not_lead_where_datagrams_go() {
    bounded(60, async {
        let echo = crate::support::net::Destination::echo().await;
        let rule = format!("udp:{}", echo.addr);
        let how = ["--listen=127.0.0.1:0", "--to", &echo.addr.to_string()];
        let (pair, client) = pair(&[rule], &how);
        let mut socket = crate::support::net::connect(client.ready());
        let read = tokio::io::AsyncReadExt::read(&mut socket, &mut [0]).await;
        assert!(!read.is_ok_and(|read| read > 0));
        pair.server.line("not among the destinations of this client");
        let folder = tempfile::tempdir().unwrap();
        for (option, value) in
            [("--to", "udp:a:1"), ("--dial", "udp:a:1"), ("--listen", "udp:localhost:1")]
        {
            let how = ["client", "--dial=127.0.0.1:9", "--listen=127.0.0.1:0", option, value];
            let (code, _, told) = run(folder.path(), &how);
            assert_eq!(code, 2, "{option} {value}: {told}");
        }
    });
}

#[test]
fn a_service_that_is_away_costs_datagrams_and_ends_nothing() {
    bounded(60, async {
        let gone = Echo::start().await;
        let addr = gone.addr;
        drop(gone);
        // Its socket goes with its task.
        eventually(5, "the port is free", || std::net::UdpSocket::bind(addr).is_ok()).await;
        let (pair, client) = pair(&[format!("udp:{addr}")], &["-L", &to(addr)]);
        let socket = program(place(&client, 1)).await;
        stays_away(&socket).await;
        let _echo = Echo::start_at(&addr.to_string()).await;
        comes_back(&socket, b"now").await;
        assert_eq!((client.count("WARN"), pair.server.count("WARN")), (0, 0));
    });
}

#[test]
fn only_the_destination_answers() {
    bounded(60, async {
        let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = service.local_addr().unwrap();
        let (_pair, client) = pair(&[format!("udp:{addr}")], &["-L", &to(addr)]);
        let socket = program(place(&client, 1)).await;
        socket.send(b"?").await.unwrap();
        let mut space = [0; 16];
        let (_, from) = service.recv_from(&mut space).await.unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let neighbour = UdpSocket::bind(("127.0.0.2", addr.port())).await.unwrap();
        stranger.send_to(b"forged", from).await.unwrap();
        neighbour.send_to(b"forged", from).await.unwrap();
        service.send_to(b"answer", from).await.unwrap();
        assert_eq!(next(&socket).await, Some(b"answer".to_vec()));
        // Nor does anybody at the near end hear what was not asked for.
        let other = program(place(&client, 1)).await;
        service.send_to(b"again", from).await.unwrap();
        assert_eq!(next(&socket).await, Some(b"again".to_vec()));
        assert!(timeout(Duration::from_millis(300), other.recv(&mut space)).await.is_err());
    });
}

#[test]
fn datagrams_go_on_when_lanes_die_and_after_a_restart_of_the_server() {
    bounded(90, async {
        let echo = Echo::start().await;
        let mut pair = Pair::server("127.0.0.1:9", Some(&format!("dial=\"udp:{}\"", echo.addr)));
        let relay = Relay::start(pair.at.parse().unwrap()).await;
        let dial = relay.addr.to_string();
        let how = ["client", "--dial", &dial, "--pin", &pair.key, "--bind=127.0.0.2=2"];
        let forward = to(echo.addr);
        let rest = ["--bind=127.0.0.3=2", "-L", &forward];
        let client = Imux::start(pair.folder.path(), &[&how[..], &rest].concat());
        let socket = program(place(&client, 1)).await;
        comes_back(&socket, b"first").await;
        for number in 0..20_u8 {
            relay.kill(Death::Reset);
            comes_back(&socket, &[number; 1_000]).await;
        }
        let args = ["server", "--listen", pair.at.as_str(), "--dial", "127.0.0.1:9"];
        pair.server.signal(Signal::SIGKILL);
        pair.server.exit_code();
        pair.server = Imux::start(pair.folder.path(), &args);
        comes_back(&socket, b"last").await;
    });
}

#[test]
fn a_flow_that_is_idle_ends_at_the_server_and_begins_anew() {
    bounded(60, async {
        let echo = Echo::start().await;
        let line = format!("dial=\"udp:{}\"", echo.addr);
        let pair = Pair::server_with("127.0.0.1:9", Some(&line), &["--idle-timeout=1s"]);
        let client = pair.client(&["-L", &to(echo.addr)]);
        let socket = program(place(&client, 1)).await;
        for _ in 0..2 {
            comes_back(&socket, b"!").await;
            eventually(20, "its socket is closed", || sockets_to(echo.addr) == 0).await;
        }
    });
}

/// UDP sockets that are connected there.
fn sockets_to(addr: SocketAddr) -> usize {
    let SocketAddr::V4(addr) = addr else { panic!("{addr}") };
    let remote = format!("{:08X}:{:04X}", addr.ip().to_bits().to_be(), addr.port());
    let all = fs::read_to_string("/proc/net/udp").unwrap();
    all.lines().filter(|line| line.split_whitespace().nth(2) == Some(&*remote)).count()
}

#[test]
fn a_reload_adds_changes_and_removes_ports_for_datagrams() {
    bounded(60, async {
        let (one, other) = (Echo::start().await, UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let pair = Pair::server("127.0.0.1:9", Some("dial=\"udp:127.0.0.1:*\""));
        // Ports that are free now.
        let free = || std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (kept, moved) = (free(), free());
        let file = pair.path("imux.toml");
        let write = |lines: String| {
            let text =
                format!("[[client]]\ndial = \"{}\"\npin = \"{}\"\n{lines}\n", pair.at, pair.key);
            fs::write(&file, text).unwrap();
        };
        let forward = |at: SocketAddr, to: SocketAddr| format!("\"udp:{at}:{to}\"");
        write(format!("forward = [{}]", forward(kept, one.addr)));
        let client = Imux::start(pair.folder.path(), &["run", "-c", file.to_str().unwrap()]);
        assert_eq!(place(&client, 1), kept);
        let socket = program(kept).await;
        comes_back(&socket, b"before").await;
        let sockets = sockets_to(one.addr);
        let reload = |lines| {
            write(lines);
            let (code, said, told) = run(pair.folder.path(), &["reload"]);
            assert_eq!(code, 0, "{said}{told}");
        };
        let table =
            format!("{{ listen = \"udp:{moved}\", to = \"{}\", redundant = true }}", one.addr);
        reload(format!("forward = [{}, {table}]", forward(kept, one.addr)));
        let second = program(place(&client, 2)).await;
        comes_back(&second, b"added").await;
        // What has not changed goes on, with the flows it has.
        comes_back(&socket, b"undisturbed").await;
        assert_eq!(sockets_to(one.addr), sockets + 1);
        let elsewhere = other.local_addr().unwrap();
        reload(format!("forward = [{}]", forward(kept, elsewhere)));
        let mut space = [0; 16];
        eventually(20, "the old flows have ended", || sockets_to(one.addr) == 0).await;
        socket.send(b"elsewhere").await.unwrap();
        let (len, _) = other.recv_from(&mut space).await.unwrap();
        assert_eq!(&space[..len], b"elsewhere");
        eventually(20, "the port is closed", || std::net::UdpSocket::bind(moved).is_ok()).await;
    });
}

#[test]
fn a_client_that_is_to_end_does_not_wait_for_flows() {
    bounded(60, async {
        let echo = Echo::start().await;
        let line = format!("dial=\"udp:{}\"", echo.addr);
        let patient = "--drain-timeout=600";
        let mut pair = Pair::server_with("127.0.0.1:9", Some(&line), &[patient]);
        let mut client = pair.client(&["-L", &to(echo.addr), patient]);
        let socket = program(place(&client, 1)).await;
        comes_back(&socket, b"!").await;
        client.signal(Signal::SIGTERM);
        assert_eq!(client.exit_code(), Some(143), "{}", client.log());
        let client = pair.client(&["-L", &to(echo.addr)]);
        comes_back(&program(place(&client, 1)).await, b"!").await;
        pair.server.signal(Signal::SIGTERM);
        assert_eq!(pair.server.exit_code(), Some(143), "{}", pair.server.log());
    });
}
