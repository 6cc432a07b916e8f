//! The decision whether a server is the right one.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Fingerprint, KnownHosts, KnownKey, PeerIdentity, TrustError, Verdict};

/// What can be said of a server's key without deciding about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// It is the server's.
    Known,
    /// The server's is another one.
    Another,
    /// Nothing is known of the server.
    New,
}

/// Decides whether a server is the right one.
#[async_trait]
pub trait HostTrust: Send + Sync {
    /// Called once for a session, for its first lane, before any byte of an application is sent.
    /// Whatever the answer, the session's other lanes must show the same key; or the one that
    /// was [announced](Self::announced), for which this is called again, once.
    ///
    /// # Errors
    /// Why the peer is not trusted. The session is over then.
    async fn decide(&self, peer: &PeerIdentity) -> Result<(), TrustError>;

    /// What can be said of a key without deciding about it: nobody is asked and nothing is
    /// recorded. `None`, unless it is implemented, where that cannot be told.
    ///
    /// Called for the first lanes of clients with several links. One that shows another key than
    /// the known one waits for the other links then, and is their failure no more than that of
    /// a link that is down; of keys that are all new, the first is decided about only if no
    /// other is shown.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    async fn recognise(&self, _peer: &PeerIdentity) -> Result<Option<Recognised>, TrustError> {
        Ok(None)
    }

    /// Asked in the middle of a handshake, before anything of the client's is shown: whether a
    /// server with this key cannot be the right one, as far as is known without asking anybody.
    /// [`decide`](Self::decide) is called for it all the same, and may know better. Should not
    /// block for longer than it takes to read a small file.
    fn rules_out(&self, _peer: &PeerIdentity) -> bool {
        false
    }

    /// The server, whose key is `current`, has announced that it will have `next`, and proven that
    /// it holds it. Returns whether that is good for lanes and sessions to come, the first of
    /// which is decided about all the same.
    ///
    /// # Errors
    /// It could not be recorded, and is not trusted.
    async fn announced(
        &self,
        _current: Fingerprint,
        _next: Fingerprint,
    ) -> Result<bool, TrustError> {
        Ok(false)
    }
}

/// Trusts the holders of certain keys and nobody else.
#[derive(Debug, Clone)]
pub struct PinnedKeys {
    pins: Vec<Fingerprint>,
}

impl PinnedKeys {
    /// Trusts the holders of these keys.
    #[must_use]
    pub fn new(pins: impl IntoIterator<Item = Fingerprint>) -> Self {
        Self { pins: pins.into_iter().collect() }
    }
}

#[async_trait]
impl HostTrust for PinnedKeys {
    async fn decide(&self, peer: &PeerIdentity) -> Result<(), TrustError> {
        if self.pins.contains(&peer.fingerprint) {
            Ok(())
        } else {
            Err(TrustError::PinMismatch { presented: peer.fingerprint })
        }
    }

    async fn recognise(&self, peer: &PeerIdentity) -> Result<Option<Recognised>, TrustError> {
        let is_pinned = self.pins.contains(&peer.fingerprint);
        Ok(Some(if is_pinned { Recognised::Known } else { Recognised::Another }))
    }

    fn rules_out(&self, peer: &PeerIdentity) -> bool {
        !self.pins.contains(&peer.fingerprint)
    }

    async fn announced(&self, _: Fingerprint, next: Fingerprint) -> Result<bool, TrustError> {
        Ok(self.pins.contains(&next))
    }
}

/// What to do with a host of which nothing is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostKeyPolicy {
    /// Ask a person; refuse where nobody can be asked.
    #[default]
    Ask,
    /// Refuse.
    Strict,
    /// Record its key and go on. A changed key is refused all the same.
    AcceptNew,
}

/// Asks a person.
#[async_trait]
pub trait Prompter: Send + Sync {
    /// Nothing is known of `host`, which presents `peer`.
    ///
    /// # Errors
    /// Where the person cannot be asked (any more).
    async fn unknown_host(&self, host: &str, peer: &PeerIdentity) -> io::Result<Answer>;

    /// `host` was known by `old` and presents `peer` now.
    ///
    /// # Errors
    /// Where the person cannot be asked (any more).
    async fn changed_host(
        &self,
        host: &str,
        old: &KnownKey,
        peer: &PeerIdentity,
    ) -> io::Result<Answer>;
}

/// What a person says to a host's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Do not connect.
    Abort,
    /// Connect this time, and record nothing.
    Continue,
    /// Connect, and record the key.
    Save,
}

/// Trusts a host as long as it presents the key it is known by.
#[derive(Clone)]
pub struct KnownHostsTrust {
    hosts: KnownHosts,
    host: String,
    policy: HostKeyPolicy,
    prompter: Option<Arc<dyn Prompter>>,
    /// The key that was decided for last, recorded or not.
    accepted: Arc<Mutex<Option<Fingerprint>>>,
}

impl KnownHostsTrust {
    /// Trusts `host` (the address as it is dialled) by what `hosts` has of it. `prompter` is who
    /// can be asked, with [`HostKeyPolicy::Ask`]: give none where there is no terminal.
    #[must_use]
    pub fn new(
        hosts: KnownHosts,
        host: impl Into<String>,
        policy: HostKeyPolicy,
        prompter: Option<Arc<dyn Prompter>>,
    ) -> Self {
        Self { hosts, host: host.into(), policy, prompter, accepted: Arc::default() }
    }

    async fn decide_unknown(&self, peer: &PeerIdentity) -> Result<(), TrustError> {
        match (self.policy, &self.prompter) {
            (HostKeyPolicy::AcceptNew, _) => self.record(None, peer.fingerprint).await,
            (HostKeyPolicy::Ask, Some(prompter)) => {
                let answer = prompter.unknown_host(&self.host, peer).await;
                self.follow(answer, None, peer).await
            }
            (HostKeyPolicy::Ask, None) | (HostKeyPolicy::Strict, _) => {
                Err(TrustError::UnknownHost {
                    host: self.host.clone(),
                    presented: peer.fingerprint,
                })
            }
        }
    }

    async fn decide_changed(&self, peer: &PeerIdentity, old: KnownKey) -> Result<(), TrustError> {
        match (self.policy, &self.prompter) {
            (HostKeyPolicy::Ask, Some(prompter)) => {
                let answer = prompter.changed_host(&self.host, &old, peer).await;
                if matches!(answer, Ok(Answer::Abort)) {
                    return Err(self.changed(peer, old));
                }
                self.follow(answer, Some(old), peer).await
            }
            _ => Err(self.changed(peer, old)),
        }
    }

    async fn follow(
        &self,
        answer: io::Result<Answer>,
        seen: Option<KnownKey>,
        peer: &PeerIdentity,
    ) -> Result<(), TrustError> {
        let host = || self.host.clone();
        match answer.map_err(|source| TrustError::Prompt { host: host(), source })? {
            Answer::Abort => Err(TrustError::Refused { host: host(), presented: peer.fingerprint }),
            Answer::Continue => Ok(()),
            Answer::Save => self.record(seen, peer.fingerprint).await,
        }
    }

    fn changed(&self, peer: &PeerIdentity, known: KnownKey) -> TrustError {
        TrustError::Changed { host: self.host.clone(), known, presented: peer.fingerprint }
    }

    /// Records a key in the place of what was known when it was decided.
    async fn record(
        &self,
        seen: Option<KnownKey>,
        fingerprint: Fingerprint,
    ) -> Result<(), TrustError> {
        self.with_file(move |hosts, host| hosts.record_over(host, seen, fingerprint)).await
    }

    /// Runs on a thread where waiting for a disk or a lock stops nobody.
    async fn with_file<T: Send + 'static>(
        &self,
        work: impl FnOnce(&KnownHosts, &str) -> Result<T, TrustError> + Send + 'static,
    ) -> Result<T, TrustError> {
        let (hosts, host) = (self.hosts.clone(), self.host.clone());
        let path = hosts.path().to_owned();
        tokio::task::spawn_blocking(move || work(&hosts, &host)).await.unwrap_or_else(|error| {
            // The runtime is shutting down.
            Err(TrustError::File { action: "use", path, source: io::Error::other(error) })
        })
    }
}

#[async_trait]
impl HostTrust for KnownHostsTrust {
    async fn decide(&self, peer: &PeerIdentity) -> Result<(), TrustError> {
        self.look_up_and_decide(peer).await?;
        *self.accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer.fingerprint);
        Ok(())
    }

    fn rules_out(&self, peer: &PeerIdentity) -> bool {
        let accepted = *self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be read lets nobody pass, and is told when it is decided.
        accepted != Some(peer.fingerprint)
            && !matches!(
                self.hosts.check(&self.host, peer),
                Ok(Verdict::Known
                    | Verdict::KnownAsNext
                    | Verdict::KnownByLegacySignature
                    | Verdict::Unknown)
            )
    }

    async fn recognise(&self, peer: &PeerIdentity) -> Result<Option<Recognised>, TrustError> {
        let presented = *peer;
        Ok(Some(match self.with_file(move |hosts, host| hosts.check(host, &presented)).await? {
            Verdict::Known | Verdict::KnownAsNext | Verdict::KnownByLegacySignature => {
                Recognised::Known
            }
            Verdict::Changed { .. } => Recognised::Another,
            Verdict::Unknown => Recognised::New,
        }))
    }

    async fn announced(&self, current: Fingerprint, next: Fingerprint) -> Result<bool, TrustError> {
        self.with_file(move |hosts, host| hosts.record_next(host, current, next)).await
    }
}

impl KnownHostsTrust {
    async fn look_up_and_decide(&self, peer: &PeerIdentity) -> Result<(), TrustError> {
        let presented = *peer;
        let (verdict, malformed) = self
            .with_file(move |hosts, host| Ok((hosts.check(host, &presented)?, hosts.malformed()?)))
            .await?;
        for line in malformed {
            let path = self.hosts.path().display();
            tracing::warn!(
                "{path}, line {}: not understood, ignored (host {})",
                line.line,
                line.host
            );
        }
        match verdict {
            Verdict::Known => Ok(()),
            Verdict::KnownAsNext => {
                // From now on its old key is nobody's. If that cannot be written, the right server
                // answers all the same.
                if let Err(error) = self.record(None, peer.fingerprint).await {
                    tracing::warn!("the old key of {} stays known: {error}", self.host);
                }
                Ok(())
            }
            Verdict::KnownByLegacySignature => {
                // The peer is the right one; that the file stays in its old form is no reason to
                // turn it away.
                let seen = peer.certificate_signature.map(KnownKey::LegacySignature);
                if let Err(error) = self.record(seen, peer.fingerprint).await {
                    tracing::warn!(
                        "the key of {} is not recorded in its new form: {error}",
                        self.host
                    );
                }
                Ok(())
            }
            Verdict::Unknown => self.decide_unknown(peer).await,
            Verdict::Changed { old } => self.decide_changed(peer, old).await,
        }
    }
}

impl fmt::Debug for KnownHostsTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownHostsTrust")
            .field("hosts", &self.hosts)
            .field("host", &self.host)
            .field("policy", &self.policy)
            .field("prompter", &self.prompter.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests;
