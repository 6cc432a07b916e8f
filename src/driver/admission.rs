//! A session's client, as the server's trust sees it.

use std::fmt;
use std::sync::Arc;

use super::audit::Subject;
use crate::trust::{ClientTrust, Fingerprint, Permit};

/// A session's client, and the trust that decides what it may do.
#[derive(Clone)]
pub(super) struct Admission {
    /// The key it has proven to hold, if it showed one.
    pub(super) client: Option<Fingerprint>,
    pub(super) clients: Arc<dyn ClientTrust>,
    /// The same, for the audit trail.
    pub(super) subject: Subject,
}

impl Admission {
    /// What the client may do now; `None` if it is no longer authorised.
    pub(super) fn permit(&self) -> Option<Permit> {
        self.clients.permit(self.client)
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("client", &self.client).finish_non_exhaustive()
    }
}
