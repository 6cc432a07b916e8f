//! What an honest session keeps of its throughput while others attack the same server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use imux::trust::Identity;
use imux::{Client, StreamKind};

use super::honest::{Honest, connect};
use super::peer::{self, Peer, client_tls};
use super::support::bounded;
use super::support::bytes::{Pattern, exchange};
use super::support::relay::Relay;
use super::wire::{self, RAW, data, frame, open, stream, types};

/// The honest link, each way: 80 Mbit/s.
const LINK_BYTES_PER_SECOND: u64 = 10_000_000;

/// One of each kind at a time, one after the other; what it took is what the server let it.
fn attack(server: SocketAddr, identity: &Identity, round: u64) {
    let Ok(mut peer) = Peer::dial(server, client_tls(identity)) else { return };
    match round % 6 {
        0 => peer.send(&wire::join(&[7; 16], 1, &[7; 32])),
        1 => drop(peer::connect(server)),
        other => {
            peer.send(&peer::create(&[1]));
            match other {
                2 => peer.flood(150_000, |_| frame(types::PING, &[], &[])),
                3 => peer.flood(5_000, |n| data(stream(0), (n + 1) * 20, &[1; 16])),
                4 => peer.flood(20_000, |n| {
                    let reset = frame(types::RESET, &[stream(n), 0x20, 0], &[]);
                    [open(stream(n), RAW), reset].concat()
                }),
                _ => peer.flood(2_000, |_| data(stream(0), 0, &[1; 1_000])),
            }
        }
    }
    // Throws it out, or does not mind.
    peer.drain(Duration::from_millis(50));
}

struct Attack {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Attack {
    fn start(server: SocketAddr) -> Self {
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let threads = (0..2).map(|_| {
            let (stop, rounds) = (stop.clone(), rounds.clone());
            std::thread::spawn(move || {
                let identity = Identity::generate().unwrap();
                while !stop.load(Ordering::Relaxed) {
                    attack(server, &identity, rounds.fetch_add(1, Ordering::Relaxed));
                    std::thread::sleep(Duration::from_millis(50));
                }
            })
        });
        let threads = threads.collect();
        Self { stop, rounds, threads }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Exchanges for at least so long; bytes a second each way.
async fn rate(client: &Client, seconds: u64) -> f64 {
    const EACH: u64 = 2 << 20;
    let (begun, pattern) = (Instant::now(), Pattern::new(1));
    let mut bytes = 0;
    while bytes == 0 || begun.elapsed() < Duration::from_secs(seconds) {
        let both = (&pattern, EACH);
        // Two at once, so that the link is busy to the end of each.
        let one =
            async { exchange(client.open(StreamKind::Default).await.unwrap(), both, both).await };
        let other =
            async { exchange(client.open(StreamKind::Default).await.unwrap(), both, both).await };
        let (one, other) = tokio::join!(one, other);
        one.unwrap();
        other.unwrap();
        bytes += 2 * EACH;
    }
    bytes as f64 / begun.elapsed().as_secs_f64()
}

/// That all bytes arrive is asserted. How fast is told, of as many seconds as `IMUX_UNDER_ATTACK`
/// says, quiet and under attack in turns.
#[test]
fn an_honest_session_works_on_under_attack() {
    let seconds = std::env::var("IMUX_UNDER_ATTACK").map_or(0, |text| text.parse().unwrap());
    bounded(240, async {
        let honest = Honest::start("server");
        let ready = honest.told("ready");
        let (server, key) = ready.split_once(' ').unwrap();
        let server: SocketAddr = server.parse().unwrap();
        let relay = Relay::start(server).await;
        relay.throttle(LINK_BYTES_PER_SECOND);
        let client = connect(relay.addr, key.parse().unwrap()).await;
        let turns = if seconds == 0 { 1 } else { 5 };
        for _ in 0..turns {
            let quiet = rate(&client, seconds).await;
            let attack = Attack::start(server);
            let attacked = rate(&client, seconds).await;
            let rounds = attack.rounds.load(Ordering::Relaxed);
            tokio::task::spawn_blocking(move || drop(attack)).await.unwrap();
            assert!(rounds > 0);
            println!(
                "{:.2} MB/s quiet, {:.2} MB/s during {rounds} attacks: {:.0} %",
                quiet / 1e6,
                attacked / 1e6,
                100.0 * attacked / quiet
            );
        }
        drop(honest);
    });
}
