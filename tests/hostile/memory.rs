//! All that the compiled program keeps for its peers together stays within one budget, whatever they do, and an honest
//! transfer beside them goes on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use imux::trust::Identity;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::peer::{Peer, client_tls};
use super::support::net::Destination;
use super::support::tunnel::Tunnel;
use super::support::{bounded, eventually};
use super::wire::{DEFAULT, MAX, data, frame, open, stream, take_varint, types};

const MEMORY: u64 = 64 << 20;

/// The program itself, the threads and buffers of some hundred lanes, and what the allocator has and does not use.
const BESIDE: u64 = 96 << 20;

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 5, number).into()
}

/// A destination of three kinds, told apart by the first byte: `s` is sent a megabyte, `u` never reads, and anything else is an
/// echo.
async fn destination() -> Destination {
    Destination::start(|mut socket| async move {
        match socket.read_u8().await {
            Ok(b's') => {
                let _ = socket.write_all(&vec![1; 1 << 20]).await;
                std::future::pending::<()>().await;
            }
            Ok(b'u') => std::future::pending().await,
            _ => super::support::net::echo(socket).await,
        }
    })
    .await
}

/// What a peer may send: of the session, and of each stream beyond what it begins with.
struct Credit {
    session: u64,
    stream: u64,
    streams: u64,
}

/// Creates a session and reads what its parameters allow.
fn create(peer: &mut Peer) -> Credit {
    peer.send(&super::peer::create(&[1]));
    let (kind, body) = peer.frame().unwrap();
    assert_eq!(kind, types::CREATED, "{body:x?}");
    let mut credit = Credit { session: 0, stream: 0, streams: 0 };
    let mut rest = &body[17..];
    while let Some(name) = take_varint(&mut rest) {
        let length = take_varint(&mut rest).unwrap() as usize;
        let (mut value, after) = rest.split_at(length);
        let value = take_varint(&mut value).unwrap();
        match name {
            0 => credit.session = value,
            1 => credit.stream = value,
            2 => credit.streams = value,
            _ => {}
        }
        rest = after;
    }
    credit
}

fn dial_from(from: IpAddr, server: SocketAddr, key: &Identity) -> Option<Peer> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::from((from, 0)).into()).ok()?;
    socket.connect(&server.into()).ok()?;
    Peer::over(socket.into(), client_tls(key)).ok()
}

/// A session that uses all its credit behind a gap of one byte in each stream, and what it is given then.
/// `None`: it was refused or ended.
fn fill_behind_gaps(server: SocketAddr, from: IpAddr, key: &Identity) -> Option<Peer> {
    let mut peer = dial_from(from, server, key)?;
    let mut credit = create(&mut peer);
    // What each stream may have, and what it has.
    let mut streams = vec![(credit.stream, 1); credit.streams.min(16) as usize];
    for _ in 0..8 {
        for (index, (most, sent)) in streams.iter_mut().enumerate() {
            while *sent < *most && credit.session > 0 {
                let length = (*most - *sent).min(8_000).min(credit.session);
                peer.try_send(&data(stream(index as u64), *sent, &vec![7; length as usize]))
                    .ok()?;
                credit.session = credit.session.saturating_sub(length + u64::from(*sent == 1));
                *sent += length;
            }
        }
        while peer.is_readable() {
            let (kind, body) = peer.frame()?;
            let mut body = body.as_slice();
            if kind == types::MAX_STREAM_DATA {
                let (id, most) = (take_varint(&mut body)?, take_varint(&mut body)?);
                let stream = streams.get_mut((id >> 2) as usize).expect("a stream of its own");
                stream.0 = stream.0.max(most);
            }
        }
        peer.acknowledge();
    }
    Some(peer)
}

/// Small pieces, each with a gap before it: they cost ten times what they are.
fn fill_with_pieces(server: SocketAddr, from: IpAddr, key: &Identity) -> Option<Peer> {
    let mut peer = dial_from(from, server, key)?;
    let credit = create(&mut peer);
    let pieces = (credit.stream / 20).min(1_000);
    for index in 0..(credit.session / (pieces * 20)).min(credit.streams).min(30) {
        let pieces = (1..pieces).map(|nth| data(stream(index), nth * 20, &[7; 16]));
        peer.try_send(&pieces.flatten().collect::<Vec<_>>()).ok()?;
    }
    Some(peer)
}

/// Downloads of which nothing is acknowledged.
fn never_acknowledge(server: SocketAddr, from: IpAddr, key: &Identity) -> Option<Peer> {
    let mut peer = dial_from(from, server, key)?;
    let credit = create(&mut peer);
    peer.try_send(&frame(types::MAX_DATA, &[MAX], &[])).ok()?;
    for index in 0..credit.streams.min(3) {
        let id = stream(index);
        let words =
            [open(id, DEFAULT), frame(types::MAX_STREAM_DATA, &[id, MAX], &[]), data(id, 0, b"s")];
        peer.try_send(&words.concat()).ok()?;
    }
    Some(peer)
}

/// Uploads to a destination that does not read, as far as credit goes.
fn upload_to_nobody(server: SocketAddr, from: IpAddr, key: &Identity) -> Option<Peer> {
    let mut peer = dial_from(from, server, key)?;
    let credit = create(&mut peer);
    let each = credit.stream.min(credit.session / 8);
    for index in 0..credit.streams.min(8) {
        let id = stream(index);
        let mut bytes = vec![b'u'];
        bytes.resize(each as usize, 7);
        peer.try_send(&open(id, DEFAULT)).ok()?;
        let mut offset = 0;
        for piece in bytes.chunks(8_000) {
            peer.try_send(&data(id, offset, piece)).ok()?;
            offset += piece.len() as u64;
        }
    }
    Some(peer)
}

type Attack = fn(SocketAddr, IpAddr, &Identity) -> Option<Peer>;

/// Bytes that went through an echo and back, all of them right.
async fn transfer(mut socket: TcpStream, done: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    socket.write_all(b"e").await.unwrap();
    let (mut sent, mut got) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    for turn in 0.. {
        sent.fill(turn as u8);
        let (mut read, mut write) = socket.split();
        let both = futures::future::join(write.write_all(&sent), read.read_exact(&mut got));
        let (wrote, read) = both.await;
        wrote.unwrap();
        read.unwrap();
        assert_eq!(sent, got);
        done.fetch_add(sent.len() as u64, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Runs an attack: so many sessions from each of so many addresses, with a key for each or one for all of an address, all kept
/// open. The server stays within its budget, and an honest transfer goes on meanwhile and afterwards.
#[track_caller]
fn survive(attack: Attack, addresses: u8, sessions: usize, one_key: bool) {
    bounded(170, async move {
        let destination = destination().await;
        let memory = MEMORY.to_string();
        let args = ["--memory", &memory];
        let mut tunnel = Tunnel::with(destination.addr, &["--bind", "127.0.0.2=2"], &args).await;
        let (done, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let honest = tokio::spawn(transfer(tunnel.connect().await, done.clone(), stop.clone()));
        eventually(20, "it begins", || done.load(Ordering::Relaxed) > 1 << 20).await;

        let server = tunnel.server.ready();
        let hostile = (1..=addresses).map(|number| {
            tokio::task::spawn_blocking(move || {
                let one = Identity::generate().unwrap();
                let session = |_| match one_key {
                    true => attack(server, address(number), &one),
                    false => attack(server, address(number), &Identity::generate().unwrap()),
                };
                (0..sessions).map(session).collect::<Vec<_>>()
            })
        });
        let before = done.load(Ordering::Relaxed);
        let held = futures::future::try_join_all(hostile).await.unwrap();
        // What the server reads from its sockets and destinations meanwhile takes it a moment.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let during = done.load(Ordering::Relaxed);
        let most = tunnel.server.rss_kib_max() << 10;
        let sessions: usize = held.iter().map(|some| some.iter().flatten().count()).sum();
        eprintln!(
            "{sessions} hostile sessions: {} MiB at most, {} KiB of honest work beside them",
            most >> 20,
            (during - before) >> 10
        );
        assert!(during > before, "the honest transfer stood still");
        eventually(30, "it goes on", || done.load(Ordering::Relaxed) > during + (2 << 20)).await;
        let most = tunnel.server.rss_kib_max() << 10;
        assert!(most < MEMORY + BESIDE, "{} MiB", most >> 20);

        // Whoever comes now finds something, too.
        let mut late = tunnel.connect().await;
        late.write_all(b"echo").await.unwrap();
        let mut back = [0; 3];
        late.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"cho");
        stop.store(true, Ordering::Relaxed);
        honest.await.unwrap();
        drop(held);
        tunnel.assert_healthy();
    });
}

#[test]
fn gaps_in_session_after_session_of_one_stranger_cost_the_budget_and_no_more() {
    survive(fill_behind_gaps, 1, 250, false);
}

#[test]
fn gaps_in_sessions_of_many_strangers_cost_the_budget_and_no_more() {
    survive(fill_behind_gaps, 20, 12, false);
}

#[test]
fn small_pieces_in_session_after_session_cost_the_budget_and_no_more() {
    survive(fill_with_pieces, 2, 60, false);
}

#[test]
fn peers_that_never_acknowledge_cost_the_budget_and_no_more() {
    survive(never_acknowledge, 2, 30, false);
}

#[test]
fn uploads_that_nobody_reads_cost_the_budget_and_no_more() {
    survive(upload_to_nobody, 2, 60, true);
}
