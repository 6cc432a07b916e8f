//! Who is counted as one client.

use crate::trust::Fingerprint;

/// One client, in all sessions of its.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::tunnel) enum ClientId {
    Key(Fingerprint),
    /// A client without a key: each of its sessions is one.
    Session(u64),
}
