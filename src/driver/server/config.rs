//! A server's settings.

use std::sync::Arc;

use crate::driver::table::SessionLimits;
use crate::proto::Config;
use crate::trust::{AnyClient, ClientTrust};

/// A server's settings.
#[derive(Clone)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Settings of every session.
    pub session: Config,
    /// Decides which clients are let in, and what each may do. By default any client is, and its
    /// streams go to one destination.
    pub clients: Arc<dyn ClientTrust>,
    /// How many sessions there may be.
    pub sessions: SessionLimits,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            session: Config::default(),
            clients: Arc::new(AnyClient),
            sessions: SessionLimits::default(),
        }
    }
}

impl ServerConfig {
    /// Sets [`session`](Self#structfield.session). [`Server::start`](super::Server::start) checks
    /// it.
    #[must_use]
    pub fn with_session(self, session: Config) -> Self {
        Self { session, ..self }
    }

    /// Sets [`clients`](Self#structfield.clients).
    #[must_use]
    pub fn with_clients(self, clients: Arc<dyn ClientTrust>) -> Self {
        Self { clients, ..self }
    }

    /// Sets [`sessions`](Self#structfield.sessions).
    #[must_use]
    pub fn with_sessions(self, sessions: SessionLimits) -> Self {
        Self { sessions, ..self }
    }
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig").field("session", &self.session).finish_non_exhaustive()
    }
}
