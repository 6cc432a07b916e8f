//! The keys of both ends, and how a server changes its own.

use std::fs;

use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use super::{Person, Server, answers, echoes, fails, json, prints};
use crate::support::net::Destination;
use crate::support::process::{Imux, field};
use crate::support::relay::Relay;
use crate::support::{bounded, eventually, process};

#[test]
fn identity_shows_the_key_and_makes_it_once() {
    let home = tempfile::tempdir().unwrap();
    let key = prints(home.path(), &["identity"]);
    assert!(key.starts_with("SHA256:") && key.len() == 50, "{key}");
    assert_eq!(prints(home.path(), &["identity"]), key);
    assert_eq!(json(home.path(), &["identity"])["key"], key.as_str());
    // A key that no server uses is not invented.
    fails(home.path(), &["identity", "--listen", ":443"], 3, &["start the server first"]);
    assert!(!home.path().join("server.key").exists());

    let server = Server::start("127.0.0.1:9");
    assert_eq!(prints(server.home.path(), &["identity", "--listen", "127.0.0.1:0"]), server.key);
}

/// Other TLS programs write one if a variable says so, and it decrypts all they send.
#[test]
fn no_key_log_is_written() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("keys");
        let start = |args: &[&str]| {
            let mut command = process::imux(home.path());
            Imux::spawn(command.args(args).env("SSLKEYLOGFILE", &file).env("RUST_LOG", "trace"))
        };
        let dial = destination.addr.to_string();
        let server = start(&["server", "--listen", "127.0.0.1:0", "--dial", &dial]);
        let line = server.line("server ready");
        let (at, key) = (field(&line, "address"), field(&line, "key"));
        let client = start(&["client", "--listen", "127.0.0.1:0", "--dial", at, "--pin", key]);
        assert!(echoes(client.ready()).await);
        assert!(!file.exists());
        for log in [server.log(), client.log()] {
            assert!(!log.contains("TRAFFIC_SECRET"), "{log}");
        }
    });
}

/// The old key vouches for the new one: clients connected meanwhile notice nothing.
#[test]
fn a_server_changes_its_key_and_its_clients_follow() {
    bounded(90, async {
        let destination = Destination::echo().await;
        let dial = destination.addr.to_string();
        let listen = crate::support::net::unused_port().await.to_string();
        let home = tempfile::tempdir().unwrap();
        let server = ["server", "--listen", &listen, "--dial", &dial];
        let mut running = Imux::start(home.path(), &server);
        let old = field(&running.line("server ready"), "key").to_owned();

        let known = Person::new();
        let pinned = Person::new();
        let args =
            ["client", "--listen", "127.0.0.1:0", "--dial", &listen, "--bind", "127.0.0.1=2"];
        let with = |more: &[&'static str]| [&args[..], more].concat();
        let follows = Imux::start(known.home.path(), &with(&["--host-key", "accept-new"]));
        let mut args_pinned = with(&[]);
        args_pinned.extend(["--pin", &old]);
        let stays = Imux::start(pinned.home.path(), &args_pinned);
        assert!(echoes(follows.ready()).await && echoes(stays.ready()).await);
        let hosts = || fs::read_to_string(known.home.path().join("known_hosts")).unwrap();
        assert_eq!(hosts(), format!("{listen} {old}\n"));

        let rotate = ["rotate-key", "--listen", &listen];
        let switch = ["rotate-key", "--listen", &listen, "--switch"];
        fails(home.path(), &switch, 3, &["there is no next key", "nothing was changed"]);
        let made = json(home.path(), &rotate);
        let new = made["key"].as_str().unwrap().to_owned();
        assert_eq!((&made["old"], new == old), (&old.as_str().into(), false));
        running.signal(Signal::SIGHUP);
        let both = format!("{listen} {old},{new}\n");
        eventually(10, "the next key is recorded", || hosts() == both).await;
        assert!(stays.line("give it to --pin").contains(&new));
        // A client that connects later hears of it, too, and the old key is still good.
        let later = Person::new();
        let late = Imux::start(later.home.path(), &with(&["--host-key", "accept-new"]));
        assert!(echoes(late.ready()).await);
        late.line("has announced its next key");
        drop(late);

        running.signal(Signal::SIGTERM);
        assert_eq!(running.exit_code(), Some(143));
        assert_eq!(json(home.path(), &switch)["key"], new.as_str());
        let running = Imux::start(home.path(), &server);
        assert_eq!(field(&running.line("server ready"), "key"), new);
        // The running client goes on by itself; from now on the old key is nobody's.
        let only = format!("{listen} {new}\n");
        eventually(20, "the client follows", || hosts() == only).await;
        assert!(echoes(follows.ready()).await);
        let strict = with(&["--host-key", "strict"]);
        assert!(echoes(Imux::start(later.home.path(), &strict).ready()).await);
        stays.line("another server answers");
    });
}

/// Its sessions go on over lanes that show the new key, as far as their clients know of it; new
/// clients see no other.
#[test]
fn a_running_server_changes_its_key_and_its_sessions_stay() {
    bounded(90, async {
        let destination = Destination::echo().await;
        let server = Server::start(&destination.addr.to_string());
        let relay = Relay::start(server.at.parse().unwrap()).await;
        let at = relay.addr.to_string();
        let (known, pinned) = (Person::new(), Person::new());
        let args = ["client", "--listen", "127.0.0.1:0", "--dial", &at, "--bind", "127.0.0.1=2"];
        let with = |more: &[&'static str]| [&args[..], more].concat();
        let follows = Imux::start(known.home.path(), &with(&["--host-key", "accept-new"]));
        let mut stream = TcpStream::connect(follows.ready()).await.unwrap();
        // A client that has pinned the old key, and whose lanes nobody cuts.
        let stays = pinned.connect(&server, &[]);
        let mut other = TcpStream::connect(stays.ready()).await.unwrap();
        assert!(answers(&mut stream).await && answers(&mut other).await);

        let home = server.home.path();
        let new = prints(home, &["rotate-key", "--listen", "127.0.0.1:0"]);
        let new = new.split(' ').next().unwrap();
        server.hang_up("announcing the server's next key").await;
        follows.line("has announced its next key");
        // Not before it is told to.
        assert!(prints(home, &["rotate-key", "--listen", "127.0.0.1:0", "--switch"]).contains(new));
        relay.reset_all();
        assert!(answers(&mut stream).await);
        assert_eq!(server.imux.count("shows another key"), 0);
        server.hang_up("shows another key").await;
        assert!(server.imux.line("shows another key").contains(new));

        relay.reset_all();
        assert!(answers(&mut stream).await && answers(&mut other).await);
        let hosts = || fs::read_to_string(known.home.path().join("known_hosts")).unwrap();
        let only = format!("{at} {new}\n");
        eventually(10, "the old key is nobody's", || hosts() == only).await;
        assert_eq!(follows.count("session over"), 0, "{}", follows.log());
        let strict = Imux::start(known.home.path(), &with(&["--host-key", "strict"]));
        assert!(echoes(strict.ready()).await);
        fails(pinned.home.path(), &Person::args(&server, &[]), 7, &[new]);

        // A lost key is no reason to show yet another.
        fs::remove_file(home.join("server.key")).unwrap();
        server.hang_up("key file has gone").await;
        assert!(echoes(follows.ready()).await);
        assert_eq!(server.imux.count("shows another key"), 1);
        assert!(!home.join("server.key").exists());
    });
}
