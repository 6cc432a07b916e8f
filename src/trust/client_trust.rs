//! The decision which clients a server lets in, and what each may do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;

use super::authorized_clients::{self, Stamp};
use super::{AuthorizedClients, Destinations, Fingerprint, Grant, InvitationSecret, TrustError};

/// Decides which clients a server lets in, and what each may do.
#[async_trait]
pub trait ClientTrust: Send + Sync {
    /// Asked when a client creates a session; `None` turns it away. `client` is the key it has proven
    /// to hold, if it showed one; `invitation` what it showed besides.
    async fn admit(
        &self,
        client: Option<Fingerprint>,
        invitation: Option<&InvitationSecret>,
    ) -> Option<Permit>;

    /// Asked again at each stream's opening, and now and then: what the client may do now. `None`
    /// ends its session. Must not block.
    fn permit(&self, client: Option<Fingerprint>) -> Option<Permit>;
}

/// What a client may do. Clones share the count of its streams.
#[derive(Debug, Clone, Default)]
pub struct Permit {
    listed: bool,
    destinations: Option<Arc<Destinations>>,
    streams_max: Option<u32>,
    expires: Option<SystemTime>,
    streams: Arc<AtomicU32>,
}

impl Permit {
    /// Connections to the server's one destination, and to no other; as many as the client likes.
    #[must_use]
    pub fn fixed_destination() -> Self {
        Self::default()
    }

    /// What `grant` grants.
    #[must_use]
    pub fn new(grant: Grant) -> Self {
        let Grant { destinations, streams_max, expires } = grant;
        let destinations =
            (!destinations.is_empty()).then(|| Arc::new(Destinations::new(destinations)));
        Self { listed: true, destinations, streams_max, expires, streams: Arc::default() }
    }

    /// Whether something was granted to the client in particular. Otherwise it is a stranger, let in because
    /// everybody is: where room runs short, strangers have to do without first.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Where the client may choose to go; `None` if it goes to the server's one destination.
    #[must_use]
    pub fn destinations(&self) -> Option<&Destinations> {
        self.destinations.as_deref()
    }

    /// A place for one more stream, or `None` if the client has as many as it may. It is given back
    /// when dropped.
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

/// A stream's place among those its client may have.
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

/// Lets those in whom the file of authorised clients lists; everybody, as [`AnyClient`] does, as
/// long as there has been no such file.
///
/// The file is read at the beginning, at [`reload`](Self::reload), and when a client comes whom it
/// did not list and it has changed since: whoever is added need not wait. What is read counts for
/// sessions that exist, too.
#[derive(Clone)]
pub struct AuthorizedClientsTrust {
    file: AuthorizedClients,
    state: Arc<Mutex<State>>,
    /// Held while the file is read: of two readings the later is to count, and nobody else waits.
    reading: Arc<Mutex<()>>,
}

#[derive(Default)]
struct State {
    /// What was read last, or could not be.
    stamp: Option<Stamp>,
    /// `None` until there is a file.
    clients: Option<BTreeMap<Fingerprint, Permit>>,
}

impl AuthorizedClientsTrust {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// As [`AuthorizedClients::clients`].
    pub fn open(file: AuthorizedClients) -> Result<Self, TrustError> {
        let trust = Self { file, state: Arc::default(), reading: Arc::default() };
        trust.reload()?;
        Ok(trust)
    }

    /// Reads the file again; returns how many clients it lists, `None` as long as there is none.
    ///
    /// # Errors
    /// As [`AuthorizedClients::clients`], and where the file has gone. What was read before goes on
    /// to count.
    pub fn reload(&self) -> Result<Option<usize>, TrustError> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((stamp, listed)) = self.file.read_clients()? else {
            // To let everybody in because a file is missing would be the worst of mistakes.
            let path = self.file.path().to_owned();
            let gone = self.is_restricted();
            return if gone { Err(TrustError::AuthorizedClientsGone(path)) } else { Ok(None) };
        };
        let mut state = self.state();
        let before = state.clients.take().unwrap_or_default();
        let clients: BTreeMap<_, _> = listed
            .into_iter()
            .map(|client| {
                let mut permit = Permit::new(client.grant);
                // The streams it has open go on counting.
                if let Some(old) = before.get(&client.key) {
                    permit.streams = old.streams.clone();
                }
                (client.key, permit)
            })
            .collect();
        let count = clients.len();
        *state = State { stamp: Some(stamp), clients: Some(clients) };
        Ok(Some(count))
    }

    /// Whether clients have to be listed to be let in.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.state().clients.is_some()
    }

    /// Reads the file if it is another than before.
    fn refresh(&self) {
        let stamp = self.file.stamp();
        if stamp.is_none() || stamp == self.state().stamp {
            return;
        }
        match self.reload() {
            Ok(clients) => {
                tracing::info!(clients = clients.unwrap_or_default(), "authorised clients read");
            }
            Err(error) => {
                // Told once for each version of the file.
                self.state().stamp = stamp;
                tracing::error!(%error, "the authorised clients stay as they were");
            }
        }
    }

    /// Accepts an invitation, if it is one, and reads the file where it may have changed.
    fn look_again(&self, client: Option<Fingerprint>, invitation: Option<&InvitationSecret>) {
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
        let known = self.is_restricted().then(|| self.permit(client)).flatten();
        if invitation.is_none() && known.is_some() {
            return known;
        }
        // On a thread where waiting for a disk or a lock stops nobody.
        let (this, invitation) = (self.clone(), invitation.cloned());
        let looking =
            tokio::task::spawn_blocking(move || this.look_again(client, invitation.as_ref()));
        looking.await.ok()?;
        self.permit(client)
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
