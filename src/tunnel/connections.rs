//! Bounds on forwarded connections: of all clients together, and of each.
//!
//! Each takes a descriptor, and lanes and files must not go without. One client gets at most half
//! of what the others leave, so that there is always something left for the next.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::dialers::Dialing;
use super::flows::Flows;
use super::places::Places;
use super::socket::SocketOptions;
use crate::net;
use crate::trust::{Destinations, Fingerprint};

mod client_id;

pub(super) use client_id::ClientId;

/// How often to report that connections were refused.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Threads for names that clients choose: as many look-ups at once as a busy server has, and no
/// harm if a name server stalls them all.
pub(super) const LOOK_UP_THREADS: usize = 64;

/// Threads in which names are looked up for one client.
const CLIENT_LOOK_UP_THREADS: usize = LOOK_UP_THREADS / 4;

/// A bound on the connections that [`forward_within`](super::forward_within) and
/// [`serve_within`](super::serve_within) have open at once. Clones share it.
#[derive(Clone, Debug)]
pub struct Connections {
    max: usize,
    sockets: SocketOptions,
    dialing: Arc<Dialing>,
    places: Places,
    listen_for_strangers: Option<Arc<Destinations>>,
    flows: Flows,
    /// Whether no more are taken with this clone.
    end: Option<watch::Receiver<bool>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    clients: BTreeMap<ClientId, Weak<Client>>,
    anonymous: u64,
    told: Option<Instant>,
}

/// One client, in all of its sessions.
#[derive(Debug)]
pub(super) struct Client {
    id: ClientId,
    connections: Connections,
    /// Changed under the lock of `connections` alone.
    open: Mutex<usize>,
    pub(super) look_ups: net::Share,
    /// Of those who send datagrams where the server listens for it.
    pub(super) flows: Flows,
}

/// One connection's place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    client: Option<Arc<Client>>,
}

impl Connections {
    /// The process's own, for callers that set no bound: as many as there are descriptors for.
    pub(super) fn unbounded() -> &'static Self {
        static UNBOUNDED: LazyLock<Connections> =
            LazyLock::new(|| Connections::at_most(usize::MAX));
        &UNBOUNDED
    }

    /// At most this many at once, at least one; and of one client at most half of what the others
    /// have not taken.
    #[must_use]
    pub fn at_most(max: usize) -> Self {
        let sockets = SocketOptions::default();
        Self {
            max: max.max(1),
            sockets,
            dialing: Arc::default(),
            places: Places::default(),
            listen_for_strangers: None,
            flows: Flows::default(),
            end: None,
            state: Arc::default(),
        }
    }

    /// The same, with these options for their sockets.
    #[must_use]
    pub fn with_sockets(self, sockets: SocketOptions) -> Self {
        Self { sockets, ..self }
    }

    /// The same, with destinations dialled like this.
    #[must_use]
    pub fn with_dialing(self, dialing: Dialing) -> Self {
        Self { dialing: Arc::new(dialing), ..self }
    }

    /// The same, and unknown clients may have the server listen there.
    #[must_use]
    pub fn with_listening(self, strangers: Destinations) -> Self {
        Self { listen_for_strangers: Some(Arc::new(strangers)), ..self }
    }

    /// The same: whoever takes connections within it stops as soon as `end` is true, as if the
    /// client were drained. Connections that are open go on.
    #[must_use]
    pub fn until(self, end: watch::Receiver<bool>) -> Self {
        Self { end: Some(end), ..self }
    }

    /// Waits until no more are to be taken. Cancel safe.
    pub(super) async fn ended(&self) {
        let ended = match &self.end {
            Some(end) => end.clone().wait_for(|end| *end).await.is_ok(),
            None => false,
        };
        if !ended {
            std::future::pending::<()>().await;
        }
    }

    /// The options of their sockets.
    pub(super) fn sockets(&self) -> &SocketOptions {
        &self.sockets
    }

    /// The flows of those who send datagrams here.
    pub(super) fn flows(&self) -> &Flows {
        &self.flows
    }

    /// How many one client may have while it is the only one.
    #[must_use]
    pub fn of_one_client(&self) -> usize {
        Self::share(self.max)
    }

    /// Half of what is free, but at least one.
    fn share(free: usize) -> usize {
        if free == usize::MAX { free } else { (free / 2).max(1) }
    }

    /// The client with this key.
    pub(super) fn client(&self, key: Option<Fingerprint>) -> Arc<Client> {
        let mut state = self.lock();
        let id = match key {
            Some(key) => ClientId::Key(key),
            None => {
                state.anonymous += 1;
                ClientId::Session(state.anonymous)
            }
        };
        if let Some(client) = state.clients.get(&id).and_then(Weak::upgrade) {
            return client;
        }
        let client = Arc::new(Client {
            id,
            connections: self.clone(),
            open: Mutex::default(),
            look_ups: net::Share::of(CLIENT_LOOK_UP_THREADS),
            flows: Flows::default(),
        });
        state.clients.insert(id, Arc::downgrade(&client));
        client
    }

    /// A place for one more connection, whoever it is for.
    pub(super) fn enter(&self) -> Option<Place> {
        let mut state = self.lock();
        (state.open < self.max).then(|| {
            state.open += 1;
            Place { connections: self.clone(), client: None }
        })
    }

    /// Reports, now and then, that connections are refused.
    pub(super) fn tell_full(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            return;
        }
        state.told = Some(now);
        let open = state.open;
        drop(state);
        tracing::warn!(
            open,
            "connections are refused: there are as many as the descriptors allow, of one client or of all \
             together (ulimit -n)"
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// The options of its connections' sockets.
    pub(super) fn sockets(&self) -> &SocketOptions {
        self.connections.sockets()
    }

    /// Who it is.
    pub(super) fn id(&self) -> ClientId {
        self.id
    }

    /// Where the server listens for clients.
    pub(super) fn places(&self) -> &Places {
        &self.connections.places
    }

    /// Where the server may listen for unknown clients.
    pub(super) fn listen_for_strangers(&self) -> Option<&Destinations> {
        self.connections.listen_for_strangers.as_deref()
    }

    /// How its destinations are dialled.
    pub(super) fn dialing(&self) -> &Dialing {
        &self.connections.dialing
    }

    /// A place for one more connection of this client.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.connections.lock();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let max = self.connections.max;
        let left_by_others = max - (state.open - *open).min(max);
        if state.open >= max || *open >= Connections::share(left_by_others) {
            return None;
        }
        state.open += 1;
        *open += 1;
        Some(Place { connections: self.connections.clone(), client: Some(self.clone()) })
    }

    pub(super) fn tell_full(&self) {
        self.connections.tell_full();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let mut state = self.connections.lock();
        // Another session of it may have come meanwhile.
        if state.clients.get(&self.id).is_some_and(|client| client.strong_count() == 0) {
            state.clients.remove(&self.id);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.connections.lock();
        state.open -= 1;
        if let Some(client) = &self.client {
            *client.open.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        }
        // Unlocked before the field is dropped: the client, if this was the last of it, takes the
        // lock as well.
        drop(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Option<Fingerprint> {
        Some(Fingerprint::from_bytes([number; 32]))
    }

    fn fill(client: &Arc<Client>) -> Vec<Place> {
        std::iter::from_fn(|| client.enter()).collect()
    }

    #[test]
    fn one_client_gets_half_of_what_the_others_leave() {
        let connections = Connections::at_most(100);
        assert_eq!(connections.of_one_client(), 50);
        let clients: Vec<_> = (0..4).map(|number| connections.client(key(number))).collect();
        let mut places: Vec<_> = clients.iter().map(fill).collect();
        let taken: Vec<_> = places.iter().map(Vec::len).collect();
        assert_eq!(taken, [50, 25, 12, 6]);
        // Another session of the same key is the same client.
        assert!(connections.client(key(0)).enter().is_none());
        assert_eq!(fill(&connections.client(None)).len(), 3);
        places.clear();
        assert_eq!(fill(&clients[3]).len(), 50);
    }

    #[test]
    fn there_is_always_something_for_one_and_never_more_than_all() {
        let connections = Connections::at_most(1);
        let (one, other) = (connections.client(key(1)), connections.client(key(2)));
        let place = one.enter().unwrap();
        assert!(other.enter().is_none() && connections.enter().is_none());
        drop(place);
        assert!(other.enter().is_some());
        let all = Connections::at_most(3);
        let places: Vec<_> = std::iter::from_fn(|| all.enter()).collect();
        assert_eq!(places.len(), 3);
        let unbounded = Connections::unbounded().client(key(1));
        let places: Vec<_> = (0..10_000).map_while(|_| unbounded.enter()).collect();
        assert_eq!(places.len(), 10_000);
    }

    #[test]
    fn clients_that_have_gone_are_forgotten() {
        let connections = Connections::at_most(10);
        let client = connections.client(key(1));
        let place = client.enter();
        drop(client);
        assert_eq!(connections.lock().clients.len(), 1, "its connection goes on counting");
        drop(place);
        assert!(connections.lock().clients.is_empty());
    }
}
