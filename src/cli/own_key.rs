//! The key that a client shows.

use std::io;
use std::path::Path;

use imux::trust::{Fingerprint, Identity, TrustError};

use super::exit::Failure;
use super::trust::trust_failure;

/// The name of a client's key in the directory of keys.
pub(super) const CLIENT: &str = "client";

/// The key a client shows.
pub(super) struct OwnKey {
    pub(super) identity: Identity,
    /// Whether it will show the same key after a restart.
    pub(super) is_kept: bool,
}

impl OwnKey {
    /// The key in `home`. If there is none and none can be made, one in memory, with a notice: that
    /// suffices for servers that let in anybody.
    pub(super) fn of_client(home: Option<&Path>) -> Result<Self, Failure> {
        let why = match home {
            None => "neither IMUX_HOME nor a home directory is set".to_owned(),
            Some(home) => match Identity::load_or_create(home, CLIENT) {
                Ok(identity) => return Ok(Self { identity, is_kept: true }),
                Err(error) if is_no_place(&error) && !is_there(home, CLIENT) => error.to_string(),
                Err(error) => return Err(trust_failure(&error)),
            },
        };
        let identity = Identity::generate().map_err(|error| trust_failure(&error))?;
        tracing::warn!(
            key = %identity.fingerprint(),
            "this client's key is in memory only, and another at each start: {why}"
        );
        Ok(Self { identity, is_kept: false })
    }

    /// The key, if a server's owner can authorise it for good.
    pub(super) fn lasting(&self) -> Option<Fingerprint> {
        self.is_kept.then(|| self.identity.fingerprint())
    }
}

/// Whether the error says that no file can be kept there, now or later. A full disk is another
/// matter.
fn is_no_place(error: &TrustError) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    let TrustError::File { source, .. } = error else { return false };
    matches!(source.kind(), NotADirectory | NotFound | PermissionDenied | ReadOnlyFilesystem)
}

/// Whether one of the identity `name`'s files exists; one that cannot be looked for does not.
fn is_there(home: &Path, name: &str) -> bool {
    ["key", "crt"].iter().any(|kind| home.join(format!("{name}.{kind}")).exists())
}
