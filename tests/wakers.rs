//! Futures of the library that are polled and dropped again and again, as a `select!` in a loop
//! does, leave nothing behind. The heap is counted for the whole process: one test, a program of
//! its own.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use imux::lane::memory::{self, MemoryDialer};
use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
use imux::{
    Client, ClientConfig, Code, Config, Link, ReadHalf, Server, ServerConfig, Session, Stream,
    StreamKind, WriteHalf,
};
use support::bounded;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod support;

#[global_allocator]
static HEAP: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// Each leaves a waker of at least 64 bytes behind if it is kept.
const TURNS: usize = 5_000;

/// What the heap may differ by for other reasons: room that a queue keeps, a timer of a lane.
const SLACK: usize = 64 * 1024;

/// A waker unlike any other, and worth noticing.
#[derive(Default)]
struct Woken([u64; 8]);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        assert_eq!(self.0, [0; 8]);
    }
}

fn waker() -> Waker {
    Arc::new(Woken::default()).into()
}

/// Makes many futures that wait for something of `what`, polls each twice and drops it; then polls
/// one as often.
fn turn<T>(name: &str, what: &mut T, mut wait: impl AsyncFnMut(&mut T)) {
    let before = HEAP.current_usage();
    for _ in 0..TURNS {
        poll(name, 2, wait(what));
    }
    let dropped = HEAP.current_usage().saturating_sub(before);
    assert!(dropped < SLACK, "{name}: {dropped} bytes are left of {TURNS} that were dropped");
    let before = HEAP.current_usage();
    poll(name, TURNS, wait(what));
    let polled = HEAP.current_usage().saturating_sub(before);
    assert!(polled < SLACK, "{name}: {polled} bytes are left of one, polled {TURNS} times");
}

fn poll(name: &str, times: usize, future: impl Future) {
    // Tokio's own futures give up after some hundred polls without a pause, and wait for nothing
    // then.
    let mut future = pin!(tokio::task::unconstrained(future));
    for _ in 0..times {
        let pending = future.as_mut().poll(&mut Context::from_waker(&waker())).is_pending();
        assert!(pending, "{name} does not wait");
    }
}

fn key() -> PeerIdentity {
    PeerIdentity { fingerprint: Fingerprint::from_bytes([1; 32]), certificate_signature: None }
}

fn client_config() -> ClientConfig {
    let trust = Arc::new(PinnedKeys::new([key().fingerprint]));
    ClientConfig::new(trust)
}

/// Two ends of a session that lets only one stream be open, and that stream.
struct Setting {
    client: Client,
    ours: Session,
    server: Server,
    theirs: Session,
    near: Stream,
    far: Stream,
    dialer: MemoryDialer,
}

async fn setting() -> Setting {
    let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
    let dialer = dialer.with_peer(key());
    let mut session = Config::default();
    (session.stream_window, session.stream_window_max, session.streams_max) = (4096, 4096, 1);
    let mut server = Server::start(listener, ServerConfig::default().with_session(session));
    let links = vec![Link::new(Arc::new(dialer.clone()), 2)];
    let client = Client::connect(links, client_config()).await.unwrap();
    let (theirs, _) = server.accept().await.unwrap();
    let mut near = client.open(StreamKind::Raw).await.unwrap();
    near.write_u8(1).await.unwrap();
    let mut far = theirs.accept().await.unwrap().stream;
    far.read_u8().await.unwrap();
    let ours = client.session().unwrap();
    Setting { client, ours, server, theirs, near, far, dialer }
}

/// Those of a stream; in the end it has something to deliver, and no lane that could.
async fn turns_of_a_stream(
    near: Stream,
    far: &mut Stream,
    dialer: &MemoryDialer,
) -> (ReadHalf, WriteHalf) {
    let (mut read, mut write) = near.into_split();
    turn("ReadHalf::read", &mut read, async |read| {
        let _ = read.read(&mut [0; 8]).await;
    });
    turn("ReadHalf::read_chunks", &mut read, async |read| {
        let _ = read.read_chunks(&mut Default::default(), 8).await;
    });
    turn("WriteHalf::stopped", &mut write, async |write| {
        write.stopped().await;
    });
    // Nothing is acknowledged from here on, and there is less room than is asked for.
    dialer.refuse(true);
    dialer.lanes().iter().for_each(memory::KillSwitch::silence);
    far.write_u8(1).await.unwrap();
    let full = write.write_all(Bytes::from_static(&[0; 8192]));
    assert!(tokio::time::timeout(Duration::from_millis(300), full).await.is_err());
    turn("WriteHalf::write", &mut write, async |write| {
        let _ = AsyncWriteExt::write(write, &[0; 8]).await;
    });
    turn("WriteHalf::write_all", &mut write, async |write| {
        let _ = write.write_all(Bytes::from_static(&[0; 8])).await;
    });
    turn("WriteHalf::capacity", &mut write, async |write| {
        let _ = write.capacity().await;
    });
    turn("WriteHalf::acknowledged", &mut write, async |write| {
        let _ = write.acknowledged().await;
    });
    turn("WriteHalf::shutdown", &mut write, async |write| {
        let _ = write.shutdown().await;
    });
    (read, write)
}

#[test]
fn futures_that_are_polled_and_dropped_for_ever_leave_nothing_behind() {
    bounded(120, async {
        let Setting { mut client, mut ours, mut server, mut theirs, near, mut far, dialer } =
            setting().await;

        turn("Session::accept", &mut theirs, async |it| {
            let _ = it.accept().await;
        });
        turn("Session::open", &mut ours, async |it| {
            let _ = it.open(StreamKind::Raw).await;
        });
        turn("Session::closed", &mut ours, async |it| {
            it.closed().await;
        });
        turn("Session::drained", &mut ours, async |it| {
            it.drained().await;
        });
        turn("Client::open", &mut client, async |it| {
            let _ = it.open(StreamKind::Raw).await;
        });
        turn("Client::draining", &mut client, async |it| {
            it.stopping().await;
        });
        turn("Server::drained", &mut server, async |it| {
            it.drained().await;
        });
        turn("Server::accept", &mut server, async |server| {
            server.accept().await;
        });

        let halves = turns_of_a_stream(near, &mut far, &dialer).await;
        turn("Session::delivered", &mut ours, async |it| {
            let _ = it.delivered().await;
        });

        let hours = Duration::from_secs(10_000);
        turn("Client::close", &mut client, async |it| {
            let _ = it.close(Code::NONE, hours).await;
        });
        turn("Server::close", &mut server, async |it| {
            let _ = it.close(Code::NONE, hours).await;
        });
        drop(halves);
    });
}
