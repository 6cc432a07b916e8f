//! The decision which clients a server lets in, and what each may do.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use super::authorized_clients::{self, Reading, Stamp};
use super::files::{self, failed};
use super::{
    AuthorizedClients, Destinations, Fingerprint, Grant, InvitationSecret, ProxyHeader, TrustError,
};

/// Decides which clients a server lets in, and what each may do.
#[async_trait]
pub trait ClientTrust: Send + Sync {
    /// Asked when a client creates a session; `None` turns it away. `client` is the key it has
    /// proven to hold, if any; `invitation` a secret it also showed.
    async fn admit(
        &self,
        client: Option<Fingerprint>,
        invitation: Option<&InvitationSecret>,
    ) -> Option<Permit>;

    /// What the client may do now; asked whenever a stream opens, and now and then. `None` ends its
    /// session. Must not block.
    fn permit(&self, client: Option<Fingerprint>) -> Option<Permit>;

    /// Called every few seconds, before the permits of all sessions are checked: a chance to notice
    /// changes.
    async fn notice_changes(&self) {}
}

/// What a client may do. Clones share its count of streams.
#[derive(Debug, Clone, Default)]
pub struct Permit {
    listed: bool,
    comment: Arc<str>,
    destinations: Option<Arc<Destinations>>,
    listen: Option<Arc<Destinations>>,
    streams_max: Option<u32>,
    expires: Option<SystemTime>,
    tell_source: Option<ProxyHeader>,
    trust_source: bool,
    streams: Arc<AtomicU32>,
}

impl Permit {
    /// Connections to the server's one destination only, as many as the client likes.
    #[must_use]
    pub fn fixed_destination() -> Self {
        Self::default()
    }

    /// What `grant` grants.
    #[must_use]
    pub fn new(grant: Grant) -> Self {
        let Grant { destinations, listen, streams_max, expires, tell_source, trust_source } = grant;
        let rules = |rules: Vec<_>| (!rules.is_empty()).then(|| Arc::new(Destinations::new(rules)));
        Self {
            listed: true,
            destinations: rules(destinations),
            listen: rules(listen),
            streams_max,
            expires,
            tell_source,
            trust_source,
            ..Self::default()
        }
    }

    /// Whether the grant is the client's own. Otherwise it is a stranger, let in because everybody
    /// is; when room runs short, strangers go without first.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// The same, for a client with this comment in its line.
    #[must_use]
    pub fn with_comment(self, comment: &str) -> Self {
        Self { comment: comment.into(), ..self }
    }

    /// Who the client is, in the words of whoever listed it.
    #[must_use]
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// Where the client may go; `None` if only to the server's one destination.
    #[must_use]
    pub fn destinations(&self) -> Option<&Destinations> {
        self.destinations.as_deref()
    }

    /// Where connections may be accepted for the client ([`Destinations::may_listen`]); `None` if
    /// nowhere.
    #[must_use]
    pub fn listen(&self) -> Option<&Destinations> {
        self.listen.as_deref()
    }

    /// Whether its destinations are told who connects, and how.
    #[must_use]
    pub fn tell_source(&self) -> Option<ProxyHeader> {
        self.tell_source
    }

    /// Whether its destinations are told what the client says about who connects.
    #[must_use]
    pub fn trusts_source(&self) -> bool {
        self.trust_source
    }

    /// A slot for one more stream, or `None` if the client has as many as it may. Dropping it gives
    /// it back.
    #[must_use]
    pub fn enter(&self) -> Option<StreamPlace> {
        let max = self.streams_max.unwrap_or(u32::MAX);
        let more = |open: u32| (open < max).then_some(open.saturating_add(1));
        self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(StreamPlace(self.streams.clone()))
    }

    fn is_over(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// A stream's slot among those its client may have.
#[derive(Debug)]
pub struct StreamPlace(Arc<AtomicU32>);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets every client in, with a key or without, and to the server's one destination only.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyClient;

#[async_trait]
impl ClientTrust for AnyClient {
    async fn admit(
        &self,
        client: Option<Fingerprint>,
        _invitation: Option<&InvitationSecret>,
    ) -> Option<Permit> {
        self.permit(client)
    }

    fn permit(&self, _client: Option<Fingerprint>) -> Option<Permit> {
        Some(Permit::fixed_destination())
    }
}

/// Lets in the clients that the file of authorised clients lists; everybody, like [`AnyClient`], as
/// long as there has been no such file.
///
/// The file is checked, and read again if it has changed, whenever a client arrives and every few
/// seconds: added clients need not wait, and removed ones are gone. Changes apply to existing
/// sessions, too.
#[derive(Clone)]
pub struct AuthorizedClientsTrust {
    file: AuthorizedClients,
    state: Arc<Mutex<State>>,
    /// Held while the file is read: the later of two readings must win, and nobody else waits.
    reading: Arc<Mutex<()>>,
    /// The file that records that a list has existed.
    mark: Option<Arc<Path>>,
}

#[derive(Default)]
struct State {
    /// The version last read, or last found unreadable. `None` forces another reading.
    stamp: Option<Stamp>,
    /// What was read last.
    text: String,
    /// The version already reported as unusable; a missing file counts as one, too.
    told: Option<Option<Stamp>>,
    /// `None` until there is a file.
    clients: Option<BTreeMap<Fingerprint, Permit>>,
}

impl AuthorizedClientsTrust {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// As [`AuthorizedClients::clients`].
    pub fn open(file: AuthorizedClients) -> Result<Self, TrustError> {
        let trust = Self { file, state: Arc::default(), reading: Arc::default(), mark: None };
        trust.reload()?;
        Ok(trust)
    }

    /// As [`open`](Self::open); a file at `mark` records that there is a list, as soon as there is;
    /// from then on a missing list lets in nobody unless `allow_anyone`.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`TrustError::AuthorizedClientsGone`].
    pub fn open_marked(
        file: AuthorizedClients,
        mark: &Path,
        allow_anyone: bool,
    ) -> Result<Self, TrustError> {
        let marked = mark.try_exists().map_err(failed("look for", mark))?;
        let path = file.path().to_owned();
        let mark = Some(mark.into());
        let trust = Self { file, state: Arc::default(), reading: Arc::default(), mark };
        trust.reload()?;
        if marked && !allow_anyone && !trust.is_restricted() {
            return Err(TrustError::AuthorizedClientsGone(path));
        }
        Ok(trust)
    }

    /// Reads the file again; returns how many clients it lists, `None` as long as there is no file.
    ///
    /// # Errors
    /// As [`AuthorizedClients::clients`], and if the file is gone. The previous reading then stays
    /// in force.
    pub fn reload(&self) -> Result<Option<usize>, TrustError> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Reading { stamp, text, clients: listed }) = self.file.read_clients()? else {
            // Letting everybody in because a file is missing would be the worst mistake.
            let path = self.file.path().to_owned();
            let gone = self.is_restricted();
            return if gone { Err(TrustError::AuthorizedClientsGone(path)) } else { Ok(None) };
        };
        if !self.is_restricted() {
            self.remember();
        }
        let mut state = self.state();
        let before = state.clients.take().unwrap_or_default();
        let clients: BTreeMap<_, _> = listed
            .into_iter()
            .map(|client| {
                let mut permit = Permit::new(client.grant).with_comment(&client.comment);
                // Its open streams go on counting.
                if let Some(old) = before.get(&client.key) {
                    permit.streams = old.streams.clone();
                }
                (client.key, permit)
            })
            .collect();
        let count = clients.len();
        *state = State { stamp, text, told: None, clients: Some(clients) };
        Ok(Some(count))
    }

    /// Remembers that there is a list, for the day it goes missing.
    fn remember(&self) {
        let Some(mark) = &self.mark else { return };
        if mark.exists() {
            return;
        }
        const WHY: &str = "There has been a list of clients: without one the server does not start any more, but with \
                           --allow-anyone.\n";
        if let Err(error) = files::replace(mark, WHY.as_bytes()) {
            tracing::warn!(%error, "should the list of clients get lost, this server would start without one");
        }
    }

    /// Whether only listed clients are let in.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.state().clients.is_some()
    }

    /// Reads the file if it has changed.
    fn refresh(&self) {
        let stamp = self.file.stamp();
        let before = {
            let state = self.state();
            let nothing_yet = stamp.is_none() && state.clients.is_none();
            if nothing_yet || (stamp.is_some() && stamp == state.stamp) {
                return;
            }
            state.clients.is_some().then(|| state.text.clone())
        };
        match self.reload() {
            Ok(Some(clients)) if before.as_ref() != Some(&self.state().text) => {
                tracing::info!(clients, "authorised clients read");
            }
            Ok(_) => {}
            Err(error) => {
                // Reported once per version of the file.
                let mut state = self.state();
                state.stamp = stamp.filter(|stamp| stamp.is_settled(authorized_clients::now()));
                let before = state.told.replace(stamp);
                drop(state);
                if before != Some(stamp) {
                    tracing::error!(%error, "the authorised clients stay as they were");
                }
            }
        }
    }

    /// Accepts an invitation, if there is one, and reads the file if it may have changed.
    fn refresh_for(&self, client: Option<Fingerprint>, invitation: Option<&InvitationSecret>) {
        if let (Some(client), Some(secret)) = (client, invitation) {
            match self.file.redeem(secret, client) {
                Ok(true) => tracing::info!(%client, "invitation accepted: client authorised"),
                Ok(false) => tracing::info!(%client, "no such invitation, or it is over"),
                Err(error) => tracing::error!(%client, %error, "an invitation cannot be accepted"),
            }
        }
        self.refresh();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ClientTrust for AuthorizedClientsTrust {
    async fn admit(
        &self,
        client: Option<Fingerprint>,
        invitation: Option<&InvitationSecret>,
    ) -> Option<Permit> {
        // On a thread where waiting for a disk or a lock holds up nobody.
        let (this, invitation) = (self.clone(), invitation.cloned());
        tokio::task::spawn_blocking(move || this.refresh_for(client, invitation.as_ref()))
            .await
            .ok()?;
        self.permit(client)
    }

    async fn notice_changes(&self) {
        let this = self.clone();
        // An error means that the runtime is ending.
        let _ = tokio::task::spawn_blocking(move || this.refresh()).await;
    }

    fn permit(&self, client: Option<Fingerprint>) -> Option<Permit> {
        let state = self.state();
        let Some(clients) = &state.clients else { return Some(Permit::fixed_destination()) };
        let permit = clients.get(&client?)?.clone();
        (!permit.is_over(authorized_clients::now())).then_some(permit)
    }
}

impl fmt::Debug for AuthorizedClientsTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizedClientsTrust").field("file", &self.file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
