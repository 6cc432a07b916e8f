//! A program that runs out of descriptors goes on with what it has, and with the rest once there
//! are some again.

use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::net::Destination;
use crate::support::process::{Imux, field};
use crate::support::{bounded, eventually};

/// The program, with at most this many descriptors.
fn limited(home: &std::path::Path, descriptors: u32, args: &[&str]) -> Imux {
    let mut command = Command::new("sh");
    command.env("IMUX_HOME", home).env_remove("RUST_LOG");
    command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]);
    Imux::spawn(command.arg(env!("CARGO_BIN_EXE_imux")).args(args))
}

/// The program with this soft limit below this hard one.
fn with_soft_limit(home: &std::path::Path, soft: u32, hard: u32, args: &[&str]) -> Imux {
    let mut command = Command::new("sh");
    command.env("IMUX_HOME", home).env_remove("RUST_LOG");
    command.args(["-c", &format!("ulimit -Sn {soft} && ulimit -Hn {hard} && exec \"$0\" \"$@\"")]);
    Imux::spawn(command.arg(env!("CARGO_BIN_EXE_imux")).args(args))
}

/// A client of that server, with a home of its own.
fn client_of(server: &Imux, home: &std::path::Path) -> Imux {
    let ready = server.line("server ready");
    let (at, key) = (field(&ready, "address"), field(&ready, "key"));
    let args = ["client", "--listen", "127.0.0.1:0", "--dial", at, "--pin", key];
    Imux::start(home, &args)
}

/// Opens this many connections at once, and returns those that carry something.
async fn open_many(addr: std::net::SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..count {
        opening.spawn(async move {
            let mut socket = TcpStream::connect(addr).await.ok()?;
            socket.write_all(b"x").await.ok()?;
            (socket.read_u8().await.ok()? == b'x').then_some(socket)
        });
    }
    opening.join_all().await.into_iter().flatten().collect()
}

/// Whether a connection to `addr` carries a word there and back.
async fn echoes(addr: std::net::SocketAddr) -> bool {
    let Ok(mut socket) = TcpStream::connect(addr).await else { return false };
    let mut back = [0; 4];
    socket.write_all(b"echo").await.is_ok()
        && socket.read_exact(&mut back).await.is_ok()
        && &back == b"echo"
}

async fn eventually_echoes(addr: std::net::SocketAddr, what: &str) {
    let mut tries = 0;
    while !echoes(addr).await {
        tries += 1;
        assert!(tries < 300, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[test]
fn out_of_descriptors_it_goes_on() {
    bounded(120, async {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let destination = Destination::echo().await;
        let to = destination.addr.to_string();
        let args = ["server", "--listen", "127.0.0.1:0", "--dial", &to];
        let mut server = limited(homes[0].path(), 48, &args);
        let (at, ready) = (server.ready(), server.line("server ready"));
        let (dial, key) = (at.to_string(), field(&ready, "key"));
        let args = ["client", "--listen", "127.0.0.1:0", "--dial", &dial, "--pin", key];
        let mut client =
            limited(homes[1].path(), 80, &[&args[..], &["--bind", "0.0.0.0=4"]].concat());
        let local = client.ready();
        eventually_echoes(local, "nothing works").await;

        // More connections than either end has descriptors for: those beyond are refused one by
        // one.
        let mut open = Vec::new();
        for _ in 0..120 {
            // A refusal may even overtake the connect: then it is a reset.
            let Ok(mut socket) = TcpStream::connect(local).await else { continue };
            let _ = socket.write_all(b"echo").await;
            open.push(socket);
        }
        eventually(20, "an end says what it is short of", || {
            server.count("connections are refused") + client.count("connections are refused") > 0
        })
        .await;
        drop(open);
        eventually_echoes(local, "descriptors were lost").await;

        // Strangers at the server's door take them all: those waiting have to give way.
        let strangers: Vec<_> =
            (0..200).map(|_| std::net::TcpStream::connect(at).unwrap()).collect();
        eventually_echoes(local, "strangers have stopped a session").await;
        drop(strangers);
        eventually_echoes(local, "strangers have left something behind").await;
        assert!(server.is_running() && client.is_running());
    });
}

#[test]
fn one_client_with_many_connections_leaves_the_others_theirs() {
    bounded(120, async {
        let destination = Destination::echo().await;
        let to = destination.addr.to_string();
        let args = ["server", "--listen", "127.0.0.1:0", "--dial", &to];
        for (soft, hard, all_fit) in [(1_024, 4_096, true), (256, 256, false), (64, 64, false)] {
            let homes = [(); 3].map(|()| tempfile::tempdir().unwrap());
            let server = with_soft_limit(homes[0].path(), soft, hard, &args);
            let said = server.line("so many connections at once");
            let allowed: usize = field(&said, "of_one_client").parse().unwrap();
            let greedy = client_of(&server, homes[1].path());
            let mut open = open_many(greedy.ready(), 1_200).await;
            if all_fit {
                assert_eq!(open.len(), 1_200);
            } else {
                assert!(
                    (allowed / 2..=allowed).contains(&open.len()),
                    "{} of {allowed}",
                    open.len()
                );
                assert_eq!(server.count("connections are refused"), 1, "{}", server.log());
                assert!(greedy.count("excessive load") > 0);
            }
            // A later client finds room for its lanes, and for connections.
            let other = client_of(&server, homes[2].path());
            assert!(!open_many(other.ready(), 3).await.is_empty(), "of {hard} nothing is left");
            eventually_echoes(other.ready(), "its places were not given back").await;
            // Open connections go on.
            let socket = &mut open[0];
            socket.write_all(b"y").await.unwrap();
            assert_eq!(socket.read_u8().await.unwrap(), b'y');
            drop(open);
            eventually_echoes(greedy.ready(), "its places were not given back").await;
        }
    });
}

#[test]
fn local_connections_leave_a_client_its_lanes() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let to = destination.addr.to_string();
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let server =
            Imux::start(homes[0].path(), &["server", "--listen", "127.0.0.1:0", "--dial", &to]);
        let relay = crate::support::relay::Relay::start(server.ready()).await;
        let (at, ready) = (relay.addr.to_string(), server.line("server ready"));
        let args = ["client", "--listen", "127.0.0.1:0", "--dial", &at, "--bind", "0.0.0.0=4"];
        let args = [&args[..], &["--pin", field(&ready, "key")]].concat();
        let client = limited(homes[1].path(), 96, &args);
        let said = client.line("so many connections at once");
        let allowed: usize = field(&said, "connections").parse().unwrap();
        let mut open = open_many(client.ready(), 300).await;
        assert!((allowed / 2..=allowed).contains(&open.len()), "{} of {allowed}", open.len());
        assert_eq!(client.count("connections are refused"), 1);
        // All lanes are lost, and there are descriptors for others.
        relay.reset_all();
        eventually(20, "all lanes are back", || relay.alive() >= 4).await;
        let socket = &mut open[0];
        socket.write_all(b"y").await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'y');
    });
}
