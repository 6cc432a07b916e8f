//! An authorised client, and what it may do.

use std::time::SystemTime;

use crate::trust::{DestinationRule, Fingerprint, ProxyHeader};

/// What a client is granted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// Where it may connect; empty means the server's one destination.
    pub destinations: Vec<DestinationRule>,
    /// Where it may have connections accepted; empty means nowhere.
    pub listen: Vec<DestinationRule>,
    /// How many connections it may have open at once, over all its sessions; no limit if `None`.
    pub streams_max: Option<u32>,
    /// Until when; forever if `None`. Whole seconds.
    pub expires: Option<SystemTime>,
    /// Its destinations are told who connects.
    pub tell_source: Option<ProxyHeader>,
    /// They are told what it says about who connects.
    pub trust_source: bool,
}

/// A client that the file lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizedClient {
    /// Its key.
    pub key: Fingerprint,
    /// What it may do.
    pub grant: Grant,
    /// Who it is, in the words of whoever wrote the line.
    pub comment: String,
}

impl Grant {
    /// Whether its time is up.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// A comment that would be misread, or not read at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be a comment: it needs to be one line of at most 200 printable characters")]
pub struct InvalidComment(pub(super) String);
