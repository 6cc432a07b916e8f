//! A lane of one's own: a session carried by Unix sockets instead of TLS over TCP.
//!
//! ```sh
//! cargo run --example custom_lane
//! ```
//!
//! Whatever is reliable, ordered and safe from others can be a lane: a vsock, a serial line under
//! SSH, a pair of pipes. It takes three things: the bytes (`AsyncBufRead + AsyncWrite`), keying
//! material that is this lane's alone, and who the other end is. Here the kernel keeps others out,
//! a random number makes each lane its own, and the kernel says which user the other end is.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use imux::lane::{DialError, Dialer, Lane, Listener, PendingLane};
use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys, SessionSecret};
use imux::{Client, ClientConfig, Link, Server, ServerConfig, StreamKind};
use tokio::io::{
    AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadBuf,
};
use tokio::net::{UnixListener, UnixStream};

/// A Unix socket whose two ends have agreed on a random number.
#[derive(Debug)]
struct UnixLane {
    /// The session decodes frames where they lie in this buffer: room for a few full ones.
    socket: BufReader<UnixStream>,
    /// What only the two ends of this lane know.
    secret: SessionSecret,
    peer: PeerIdentity,
}

impl UnixLane {
    /// `number` has been sent by the end that dialled, and read by the other.
    fn new(socket: UnixStream, number: &[u8; 32]) -> io::Result<Self> {
        let peer = user(socket.peer_cred()?.uid());
        let secret = SessionSecret::new(number);
        Ok(Self { socket: BufReader::with_capacity(64 * 1024, socket), secret, peer })
    }

    fn socket(self: Pin<&mut Self>) -> Pin<&mut BufReader<UnixStream>> {
        Pin::new(&mut self.get_mut().socket)
    }
}

/// How a user of this machine is known: where there are no keys, the number takes their place.
fn user(uid: u32) -> PeerIdentity {
    let mut bytes = [0; 32];
    bytes[28..].copy_from_slice(&uid.to_be_bytes());
    PeerIdentity { fingerprint: Fingerprint::from_bytes(bytes), certificate_signature: None }
}

impl Lane for UnixLane {
    fn export_keying_material(&self, label: &'static str, out: &mut [u8; 32]) -> io::Result<()> {
        // Another value for every lane and label, and the same at both ends.
        *out = self.secret.mac(label.as_bytes());
        Ok(())
    }

    fn peer(&self) -> Option<PeerIdentity> {
        Some(self.peer)
    }

    fn poll_write_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The socket takes bytes now: what is written does not wait where it cannot be moved.
        self.socket.get_ref().poll_write_ready(cx)
    }

    fn describe(&self) -> String {
        "Unix socket".to_owned()
    }
}

impl AsyncBufRead for UnixLane {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.socket().poll_fill_buf(cx)
    }

    fn consume(self: Pin<&mut Self>, amount: usize) {
        self.socket().consume(amount);
    }
}

impl AsyncRead for UnixLane {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.socket().poll_read(cx, out)
    }
}

impl AsyncWrite for UnixLane {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.socket().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket().poll_shutdown(cx)
    }
}

/// Makes lanes to the server at a path.
#[derive(Debug)]
struct UnixDialer {
    path: PathBuf,
}

#[async_trait]
impl Dialer for UnixDialer {
    async fn dial(&self) -> Result<Box<dyn Lane>, DialError> {
        let dial = async {
            let mut number = [0; 32];
            aws_lc_rs::rand::fill(&mut number).map_err(io::Error::other)?;
            let mut socket = UnixStream::connect(&self.path).await?;
            socket.write_all(&number).await?;
            UnixLane::new(socket, &number)
        };
        let lane = dial.await.map_err(|error| DialError::Other(error.into()))?;
        Ok(Box::new(lane))
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// Where the lanes arrive.
struct UnixDoor(UnixListener);

#[async_trait]
impl Listener for UnixDoor {
    async fn accept(&self) -> io::Result<Box<dyn PendingLane>> {
        let (socket, _) = self.0.accept().await?;
        Ok(Box::new(Knock(socket)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "a Unix socket has no IP address"))
    }
}

/// A lane that has not said its number yet.
struct Knock(UnixStream);

#[async_trait]
impl PendingLane for Knock {
    fn remote(&self) -> Option<SocketAddr> {
        None
    }

    async fn handshake(mut self: Box<Self>) -> io::Result<Box<dyn Lane>> {
        let mut number = [0; 32];
        self.0.read_exact(&mut number).await?;
        Ok(Box::new(UnixLane::new(self.0, &number)?))
    }
}

/// Sends `data` to an echo server over four such lanes; returns what came back, and how many
/// lanes carried some of it.
pub(crate) async fn echo(
    path: &Path,
    data: &[u8],
) -> Result<(Vec<u8>, usize), Box<dyn std::error::Error>> {
    let listener = UnixListener::bind(path)?;
    let me = user(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path)?));
    let mut server = Server::start(UnixDoor(listener), ServerConfig::default());
    let serving = tokio::spawn(async move {
        let Some((session, _)) = server.accept().await else { return };
        while let Ok(incoming) = session.accept().await {
            let (mut read, mut write) = tokio::io::split(incoming.stream);
            tokio::spawn(async move {
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });

    let link = Link::new(Arc::new(UnixDialer { path: path.to_owned() }), 4);
    let trust = Arc::new(PinnedKeys::new([me.fingerprint]));
    let client = Client::connect(vec![link], ClientConfig::new(trust));
    let client = client.await?;

    let stream = client.open(StreamKind::Raw).await?;
    let (mut read, mut write) = tokio::io::split(stream);
    let send = async {
        write.write_all(data).await?;
        write.shutdown().await
    };
    let mut back = Vec::with_capacity(data.len());
    let (sent, received) = tokio::join!(send, read.read_to_end(&mut back));
    sent?;
    received?;

    let stats = client.stats().map(|stats| stats.lanes).unwrap_or_default();
    let carried = stats.iter().filter(|lane| lane.sent_bytes > 0).count();
    serving.abort();
    Ok((back, carried))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("imux-custom-lane-{}", std::process::id()));
    let data: Vec<u8> =
        (0..16 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let result = echo(&path, &data).await;
    // The listener leaves its name behind.
    let _ = std::fs::remove_file(&path);
    let (back, lanes) = result?;
    assert!(back == data, "every byte came back, in order");
    println!("{} MiB there and back over {lanes} Unix sockets", data.len() >> 20);
    Ok(())
}
