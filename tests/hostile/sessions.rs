//! Sessions that strangers leave behind in the compiled server, as many as it keeps: who comes next
//! gets in, and who is there, or has lost its lanes for a moment, stays.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use imux::trust::Identity;
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::peer::{Peer, client_tls, create};
use super::support::net::Destination;
use super::support::process::{Imux, field};
use super::support::tunnel::Tunnel;
use super::support::{bounded, eventually};
use super::wire::{RAW, codes, open, stream, types};

/// The `number`th of the hostile addresses.
fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 4, number).into()
}

/// A lane to the server from an address of one's own, keys exchanged, nothing said.
fn dial_from(source: IpAddr, server: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Peer> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&server.into())?;
    Peer::over(socket.into(), config)
}

/// Creates `count` sessions from there, has a stream opened in each, and leaves them without a
/// word.
fn leave_behind(server: SocketAddr, from: IpAddr, key: &Identity, count: usize) {
    for _ in 0..count {
        let mut peer = dial_from(from, server, client_tls(key)).unwrap();
        peer.create();
        peer.send(&open(stream(0), RAW));
        peer.expect_alive();
        peer.reset();
    }
}

/// Sends a few bytes and has them back.
async fn echo(socket: &mut TcpStream) {
    socket.write_all(b"still there").await.unwrap();
    let mut back = [0; 11];
    socket.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"still there");
}

/// A client of its own, at another address, and a connection through it.
async fn newcomer(tunnel: &Tunnel) -> (Imux, TempDir, TcpStream) {
    let home = tempfile::tempdir().unwrap();
    let (at, key) = (tunnel.server.ready().to_string(), tunnel.server.line("server ready"));
    let key = field(&key, "key");
    let args = ["client", "--listen", "127.0.0.1:0", "--dial", &at, "--pin", key];
    let client = Imux::start(home.path(), &[&args[..], &["--bind", "127.0.0.9=2"]].concat());
    let mut socket = TcpStream::connect(client.ready()).await.unwrap();
    echo(&mut socket).await;
    (client, home, socket)
}

/// All that an open server keeps, held by four addresses; one client is at work and another, as
/// honest, has lost its lanes for a moment.
#[test]
fn a_table_full_of_abandoned_sessions_keeps_nobody_out_and_ends_nobody_else() {
    bounded(170, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::with(destination.addr, &["--bind", "127.0.0.2=2"], &[]).await;
        let mut interrupted = tunnel.connect().await;
        echo(&mut interrupted).await;
        let (_busy, _home, mut working) = newcomer(&tunnel).await;
        tunnel.relay.close(true);
        tunnel.relay.reset_all();
        tunnel.server.line("lane down");

        let server = tunnel.server.ready();
        let floods = (1..=4).map(|number| {
            tokio::task::spawn_blocking(move || {
                // More than the address may have.
                leave_behind(server, address(number), &Identity::generate().unwrap(), 128);
                leave_behind(server, address(number), &Identity::generate().unwrap(), 142);
            })
        });
        futures::future::try_join_all(floods).await.unwrap();
        eventually(20, "some give way", || tunnel.server.count("gives way") > 50).await;

        let (_client, _home, mut new) = newcomer(&tunnel).await;
        tunnel.relay.close(false);
        for socket in [&mut new, &mut working, &mut interrupted] {
            echo(socket).await;
        }
        tunnel.assert_healthy();
    });
}

/// Where all have lanes, nobody gives way, and who comes is told why.
#[test]
fn the_numbers_of_sessions_can_be_set_and_none_that_has_a_lane_gives_way() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let limits =
            ["--max-sessions=6", "--max-sessions-per-source=3", "--max-sessions-per-key=2"];
        let mut tunnel = Tunnel::with(destination.addr, &["--bind", "127.0.0.2=2"], &limits).await;
        let mut working = tunnel.connect().await;
        echo(&mut working).await;
        let server = tunnel.server.ready();
        tokio::task::spawn_blocking(move || {
            let keys: Vec<_> = (0..6).map(|_| Identity::generate().unwrap()).collect();
            let ask = |from: u8, key: usize| {
                let mut peer = dial_from(address(from), server, client_tls(&keys[key])).unwrap();
                peer.send(&create(&[1]));
                match peer.frame() {
                    Some((types::CREATED, _)) => Ok(peer),
                    Some((types::REFUSED, body)) => Err(String::from_utf8(body).unwrap()),
                    other => panic!("{other:x?}"),
                }
            };
            let refused = |from, key, why: &str| {
                let reason = ask(from, key).map(drop).unwrap_err();
                assert_eq!(reason.as_bytes()[0], codes::EXCESSIVE_LOAD as u8);
                assert!(reason.contains(why), "{reason:?}");
            };
            let mut held = vec![ask(1, 0).unwrap(), ask(1, 0).unwrap()];
            refused(2, 0, "client");
            held.push(ask(1, 1).unwrap());
            refused(1, 2, "address");
            held.push(ask(2, 2).unwrap());
            held.push(ask(2, 3).unwrap());
            refused(3, 4, "too many sessions");
            for peer in &mut held {
                peer.expect_alive();
            }
            // One whose lane has gone makes room, and only that one.
            held.swap_remove(0).reset();
            let let_in = std::iter::repeat_with(|| {
                std::thread::sleep(Duration::from_millis(20));
                ask(3, 4)
            });
            held.push(let_in.flatten().next().unwrap());
            for peer in &mut held {
                peer.expect_alive();
            }
        })
        .await
        .unwrap();
        echo(&mut working).await;
        tunnel.assert_healthy();
    });
}
