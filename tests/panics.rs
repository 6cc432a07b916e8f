//! A panic in one task ends its lane, or its session, and never the process or anyone else's
//! session.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use async_trait::async_trait;
use imux::lane::memory::{self, MemoryDialer};
use imux::lane::{DialError, Dialer, Lane};
use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
use imux::{
    Client, ClientConfig, Code, Link, Server, ServerConfig, Session, SessionError, Stream,
    StreamKind,
};
use support::bounded;
use support::bytes::{Pattern, exchange};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

mod support;

const KEY: PeerIdentity =
    PeerIdentity { fingerprint: Fingerprint::from_bytes([1; 32]), certificate_signature: None };

fn network() -> (MemoryDialer, Server) {
    let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
    (dialer.with_peer(KEY), Server::start(listener, ServerConfig::default()))
}

async fn connect(dialer: impl Dialer, lanes: u16) -> Client {
    let links = vec![Link::new(Arc::new(dialer), lanes)];
    let trust = Arc::new(PinnedKeys::new([KEY.fingerprint]));
    Client::connect(links, ClientConfig::new(trust)).await.unwrap()
}

/// Both ends of a stream.
async fn stream(client: &Client, session: &Session) -> (Stream, Stream) {
    let mut near = client.open(StreamKind::Raw).await.unwrap();
    near.write_all(b"!").await.unwrap();
    let mut far = session.accept().await.unwrap().stream;
    assert_eq!(far.read_u8().await.unwrap(), b'!');
    (near, far)
}

async fn works(client: &Client, session: &Session) {
    let (near, far) = stream(client, session).await;
    let pattern = Pattern::new(1);
    let both = (&pattern, 1 << 20);
    let (near, far) = tokio::join!(exchange(near, both, both), exchange(far, both, both));
    near.unwrap();
    far.unwrap();
}

/// A waker that panics when it is let go of: which happens under the session's lock, when another
/// takes its place.
struct Bomb;

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("injected: under the session's lock");
        }
    }
}

/// Leaves the bomb with the session as the one who waits for the stream.
fn wait_with(stream: &mut Stream, waker: &Waker) {
    let (mut room, mut cx) = ([0; 1], Context::from_waker(waker));
    let read = Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut room));
    assert!(read.is_pending());
}

#[test]
fn a_panic_under_a_sessions_lock_ends_that_session_and_no_other() {
    bounded(30, async {
        let (dialer, mut server) = network();
        let (harmed, other) = (connect(dialer.clone(), 2).await, server.accept().await.unwrap().0);
        let (bystander, its) = (connect(dialer, 2).await, server.accept().await.unwrap().0);
        let (_near, mut far) = stream(&harmed, &other).await;
        let (mut waiting, _its_end) = stream(&harmed, &other).await;
        // Somebody waits in the same session, at the other end of it and at this.
        let reader = tokio::spawn(async move { waiting.read_u8().await });
        let accepter = tokio::spawn({
            let other = other.clone();
            async move { other.accept().await.map(drop) }
        });
        tokio::task::yield_now().await;

        let panicked = tokio::spawn(async move {
            wait_with(&mut far, &Waker::from(Arc::new(Bomb)));
            wait_with(&mut far, Waker::noop());
        });
        assert!(panicked.await.unwrap_err().is_panic());

        let internal = SessionError::Closed(Code::INTERNAL);
        assert_eq!(other.closed().await, internal);
        assert_eq!(accepter.await.unwrap().unwrap_err(), internal);
        assert!(reader.await.unwrap().is_err(), "an error, never an end");
        // The bystander has not noticed; and the harmed client gets a new session.
        works(&bystander, &its).await;
        let mut again = loop {
            // The old session may be the current one for another moment.
            match harmed.open(StreamKind::Raw).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        again.write_all(b"!").await.unwrap();
        let (anew, _) = server.accept().await.unwrap();
        assert_eq!(anew.accept().await.unwrap().stream.read_u8().await.unwrap(), b'!');
    });
}

/// A lane that panics after it has read so many times.
struct Fragile {
    lane: Box<dyn Lane>,
    reads_left: u64,
}

impl AsyncBufRead for Fragile {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        this.reads_left = this.reads_left.checked_sub(1).expect("injected: in a lane");
        Pin::new(&mut this.lane).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        Pin::new(&mut self.lane).consume(amount);
    }
}

impl AsyncRead for Fragile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lane).poll_read(cx, out)
    }
}

impl AsyncWrite for Fragile {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lane).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lane).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lane).poll_shutdown(cx)
    }
}

impl Lane for Fragile {
    fn export_keying_material(&self, label: &'static str, out: &mut [u8; 32]) -> io::Result<()> {
        self.lane.export_keying_material(label, out)
    }

    fn peer(&self) -> Option<PeerIdentity> {
        self.lane.peer()
    }
}

/// Every third dial panics, and so does every lane, sooner or later.
struct FragileDialer {
    dialer: MemoryDialer,
    dialled: Arc<AtomicU64>,
}

#[async_trait]
impl Dialer for FragileDialer {
    async fn dial(&self) -> Result<Box<dyn Lane>, DialError> {
        let nth = self.dialled.fetch_add(1, Ordering::Relaxed);
        assert!(nth % 3 != 2, "injected: in a dialer");
        let lane = self.dialer.dial().await?;
        Ok(Box::new(Fragile { lane, reads_left: 20 + nth * 10 }))
    }

    fn name(&self) -> String {
        self.dialer.name()
    }
}

#[test]
fn lanes_and_dialers_that_panic_are_lost_lanes_and_nothing_else() {
    bounded(60, async {
        let (dialer, mut server) = network();
        let dialled = Arc::<AtomicU64>::default();
        let client = connect(FragileDialer { dialer, dialled: dialled.clone() }, 2).await;
        let (session, _) = server.accept().await.unwrap();
        let (near, far) = stream(&client, &session).await;
        let pattern = Pattern::new(1);
        let both = (&pattern, 8 << 20);
        let (near, far) = tokio::join!(exchange(near, both, both), exchange(far, both, both));
        near.unwrap();
        far.unwrap();
        assert!(dialled.load(Ordering::Relaxed) > 3, "lanes came back after panics");
    });
}
