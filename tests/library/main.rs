//! The library from outside, on lanes in memory: streams are `AsyncRead + AsyncWrite`, an end is
//! never made up, and lanes may die.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use imux::lane::memory::{self, KillSwitch, MemoryDialer};
use imux::trust::{
    ClientTrust, Fingerprint, HostTrust, Identity, InvitationSecret, NextKey, PeerIdentity, Permit,
    PinnedKeys, TrustError,
};
use imux::{
    Client, ClientConfig, Code, Config, ConnectError, Incoming, Link, OpenError, Server,
    ServerConfig, Session, Stream, StreamError, StreamKind,
};
use support::bytes::{Pattern, exchange};
use support::{bounded, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod answers;
mod cancel;
mod delivery;
mod exits;
mod flows;
mod links;
#[path = "../support/mod.rs"]
mod support;

const MIB: u64 = 1 << 20;

fn key(byte: u8) -> PeerIdentity {
    PeerIdentity { fingerprint: Fingerprint::from_bytes([byte; 32]), certificate_signature: None }
}

/// A client and the server's session, over some lanes in memory.
struct Pair {
    client: Client,
    session: Session,
    server: Server,
    dialer: MemoryDialer,
}

async fn pair(lanes: u16) -> Pair {
    pair_with(lanes, Config::default()).await
}

async fn pair_with(lanes: u16, config: Config) -> Pair {
    let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
    let dialer = dialer.with_peer(key(1));
    let mut server = Server::start(listener, ServerConfig::default().with_session(config.clone()));
    let links = vec![Link::new(Arc::new(dialer.clone()), lanes)];
    let trust = Arc::new(PinnedKeys::new([key(1).fingerprint]));
    let client =
        Client::connect(links, ClientConfig::new(trust).with_session(config)).await.unwrap();
    let (session, remote) = server.accept().await.unwrap();
    assert_eq!(remote, None);
    Pair { client, session, server, dialer }
}

impl Pair {
    /// A stream's two ends, the client's first. One byte travels first, so that both know of it.
    async fn stream(&self) -> (Stream, Stream) {
        let mut near = self.client.open(StreamKind::Default).await.unwrap();
        near.write_all(b"!").await.unwrap();
        let Incoming { stream: mut far, kind, .. } = self.session.accept().await.unwrap();
        assert_eq!(kind, StreamKind::Default);
        assert_eq!(far.read_u8().await.unwrap(), b'!');
        (near, far)
    }

    /// Lanes that carry the session now.
    fn lanes(&self) -> usize {
        self.client.stats().map_or(0, |stats| stats.lanes.len())
    }

    /// Kills lanes, oldest first, one each `every`, for ever.
    async fn kill(&self, every: Duration, how: fn(&KillSwitch)) {
        let mut next = 0;
        loop {
            tokio::time::sleep(every).await;
            if let Some(lane) = self.dialer.lanes().get(next) {
                how(lane);
                next += 1;
            }
        }
    }
}

#[track_caller]
fn kind<T: std::fmt::Debug>(outcome: std::io::Result<T>) -> ErrorKind {
    outcome.unwrap_err().kind()
}

#[test]
fn bytes_both_ways_over_many_lanes() {
    bounded(60, async {
        let pair = pair(8).await;
        let (near, far) = pair.stream().await;
        let (up, down) = (Pattern::new(1), Pattern::new(2));
        let (near, far) = tokio::join!(
            exchange(near, (&up, 64 * MIB), (&down, 48 * MIB)),
            exchange(far, (&down, 48 * MIB), (&up, 64 * MIB)),
        );
        near.unwrap();
        far.unwrap();
        assert_eq!(pair.lanes(), 8);
        let stats = pair.client.stats().unwrap();
        assert!(stats.sent_bytes >= 64 * MIB && stats.received_bytes >= 48 * MIB, "{stats:?}");
        eventually(5, "the stream is forgotten", || {
            pair.client.stats().unwrap().streams == 0 && pair.session.stats().streams == 0
        })
        .await;
    });
}

#[test]
fn a_half_close_leaves_the_other_half() {
    bounded(20, async {
        let pair = pair(2).await;
        let (mut near, mut far) = pair.stream().await;
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut question = String::new();
        far.read_to_string(&mut question).await.unwrap();
        assert_eq!(question, "question");
        assert_eq!(kind(near.write(b"more").await), ErrorKind::BrokenPipe);
        // The end is read again and again, and nothing else.
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        let mut answer = String::new();
        near.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "answer");
    });
}

#[test]
fn either_side_opens_and_the_kind_travels_along() {
    bounded(20, async {
        let pair = pair(2).await;
        let client = pair.client.session().unwrap();
        let destination = StreamKind::Named("db.example:5432".to_owned());
        let mut opened = pair.session.open(destination.clone()).await.unwrap();
        opened.write_all(b"x").await.unwrap();
        let Incoming { mut stream, kind, .. } = client.accept().await.unwrap();
        assert_eq!(kind, destination);
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    });
}

#[test]
fn a_dropped_writer_is_a_reset_and_never_an_end() {
    bounded(20, async {
        let pair = pair(2).await;
        for length in [1, 100_000] {
            let (near, mut far) = pair.stream().await;
            let (_read, mut write) = near.into_split();
            write.write_all(Bytes::from(vec![7; length])).await.unwrap();
            drop(write);
            let mut got = Vec::new();
            let error = far.read_to_end(&mut got).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            // And so it stays.
            assert_eq!(kind(far.read(&mut [0; 1]).await), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn a_finished_writer_may_be_dropped() {
    bounded(20, async {
        let pair = pair(2).await;
        let (near, mut far) = pair.stream().await;
        let (read, mut write) = near.into_split();
        write.write_all(Bytes::from(Pattern::new(1).bytes(300_000))).await.unwrap();
        write.finish().unwrap();
        drop((read, write));
        let got = Pattern::new(1).receive(&mut far).await.unwrap();
        assert_eq!(got, 300_000);
    });
}

#[test]
fn a_dropped_reader_stops_the_writer() {
    bounded(20, async {
        let pair = pair(2).await;
        let (near, far) = pair.stream().await;
        let (read, _write) = near.into_split();
        drop(read);
        let (_read, mut write) = far.into_split();
        let error = loop {
            if let Err(error) = write.write_all(Bytes::from_static(&[0; 4096])).await {
                break error;
            }
        };
        assert_eq!(error, StreamError::Reset(Code::RESET));
    });
}

#[test]
fn a_reset_carries_its_code() {
    bounded(20, async {
        let pair = pair(2).await;
        let (near, far) = pair.stream().await;
        near.reset(Code::application(7));
        let (mut read, mut write) = far.into_split();
        let mut chunks = std::collections::VecDeque::new();
        let error = read.read_chunks(&mut chunks, 1024).await.unwrap_err();
        assert_eq!(error, StreamError::Reset(Code::application(7)));
        assert_eq!(write.stopped().await, StreamError::Reset(Code::application(7)));
    });
}

/// What was written comes first, read or not when the reset arrives; and that it has arrived is
/// known before.
#[test]
fn a_reset_in_order_is_read_last() {
    bounded(30, async {
        let pair = pair(3).await;
        let (mut ours, mut theirs) = pair.stream().await;
        ours.write_all(&[7; 100_000]).await.unwrap();
        let (_, write) = ours.into_split();
        write.finish_with(Code::application(9));
        let (mut read, _write) = theirs.into_split();
        assert_eq!(read.broken_off().await, StreamError::Reset(Code::application(9)));
        let mut all = Vec::new();
        let error = read.read_to_end(&mut all).await.unwrap_err();
        assert_eq!((all.len(), error.kind()), (100_000, ErrorKind::ConnectionReset));
        // Of a stream that ends in order it never comes.
        (ours, theirs) = pair.stream().await;
        ours.write_all(b"all").await.unwrap();
        ours.shutdown().await.unwrap();
        let (mut read, _write) = theirs.into_split();
        let mut all = String::new();
        read.read_to_string(&mut all).await.unwrap();
        tokio::time::timeout(Duration::from_millis(50), read.broken_off()).await.unwrap_err();
        assert_eq!(all, "all");
    });
}

#[test]
fn writing_and_then_dropping_everything_still_delivers() {
    bounded(30, async {
        let pair = pair(3).await;
        let (near, mut far) = pair.stream().await;
        let (read, mut write) = near.into_split();
        // Less than what may arrive unread.
        write.write_all(Bytes::from(Pattern::new(4).bytes(500_000))).await.unwrap();
        write.finish().unwrap();
        drop((read, write));
        let Pair { client, session, server, dialer: _dialer } = pair;
        drop((client, session, server));
        assert_eq!(Pattern::new(4).receive(&mut far).await.unwrap(), 500_000);
    });
}

#[test]
fn a_session_ends_with_its_last_user() {
    bounded(30, async {
        let pair = pair(3).await;
        let (near, far) = pair.stream().await;
        let Pair { client, session, mut server, dialer } = pair;
        drop((near, far));
        drop(client);
        let over = session.accept().await.unwrap_err();
        assert!(!over.to_string().is_empty());
        // The next client finds the server in order.
        let links = vec![Link::new(Arc::new(dialer), 1)];
        let trust = Arc::new(PinnedKeys::new([key(1).fingerprint]));
        let config = ClientConfig::new(trust);
        let client = Client::connect(links, config).await.unwrap();
        let mut stream = client.open(StreamKind::Default).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let (session, _) = server.accept().await.unwrap();
        assert_eq!(session.accept().await.unwrap().stream.read_u8().await.unwrap(), b'x');
    });
}

#[test]
fn many_streams_at_once() {
    bounded(60, async {
        const COUNT: u64 = 1_000;
        let pair = pair(4).await;
        let session = pair.session.clone();
        tokio::spawn(async move {
            while let Ok(incoming) = session.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = tokio::io::split(incoming.stream);
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                    write.shutdown().await.unwrap();
                });
            }
        });
        let client = Arc::new(pair.client);
        let mut all = tokio::task::JoinSet::new();
        let pattern = Arc::new(Pattern::new(0));
        for number in 0..COUNT {
            let (client, pattern) = (client.clone(), pattern.clone());
            all.spawn(async move {
                let length = number * 97 % 40_000;
                let stream = client.open(StreamKind::Default).await.unwrap();
                exchange(stream, (&pattern, length), (&pattern, length)).await.unwrap();
            });
        }
        while let Some(done) = all.join_next().await {
            done.unwrap();
        }
        eventually(5, "all are forgotten", || client.stats().unwrap().streams == 0).await;
    });
}

#[test]
fn lanes_that_are_reset_again_and_again_lose_nothing() {
    dying_lanes(KillSwitch::reset);
}

#[test]
fn lanes_that_fall_silent_again_and_again_lose_nothing() {
    dying_lanes(KillSwitch::silence);
}

/// Transfers while one lane after the other is killed. The reader takes its time, so that many die.
fn dying_lanes(how: fn(&KillSwitch)) {
    bounded(60, async move {
        const LENGTH: u64 = 24 * MIB;
        let pair = pair(6).await;
        let (near, far) = pair.stream().await;
        let (up, down) = (Pattern::new(1), Pattern::new(2));
        let transfer = async {
            let (near, far) = tokio::join!(slowly(near, &up, &down), slowly(far, &down, &up));
            assert_eq!((near.unwrap(), far.unwrap()), (LENGTH, LENGTH));
        };
        tokio::select! {
            () = transfer => {}
            () = pair.kill(Duration::from_millis(120), how) => {}
        }
        let lost = pair.client.stats().unwrap().lanes_lost;
        assert!(lost >= 5, "only {lost} lanes were lost");

        /// About 8 MiB a second each way.
        async fn slowly(stream: Stream, ours: &Pattern, theirs: &Pattern) -> std::io::Result<u64> {
            let (mut read, mut write) = tokio::io::split(stream);
            let sending = async {
                ours.send(&mut write, LENGTH).await?;
                write.shutdown().await
            };
            let receiving = async {
                let (mut offset, mut buffer) = (0, vec![0; 64 << 10]);
                loop {
                    let got = read.read(&mut buffer).await?;
                    if got == 0 {
                        return Ok(offset);
                    }
                    theirs.check(offset, &buffer[..got]);
                    offset += got as u64;
                    tokio::time::sleep(Duration::from_micros(got as u64 / 8)).await;
                }
            };
            tokio::try_join!(receiving, sending).map(|(got, ())| got)
        }
    });
}

#[test]
fn without_lanes_a_session_waits_and_goes_on() {
    bounded(60, async {
        let pair = pair(3).await;
        let (mut near, mut far) = pair.stream().await;
        pair.dialer.refuse(true);
        pair.dialer.lanes().iter().for_each(KillSwitch::reset);
        eventually(5, "no lane", || pair.lanes() == 0).await;
        // Written while there is no lane at all, by both, and opened too.
        near.write_all(b"from near").await.unwrap();
        far.write_all(b"from far").await.unwrap();
        let mut other = pair.client.open(StreamKind::Default).await.unwrap();
        other.write_all(b"new").await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        pair.dialer.refuse(false);
        let (mut at_near, mut at_far, mut at_other) = ([0; 8], [0; 9], [0; 3]);
        near.read_exact(&mut at_near).await.unwrap();
        far.read_exact(&mut at_far).await.unwrap();
        assert_eq!((&at_near, &at_far), (b"from far", b"from near"));
        let mut incoming = pair.session.accept().await.unwrap().stream;
        incoming.read_exact(&mut at_other).await.unwrap();
        assert_eq!(&at_other, b"new");
        eventually(10, "three lanes again", || pair.lanes() == 3).await;
    });
}

#[test]
fn a_session_without_lanes_ends_after_its_grace_time() {
    bounded(30, async {
        let grace = Duration::from_millis(800);
        let pair = pair_with(2, Config::default().with_grace(grace).unwrap()).await;
        let (mut near, mut far) = pair.stream().await;
        pair.dialer.refuse(true);
        pair.dialer.lanes().iter().for_each(KillSwitch::reset);
        let begun = tokio::time::Instant::now();
        assert_eq!(kind(near.read(&mut [0; 1]).await), ErrorKind::ConnectionAborted);
        assert_eq!(kind(far.read(&mut [0; 1]).await), ErrorKind::ConnectionAborted);
        let took = begun.elapsed();
        assert!(took >= grace && took < grace + Duration::from_secs(5), "{took:?}");
        // It stays an error, and is never taken for an end.
        assert_eq!(kind(near.read(&mut [0; 1]).await), ErrorKind::ConnectionAborted);
        // With lanes again there is another session.
        pair.dialer.refuse(false);
        let mut server = pair.server;
        let mut stream = pair.client.open(StreamKind::Default).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let (session, _) = server.accept().await.unwrap();
        assert_eq!(session.accept().await.unwrap().stream.read_u8().await.unwrap(), b'x');
    });
}

#[test]
fn a_server_with_another_key_gets_nothing() {
    bounded(20, async {
        let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
        let mut server = Server::start(listener, ServerConfig::default());
        let links = vec![Link::new(Arc::new(dialer.with_peer(key(2))), 2)];
        let trust = Arc::new(PinnedKeys::new([key(1).fingerprint]));
        let config = ClientConfig::new(trust);
        let error = Client::connect(links, config).await.unwrap_err();
        assert!(matches!(error, ConnectError::Trust(_)), "{error}");
        let none = tokio::time::timeout(Duration::from_millis(300), server.accept()).await;
        assert!(none.is_err(), "a session was created");
    });
}

/// Both keys are trusted, yet one session has one: a lane that ends elsewhere is not used.
#[test]
fn a_lane_with_another_key_is_not_used() {
    bounded(20, async {
        let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
        let _server = Server::start(listener, ServerConfig::default());
        let wrong = dialer.named("wrong").with_peer(key(2));
        let right = dialer.named("right").with_peer(key(1));
        wrong.refuse(true);
        let links = vec![Link::new(Arc::new(right), 2), Link::new(Arc::new(wrong.clone()), 1)];
        let trust = Arc::new(PinnedKeys::new([key(1).fingerprint, key(2).fingerprint]));
        let config = ClientConfig::new(trust);
        let client = Client::connect(links, config).await.unwrap();
        wrong.refuse(false);
        eventually(10, "the wrong server answers", || !wrong.lanes().is_empty()).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(client.stats().unwrap().lanes.len(), 2);
    });
}

#[test]
fn no_links_are_an_error_and_not_a_wait() {
    bounded(10, async {
        let trust = Arc::new(PinnedKeys::new([]));
        let config = ClientConfig::new(trust);
        let error = Client::connect(Vec::new(), config).await.unwrap_err();
        assert!(matches!(error, ConnectError::NoLinks), "{error}");
    });
}

#[test]
fn links_of_which_none_works_are_an_error() {
    bounded(10, async {
        let (dialer, _listener) = memory::network(memory::DEFAULT_CAPACITY);
        dialer.refuse(true);
        let links = vec![Link::new(Arc::new(dialer), 3)];
        let trust = Arc::new(PinnedKeys::new([]));
        let config = ClientConfig::new(trust);
        let error = Client::connect(links, config).await.unwrap_err();
        assert!(matches!(error, ConnectError::Dial(_)), "{error}");
    });
}

#[test]
fn an_open_without_a_session_gives_up() {
    bounded(30, async {
        let grace = Duration::from_millis(300);
        let pair = pair_with(1, Config::default().with_grace(grace).unwrap()).await;
        pair.dialer.refuse(true);
        pair.dialer.lanes().iter().for_each(KillSwitch::reset);
        let over = pair.session.accept().await;
        assert!(over.is_err());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let error = pair.client.open(StreamKind::Default).await.unwrap_err();
        assert_eq!(error, OpenError::NoLane);
    });
}

/// A stream whose reader stopped reading holds up neither the others nor its writer's memory.
#[test]
fn a_stopped_reader_stops_its_own_writer_only() {
    bounded(30, async {
        let pair = pair(3).await;
        let (near, _unread) = pair.stream().await;
        let (_read, mut write) = near.into_split();
        let block = Bytes::from(vec![1; 1 << 20]);
        let mut taken = 0;
        while let Ok(done) =
            tokio::time::timeout(Duration::from_secs(1), write.write_all(block.clone())).await
        {
            done.unwrap();
            taken += MIB;
            assert!(taken < 100 * MIB, "nothing stops the writer");
        }
        let (near, far) = pair.stream().await;
        let pattern = Pattern::new(1);
        let (near, far) = tokio::join!(
            exchange(near, (&pattern, 32 * MIB), (&pattern, 0)),
            exchange(far, (&pattern, 0), (&pattern, 32 * MIB)),
        );
        near.unwrap();
        far.unwrap();
    });
}

#[test]
fn a_server_that_drains_creates_no_session_and_takes_lanes() {
    bounded(30, async {
        let pair = pair(2).await;
        let (near, far) = pair.stream().await;
        assert_eq!(pair.server.drain(), 1);
        let links = vec![Link::new(Arc::new(pair.dialer.clone()), 1)];
        let trust = Arc::new(PinnedKeys::new([key(1).fingerprint]));
        let config = ClientConfig::new(trust);
        let error = Client::connect(links, config).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { code: Code::SHUTDOWN, .. }), "{error}");
        pair.dialer.lanes()[0].reset();
        eventually(10, "a lane is lost", || pair.client.stats().unwrap().lanes_lost > 0).await;
        eventually(10, "another joins", || pair.lanes() == 2).await;
        let error = pair.client.open(StreamKind::Default).await.unwrap_err();
        assert_eq!(error, OpenError::Draining);
        let through = tokio::time::timeout(Duration::from_millis(300), pair.server.drained());
        assert!(through.await.is_err(), "a stream is open");
        let pattern = Pattern::new(1);
        let (near, far) = tokio::join!(
            exchange(near, (&pattern, MIB), (&pattern, MIB)),
            exchange(far, (&pattern, MIB), (&pattern, MIB)),
        );
        near.unwrap();
        far.unwrap();
        pair.server.drained().await;
    });
}

/// Lets everybody in, or nobody.
struct Switch(AtomicBool);

#[async_trait::async_trait]
impl ClientTrust for Switch {
    async fn admit(
        &self,
        client: Option<Fingerprint>,
        _: Option<&InvitationSecret>,
    ) -> Option<Permit> {
        self.permit(client)
    }

    fn permit(&self, _: Option<Fingerprint>) -> Option<Permit> {
        self.0.load(Ordering::Relaxed).then(Permit::fixed_destination)
    }
}

#[test]
fn a_program_may_decide_about_clients_itself() {
    bounded(30, async {
        let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
        let links = |lanes| vec![Link::new(Arc::new(dialer.clone().with_peer(key(1))), lanes)];
        let clients = Arc::new(Switch(AtomicBool::new(false)));
        let config = ServerConfig::default().with_clients(clients.clone());
        let mut server = Server::start(listener, config);
        let config = || ClientConfig::new(Arc::new(PinnedKeys::new([key(1).fingerprint])));
        // One lane: another could come when clients are let in.
        let error = Client::connect(links(1), config()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { code: Code::UNAUTHORIZED, .. }), "{error}");
        clients.0.store(true, Ordering::Relaxed);
        let client = Client::connect(links(2), config()).await.unwrap();
        let (session, _) = server.accept().await.unwrap();
        assert!(session.permit().is_some());
        server.recheck();
        let mut stream = client.open(StreamKind::Default).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        session.accept().await.unwrap();
        clients.0.store(false, Ordering::Relaxed);
        assert!(session.permit().is_none());
        server.recheck();
        let over = session.closed().await;
        assert_eq!(over, imux::SessionError::Closed(Code::UNAUTHORIZED));
        assert!(stream.read_u8().await.is_err());
    });
}

/// Trusts everybody, and counts what is announced.
#[derive(Default)]
struct Announced(std::sync::Mutex<Vec<Fingerprint>>);

#[async_trait::async_trait]
impl HostTrust for Announced {
    async fn decide(&self, _: &PeerIdentity) -> Result<(), TrustError> {
        Ok(())
    }

    async fn announced(&self, _: Fingerprint, next: Fingerprint) -> Result<bool, TrustError> {
        self.0.lock().unwrap().push(next);
        Ok(true)
    }
}

/// A server with another idea of its next key every moment has nothing written for each of them.
#[test]
fn next_keys_are_heeded_once_a_minute() {
    bounded(30, async {
        let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
        let mut server = Server::start(listener, ServerConfig::default());
        let links = vec![Link::new(Arc::new(dialer.with_peer(key(1))), 2)];
        let trust = Arc::<Announced>::default();
        let config = ClientConfig::new(trust.clone());
        let client = Client::connect(links, config).await.unwrap();
        let (session, _) = server.accept().await.unwrap();
        let heeded = || trust.0.lock().unwrap().clone();
        let first = Identity::generate().unwrap();
        server.announce(NextKey::new(&first).unwrap());
        eventually(10, "the first is heeded", || heeded() == [first.fingerprint()]).await;
        for _ in 0..20 {
            server.announce(NextKey::new(&Identity::generate().unwrap()).unwrap());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // The session goes on, and has heard of them.
        let mut stream = client.open(StreamKind::Default).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        let Incoming { stream: mut far, .. } = session.accept().await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');
        assert_eq!(heeded(), [first.fingerprint()]);
    });
}
