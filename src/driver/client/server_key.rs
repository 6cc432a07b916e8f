//! Which key is the server's: decided once, shown by every lane, and followed when it changes.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{MutexGuard, watch};

use super::first_keys::FirstKeys;
use crate::driver::error::ConnectError;
use crate::driver::session;
use crate::driver::shared::Shared;
use crate::proto::limits::HANDSHAKE_TIMEOUT;
use crate::trust::{Fingerprint, HostTrust, NextKey, PeerIdentity, Recognised, SessionSecret};

/// A lane waits this long for its turn. Another lane may be creating the session: the server gives
/// up on a first frame later than that.
pub(super) const CREATION_PATIENCE: Duration = Duration::from_secs(5);
/// A new key waits this long for what the servers of other links show. A lost first packet is
/// resent within it.
const KEYS_PATIENCE: Duration = Duration::from_secs(3);
/// A server's next key is recorded this often at most: an honest server has a new one in years.
const NEXT_KEY_EVERY: Duration = Duration::from_secs(60);

/// Decides on the server's key, and remembers what was decided.
pub(super) struct ServerKey {
    trust: Arc<dyn HostTrust>,
    /// The key that was decided on; every lane has to show it.
    trusted: Mutex<Option<Fingerprint>>,
    /// The key that the server has announced: lanes may show it from now on.
    next: Mutex<Option<Fingerprint>>,
    /// What the links have shown before any key was decided on.
    first_keys: FirstKeys,
    /// Whether to wait for a server that is away at the start.
    keeps_trying: bool,
    /// Held while a session is created or a key decided on.
    creating: tokio::sync::Mutex<()>,
    /// No more lanes are dialled.
    stopped: watch::Sender<bool>,
}

impl std::fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerKey").field("trusted", &self.trusted).finish_non_exhaustive()
    }
}

impl ServerKey {
    /// Nothing is decided yet; each link will dial as many lanes as `lanes` says.
    pub(super) fn new(
        trust: Arc<dyn HostTrust>,
        lanes: impl Iterator<Item = u16>,
        keeps_trying: bool,
        stopped: watch::Sender<bool>,
    ) -> Self {
        Self {
            trust,
            trusted: Mutex::default(),
            next: Mutex::default(),
            first_keys: FirstKeys::new(lanes),
            keeps_trying,
            creating: tokio::sync::Mutex::default(),
            stopped,
        }
    }

    /// Waits until no person is being asked.
    pub(super) async fn undisturbed(&self) {
        self.first_keys.undisturbed().await;
    }

    /// A lane of this link could not be made.
    pub(super) fn failed(&self, link: usize) {
        self.first_keys.failed(link);
    }

    pub(super) fn trusted_key(&self) -> Option<Fingerprint> {
        *self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a lane's server is the one that was decided on, if one was.
    pub(super) fn check_key(&self, presented: Fingerprint) -> Result<(), ConnectError> {
        match self.trusted_key() {
            Some(trusted) if trusted != presented && self.next_key() != Some(presented) => {
                Err(ConnectError::OtherKey(presented))
            }
            _ => Ok(()),
        }
    }

    /// One of several links may lead to somebody else: hears what the others' servers show before a
    /// key is decided on.
    pub(super) async fn hear_other_links(
        &self,
        link: usize,
        presented: &PeerIdentity,
    ) -> Result<(), ConnectError> {
        let (keys, key) = (&self.first_keys, presented.fingerprint);
        if !keys.are_several() || self.trusted_key().is_some() {
            return Ok(());
        }
        let Some(recognised) = self.trust.recognise(presented).await? else { return Ok(()) };
        keys.shown(link, key, recognised);
        let patience = match recognised {
            Recognised::Known => return Ok(()),
            Recognised::Another => HANDSHAKE_TIMEOUT,
            Recognised::New => KEYS_PATIENCE,
        };
        let all_shown = tokio::time::timeout(patience, keys.wait()).await.is_ok();
        self.check_key(key)?;
        match recognised {
            // The right one has been shown and is not decided on yet, or may still come.
            Recognised::Another if !all_shown || self.waits_for_others() => {
                Err(ConnectError::OtherKey(key))
            }
            Recognised::New => match keys.other_than(key) {
                Some(other) => Err(ConnectError::SeveralKeys(key, other)),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Has a key decided on that the handshake had ruled out.
    pub(super) async fn hear_of(
        &self,
        link: usize,
        presented: &PeerIdentity,
    ) -> Result<(), ConnectError> {
        self.check_key(presented.fingerprint)?;
        self.hear_other_links(link, presented).await?;
        let _turn = self.turn().await?;
        self.check_key(presented.fingerprint)?;
        if self.trusted_key() == Some(presented.fingerprint) {
            return Ok(());
        }
        self.decide(presented).await
    }

    /// Waits for the turn to create a session or to have a key decided on: a while, and as long as
    /// a person is being asked.
    pub(super) async fn turn(&self) -> Result<MutexGuard<'_, ()>, ConnectError> {
        let mut turn = std::pin::pin!(self.creating.lock());
        loop {
            if let Ok(turn) = tokio::time::timeout(CREATION_PATIENCE, &mut turn).await {
                return Ok(turn);
            }
            if !self.first_keys.is_deciding() {
                return Err(timed_out());
            }
            self.first_keys.undisturbed().await;
        }
    }

    /// Has the trust decide whether this is the server: once, not for every waiting lane.
    pub(super) async fn decide(&self, presented: &PeerIdentity) -> Result<(), ConnectError> {
        if *self.stopped.borrow() {
            return Err(ConnectError::Handshake(io::ErrorKind::Interrupted.into()));
        }
        let _deciding = self.first_keys.deciding();
        if let Err(refused) = self.trust.decide(presented).await {
            // A server whose key was right before may have it again.
            if self.trusted_key().is_none() {
                self.stopped.send_replace(true);
            }
            return Err(refused.into());
        }
        *self.trusted.lock().unwrap_or_else(PoisonError::into_inner) = Some(presented.fingerprint);
        self.first_keys.decided();
        Ok(())
    }

    /// Follows the server's announcements of its next key, as long as the session lasts.
    pub(super) async fn heed_announcements(
        self: Arc<Self>,
        shared: Arc<Shared>,
        secret: SessionSecret,
    ) {
        while let Some(announcement) = session::next_key(&shared).await {
            let Some(next) = NextKey::verify(&announcement, &secret) else {
                tracing::warn!("the server announces a key without proving that it holds it");
                continue;
            };
            // The session's key, or the one that has taken its place meanwhile.
            let Some(current) = self.trusted_key() else { continue };
            if next == current || self.next_key() == Some(next) {
                continue;
            }
            match self.trust.announced(current, next).await {
                Ok(true) => {
                    tracing::info!(key = %next, "the server has announced its next key");
                    *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next);
                }
                Ok(false) => tracing::warn!(
                    key = %next,
                    "the server has announced its next key, and nothing here records it: \
                     give it to --pin before the server changes to it"
                ),
                Err(error) => tracing::warn!(key = %next, %error, "the server's next key"),
            }
            // A server that keeps changing its mind wears out no disk: only the last of what it
            // says meanwhile counts.
            tokio::select! {
                () = tokio::time::sleep(NEXT_KEY_EVERY) => {}
                _ = session::closed(&shared) => {}
            }
        }
    }

    fn waits_for_others(&self) -> bool {
        self.keeps_trying && self.first_keys.may_be_right_elsewhere()
    }

    fn next_key(&self) -> Option<Fingerprint> {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn timed_out() -> ConnectError {
    ConnectError::Handshake(io::ErrorKind::TimedOut.into())
}
