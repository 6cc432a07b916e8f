//! Lanes die, one after the other, each in the middle of what it carries: half of the bytes that
//! the network had in its hands arrive, the other half never. Connections notice nothing, in either
//! direction.
//!
//! `IMUX_LANE_DEATHS=1000 cargo nextest run -p imux --test endurance --no-capture mid_transfer`
//! kills a thousand of each kind.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::bytes::Pattern;
use crate::support::net::Destination;
use crate::support::relay::Death;
use crate::support::tunnel::Tunnel;
use crate::support::{alone, eventually};

/// Enough that some carry on while it has not been noticed yet that others are silent.
const LANES: usize = 60;
const BINDS: [&str; 4] = ["--bind", "127.0.0.2=30", "--bind", "127.0.0.3=30"];

/// Bytes a second, each way and lane: slow enough that every lane always has something to carry.
const RATE: u64 = 250_000;

/// How often one dies: a silent lane is missed for some seconds, on a network whose queues are
/// full.
fn pause(death: Death) -> Duration {
    match death {
        Death::Reset | Death::Fin => Duration::from_millis(50),
        Death::Silence => Duration::from_millis(150),
    }
}

const CONNECTIONS: u8 = 4;

/// So many lines of a kind are in the log, however soon after each other.
const LOGGED: u64 = 500;

#[test]
fn lanes_that_are_reset_in_mid_transfer_lose_nothing() {
    dying(Death::Reset);
}

#[test]
fn lanes_that_end_in_mid_transfer_lose_nothing() {
    dying(Death::Fin);
}

#[test]
fn lanes_that_fall_silent_in_mid_transfer_lose_nothing() {
    dying(Death::Silence);
}

fn dying(death: Death) {
    let wanted = crate::from_env("IMUX_LANE_DEATHS", 30);
    alone(120 + wanted, async {
        let (stop, stopped) = watch::channel(false);
        let (told, mut heard) = mpsc::unbounded_channel();
        let at_destination = stopped.clone();
        let destination = Destination::start(move |socket| {
            let (told, stopped) = (told.clone(), at_destination.clone());
            async move { told.send(answer(socket, stopped).await).unwrap() }
        })
        .await;
        let mut tunnel = Tunnel::with(destination.addr, &BINDS, &[]).await;
        eventually(30, "all lanes", || tunnel.relay.alive() == LANES).await;
        tunnel.relay.throttle(RATE);
        let mut callers = JoinSet::new();
        for number in 0..CONNECTIONS {
            callers.spawn(call(tunnel.connect().await, number, stopped.clone()));
        }

        let begun = Instant::now();
        while tunnel.relay.deaths(death) < wanted {
            tunnel.relay.kill(death);
            tokio::time::sleep(pause(death)).await;
        }
        let (deaths, took) = (tunnel.relay.deaths(death), begun.elapsed());
        stop.send(true).unwrap();
        tunnel.relay.throttle(0);
        let mut moved = 0;
        let (mut near, mut far) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..CONNECTIONS {
            let (number, Moved { sent, got }) = callers.join_next().await.unwrap().unwrap();
            near.insert(number, Moved { sent: got, got: sent });
            far.extend(heard.recv().await);
            moved += sent + got;
        }
        assert_eq!(near, far, "what was sent is not what arrived");
        println!("{deaths} deaths by {death:?} in {took:.1?}, under {} MB", moved / 1_000_000);

        // Every death was noticed (of many the log has the first, and how many more), and what it
        // had held let go.
        let client_lost = || tunnel.client.count("lane down") as u64;
        eventually(60, "every death is noticed", || client_lost() >= deaths.min(LOGGED)).await;
        tunnel.relay.restore();
        let let_go = || tunnel.relay.held() == tunnel.relay.alive();
        eventually(60, "dead lanes are let go", let_go).await;
        tunnel.assert_healthy();
    });
}

/// Bytes that one end of a connection has moved.
#[derive(Debug, PartialEq, Eq)]
struct Moved {
    sent: u64,
    got: u64,
}

/// Says which connection this is, and talks.
async fn call(mut socket: TcpStream, number: u8, stopped: watch::Receiver<bool>) -> (u8, Moved) {
    socket.write_u8(number).await.unwrap();
    let [ours, theirs] = patterns(number);
    (number, talk(socket, ours, theirs, stopped).await)
}

/// The other end of [`call`].
async fn answer(mut socket: TcpStream, stopped: watch::Receiver<bool>) -> (u8, Moved) {
    let number = socket.read_u8().await.unwrap();
    let [theirs, ours] = patterns(number);
    (number, talk(socket, ours, theirs, stopped).await)
}

/// What travels on a connection, there and back.
fn patterns(number: u8) -> [Pattern; 2] {
    [Pattern::new(u64::from(number) * 2), Pattern::new(u64::from(number) * 2 + 1)]
}

/// Sends until it is to stop, and checks what comes until its end.
async fn talk(
    mut socket: TcpStream,
    ours: Pattern,
    theirs: Pattern,
    stopped: watch::Receiver<bool>,
) -> Moved {
    let (mut read, mut write) = socket.split();
    let sending = async {
        let (mut sent, mut block) = (0, vec![0; 64 << 10]);
        while !*stopped.borrow() {
            ours.fill(sent, &mut block);
            write.write_all(&block).await.unwrap();
            sent += block.len() as u64;
        }
        write.shutdown().await.unwrap();
        sent
    };
    let (sent, got) = tokio::join!(sending, theirs.receive(&mut read));
    Moved { sent, got: got.unwrap() }
}
