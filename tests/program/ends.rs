//! How connections end. Random cases are in tests/conformance; here is what once went wrong.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::support::net::{self, Destination};
use crate::support::tunnel::Tunnel;
use crate::support::{bounded, eventually};

/// News of a broken connection takes a second, plus what the machine's load adds.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

async fn tunnels(destination: SocketAddr) -> [Tunnel; 2] {
    let one = Tunnel::with(destination, &["--bind", "127.0.0.2=1"], &[]).await;
    [one, Tunnel::start(destination).await]
}

/// Waits until this many bytes have come, and leaves them unread.
async fn arrived(socket: &TcpStream, bytes: usize) {
    let mut buffer = vec![0; bytes];
    while socket.peek(&mut buffer).await.unwrap() < bytes {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Writes until nothing more is accepted for a while.
async fn fill(socket: &mut TcpStream) {
    let block = vec![7; 64 << 10];
    let full = Duration::from_millis(500);
    while let Ok(written) = timeout(full, socket.write_all(&block)).await {
        written.unwrap();
    }
}

#[test]
fn an_answer_arrives_though_its_sender_leaves_something_unread() {
    for size in [100, 20_000] {
        bounded(60, async {
            let destination = Destination::start(move |mut socket| async move {
                socket.read_u8().await.unwrap();
                arrived(&socket, 99).await;
                socket.write_all(&vec![7; size]).await.unwrap();
            })
            .await;
            for tunnel in tunnels(destination.addr).await {
                for _ in 0..20 {
                    let mut socket = tunnel.connect().await;
                    socket.write_all(&[1; 100]).await.unwrap();
                    let mut answer = Vec::new();
                    let error = socket.read_to_end(&mut answer).await.unwrap_err();
                    assert_eq!((answer.len(), error.kind()), (size, ErrorKind::ConnectionReset));
                }
            }
        });
    }
}

#[test]
fn what_a_program_says_arrives_though_it_leaves_a_banner_unread() {
    bounded(60, async {
        let (told, mut heard) = mpsc::unbounded_channel();
        let destination = Destination::start(move |mut socket| {
            let told = told.clone();
            async move {
                socket.write_all(b"220 ready\r\n").await.unwrap();
                let mut all = Vec::new();
                let error = socket.read_to_end(&mut all).await.unwrap_err();
                told.send((all.len(), error.kind())).unwrap();
            }
        })
        .await;
        for tunnel in tunnels(destination.addr).await {
            for _ in 0..20 {
                let mut socket = tunnel.connect().await;
                arrived(&socket, 11).await;
                socket.write_all(&[7; 1_000]).await.unwrap();
                drop(socket);
                let got = heard.recv().await.unwrap();
                assert_eq!(got, (1_000, ErrorKind::ConnectionReset));
            }
        }
    });
}

/// In all states at once: nobody reads, with or without a half-close before, from either side.
#[test]
fn an_abort_is_told_at_once_and_leaves_nothing_behind() {
    bounded(120, async {
        let (told, mut heard) = mpsc::unbounded_channel();
        let destination = Destination::start(move |socket| {
            let told = told.clone();
            async move { told.send(socket).unwrap() }
        })
        .await;
        for mut tunnel in tunnels(destination.addr).await {
            let before = [tunnel.client.descriptors(), tunnel.server.descriptors()];
            for half_closed in [false, true] {
                for by_destination in [false, true] {
                    let mut near = tunnel.connect().await;
                    near.write_all(b"!").await.unwrap();
                    let far = heard.recv().await.unwrap();
                    let (mut aborting, stays) =
                        if by_destination { (far, near) } else { (near, far) };
                    fill(&mut aborting).await;
                    if half_closed {
                        aborting.shutdown().await.unwrap();
                    }
                    net::reset(aborting);
                    let begun = Instant::now();
                    let told = timeout(TOLD_WITHIN, stays.ready(Interest::ERROR)).await;
                    let what = format!("half-closed {half_closed}, destination {by_destination}");
                    assert!(told.is_ok(), "{what}: not told after {:?}", begun.elapsed());
                }
            }
            eventually(10, "no descriptor stays", || {
                let now = [tunnel.client.descriptors(), tunnel.server.descriptors()];
                // An express lane may have come.
                before.iter().zip(now).all(|(before, now)| now <= before.map(|count| count + 2))
            })
            .await;
            tunnel.assert_healthy();
        }
    });
}

#[test]
fn urgent_bytes_stay_where_they_were_written() {
    bounded(30, async {
        let destination = Destination::start(|mut socket| async move {
            let mut all = Vec::new();
            let mut buffer = [0; 16];
            // Short reads end before such a byte, and are not the last.
            while !all.ends_with(b"!") {
                socket.readable().await.unwrap();
                if let Ok(got) = socket.try_read(&mut buffer) {
                    all.extend_from_slice(&buffer[..got]);
                }
            }
            socket.write_all(&all).await.unwrap();
        })
        .await;
        for tunnel in tunnels(destination.addr).await {
            let mut socket = tunnel.connect().await;
            for _ in 0..20 {
                socket.write_all(b"a").await.unwrap();
                socket2::SockRef::from(&socket).send_out_of_band(b"b").unwrap();
            }
            socket.write_all(b"!").await.unwrap();
            let mut back = String::new();
            socket.read_to_string(&mut back).await.unwrap();
            assert_eq!(back, format!("{}!", "ab".repeat(20)));
        }
    });
}

/// The timer that the kernel has running for the connected socket between these two ports: its kind
/// (2 is keepalive) and the seconds until it fires.
fn timer(from: u16, to: u16) -> Option<(u8, f64)> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let port =
            |field: &str| u16::from_str_radix(field.rsplit(':').next().unwrap(), 16).unwrap();
        let is_it = port(fields[1]) == from && port(fields[2]) == to && fields[3] == "01";
        let (kind, ticks) = fields[5].split_once(':').unwrap();
        let ticks = u64::from_str_radix(ticks, 16).unwrap();
        is_it.then(|| (kind.parse().unwrap(), ticks as f64 / 100.0))
    })
}

#[test]
fn forwarded_sockets_ask_whether_the_other_end_is_there() {
    bounded(60, async {
        let (told, mut heard) = mpsc::unbounded_channel();
        let destination = Destination::start(move |socket| {
            let told = told.clone();
            async move { told.send(socket).unwrap() }
        })
        .await;
        for (args, expected) in [
            (&[][..], Some(60.0)),
            (&["--keepalive", "20,5,3"], Some(20.0)),
            (&["--keepalive", "off"], None),
        ] {
            let tunnel = Tunnel::with(destination.addr, args, args).await;
            let mut near = tunnel.connect().await;
            near.write_all(b"!").await.unwrap();
            let mut far = heard.recv().await.unwrap();
            far.write_all(b"!").await.unwrap();
            near.read_u8().await.unwrap();
            let sides = [
                (near.peer_addr().unwrap().port(), near.local_addr().unwrap().port()),
                (far.peer_addr().unwrap().port(), far.local_addr().unwrap().port()),
            ];
            for (own, peer) in sides {
                let as_set = || match (timer(own, peer), expected) {
                    (Some((2, seconds)), Some(most)) => seconds <= most && seconds > most / 2.0,
                    (Some((0, _)), None) => true,
                    // What it has sent may still be on the way.
                    _ => false,
                };
                eventually(10, "the keepalive timer is as it was set", as_set).await;
            }
        }
    });
}

#[test]
fn idle_connections_are_reset_where_that_is_wanted_and_busy_ones_are_not() {
    bounded(60, async {
        let destination = Destination::echo().await;
        let tunnel = Tunnel::with(destination.addr, &[], &["--idle-timeout", "3s"]).await;
        let mut busy = tunnel.connect().await;
        let mut idle = tunnel.connect().await;
        idle.write_all(b"x").await.unwrap();
        assert_eq!(idle.read_u8().await.unwrap(), b'x');
        let begun = Instant::now();
        let using = async {
            loop {
                busy.write_all(b"y").await.unwrap();
                assert_eq!(busy.read_u8().await.unwrap(), b'y');
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let error = tokio::select! {
            error = idle.read_u8() => error.unwrap_err(),
            () = using => unreachable!(),
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
        busy.write_all(b"z").await.unwrap();
        assert_eq!(busy.read_u8().await.unwrap(), b'z');
    });
}
