//! A soak: short connections of all kinds, one after the other, while lanes die and clients come
//! and go. Whenever all of it rests, both programs hold the same descriptors, to the last one, and
//! no more memory than after the first round.
//!
//! `IMUX_SOAK_STREAMS=1000000 IMUX_SOAK_SECONDS=1800 cargo nextest run -p imux --test endurance
//! --no-capture soak` is the long one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::bytes::{Pattern, exchange};
use crate::support::eventually;
use crate::support::net::{self, Destination};
use crate::support::process::{Imux, field};
use crate::support::relay::Death;
use crate::support::tunnel::Tunnel;

const LANES: usize = 10;

/// Connections at once.
const CALLERS: usize = 24;

/// How long the server keeps what killed clients leave behind, in seconds: not more than a few at a
/// time, then.
const GRACE: &str = "15";

/// Resident memory is the allocator's as much as the program's: it keeps some of what was freed,
/// more or less of it. In a long run this is a few bytes a connection.
const RSS_GROWTH_MAX_KIB: u64 = 32 * 1024;

#[test]
fn a_soak_leaves_nothing_behind() {
    let streams = crate::from_env("IMUX_SOAK_STREAMS", 5_000);
    let time = Duration::from_secs(crate::from_env("IMUX_SOAK_SECONDS", 12));
    let limit = 200 + time.as_secs() + streams / 200;
    crate::support::alone(limit, async {
        let destination = Destination::start(answer).await;
        let mut soak = Soak::start(&destination).await;
        let mut base = None;
        // It rests after each. What is held after the first is what may be held after the last.
        let rounds = (time.as_secs() / 4).clamp(2, 10);
        for round in 1..=rounds {
            soak.churn(streams / rounds, time / rounds as u32).await;
            let held = soak.rest(base).await;
            println!("round {round}: {}: {held:?}", soak.report());
            let base = base.get_or_insert(held);
            for end in [0, 1] {
                let grown = held.rss_kib[end].saturating_sub(base.rss_kib[end]);
                assert!(grown < RSS_GROWTH_MAX_KIB, "memory grows: {base:?}, and then {held:?}");
            }
        }
        soak.tunnel.assert_healthy();
    });
}

/// What the client and the server hold.
#[derive(Debug, Clone, Copy)]
struct Held {
    descriptors: [Option<usize>; 2],
    rss_kib: [u64; 2],
}

struct Soak {
    tunnel: Tunnel,
    /// The home of clients that come and go.
    guest: TempDir,
    guests: u64,
    pattern: Arc<Pattern>,
    calls: Arc<AtomicU64>,
}

impl Soak {
    async fn start(destination: &Destination) -> Self {
        let binds = ["--bind", "127.0.0.2=5", "--bind", "127.0.0.3=5"];
        Self {
            tunnel: Tunnel::with(destination.addr, &binds, &["--grace", GRACE]).await,
            guest: tempfile::tempdir().unwrap(),
            guests: 0,
            pattern: Arc::new(Pattern::new(0)),
            calls: Arc::default(),
        }
    }

    /// Calls, deaths and guests for at least this many connections and this long.
    async fn churn(&mut self, streams: u64, time: Duration) {
        let (stop, stopped) = watch::channel(false);
        let wanted = self.calls.load(Ordering::Relaxed) + streams;
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (addr, stopped) = (self.tunnel.addr, stopped.clone());
            let (calls, pattern) = (self.calls.clone(), self.pattern.clone());
            callers.spawn(async move {
                while !*stopped.borrow() {
                    let number = calls.fetch_add(1, Ordering::Relaxed);
                    call(addr, number, &pattern).await;
                }
            });
        }
        let begun = Instant::now();
        let mut deaths = Death::ALL.into_iter().cycle();
        let mut turn = 0;
        while begun.elapsed() < time || self.calls.load(Ordering::Relaxed) < wanted {
            turn += 1;
            if turn % 10 == 0 {
                // For a moment there is no lane at all.
                self.tunnel.relay.reset_all();
            } else {
                deaths.next().map(|death| self.tunnel.relay.kill(death));
            }
            self.receive_guest().await;
            sleep(Duration::from_millis(200 * (turn % 5))).await;
        }
        stop.send_replace(true);
        while let Some(done) = callers.join_next().await {
            done.unwrap();
        }
    }

    /// A client of its own: comes, is served, and goes in one way or another.
    async fn receive_guest(&mut self) {
        let ready = self.tunnel.server.line("server ready");
        let at = self.tunnel.relay.addr.to_string();
        let args = ["client", "--listen", "127.0.0.1:0", "--bind", "127.0.0.4=2", "--dial", &at];
        let pin = ["--pin", field(&ready, "key")];
        let mut guest = Imux::start(self.guest.path(), &[&args[..], &pin].concat());
        call(guest.ready(), 99, &self.pattern).await;
        self.guests += 1;
        let ways = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL];
        guest.signal(ways[(self.guests % 3) as usize]);
        guest.exit_code();
    }

    /// Waits until nothing is left of what has gone; what is held then.
    async fn rest(&self, base: Option<Held>) -> Held {
        let relay = &self.tunnel.relay;
        relay.restore();
        eventually(60, "lanes come back, and those of others go", || {
            relay.alive() == LANES && relay.held() == LANES
        })
        .await;
        let ends = [&self.tunnel.client, &self.tunnel.server];
        // The allocator gives back what was freed some time before when it is next asked for
        // something.
        let mut rss_kib = ends.map(Imux::rss_kib);
        for number in 10..40 {
            call(self.tunnel.addr, number, &self.pattern).await;
            sleep(Duration::from_millis(50)).await;
            rss_kib = [0, 1].map(|end: usize| rss_kib[end].min(ends[end].rss_kib()));
        }
        sleep(Duration::from_secs(1)).await;
        let descriptors = || ends.map(Imux::descriptors);
        if let Some(base) = base {
            let what = format!("descriptors as in {base:?}, not {:?}", descriptors());
            eventually(60, &what, || descriptors() == base.descriptors).await;
        }
        Held { descriptors: descriptors(), rss_kib }
    }

    fn report(&self) -> String {
        let died = Death::ALL.map(|death| format!("{} {death:?}", self.tunnel.relay.deaths(death)));
        let calls = self.calls.load(Ordering::Relaxed);
        format!("{calls} connections, {} guests, deaths {}", self.guests, died.join(", "))
    }
}

/// How a connection goes on, told by its first byte.
const ECHO: u8 = b'e';
const RESET: u8 = b'r';
const FOR_EVER: u8 = b'f';

/// One short connection. Most are echoes of up to 2 KB; of a hundred one is long and four end
/// badly.
async fn call(addr: SocketAddr, number: u64, pattern: &Pattern) {
    let outcome = timeout(Duration::from_secs(60), async {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        match number % 100 {
            // The other end resets it.
            0 => {
                socket.write_u8(RESET).await.unwrap();
                assert!(socket.read_u8().await.is_err());
            }
            // This end resets it, before or after the other knows of it.
            1 => net::reset(socket),
            2 => {
                socket.write_u8(FOR_EVER).await.unwrap();
                socket.read_u8().await.unwrap();
                net::reset(socket);
            }
            // This end goes away without waiting for anything.
            3 => socket.write_u8(FOR_EVER).await.unwrap(),
            other => {
                socket.write_u8(ECHO).await.unwrap();
                let length = if other == 4 { 300_000 } else { number * 37 % 2_000 };
                exchange(socket, (pattern, length), (pattern, length)).await.unwrap();
            }
        }
    });
    outcome.await.unwrap_or_else(|_| panic!("connection {number} hangs"));
}

/// The destination's end of [`call`].
async fn answer(mut socket: TcpStream) {
    match socket.read_u8().await {
        Ok(ECHO) => net::echo(socket).await,
        Ok(RESET) => net::reset(socket),
        Ok(FOR_EVER) => while socket.write_all(&[0; 4096]).await.is_ok() {},
        _ => {}
    }
}
