//! The decision whether a server is the right one.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use super::{Fingerprint, KnownHosts, KnownKey, PeerIdentity, TrustError, Verdict};

/// What is known of a server's key, short of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognised {
    /// It is the server's.
    Known,
    /// The server has a different key.
    Another,
    /// Nothing is known of the server.
    New,
}

/// Decides whether a server is the right one.
#[async_trait]
pub trait HostTrust: Send + Sync {
    /// Called once per session, for its first lane, before any application byte is sent. Whatever
    /// the answer, the session's other lanes must show the same key, or the
    /// [announced](Self::announced) one, for which this is called once more.
    ///
    /// # Errors
    /// Why the peer is not trusted, which ends the session.
    async fn decide(&self, peer: &PeerIdentity) -> Result<(), TrustError>;

    /// What is known of a key, short of a decision: nobody is asked and nothing is recorded. `None`
    /// if that cannot be told, and by default.
    ///
    /// Called for the first lanes of clients with several links. A link that shows a key other than
    /// the known one then waits for the others and fails none of them, as if it were down; among
    /// keys that are all new, the first is decided about only if no other is shown.
    ///
    /// # Errors
    /// As [`decide`](Self::decide).
    async fn recognise(&self, _peer: &PeerIdentity) -> Result<Option<Recognised>, TrustError> {
        Ok(None)
    }

    /// Whether a server with this key cannot be the right one, as far as is known without asking
    /// anybody. Called during a handshake, before the client shows anything of its own.
    /// [`decide`](Self::decide) is still called for that key, and may know better. Should not block
    /// for longer than it takes to read a small file.
    fn rules_out(&self, _peer: &PeerIdentity) -> bool {
        false
    }

    /// The server, whose key is `current`, has announced that its key will be `next`, and proven
    /// that it holds it. Returns whether later lanes and sessions may show it; the first that does
    /// is still decided about.
    ///
    /// # Errors
    /// It could not be recorded and is not trusted.
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

/// What to do with an unknown host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostKeyPolicy {
    /// Ask a person; refuse if nobody can be asked.
    #[default]
    Ask,
    /// Refuse.
    Strict,
    /// Record its key and go on. A changed key is still refused.
    AcceptNew,
}

/// Asks a person.
#[async_trait]
pub trait Prompter: Send + Sync {
    /// `host` is unknown and presents `peer`.
    ///
    /// # Errors
    /// Where the person cannot be asked (any more).
    async fn unknown_host(&self, host: &str, peer: &PeerIdentity) -> io::Result<Answer>;

    /// `host` was known by `old` and now presents `peer`.
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

/// A person's answer about a host's key.
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
    /// The key accepted last, recorded or not.
    accepted: Arc<Mutex<Option<Fingerprint>>>,
}

impl KnownHostsTrust {
    /// Trusts `host` (the address as dialled) by its entry in `hosts`. `prompter` asks a person
    /// under [`HostKeyPolicy::Ask`]: give none if there is no terminal.
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

    /// Records a key in place of what was known at the decision.
    async fn record(
        &self,
        seen: Option<KnownKey>,
        fingerprint: Fingerprint,
    ) -> Result<(), TrustError> {
        self.with_file(move |hosts, host| hosts.record_over(host, seen, fingerprint)).await
    }

    /// Runs on a thread where waiting for a disk or a lock holds up nobody.
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
        // An unreadable file lets nobody pass; the decision reports it.
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
                // From now on its old key is void. If that cannot be written, this is still the
                // right server.
                if let Err(error) = self.record(None, peer.fingerprint).await {
                    tracing::warn!("the old key of {} stays known: {error}", self.host);
                }
                Ok(())
            }
            Verdict::KnownByLegacySignature => {
                // The peer is the right one; failing to update the file's old form is no reason to
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
