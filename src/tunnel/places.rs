//! The places where a server listens for its clients, and who holds each.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::connections::ClientId;
use super::takers::listener::Listener;
use crate::driver::{Code, Kept, LISTENERS_MAX, LISTENERS_PER_CLIENT_MAX, Session};

/// Most refusals remembered as reported; beyond that, it starts afresh.
const TOLD_MAX: usize = 1_024;

/// All places of one server. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    held: BTreeMap<String, Held>,
    /// Refusals that were reported: whose, of which place, and why.
    told: BTreeSet<(ClientId, String, Code)>,
}

#[derive(Debug)]
struct Held {
    client: ClientId,
    session: Session,
    listeners: Arc<[Listener]>,
    /// Which of its successive holders has it now.
    turn: watch::Sender<u64>,
}

/// Why a place was not granted.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotHad {
    #[error("another client, or another session of this one, has it")]
    InUse,
    #[error("this client has as many as it may, or all clients together have")]
    TooMany,
    #[error(transparent)]
    Bind(#[from] io::Error),
}

impl Places {
    /// Takes a place for a client's session; `bind` listens there, and says what it is called, with
    /// the port that was chosen if that was left open. If an earlier session of the
    /// same key holds it and none of its lanes answers any more, the place is taken over from it,
    /// with the connections that wait there to be accepted.
    pub(super) fn take(
        &self,
        place: &str,
        client: ClientId,
        session: &Session,
        bind: impl FnOnce() -> io::Result<(Vec<Listener>, String)>,
    ) -> Result<Hold, NotHad> {
        // Dropped once the lock is released.
        let mut before = None;
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        let mut name = place.to_owned();
        if let Some(held) = state.held.get_mut(place) {
            let same = held.client == client && matches!(client, ClientId::Key(_));
            if !same || !held.session.is_cut_off() {
                return Err(NotHad::InUse);
            }
            before.replace(std::mem::replace(&mut held.session, session.clone()));
            held.turn.send_replace(number);
        } else {
            let own = state.held.values().filter(|held| held.client == client).count();
            if own >= LISTENERS_PER_CLIENT_MAX || state.held.len() >= LISTENERS_MAX {
                return Err(NotHad::TooMany);
            }
            let (listeners, bound) = bind()?;
            let (listeners, session) = (listeners.into(), session.clone());
            let turn = watch::Sender::new(number);
            name = bound;
            state.held.insert(name.clone(), Held { client, session, listeners, turn });
        }
        state.told.retain(|(whose, told, _)| (*whose, told.as_str()) != (client, place));
        let held = state.held.get(&name).ok_or(NotHad::InUse)?;
        let (listeners, turn) = (held.listeners.clone(), held.turn.subscribe());
        let kept = session.keep();
        drop(state);
        let places = self.clone();
        Ok(Hold { places, place: name, number, listeners, turn, _kept: kept })
    }

    /// Whether this is not reported yet: a refused client asks again and again.
    pub(super) fn is_news(&self, client: ClientId, place: &str, code: Code) -> bool {
        let mut state = self.lock();
        if state.told.len() >= TOLD_MAX {
            state.told.clear();
        }
        state.told.insert((client, place.to_owned(), code))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is held. Given back when dropped, unless another session has taken it over; its
/// session does not give way to others while this lives.
#[derive(Debug)]
pub(super) struct Hold {
    places: Places,
    place: String,
    number: u64,
    listeners: Arc<[Listener]>,
    turn: watch::Receiver<u64>,
    _kept: Kept,
}

impl Hold {
    /// What it is called.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The listeners there.
    pub(super) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Waits until another session has taken it over. Cancel safe.
    pub(super) async fn taken_over(&self) {
        let mut turn = self.turn.clone();
        // Its holder has the sender: this cannot fail before.
        let _ = turn.wait_for(|turn| *turn != self.number).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        let own = state.held.get(&self.place).is_some_and(|it| *it.turn.borrow() == self.number);
        let held = if own { state.held.remove(&self.place) } else { None };
        drop(state);
        drop(held);
    }
}
