//! What a connection costs in round trips: the link between client and server takes its time,
//! everything else takes none.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::support::bounded;
use crate::support::net::{Destination, connect};
use crate::support::pair::Pair;
use crate::support::process::{Imux, field};

/// There and back. Long, so that what a loaded machine adds is little beside it.
const ROUND_TRIP: Duration = Duration::from_millis(800);

/// Leads to `to` over a link on which everything takes half a round trip.
async fn slow_link(to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            let (near, far) = (near.into_split(), far.into_split());
            tokio::spawn(delayed(near.0, far.1));
            tokio::spawn(delayed(far.0, near.1));
        }
    });
    at
}

async fn delayed(
    mut from: impl AsyncReadExt + Unpin + Send + 'static,
    mut to: impl AsyncWriteExt + Unpin,
) {
    let (sender, mut pieces) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        let mut piece = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut piece).await {
            let _ = sender.send((Instant::now() + ROUND_TRIP / 2, piece[..read].to_vec()));
        }
    });
    while let Some((at, piece)) = pieces.recv().await {
        sleep_until(at).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}

async fn answered(socket: &mut TcpStream, question: &[u8], answer: usize) {
    socket.write_all(question).await.unwrap();
    socket.read_exact(&mut vec![0; answer]).await.unwrap();
}

#[test]
fn a_connection_by_the_proxy_costs_no_more_round_trips_than_a_direct_one() {
    bounded(120, async {
        let echo = Destination::echo().await;
        let pair = Pair::server("127.0.0.1:9", Some(&format!("dial=\"{}\"", echo.addr)));
        let link = slow_link(pair.at.parse().unwrap()).await;
        let client = Imux::start(
            pair.folder.path(),
            &[
                "client",
                "--dial",
                &link.to_string(),
                "--pin",
                &pair.key,
                "--bind=any=2,express=no",
                "-L",
                &format!("127.0.0.1:0:{}", echo.addr),
                "-D",
                "127.0.0.1:0",
            ],
        );
        let forward: SocketAddr =
            field(&client.nth_line("client ready", 1), "address").parse().unwrap();
        let proxy: SocketAddr =
            field(&client.nth_line("client ready", 2), "address").parse().unwrap();
        let port = echo.addr.port().to_be_bytes();
        let request = [&[5, 1, 0, 1, 127, 0, 0, 1], &port[..]].concat();
        // The first may still wait for the other lane.
        let (mut by_forward, mut by_proxy) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let begun = Instant::now();
            answered(&mut connect(forward), b"x", 1).await;
            by_forward.push(begun.elapsed());

            // As programs do it that wait for each answer.
            let begun = Instant::now();
            let mut socket = connect(proxy);
            answered(&mut socket, &[5, 1, 0], 2).await;
            answered(&mut socket, &request, 10).await;
            answered(&mut socket, b"x", 1).await;
            by_proxy.push(begun.elapsed());
        }
        // A direct one takes one for the handshake and one for the question. The best of three:
        // nothing else the machine does makes any of them faster.
        let trips = |taken: &[Duration]| {
            taken.iter().min().unwrap().as_secs_f64() / ROUND_TRIP.as_secs_f64()
        };
        assert!((1.9..3.0).contains(&trips(&by_proxy)), "{by_proxy:?}");
        assert!((0.9..2.0).contains(&trips(&by_forward)), "{by_forward:?}");
    });
}
