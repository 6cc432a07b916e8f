//! Slow and stopped readers, and many idle connections: alone memory, and nobody else waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::support::bytes::Pattern;
use crate::support::net::{Destination, send_back};
use crate::support::tunnel::Tunnel;
use crate::support::{alone, eventually};

pub(crate) const MIB: u64 = 1 << 20;

/// What either program may hold for stopped readers: its window for a whole session, which is
/// 128 MiB, what it is itself, and what it holds twice for a moment.
const RSS_MAX_KIB: u64 = 260 * 1024;

/// A destination of two kinds of connection, told apart by their first byte: `s` is sent to
/// without end and `u` is never read, `e` is an echo. It counts what it could send to the first.
pub(crate) async fn two_kinds(sent: Arc<AtomicU64>) -> Destination {
    Destination::start(move |mut socket| {
        let sent = sent.clone();
        async move {
            match socket.read_u8().await {
                Ok(b's') => {
                    let block = vec![1; 64 << 10];
                    while socket.write_all(&block).await.is_ok() {
                        sent.fetch_add(block.len() as u64, Ordering::Relaxed);
                    }
                }
                Ok(b'u') => std::future::pending().await,
                _ => {
                    send_back(&mut socket).await;
                    // Kept: where so many sockets are full, kernels reset those that programs have
                    // closed and of which not all was taken yet (tcp_mem).
                    std::future::pending::<()>().await;
                }
            }
        }
    })
    .await
}

/// Opens a connection and says of which kind it is.
pub(crate) async fn of_kind(tunnel: &Tunnel, kind: u8) -> TcpStream {
    let mut socket = tunnel.connect().await;
    socket.write_all(&[kind]).await.unwrap();
    socket
}

/// Sends and receives `length` bytes, and ends only then: a socket that the client has closed with
/// bytes in it, kernels short of memory would reset. How long it took.
pub(crate) async fn echo(tunnel: &Tunnel, length: u64) -> Duration {
    let begun = Instant::now();
    let pattern = Pattern::new(3);
    let (mut read, mut write) = of_kind(tunnel, b'e').await.into_split();
    let echoing = async {
        let mut echo = (&mut read).take(length);
        let sending = pattern.send(&mut write, length);
        let (got, ()) = tokio::try_join!(pattern.receive(&mut echo), sending)?;
        write.shutdown().await?;
        let after = read.read(&mut [0]).await?;
        std::io::Result::Ok((got, after))
    };
    let (got, after) = echoing.await.unwrap_or_else(|error| {
        panic!(
            "{error}; the client:\n{}\nthe server:\n{}",
            tunnel.client.log(),
            tunnel.server.log()
        )
    });
    assert_eq!((got, after), (length, 0));
    begun.elapsed()
}

#[test]
fn stopped_readers_stall_nobody_and_cost_their_window() {
    alone(120, async {
        let sent = Arc::<AtomicU64>::default();
        let destination = two_kinds(sent.clone()).await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let alone = echo(&tunnel, 16 * MIB).await;

        let mut stopped = Vec::new();
        for _ in 0..12 {
            stopped.push(of_kind(&tunnel, b's').await);
            let mut upload = of_kind(&tunnel, b'u').await;
            stopped.push(TcpStream::from_std(copy_of(&upload)).unwrap());
            tokio::spawn(async move {
                let block = vec![2; 64 << 10];
                while upload.write_all(&block).await.is_ok() {}
            });
        }
        // Until nothing moves any more on any of them.
        let mut last = (u64::MAX, Instant::now());
        while last.1.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = sent.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            }
        }
        let beside = echo(&tunnel, 16 * MIB).await;
        assert!(
            beside < alone * 3 + Duration::from_secs(1),
            "an echo took {alone:?} alone and {beside:?} beside stopped readers"
        );
        for (name, end) in [("client", &tunnel.client), ("server", &tunnel.server)] {
            let rss = end.rss_kib_max();
            assert!(rss < RSS_MAX_KIB, "the {name} took {rss} KiB");
        }
        drop(stopped);
        tunnel.assert_healthy();
    });
}

/// The same socket again, so that closing one does not end the connection.
fn copy_of(socket: &TcpStream) -> std::net::TcpStream {
    let copy = socket2::SockRef::from(socket).try_clone().unwrap();
    copy.into()
}

#[test]
fn a_slow_reader_gets_every_byte() {
    alone(60, async {
        let length = 6 * MIB;
        let destination = Destination::start(move |mut socket| async move {
            Pattern::new(9).send(&mut socket, length).await.unwrap();
        })
        .await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let mut socket = tunnel.connect().await;
        let (pattern, mut offset, mut buffer) = (Pattern::new(9), 0, vec![0; 64 << 10]);
        loop {
            let got = socket.read(&mut buffer).await.unwrap();
            if got == 0 {
                break;
            }
            pattern.check(offset, &buffer[..got]);
            offset += got as u64;
            if offset < 2 * MIB {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert_eq!(offset, length);
        tunnel.assert_healthy();
    });
}

/// `IMUX_IDLE_CONNECTIONS=7000 cargo nextest run --no-capture idle_connections_are_cheap` shows the
/// figures for more: with 20,000 descriptors, a usual limit, a server grants one client 7,482.
#[test]
fn idle_connections_are_cheap() {
    let count = std::env::var("IMUX_IDLE_CONNECTIONS").ok();
    idle(count.map_or(800, |count| count.parse().expect("a number in IMUX_IDLE_CONNECTIONS")));
}

/// Opens so many connections, sends a byte each way on each, and leaves them alone.
fn idle(count: u64) {
    /// Two sockets' worth of bookkeeping, a task and two small buffers.
    const EACH_KIB_MAX: u64 = 24;
    alone(120, async {
        let destination = Destination::echo().await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        let ends = |tunnel: &Tunnel| [tunnel.client.rss_kib(), tunnel.server.rss_kib()];
        eventually(10, "ten lanes", || tunnel.relay.alive() == 10).await;
        let before = ends(&tunnel);
        let mut idle = Vec::new();
        for _ in 0..count {
            let mut socket = tunnel.connect().await;
            socket.write_u8(b'i').await.unwrap();
            idle.push(socket);
        }
        for socket in &mut idle {
            assert_eq!(socket.read_u8().await.unwrap(), b'i');
        }
        let after = ends(&tunnel);
        for (name, (before, after)) in
            ["client", "server"].iter().zip(before.into_iter().zip(after))
        {
            let each = after.saturating_sub(before) / count;
            println!("{name}: {before} KiB, with {count} idle connections {after} KiB");
            assert!(each <= EACH_KIB_MAX, "{each} KiB for each connection at the {name}");
        }
        tunnel.assert_healthy();
    });
}
