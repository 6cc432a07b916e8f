//! Which sessions count as one client.

use crate::trust::Fingerprint;

/// One client, in all of its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::tunnel) enum ClientId {
    Key(Fingerprint),
    /// A client without a key: each session counts as one.
    Session(u64),
}
