//! A program that has run out of descriptors goes on with what it has, and with the rest when there are some again.

use std::process::Command;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::net::Destination;
use crate::support::process::{Imux, field};
use crate::support::{bounded, eventually};

/// The program, with so many descriptors at most.
fn limited(home: &std::path::Path, descriptors: u32, args: &[&str]) -> Imux {
    let mut command = Command::new("sh");
    command.env("IMUX_HOME", home).env_remove("RUST_LOG");
    command.args(["-c", &format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"")]);
    Imux::spawn(command.arg(env!("CARGO_BIN_EXE_imux")).args(args))
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

        // More connections than either end has descriptors for: those that do not fit are refused one by one.
        let mut open = Vec::new();
        for _ in 0..120 {
            // A refusal may overtake even the connecting: it is a reset.
            let Ok(mut socket) = TcpStream::connect(local).await else { continue };
            let _ = socket.write_all(b"echo").await;
            open.push(socket);
        }
        eventually(20, "an end says what it is short of", || {
            server.count("cannot reach the destination") > 0
        })
        .await;
        drop(open);
        eventually_echoes(local, "descriptors were lost").await;

        // Strangers at the server's door take them all: those that wait have to give way.
        let strangers: Vec<_> =
            (0..200).map(|_| std::net::TcpStream::connect(at).unwrap()).collect();
        eventually_echoes(local, "strangers have stopped a session").await;
        drop(strangers);
        eventually_echoes(local, "strangers have left something behind").await;
        assert!(server.is_running() && client.is_running());
    });
}
