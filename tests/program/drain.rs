//! SIGTERM: open connections may finish, nothing new begins, and it ends within its bound.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::bounded;
use crate::support::net::Destination;
use crate::support::process::Imux;
use crate::support::tunnel::Tunnel;

async fn ping(socket: &mut TcpStream) {
    socket.write_all(b"x").await.unwrap();
    assert_eq!(socket.read_u8().await.unwrap(), b'x');
}

/// Whether a new connection through the client is turned away.
async fn is_turned_away(client: &Imux) -> bool {
    let Ok(mut socket) = TcpStream::connect(client.ready()).await else { return true };
    let _ = socket.write_all(b"x").await;
    socket.read_u8().await.is_err()
}

#[test]
fn what_is_open_finishes_and_nothing_new_begins() {
    bounded(60, async {
        for ends_server in [true, false] {
            let destination = Destination::echo().await;
            let patience = ["--drain-timeout", "30"];
            let mut tunnel = Tunnel::with(destination.addr, &patience, &patience).await;
            let mut socket = tunnel.connect().await;
            ping(&mut socket).await;
            let end = if ends_server { &tunnel.server } else { &tunnel.client };
            end.signal(Signal::SIGTERM);
            assert!(end.line("stopping").contains("connections=1"));
            ping(&mut socket).await;
            assert!(is_turned_away(&tunnel.client).await, "a new connection was taken");
            // A large answer, ended in order, arrives whole.
            let block = vec![7; 8 << 20];
            let (mut read, mut write) = socket.split();
            let sending = async {
                write.write_all(&block).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut back = Vec::new();
            let ((), got) = tokio::join!(sending, read.read_to_end(&mut back));
            assert_eq!((got.unwrap(), back == block), (block.len(), true));
            let end = if ends_server { &mut tunnel.server } else { &mut tunnel.client };
            // Long before the bound.
            assert_eq!(end.exit_code(), Some(143));
        }
    });
}

#[test]
fn whoever_does_not_finish_is_cut_off_at_the_bound() {
    bounded(60, async {
        for ends_server in [true, false] {
            let destination = Destination::echo().await;
            let patience = ["--drain-timeout", "1.5"];
            let mut tunnel = Tunnel::with(destination.addr, &patience, &patience).await;
            let mut socket = tunnel.connect().await;
            ping(&mut socket).await;
            let end = if ends_server { &mut tunnel.server } else { &mut tunnel.client };
            let begun = Instant::now();
            end.signal(Signal::SIGTERM);
            assert_eq!(end.exit_code(), Some(143));
            assert!(begun.elapsed() >= Duration::from_millis(1400), "it was not waited for");
            assert!(socket.read_u8().await.is_err());
        }
    });
}

#[test]
fn a_second_signal_ends_at_once() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let patience = ["--drain-timeout", "1h"];
        let mut tunnel = Tunnel::with(destination.addr, &patience, &patience).await;
        let mut socket = tunnel.connect().await;
        ping(&mut socket).await;
        for end in [&mut tunnel.client, &mut tunnel.server] {
            end.signal(Signal::SIGTERM);
            end.line("stopping");
            end.signal(Signal::SIGTERM);
            assert_eq!(end.exit_code(), Some(143));
        }
    });
}

/// Before there is a session, there is nothing to finish.
#[test]
fn a_client_that_is_still_dialling_ends_at_once() {
    bounded(30, async {
        let silent = Destination::start(|socket| async move {
            std::future::pending::<()>().await;
            drop(socket);
        })
        .await;
        let home = tempfile::tempdir().unwrap();
        let dial = silent.addr.to_string();
        let args = ["client", "--listen", "127.0.0.1:0", "--dial", &dial, "--drain-timeout", "1h"];
        let mut client = Imux::start(home.path(), &args);
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.signal(Signal::SIGTERM);
        assert_eq!(client.exit_code(), Some(143));
    });
}
