//! Connections that the server accepts for a client (`-R`).

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::support::bytes::{Pattern, exchange};
use crate::support::net::{Destination, connect, unused_port};
use crate::support::pair::Pair;
use crate::support::process::{Imux, field, imux, run};
use crate::support::relay::Relay;
use crate::support::{bounded, eventually};

const TAKEN: &str = "the server takes connections for this client";
const NOT_TAKEN: &str = "the server takes no connections for this client now";

async fn there_and_back(socket: TcpStream, length: u64) {
    let pattern = Pattern::new(4);
    exchange(socket, (&pattern, length), (&pattern, length)).await.unwrap();
}

fn to(place: SocketAddr, to: SocketAddr) -> String {
    format!("{place}:{to}")
}

/// A line that allows this place.
fn line(place: SocketAddr) -> String {
    format!("listen=\"{place}\"")
}

/// Connects once somebody listens.
async fn come(place: SocketAddr) -> TcpStream {
    let mut there = None;
    eventually(20, "somebody listens", || {
        there = std::net::TcpStream::connect(place).ok();
        there.is_some()
    })
    .await;
    let there = there.unwrap();
    there.set_nonblocking(true).unwrap();
    TcpStream::from_std(there).unwrap()
}

#[test]
fn the_server_takes_connections_and_the_client_takes_them_on() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let place = unused_port().await;
        let pair = Pair::server("127.0.0.1:9", Some(&line(place)));
        let client = pair.client(&["-R", &to(place, echo.addr)]);
        let told = client.line(TAKEN);
        assert_eq!(field(&told, "address"), place.to_string());
        assert_eq!(field(&told, "to"), echo.addr.to_string());
        for length in [0, 1, 100_000, 20_000_000] {
            there_and_back(connect(place), length).await;
        }
        let many = (0..20).map(|_| there_and_back(connect(place), 200_000));
        futures::future::join_all(many).await;
        assert_eq!(client.count("connection refused"), 0);
    });
}

#[test]
fn without_an_address_only_the_servers_machine_gets_in_and_localhost_is_both() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let port = unused_port().await.port();
        let pair = Pair::server("127.0.0.1:9", Some("listen=\"localhost:*\""));
        let client = pair.client(&["-R", &format!("{port}:{}", echo.addr)]);
        assert_eq!(field(&client.line(TAKEN), "address"), format!("localhost:{port}"));
        there_and_back(connect(("127.0.0.1", port)), 1_000).await;
        if let Ok(six) = TcpStream::connect(("::1", port)).await {
            there_and_back(six, 1_000).await;
        }
        TcpStream::connect(("127.0.0.2", port)).await.unwrap_err();
    });
}

#[test]
fn the_server_chooses_a_port_where_the_client_leaves_that_to_it() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let pair = Pair::server("127.0.0.1:9", Some("listen=\"localhost:*\""));
        let reverse = format!("0:{}", echo.addr);
        let client = pair.client(&["-R", &reverse, "-R", &reverse]);
        client.nth_line(TAKEN, 2);
        let ports = [1, 2].map(|number| {
            let told = client.nth_line(TAKEN, number);
            let port = field(&told, "address").strip_prefix("localhost:").unwrap().to_owned();
            port.parse::<u16>().unwrap()
        });
        assert!(ports[0] != ports[1] && ports.iter().all(|port| *port >= 1_024), "{ports:?}");
        for port in ports {
            there_and_back(connect(("127.0.0.1", port)), 1_000).await;
            if let Ok(six) = TcpStream::connect(("::1", port)).await {
                there_and_back(six, 1_000).await;
            }
        }
        // A rule for one port does not mean whichever there is.
        let pair = Pair::server("127.0.0.1:9", Some("listen=\"127.0.0.1:8080\""));
        let mut client = pair.client(&["-R", &format!("127.0.0.1:0:{}", echo.addr)]);
        assert_eq!(client.exit_code(), Some(8), "{}", client.log());
        client.line("listen=\"127.0.0.1:*\"");
        pair.server.line("add listen=\"127.0.0.1:*\"");
    });
}

/// A port that was chosen is asked for again by the client's next session.
#[test]
fn a_chosen_port_is_the_clients_after_a_restart_of_the_server() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let mut pair = Pair::server("127.0.0.1:9", Some("listen=\"127.0.0.1:*\""));
        let client = pair.client(&["-R", &format!("127.0.0.1:0:{}", echo.addr)]);
        let place = field(&client.line(TAKEN), "address").to_owned();
        let args = ["server", "--listen", pair.at.as_str(), "--dial", "127.0.0.1:9"];
        pair.server.signal(Signal::SIGKILL);
        pair.server.exit_code();
        pair.server = Imux::start(pair.folder.path(), &args);
        assert_eq!(field(&client.nth_line(TAKEN, 2), "address"), place);
        there_and_back(come(place.parse().unwrap()).await, 1_000).await;
    });
}

/// Both ends send every byte on two lanes, where one forward alone asks for it.
#[test]
fn a_redundant_forward_uses_both_links_both_ways() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let (twice, once) = (unused_port().await, unused_port().await);
        let rules = format!("{},{}", line(twice), line(once));
        let pair = Pair::server("127.0.0.1:9", Some(&rules));
        let relay = Relay::start(pair.at.parse().unwrap()).await;
        let dial = relay.addr.to_string();
        let how = ["client", "--dial", &dial, "--pin", &pair.key];
        let links = ["--bind=127.0.0.2=1,express=no", "--bind=127.0.0.3=1,express=no"];
        let forwards = [format!("{},redundant", to(twice, echo.addr)), to(once, echo.addr)];
        let reverse = ["-R", forwards[0].as_str(), "-R", forwards[1].as_str()];
        let client = Imux::start(pair.folder.path(), &[&how[..], &links, &reverse].concat());
        client.nth_line(TAKEN, 2);
        eventually(10, "two lanes", || relay.alive() == 2).await;
        let mut carried = Vec::new();
        for place in [twice, once] {
            let before = ["127.0.0.2", "127.0.0.3"].map(|path| relay.carried(path));
            let mut visitor = connect(place);
            let mut back = vec![0; 2_000];
            for _ in 0..100 {
                visitor.write_all(&[7; 2_000]).await.unwrap();
                visitor.read_exact(&mut back).await.unwrap();
            }
            let after = ["127.0.0.2", "127.0.0.3"].map(|path| relay.carried(path));
            carried.push([after[0] - before[0], after[1] - before[1]]);
        }
        // On loopback the first may have arrived before the second was sent.
        assert!(carried[0].iter().sum::<u64>() > 500_000, "{carried:?} for 400,000 both ways");
        assert!(carried[0].iter().all(|path| *path > 100_000), "{carried:?}");
        assert!(carried[1].iter().sum::<u64>() < 500_000, "{carried:?}");
    });
}

#[test]
fn unix_sockets_stand_at_either_end() {
    bounded(60, async {
        let echo = Destination::echo().await;
        let folder = tempfile::tempdir().unwrap();
        let far = folder.path().join("far");
        let pair = Pair::server("127.0.0.1:9", Some(&format!("listen=\"unix:{}\"", far.display())));
        let mut client = pair.client(&["-R", &format!("{}:{}", far.display(), echo.addr)]);
        client.line(TAKEN);
        let socket = UnixStream::connect(&far).await.unwrap();
        let pattern = Pattern::new(4);
        exchange(socket, (&pattern, 100_000), (&pattern, 100_000)).await.unwrap();
        // Its file goes with it.
        client.signal(Signal::SIGTERM);
        client.exit_code();
        eventually(20, "the file has gone", || !far.exists()).await;

        let near = folder.path().join("near");
        let listener = tokio::net::UnixListener::bind(&near).unwrap();
        let place = unused_port().await;
        let pair = Pair::server("127.0.0.1:9", Some(&line(place)));
        let client = pair.client(&["-R", &format!("{place}:{}", near.display())]);
        client.line(TAKEN);
        let mut visitor = connect(place);
        visitor.write_all(b"x").await.unwrap();
        let (mut served, _) = listener.accept().await.unwrap();
        assert_eq!(served.read_u8().await.unwrap(), b'x');
    });
}

#[test]
fn what_a_line_does_not_allow_is_refused_and_told_at_both_ends() {
    bounded(120, async {
        let echo = Destination::echo().await;
        let (place, other) = (unused_port().await, unused_port().await);
        let any = format!("127.0.0.1:{}", other.port());
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("not-allowed");
        for (rules, asked) in [
            (line(place), any.clone()),
            (line(place), format!("0.0.0.0:{}", place.port())),
            (format!("listen=\"0.0.0.0:{}\"", place.port()), place.to_string()),
            ("listen=\"*:*\"".to_owned(), "127.0.0.1:80".to_owned()),
            ("listen=\"*:*\"".to_owned(), socket.display().to_string()),
            ("dial=\"*:*\"".to_owned(), any.clone()),
        ] {
            let pair = Pair::server("127.0.0.1:9", Some(&rules));
            let mut client = pair.client(&["-R", &format!("{asked}:{}", echo.addr)]);
            assert_eq!(client.exit_code(), Some(8), "{rules} {asked}: {}", client.log());
            let told = client.line("listening there is not allowed");
            assert!(told.contains("--keep-trying") && told.contains("listen=\""), "{told}");
            let told = pair.server.line("no connections are taken for a client");
            assert!(told.contains("add listen=\"") && told.contains(&asked), "{told}");
            assert!(!socket.exists());
        }
        // Nobody is listed: strangers get what an option says, or else nothing.
        let pair = Pair::server("127.0.0.1:9", None);
        let mut client = pair.client(&["-R", &to(place, echo.addr)]);
        assert_eq!(client.exit_code(), Some(8));
        let told = pair.server.line("no connections are taken for a client");
        assert!(told.contains(&format!("--allow-listen {place}")), "{told}");
        let pair = Pair::server_with("127.0.0.1:9", None, &["--allow-listen", &place.to_string()]);
        let client = pair.client(&["-R", &to(place, echo.addr)]);
        client.line(TAKEN);
        there_and_back(connect(place), 1_000).await;
    });
}

#[test]
fn a_rule_that_comes_or_goes_counts_for_a_client_that_is_there() {
    bounded(120, async {
        let echo = Destination::echo().await;
        let place = unused_port().await;
        let pair = Pair::server("127.0.0.1:9", Some("max-streams=9"));
        let client = pair.client(&["--keep-trying", "-R", &to(place, echo.addr)]);
        client.line(NOT_TAKEN);
        let list = pair.path("authorized_clients");
        let before = fs::read_to_string(&list).unwrap();
        fs::write(&list, before.replace("max-streams=9", &line(place))).unwrap();
        client.line(TAKEN);
        there_and_back(connect(place), 1_000).await;
        fs::write(&list, &before).unwrap();
        pair.server.line("the client may not have it any more");
        eventually(20, "the port is free", || std::net::TcpListener::bind(place).is_ok()).await;
        // Logged once, however often it asks.
        client.nth_line(NOT_TAKEN, 2);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        assert_eq!(client.count(NOT_TAKEN), 2, "{}", client.log());
        assert_eq!(pair.server.count("no connections are taken for a client"), 2);
    });
}

#[test]
fn of_two_clients_one_has_a_port_and_the_other_gets_it_when_it_is_free() {
    bounded(120, async {
        let (one, other) = (Destination::echo().await, Destination::echo().await);
        let place = unused_port().await;
        let pair = Pair::server_with("127.0.0.1:9", None, &["--allow-listen", &place.to_string()]);
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let client = |home: &Path, echo: SocketAddr| {
            let how = ["client", "--dial", &pair.at, "--pin", &pair.key, "--bind=any=2"];
            Imux::spawn(imux(home).args(how).args(["-R", &to(place, echo)]))
        };
        let mut first = client(homes[0].path(), one.addr);
        first.line(TAKEN);
        let second = client(homes[1].path(), other.addr);
        let told = second.line(NOT_TAKEN);
        assert!(told.contains("the place to listen at is in use"), "{told}");
        assert!(pair.server.line("no connections are taken").contains("another client"));
        there_and_back(connect(place), 1_000).await;
        // Another process with the same key does not take it from the one that has it.
        let third = client(homes[0].path(), one.addr);
        third.line(NOT_TAKEN);
        drop(third);
        first.signal(Signal::SIGTERM);
        first.exit_code();
        second.line(TAKEN);
        there_and_back(connect(place), 1_000).await;
    });
}

#[test]
fn a_port_stays_its_keys_and_is_had_by_the_next_session_of_that_key() {
    bounded(120, async {
        let echo = Destination::echo().await;
        let place = unused_port().await;
        let pair = Pair::server_with("127.0.0.1:9", None, &["--allow-listen", &place.to_string()]);
        let stranger = tempfile::tempdir().unwrap();
        let mut client = pair.client(&["-R", &to(place, echo.addr)]);
        client.line(TAKEN);
        // Killed: nobody has said that the port is no longer wanted.
        client.signal(Signal::SIGKILL);
        client.exit_code();
        let how = ["client", "--dial", &pair.at, "--pin", &pair.key, "--bind=any=2"];
        let other =
            Imux::spawn(imux(stranger.path()).args(how).args(["-R", &to(place, echo.addr)]));
        other.line(NOT_TAKEN);
        // Connections made meanwhile wait, and the next session accepts them.
        let early = connect(place);
        let next = pair.client(&["-R", &to(place, echo.addr)]);
        next.line(TAKEN);
        pair.server.line("the client's next session has it");
        drop(early);
        there_and_back(connect(place), 100_000).await;
        assert_eq!(other.count(TAKEN), 0);
    });
}

#[test]
fn a_session_with_a_port_does_not_give_way_to_new_ones() {
    bounded(120, async {
        let echo = Destination::echo().await;
        let place = unused_port().await;
        let at = place.to_string();
        let pair =
            Pair::server_with("127.0.0.1:9", None, &["--allow-listen", &at, "--max-sessions=2"]);
        let mut first = pair.client(&["-R", &to(place, echo.addr)]);
        first.line(TAKEN);
        first.signal(Signal::SIGKILL);
        first.exit_code();
        let others = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let how = ["client", "--dial", &pair.at, "--pin", &pair.key, "--bind=any=2"];
        let client = |home: &Path| Imux::spawn(imux(home).args(how).args(["-D", "127.0.0.1:0"]));
        let second = client(others[0].path());
        second.line("client ready");
        let mut third = client(others[1].path());
        assert_eq!(third.exit_code(), Some(8), "{}", third.log());
        third.line("too many sessions");
        assert_eq!(pair.server.count("no more connections are taken"), 0);
        connect(place);
    });
}

#[test]
fn it_comes_back_after_an_outage_and_after_a_restart_of_the_server() {
    bounded(120, async {
        let echo = Destination::echo().await;
        let place = unused_port().await;
        let allow = ["--allow-listen", &place.to_string()];
        let mut pair = Pair::server_with("127.0.0.1:9", None, &allow);
        let relay = Relay::start(pair.at.parse().unwrap()).await;
        let how = ["client", "--dial", &relay.addr.to_string(), "--pin", &pair.key, "--bind=any=2"];
        let reverse = to(place, echo.addr);
        let client =
            Imux::start(pair.folder.path(), &[&how[..], &["-R", reverse.as_str()]].concat());
        client.line(TAKEN);
        // All lanes are cut off and come back: the session never went, nor did the port.
        let mut before = connect(place);
        before.write_all(b"a").await.unwrap();
        assert_eq!(before.read_u8().await.unwrap(), b'a');
        relay.reset_all();
        before.write_all(b"b").await.unwrap();
        assert_eq!(before.read_u8().await.unwrap(), b'b');
        there_and_back(connect(place), 100_000).await;
        assert_eq!(client.count(TAKEN), 1);
        drop(before);

        pair.server.signal(Signal::SIGKILL);
        pair.server.exit_code();
        let listen = ["server", "--listen", &pair.at, "--dial", "127.0.0.1:9"];
        pair.server = Imux::start(pair.folder.path(), &[&listen[..], &allow].concat());
        client.nth_line(TAKEN, 2);
        there_and_back(come(place).await, 100_000).await;
    });
}

#[test]
fn an_end_in_order_lets_connections_finish_and_frees_the_port() {
    bounded(60, async {
        let echo = Destination::echo().await;
        for ends_the_server in [false, true] {
            let place = unused_port().await;
            let mut pair = Pair::server("127.0.0.1:9", Some(&line(place)));
            let mut client = pair.client(&["-R", &to(place, echo.addr)]);
            client.line(TAKEN);
            let mut open = connect(place);
            open.write_all(b"a").await.unwrap();
            assert_eq!(open.read_u8().await.unwrap(), b'a');
            let ending = if ends_the_server { &mut pair.server } else { &mut client };
            ending.signal(Signal::SIGTERM);
            eventually(10, "the port is free", || std::net::TcpListener::bind(place).is_ok()).await;
            assert!(ending.is_running());
            there_and_back(open, 1_000_000).await;
            assert_eq!(ending.exit_code(), Some(143));
        }
    });
}

#[test]
fn a_destination_that_does_not_answer_is_a_reset_and_one_line() {
    bounded(60, async {
        let (place, nobody) = (unused_port().await, unused_port().await);
        let pair = Pair::server("127.0.0.1:9", Some(&line(place)));
        let client = pair.client(&["-R", &to(place, nobody)]);
        client.line(TAKEN);
        connect(place).read_u8().await.unwrap_err();
        assert!(client.line("cannot reach the destination").contains(&nobody.to_string()));
    });
}

#[test]
fn the_destination_is_told_who_visits_and_from_where() {
    bounded(60, async {
        for (option, begins) in [
            ("", &b"word"[..]),
            (",proxy-protocol", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x05"),
        ] {
            let place = unused_port().await;
            let (said, heard) = tokio::sync::oneshot::channel();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let destination = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut all = Vec::new();
                socket.read_to_end(&mut all).await.unwrap();
                said.send(all).unwrap();
            });
            let pair = Pair::server("127.0.0.1:9", Some(&line(place)));
            let client = pair.client(&["-R", &format!("{}{option}", to(place, destination))]);
            client.line(TAKEN);
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.5:0".parse().unwrap()).unwrap();
            let mut visitor = socket.connect(place).await.unwrap();
            visitor.write_all(b"word").await.unwrap();
            visitor.shutdown().await.unwrap();
            let all = heard.await.unwrap();
            assert!(all.starts_with(begins) && all.ends_with(b"word"), "{all:?}");
        }
        let place = unused_port().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pair = Pair::server("127.0.0.1:9", Some(&line(place)));
        let reverse = format!("{},proxy-protocol=v1", to(place, listener.local_addr().unwrap()));
        let client = pair.client(&["-R", &reverse]);
        client.line(TAKEN);
        let visitor = connect(place);
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut text = [0; 25];
        socket.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"PROXY TCP4 127.0.0.1 127.");
        drop(visitor);
    });
}

#[test]
fn a_place_at_the_server_that_cannot_be_had_says_why() {
    bounded(60, async {
        let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = taken.local_addr().unwrap();
        let pair = Pair::server("127.0.0.1:9", Some(&line(place)));
        let client = pair.client(&["-R", &to(place, place)]);
        assert!(client.line(NOT_TAKEN).contains("in use"));
        drop(taken);
        client.line(TAKEN);
        let pair = Pair::server("127.0.0.1:9", Some("listen=\"192.0.2.1:8080\""));
        let mut client = pair.client(&["-R", &format!("192.0.2.1:8080:{place}")]);
        assert_eq!(client.exit_code(), Some(8));
        client.line("it has to be an address of the server's");

        let home = tempfile::tempdir().unwrap();
        for (args, expected) in [
            (&["-R", "65536:a:1"][..], "8080:localhost:80"),
            (&["-R", "80:a:1", "-R", "localhost:80:b:2"], "twice"),
            (&["-R", "80:a:1", "-W", "a:1"], "cannot be used with"),
        ] {
            let all = [&["client", "--dial", "127.0.0.1:9"], args].concat();
            let (code, _, told) = run(home.path(), &all);
            assert!(code == 2 && told.contains(expected), "{args:?}: {code} {told}");
        }
        let (code, _, told) = run(
            home.path(),
            &[
                "server",
                "--listen",
                "127.0.0.1:0",
                "--dial",
                "a:1",
                "--allow-listen",
                "b.example:1",
            ],
        );
        assert!(code == 2 && told.contains("that is a name"), "{code} {told}");
    });
}

#[test]
fn to_authorize_and_to_invite_may_grant_places_to_listen_at() {
    bounded(60, async {
        let place = unused_port().await;
        let echo = Destination::echo().await;
        let home = tempfile::tempdir().unwrap();
        let (_, own, _) = run(home.path(), &["identity"]);
        let pair = Pair::server("127.0.0.1:9", Some("max-streams=1"));
        let at = place.to_string();
        let grant =
            ["authorize", own.trim(), "--allow-listen", &at, "--allow-listen", "localhost:*"];
        assert_eq!(run(pair.folder.path(), &grant).0, 0);
        let list = fs::read_to_string(pair.path("authorized_clients")).unwrap();
        assert!(list.contains(&format!("listen=\"{place}\",listen=\"localhost:*\"")), "{list}");
        let how = ["client", "--dial", &pair.at, "--pin", &pair.key, "--bind=any=2"];
        let reverse = to(place, echo.addr);
        let client = Imux::start(home.path(), &[&how[..], &["-R", reverse.as_str()]].concat());
        client.line(TAKEN);
        let (code, said, told) =
            run(pair.folder.path(), &["invite", &pair.at, "--allow-listen", "*:8080"]);
        assert!(code == 0 && said.contains("imux://"), "{told}");
        let list = fs::read_to_string(pair.path("authorized_clients")).unwrap();
        assert!(list.contains("listen=\"*:8080\""), "{list}");
    });
}
