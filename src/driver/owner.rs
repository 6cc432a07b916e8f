//! Who owns a session, and who counts as one.

use super::door::Source;
use crate::trust::Fingerprint;

/// Who owns a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The key its client has proven to hold, if it showed one.
    pub(super) client: Option<Fingerprint>,
    /// Where its first lane came from.
    pub(super) source: Source,
    /// The client is admitted for its key, not because everybody is.
    pub(super) listed: bool,
}

/// Who counts as one. A key costs a stranger nothing; an address does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    Source(Source),
    Key(Fingerprint),
}

impl Owner {
    pub(super) fn holder(&self) -> Holder {
        match self.client {
            Some(key) if self.listed => Holder::Key(key),
            _ => Holder::Source(self.source),
        }
    }
}
