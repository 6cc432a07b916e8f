//! What the log says about connections, and about what goes wrong with them.

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::support::net::{Destination, connect, unused_port};
use crate::support::process::{self, Imux, field};
use crate::support::tunnel::Tunnel;
use crate::support::{bounded, eventually};

#[test]
fn each_connection_is_told_of_to_whoever_asks_for_it() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::with(destination.addr, &["--debug"], &["--debug"]).await;
        let mut socket = tunnel.connect().await;
        let from = socket.local_addr().unwrap();
        socket.write_all(&[7; 12_345]).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut back = Vec::new();
        socket.read_to_end(&mut back).await.unwrap();
        assert_eq!(back.len(), 12_345);
        let begun = tunnel.client.line("connection begins");
        assert_eq!(field(&begun, "from"), from.to_string());
        assert!(begun.contains(&tunnel.addr.to_string()), "{begun}");
        for (end, to) in [(&tunnel.client, tunnel.addr), (&tunnel.server, destination.addr)] {
            let ended = end.line("connection ended");
            assert_eq!((field(&ended, "read"), field(&ended, "written")), ("12345", "12345"));
            assert!(field(&ended, "seconds").parse::<f64>().unwrap() < 60.0, "{ended}");
            assert!(ended.contains(&to.to_string()), "{ended}");
        }
        // A clean end cuts nothing off, and says so.
        tunnel.client.signal(Signal::SIGINT);
        assert_eq!(tunnel.client.exit_code(), Some(130));
        assert!(!tunnel.client.log().contains("cut off"), "{}", tunnel.client.log());
    });
}

#[test]
fn a_forward_that_is_refused_says_which() {
    bounded(60, async {
        let (destination, closed) = (Destination::echo().await, unused_port().await);
        let tunnel = Tunnel::with(closed, &[], &[]).await;
        let mut socket = tunnel.connect().await;
        assert!(socket.read_u8().await.is_err());
        let told = tunnel.client.line("could not reach the destination");
        assert!(told.contains(&tunnel.addr.to_string()) && told.contains("refused"), "{told}");
        drop(tunnel);

        let to = destination.addr.to_string();
        let home = tempfile::tempdir().unwrap();
        let server = Imux::start(home.path(), &["server", "--listen=127.0.0.1:0", "--dial", &to]);
        let line = server.line("server ready");
        let (at, key) = (field(&line, "address"), field(&line, "key"));
        let port = unused_port().await.port();
        let forward = format!("127.0.0.1:{port}:db.example:5432");
        let client =
            Imux::start(home.path(), &["client", "--dial", at, "--pin", key, "-L", &forward]);
        let mut socket = connect(client.ready());
        assert!(socket.read_u8().await.is_err());
        let told = client.line("destination not allowed");
        assert!(told.contains("db.example:5432") && told.contains(&format!(":{port}")), "{told}");
        assert!(told.contains(&socket.local_addr().unwrap().to_string()), "{told}");
    });
}

#[test]
fn the_last_word_in_json_has_its_time_too() {
    let home = tempfile::tempdir().unwrap();
    let args = ["client", "--listen=127.0.0.1:0", "--dial=gone.invalid:1", "--log-format=json"];
    let (_, _, told) = process::run(home.path(), &args);
    for line in told.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let time = line["timestamp"].as_str().unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{line}");
    }
}

#[test]
fn a_server_that_is_another_now_is_told_with_what_to_do() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::with(destination.addr, &["--bind", "127.0.0.2=1"], &[]).await;
        let other = tempfile::tempdir().unwrap();
        let at = tunnel.server.ready().to_string();
        tunnel.server.signal(Signal::SIGKILL);
        tunnel.server.exit_code();
        let to = destination.addr.to_string();
        let other = Imux::start(other.path(), &["server", "--listen", &at, "--dial", &to]);
        other.ready();
        let what = "it says what to do";
        let log = || tunnel.client.log();
        eventually(20, what, || log().contains("start the client again")).await;
    });
}

/// A link whose other end accepts connections and says nothing is reported as soon as it is given
/// up, with how long that took, while the others are up.
#[test]
fn a_link_that_stays_mute_is_told_of_beside_those_that_are_up() {
    bounded(60, async {
        let (destination, home) = (Destination::echo().await, tempfile::tempdir().unwrap());
        let to = destination.addr.to_string();
        let server = Imux::start(home.path(), &["server", "--listen=127.0.0.1:0", "--dial", &to]);
        let line = server.line("server ready");
        let (at, key) = (field(&line, "address").to_owned(), field(&line, "key"));
        let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let through = relay.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut mute = Vec::new();
            loop {
                let (mut near, from) = relay.accept().await.unwrap();
                if from.ip().to_string() == "127.0.0.3" {
                    mute.push(near);
                    continue;
                }
                let mut far = TcpStream::connect(&at).await.unwrap();
                tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        let begun = Instant::now();
        let args = ["client", "--listen=127.0.0.1:0", "--dial", &through, "--pin", key];
        let more = ["--bind=127.0.0.2=7", "--bind=127.0.0.3=3", "--connect-timeout=2"];
        let client = Imux::start(home.path(), &[&args[..], &more].concat());
        let told = tokio::task::block_in_place(|| client.line("127.0.0.3"));
        let took = begun.elapsed().as_secs_f64();
        assert!(told.contains("a lane could not be made; trying again"), "{told}");
        assert!(!told.contains("no lane"), "{told}");
        let said = told.rsplit_once("within ").unwrap().1.trim_end_matches('s');
        let said: f64 = said.parse().unwrap();
        assert!((2.0..=took).contains(&said), "{said} s of {took} s: {told}");
        // Lanes are numbers.
        eventually(20, "the others are up", || client.count("lane up") == 7).await;
        let lane = client.line("lane up");
        assert!(field(&lane, "lane").parse::<u64>().is_ok(), "{lane}");
        let lane = server.line("lane up");
        assert!(field(&lane, "lane").parse::<u64>().is_ok(), "{lane}");
    });
}
