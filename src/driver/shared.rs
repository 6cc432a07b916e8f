//! A session behind its lock: visits to it, its timer, and its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::admission::Admission;
use super::budget::{self, Charged};
use super::clock;
use super::state::{State, tell_of_loss};
use crate::proto::{Code, Session, SessionId};

/// How long a session that nobody holds any more may take to deliver what was written.
const LINGER: Duration = Duration::from_secs(30);

/// What lane tasks, streams and handles of one session share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Its name, the same at both ends.
    pub(super) id: SessionId,
    pub(super) begun: Instant,
    /// The client, and the trust that decides about it; on the server's side only.
    pub(super) admission: Option<Admission>,
    /// The timer has to be set earlier, or the session is over.
    rearm: Notify,
}

impl Shared {
    /// A session and its timer, which runs until the session is over.
    pub(super) fn spawn(
        id: SessionId,
        mut core: Session,
        admission: Option<Admission>,
        memory: budget::Reservation,
    ) -> Arc<Self> {
        core.set_allowance(memory.begins());
        let shared = Arc::new(Self {
            state: Mutex::new(State::new(core, memory)),
            id,
            begun: clock::now(),
            admission,
            rearm: Notify::new(),
        });
        shared.ask(|state| {
            if let Some(memory) = &state.memory {
                let session = Arc::downgrade(&shared);
                memory.is_of(session);
            }
        });
        tokio::spawn(run_timer(shared.clone()));
        shared
    }

    /// Does something with the session, then whatever follows from it. The lock is not held while
    /// others are woken.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut State, Instant) -> R) -> R {
        let alarm = Alarm(self);
        let result = self.visit(act);
        std::mem::forget(alarm);
        result
    }

    fn visit<R>(&self, act: impl FnOnce(&mut State, Instant) -> R) -> R {
        let now = clock::now();
        let mut state = self.lock();
        let result = act(&mut state, now);
        let mut wake = Vec::new();
        let overdrawn = state.account(now);
        let earlier = state.settle(now, &mut wake);
        drop(state);
        wake.into_iter().for_each(Waker::wake);
        if let Some(budget) = overdrawn {
            budget.enforce();
        }
        if earlier {
            self.rearm.notify_one();
        }
        result
    }

    /// Asks the session something, and notes who waits for it to change. Nothing follows from that,
    /// and nothing else is checked.
    pub(super) fn ask<R>(&self, question: impl FnOnce(&mut State) -> R) -> R {
        let alarm = Alarm(self);
        let answer = question(&mut self.lock());
        std::mem::forget(alarm);
        answer
    }

    /// Looks at the session without changing it.
    pub(super) fn peek<R>(&self, see: impl FnOnce(&State) -> R) -> R {
        see(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock has ended its task; the others find the session closed.
        self.state.lock().unwrap_or_else(|poisoned: PoisonError<MutexGuard<'_, State>>| {
            let mut state = poisoned.into_inner();
            state.abandon();
            self.state.clear_poison();
            state
        })
    }

    /// Nobody holds the session any more: what was written is delivered, then it ends.
    pub(super) fn release(&self) {
        self.with(|state, now| {
            state.released = now.checked_add(LINGER);
            state.core.drain();
        });
        self.rearm.notify_one();
    }
}

impl Charged for Shared {
    fn stalled(&self, now: Instant) -> Duration {
        self.peek(|state| {
            let memory = state.memory.as_ref().filter(|_| state.core.buffered_bytes() > 0);
            memory.map_or(Duration::ZERO, |memory| memory.stalled(now))
        })
    }

    fn end(&self) {
        self.with(|state, _| state.core.close(Code::EXCESSIVE_LOAD));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The runtime is ending before the session has.
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.over.is_none() {
            tell_of_loss(state.core.undelivered().and(state.dropped));
        }
    }
}

/// Keeps the session open.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.release();
    }
}

/// Goes off when a visit to the session panics: whoever waits there would otherwise wait for ever.
struct Alarm<'a>(&'a Shared);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.visit(|_, _| ());
    }
}

/// Calls the core at the times it asked for.
async fn run_timer(shared: Arc<Shared>) {
    loop {
        let next = shared.with(|state, now| {
            if state.core.poll_timeout().is_some_and(|(at, _)| at <= now) {
                state.core.handle_timeout(now);
            }
            if state.released.is_some_and(|until| until <= now) {
                state.core.close(Code::NONE);
            }
            let next = state.core.poll_timeout().map(|(at, _)| at);
            state.armed = match (next, state.released) {
                (Some(next), Some(until)) => Some(next.min(until)),
                (next, until) => next.or(until),
            };
            // Never a timer in the past: what is due now was just seen to, or waits for a lane.
            let soonest = now + Duration::from_millis(1);
            (!state.core.is_closed()).then(|| state.armed.map(|at| at.max(soonest)))
        });
        let Some(next) = next else { return };
        match next {
            Some(at) => {
                tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = shared.rearm.notified() => {}
                }
            }
            None => shared.rearm.notified().await,
        }
    }
}
