//! All that the compiled program keeps for its peers together stays within one budget, whatever
//! they do, and an honest transfer beside them goes on.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use imux::trust::{Identity, server_config};
use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::peer::{Peer, client_tls};
use super::support::net::Destination;
use super::support::process::Imux;
use super::support::tunnel::Tunnel;
use super::support::{bounded, eventually};
use super::wire::{DEFAULT, MAX, data, frame, open, stream, take_varint, types};

const MEMORY: u64 = 64 << 20;

/// The program itself, the threads and buffers of some hundred lanes, and what the allocator has
/// and does not use.
const BESIDE: u64 = 96 << 20;

/// Connections of one client.
const PROGRAMS: usize = 32;

fn address(number: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 5, number).into()
}

/// A destination of three kinds, told apart by the first byte: `s` is sent a megabyte, `u` never
/// reads, and anything else is an echo.
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

/// What the other end's parameters allow.
fn credit(mut parameters: &[u8]) -> Credit {
    let mut credit = Credit { session: 0, stream: 0, streams: 0 };
    while let Some(name) = take_varint(&mut parameters) {
        let length = take_varint(&mut parameters).unwrap() as usize;
        let (mut value, after) = parameters.split_at(length);
        let value = take_varint(&mut value).unwrap();
        match name {
            0 => credit.session = value,
            1 => credit.stream = value,
            2 => credit.streams = value,
            _ => {}
        }
        parameters = after;
    }
    credit
}

/// Creates a session. `None`: there is none to be had.
fn create(peer: &mut Peer) -> Option<Credit> {
    peer.send(&super::peer::create(&[1]));
    let (kind, body) = peer.frame()?;
    // Version, session, parameters.
    (kind == types::CREATED).then(|| credit(&body[17..]))
}

/// All the credit there is, used for bytes behind a gap of one.
struct Gaps {
    session: u64,
    used: u64,
    first: u64,
    /// How far each stream may go, and is.
    streams: BTreeMap<u64, (u64, u64)>,
}

impl Gaps {
    fn new(credit: &Credit) -> Self {
        let (session, first) = (credit.session, credit.stream);
        Self { session, used: 0, first, streams: BTreeMap::new() }
    }

    fn open(&mut self, id: u64) {
        self.streams.insert(id, (self.first, 0));
    }

    /// Uses what credit there is.
    fn fill(&mut self, peer: &mut Peer) -> io::Result<()> {
        for (&id, (most, sent)) in &mut self.streams {
            loop {
                let end = (*sent + 8_000).min(*most).min(*sent + self.session - self.used);
                let from = (*sent).max(1);
                if end <= from {
                    break;
                }
                peer.try_send(&data(id, from, &vec![7; (end - from) as usize]))?;
                self.used += end - *sent;
                *sent = end;
            }
        }
        Ok(())
    }

    /// Takes in what the other end says, and more credit. `None`: the lane has ended.
    fn listen(&mut self, peer: &mut Peer) -> Option<()> {
        while peer.is_readable() {
            let (kind, body) = peer.frame()?;
            let mut body = body.as_slice();
            match kind {
                types::OPEN => self.open(take_varint(&mut body)?),
                types::MAX_DATA => self.session = self.session.max(take_varint(&mut body)?),
                types::MAX_STREAM_DATA => {
                    let (id, most) = (take_varint(&mut body)?, take_varint(&mut body)?);
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.0 = stream.0.max(most);
                    }
                }
                types::CLOSE => return None,
                _ => {}
            }
        }
        Some(())
    }
}

fn dial_from(from: IpAddr, server: SocketAddr, key: &Identity) -> Option<Peer> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None).ok()?;
    socket.bind(&SocketAddr::from((from, 0)).into()).ok()?;
    socket.connect(&server.into()).ok()?;
    Peer::over(socket.into(), client_tls(key)).ok()
}

/// A session that uses all its credit behind a gap of one byte in each stream, and what it is given
/// then. `None`: it was refused or ended.
fn fill_behind_gaps(server: SocketAddr, from: IpAddr, key: &Identity) -> Option<Peer> {
    let mut peer = dial_from(from, server, key)?;
    let credit = create(&mut peer)?;
    let mut gaps = Gaps::new(&credit);
    (0..credit.streams.min(16)).for_each(|index| gaps.open(stream(index)));
    for _ in 0..8 {
        gaps.fill(&mut peer).ok()?;
        gaps.listen(&mut peer)?;
        peer.acknowledge();
    }
    Some(peer)
}

/// Small pieces, each with a gap before it: they cost ten times what they are.
fn fill_with_pieces(server: SocketAddr, from: IpAddr, key: &Identity) -> Option<Peer> {
    let mut peer = dial_from(from, server, key)?;
    let credit = create(&mut peer)?;
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
    let credit = create(&mut peer)?;
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
    let credit = create(&mut peer)?;
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

/// Who attacks, from each of so many addresses.
#[derive(Clone, Copy, PartialEq)]
enum Keys {
    /// With a new key for each session.
    Many,
    /// With one key.
    One,
    /// With one key, and the server lets nobody in but those.
    Listed,
}

/// Runs an attack: so many sessions from each of so many addresses, all kept open. The server stays
/// within its budget, and an honest transfer goes on meanwhile and afterwards.
#[track_caller]
fn survive(attack: Attack, addresses: u8, sessions: usize, keys: Keys) {
    bounded(170, async move {
        let destination = destination().await;
        let identities: Vec<_> =
            (0..addresses).map(|_| Arc::new(Identity::generate().unwrap())).collect();
        let listed = identities.iter().filter(|_| keys == Keys::Listed);
        let list: Vec<_> = listed.map(|one| one.fingerprint().to_string()).collect();
        let memory = MEMORY.to_string();
        let args = ["--memory", &memory];
        let bind = ["--bind", "127.0.0.2=2"];
        let mut tunnel = Tunnel::among(&list, destination.addr, &bind, &args).await;
        let (done, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let honest = tokio::spawn(transfer(tunnel.connect().await, done.clone(), stop.clone()));
        eventually(20, "it begins", || done.load(Ordering::Relaxed) > 1 << 20).await;

        let server = tunnel.server.ready();
        let hostile = (1..).zip(identities).map(|(number, one)| {
            tokio::task::spawn_blocking(move || {
                let session = |_| match keys {
                    Keys::Many => attack(server, address(number), &Identity::generate().unwrap()),
                    Keys::One | Keys::Listed => attack(server, address(number), &one),
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
        assert!(sessions > 0, "nobody attacked");
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
    survive(fill_behind_gaps, 1, 250, Keys::Many);
}

#[test]
fn gaps_in_sessions_of_many_strangers_cost_the_budget_and_no_more() {
    survive(fill_behind_gaps, 20, 12, Keys::Many);
}

#[test]
fn small_pieces_in_session_after_session_cost_the_budget_and_no_more() {
    survive(fill_with_pieces, 2, 60, Keys::Many);
}

#[test]
fn peers_that_never_acknowledge_cost_the_budget_and_no_more() {
    survive(never_acknowledge, 2, 30, Keys::Many);
}

#[test]
fn uploads_that_nobody_reads_cost_the_budget_and_no_more() {
    survive(upload_to_nobody, 2, 60, Keys::One);
}

#[test]
fn gaps_in_sessions_of_many_listed_clients_cost_the_budget_and_no_more() {
    survive(fill_behind_gaps, 20, 6, Keys::Listed);
}

#[test]
fn listed_clients_that_never_acknowledge_cost_the_budget_and_no_more() {
    survive(never_acknowledge, 20, 3, Keys::Listed);
}

/// Of a client's lanes the one that asks for a session.
fn first_to_speak(listener: &TcpListener, tls: &Arc<ServerConfig>) -> Peer {
    // The client may dial its other lanes only once the first has been answered.
    listener.set_nonblocking(true).unwrap();
    let mut lanes = Vec::<Peer>::new();
    loop {
        match Peer::accept(listener, tls.clone()) {
            Ok(lane) => lanes.push(lane),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        if let Some(nth) = lanes.iter_mut().position(Peer::is_readable) {
            return lanes.swap_remove(nth);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Many programs write through a client to a server that sends each stream bytes behind a gap, and
/// acknowledges as long as it is to be believed. What it has kept back from one program comes at
/// last; then it falls silent.
#[test]
fn a_hostile_server_costs_its_client_the_budget_and_no_more() {
    bounded(60, async {
        let identity = Identity::generate().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().to_string();
        let tls = server_config(&identity).unwrap();
        let (filled, fill) = std::sync::mpsc::channel::<()>();
        let mut hostile = tokio::task::spawn_blocking(move || {
            let mut peer = first_to_speak(&listener, &tls);
            let (kind, body) = peer.required().unwrap();
            assert_eq!(kind, types::CREATE);
            // How many versions, the one there is, parameters.
            let mut gaps = Gaps::new(&credit(&body[2..]));
            peer.send(&super::peer::created(1, &[0x5e; 16]));
            peer.send(&frame(types::MAX_STREAMS, &[100], &[]));
            let begun = Instant::now();
            while gaps.streams.len() < PROGRAMS || begun.elapsed() < Duration::from_secs(4) {
                gaps.listen(&mut peer).expect("the client goes on");
                gaps.fill(&mut peer).unwrap();
                peer.acknowledge();
            }
            peer.send(&data(stream(0), 0, &[7]));
            fill.recv().unwrap();
            (peer, gaps.used)
        });
        let home = tempfile::tempdir().unwrap();
        let (key, memory) = (identity.fingerprint().to_string(), MEMORY.to_string());
        let args = ["client", "--listen", "127.0.0.1:0", "--dial", &at, "--pin", &key];
        let more = ["--bind", "127.0.0.1=1", "--memory", &memory];
        let client = Imux::start(home.path(), &[&args[..], &more].concat());
        let address = client.ready();
        // The streams are opened in whatever order the client gets to it.
        let mut programs = JoinSet::new();
        for _ in 0..PROGRAMS {
            let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
            tokio::spawn(async move { while write.write_all(&[1; 64 << 10]).await.is_ok() {} });
            programs.spawn(async move {
                let mut first = [0; 1_000];
                read.read_exact(&mut first).await.map(|_| (first, read))
            });
        }
        let (first, _read) = tokio::select! {
            read = programs.join_next() => read.unwrap().unwrap().unwrap(),
            ended = &mut hostile => panic!("{:?}", ended.map(|_| "the server has gone")),
        };
        assert_eq!(first, [7; 1_000]);
        tokio::time::sleep(Duration::from_secs(3)).await;
        filled.send(()).unwrap();
        let (_, sent) = hostile.await.unwrap();
        let most = client.rss_kib_max() << 10;
        eprintln!("{} MiB of gaps: {} MiB at most", sent >> 20, most >> 20);
        assert!(most < MEMORY + BESIDE, "{} MiB", most >> 20);
        assert_eq!(client.count("internal error"), 0);
    });
}
