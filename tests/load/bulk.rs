//! Large transfers, every byte checked, while lanes die.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::bytes::{Pattern, exchange};
use crate::support::net::Destination;
use crate::support::tunnel::Tunnel;
use crate::support::{alone, eventually};

const MIB: u64 = 1 << 20;

/// A destination that exchanges `length` bytes each way with whoever comes.
async fn peer(length: u64) -> Destination {
    let patterns = Arc::new((Pattern::new(1), Pattern::new(2)));
    Destination::start(move |socket| {
        let patterns = patterns.clone();
        async move {
            let (up, down) = &*patterns;
            exchange(socket, (down, length), (up, length)).await.unwrap();
        }
    })
    .await
}

async fn both_ways(socket: TcpStream, length: u64) {
    let (up, down) = (Pattern::new(1), Pattern::new(2));
    exchange(socket, (&up, length), (&down, length)).await.unwrap();
}

#[test]
fn each_way_at_once_over_ten_lanes() {
    alone(120, async {
        let length = 256 * MIB;
        let destination = peer(length).await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        both_ways(tunnel.connect().await, length).await;
        for path in ["127.0.0.2", "127.0.0.3"] {
            let carried = tunnel.relay.carried(path);
            assert!(carried > length / 4, "{path} carried only {carried} bytes");
        }
        tunnel.assert_healthy();
    });
}

#[test]
fn while_all_lanes_are_gone_for_some_seconds_and_come_back() {
    alone(60, async {
        let length = 24 * MIB;
        let destination = peer(length).await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        tunnel.relay.throttle(800_000);
        let transfer = tokio::spawn(both_ways(tunnel.connect().await, length));
        tokio::time::sleep(Duration::from_millis(800)).await;
        tunnel.relay.close(true);
        tunnel.relay.reset_all();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(tunnel.relay.alive(), 0);
        assert!(!transfer.is_finished(), "the transfer was over before the lanes were gone");
        tunnel.relay.close(false);
        transfer.await.unwrap();
        assert_eq!(tunnel.client.count("session over"), 0, "the session was to be resumed");
        tunnel.assert_healthy();
    });
}

#[test]
fn while_all_lanes_are_silent_and_new_ones_take_over() {
    alone(60, async {
        let length = 24 * MIB;
        let destination = peer(length).await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        tunnel.relay.throttle(800_000);
        let transfer = tokio::spawn(both_ways(tunnel.connect().await, length));
        tokio::time::sleep(Duration::from_millis(800)).await;
        tunnel.relay.silence_all();
        let silenced = tokio::time::Instant::now();
        assert!(!transfer.is_finished(), "the transfer was over before the lanes were silent");
        transfer.await.unwrap();
        let took = silenced.elapsed();
        assert!(took < Duration::from_secs(20), "a silent death was noticed late: {took:?}");
        tunnel.assert_healthy();
    });
}

#[test]
fn a_path_that_dies_silently_hands_over_to_the_other() {
    alone(60, async {
        let length = 24 * MIB;
        let destination = peer(length).await;
        let mut tunnel = Tunnel::start(destination.addr).await;
        tunnel.relay.throttle(1_000_000);
        let transfer = tokio::spawn(both_ways(tunnel.connect().await, length));
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert!(tunnel.relay.silence_path("127.0.0.2"));
        transfer.await.unwrap();
        eventually(20, "the lanes of the silent path are replaced", || tunnel.relay.alive() >= 10)
            .await;
        tunnel.assert_healthy();
    });
}
