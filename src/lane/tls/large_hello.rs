//! Detects middleboxes that let TLS's first message through only if it is small.
//!
//! With X25519MLKEM768 a ClientHello has some 1,440 bytes. Firewalls that predate such sizes cut
//! the connection or drop the message, which looks like a server that does not answer. A
//! ClientHello with X25519 alone tells the two apart: if it is answered while the large one
//! repeatedly is not, size is the cause.
//!
//! Invariant: no lane ever uses the small one unless the settings ask for it. Otherwise anybody
//! able to cut connections could force the downgrade.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, NamedGroup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::trust::question_config;

/// How long an answer to the small ClientHello, or to the large one's second try, may take: a round
/// trip or two.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// How long a finding holds: a client dials lanes all the time, and networks are rarely fixed.
const FINDING_HOLDS: Duration = Duration::from_secs(60);

/// The content type of a handshake message (RFC 8446, 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// How far one attempt to dial has come.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    connected: std::sync::OnceLock<SocketAddr>,
    pub(super) heard: AtomicBool,
}

impl Attempt {
    pub(super) fn connected(&self, to: SocketAddr) {
        // One attempt makes one connection.
        let _ = self.connected.set(to);
    }

    /// Where it connected to, if nothing at all has come back.
    pub(super) fn unanswered(&self) -> Option<SocketAddr> {
        let heard = self.heard.load(Ordering::Relaxed);
        self.connected.get().copied().filter(|_| !heard)
    }
}

/// What a dialer's lanes have found out about size.
#[derive(Clone, Debug, Default)]
pub(super) struct Finding(Arc<Mutex<Option<Found>>>);

#[derive(Clone, Copy, Debug)]
struct Found {
    at: Instant,
    small_is_answered: bool,
    /// After the small one was answered, the large one went unanswered a second time.
    is_sure: bool,
}

/// What to do about an unanswered ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Its size is not the cause.
    GiveUp,
    /// The small one was answered; the large one may have been lost by chance.
    TryAgain,
    /// Its size is the cause.
    TooLarge,
}

impl Finding {
    /// Sends a small ClientHello over a connection made by `connect`, unless that was done lately.
    /// Lanes that fail at the same time ask once.
    pub(super) async fn ask_once(
        &self,
        connect: impl Future<Output = io::Result<TcpStream>>,
        name: ServerName<'static>,
    ) -> Next {
        let mut found = self.0.lock().await;
        let recent = found.filter(|found| found.at.elapsed() < FINDING_HOLDS);
        let now = match recent {
            Some(recent) => recent,
            None => {
                let answered = timeout(PATIENCE, ask(connect, name)).await;
                let small_is_answered = matches!(answered, Ok(Ok(true)));
                Found { at: Instant::now(), small_is_answered, is_sure: false }
            }
        };
        *found = Some(now);
        match now {
            Found { small_is_answered: false, .. } => Next::GiveUp,
            Found { is_sure: true, .. } => Next::TooLarge,
            _ => Next::TryAgain,
        }
    }

    /// The large one went unanswered again.
    pub(super) async fn confirm(&self) {
        if let Some(found) = self.0.lock().await.as_mut() {
            found.is_sure = true;
        }
    }

    /// The large one was answered.
    pub(super) fn refute(&self) {
        // Whoever holds the lock is asking right now, and may find the same.
        if let Ok(mut found) = self.0.try_lock() {
            *found = None;
        }
    }
}

/// Whether the ClientHello of `config` is a large one.
pub(super) fn is_large(config: &ClientConfig) -> bool {
    config.crypto_provider().kx_groups.iter().any(|it| it.name() == NamedGroup::X25519MLKEM768)
}

/// Whether a small ClientHello is answered. The handshake goes no further.
async fn ask(
    connect: impl Future<Output = io::Result<TcpStream>>,
    name: ServerName<'static>,
) -> io::Result<bool> {
    let config = question_config().map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(config, name).map_err(io::Error::other)?;
    let mut hello = Vec::new();
    tls.write_tls(&mut hello)?;
    let mut socket = connect.await?;
    socket.write_all(&hello).await?;
    Ok(socket.read_u8().await? == HANDSHAKE_RECORD)
}
