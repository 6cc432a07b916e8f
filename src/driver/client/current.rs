//! The client's current session, and when it has none any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::driver::greeting::Agreed;
use crate::driver::session::Session;
use crate::driver::shared::Shared;
use crate::proto::{Code, LaneId, SessionError};

/// A session that lanes may join.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) session: Session,
    pub(super) agreed: Agreed,
    next_lane: AtomicU64,
}

impl Established {
    /// A session with its first lane.
    pub(super) fn new(session: Session, agreed: Agreed) -> Self {
        let next_lane = AtomicU64::new(LaneId::FIRST.next().number());
        Self { session, agreed, next_lane }
    }

    /// A number for one more lane.
    pub(super) fn number_lane(&self) -> LaneId {
        LaneId::new(self.next_lane.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether it is this session's.
    pub(super) fn is(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(self.session.shared(), shared)
    }
}

/// The current session; whoever waits for one subscribes.
#[derive(Debug)]
pub(super) struct CurrentSession(watch::Sender<Option<Arc<Established>>>);

impl CurrentSession {
    pub(super) fn none() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Arc<Established>>> {
        self.0.subscribe()
    }

    pub(super) fn set(&self, established: Option<Established>) {
        self.0.send_replace(established.map(Arc::new));
    }

    /// The current session, unless it is over.
    pub(super) fn living(&self) -> Option<Arc<Established>> {
        let established = self.0.borrow().clone()?;
        if established.session.shared().peek(|state| state.over.is_some()) {
            self.forget(established.session.shared());
            return None;
        }
        Some(established)
    }

    /// The server does not know the session. If no other lane says otherwise, it is over.
    pub(super) fn disowned(&self, shared: &Arc<Shared>, code: Code) {
        tracing::debug!(%code, "the server does not know the session");
        let over = shared.with(|state, _| {
            if !state.lanes.values().any(|lane| lane.proven) {
                state.core.close(code);
            }
            state.core.is_closed()
        });
        if over {
            self.forget(shared);
        }
    }

    /// The session is over: the next lane creates another.
    pub(super) fn forget(&self, shared: &Arc<Shared>) {
        self.0.send_if_modified(|current| {
            let same = current.as_ref().is_some_and(|it| it.is(shared));
            if same {
                match shared.peek(|state| state.over.clone()) {
                    // In order, or at our request: nobody wanted more of it.
                    Some(
                        why @ (SessionError::Closed(Code::NONE | Code::SHUTDOWN)
                        | SessionError::ClosedByPeer { code: Code::NONE, .. }),
                    ) => tracing::info!(%why, "session over"),
                    Some(why) => tracing::warn!(%why, "session over; open streams are cut off"),
                    None => {}
                }
                *current = None;
            }
            same
        });
    }
}
