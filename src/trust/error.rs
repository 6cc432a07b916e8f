//! Why a peer is not trusted, or our own identity cannot be used.

use std::io;
use std::path::PathBuf;

use super::{Fingerprint, InvalidComment, KnownKey};

/// Why a peer is not trusted, or our own identity cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried: "read", "create", ….
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read a private key.
    #[error(
        "the private key {} may be read or written by others (mode {mode:04o}) and is not used; \
         if nobody has copied it, run: chmod 600 '{}'", path.display(), path.display()
    )]
    LoosePermissions {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// One of an identity's two files is missing: a new key would change the identity that others
    /// know.
    #[error(
        "{} is there but {} is missing; restore it, or remove the first to have a new identity made \
         (whoever knows the old one will be warned)", present.display(), missing.display()
    )]
    HalfIdentity {
        /// The existing file.
        present: PathBuf,
        /// The missing file.
        missing: PathBuf,
    },
    /// A key or certificate file holds something else.
    #[error("{} holds no usable {what}: {reason}", path.display())]
    InvalidIdentity {
        /// The file.
        path: PathBuf,
        /// "certificate" or "private key".
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The name of an identity cannot be a file's name.
    #[error("{0:?} cannot name a key file")]
    InvalidName(String),
    /// The known hosts' line about this host cannot be read: guessing could mean trusting a
    /// stranger.
    #[error("{}, line {line}: the key of {host} cannot be read; correct or remove that line", path.display())]
    MalformedKnownHost {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The host.
        host: String,
    },
    /// The host's name cannot be written to the known hosts.
    #[error("{0:?} cannot be a line of the known hosts")]
    InvalidHost(String),
    /// The key of a host is not known, and nobody can be asked.
    #[error("the key of {host} is not known: {presented}")]
    UnknownHost {
        /// The host.
        host: String,
        /// The key it presents.
        presented: Fingerprint,
    },
    /// The person who was asked said no.
    #[error("the key of {host} was not accepted: {presented}")]
    Refused {
        /// The host.
        host: String,
        /// The key it presents.
        presented: Fingerprint,
    },
    /// Nobody could be asked.
    #[error("cannot ask about the key of {host}: {source}")]
    Prompt {
        /// The host.
        host: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The host presents a different key than before.
    #[error(
        "the key of {host} has changed: known is {known}, it presents {presented}; \
         either it has a new key, or somebody is in between"
    )]
    Changed {
        /// The host.
        host: String,
        /// What is known of it.
        known: KnownKey,
        /// The key it presents.
        presented: Fingerprint,
    },
    /// The server presents none of the pinned keys.
    #[error("the server presents the key {presented}, which is none of the pinned ones")]
    PinMismatch {
        /// The key it presents.
        presented: Fingerprint,
    },
    /// A line of the authorised clients cannot be understood: ignoring it could let in or lock out
    /// its subject.
    #[error("{}, line {line}: {reason}; correct or remove that line", path.display())]
    MalformedAuthorizedClients {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that decides about trust, or a directory above it, belongs to somebody else.
    #[error(
        "{} belongs to another user (uid {owner}) and is not used, nor is what is in it; look through it, then make it \
         yours: chown, or copy it", path.display()
    )]
    AnothersFile {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Others may write such a file, or a directory above it, and so could let anybody in.
    #[error(
        "{} may be written by others (mode {mode:04o}) and is not used, nor is what is in it; look through it, then run: \
         chmod go-w '{}'", path.display(), path.display()
    )]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The list of authorised clients existed and is gone.
    #[error(
        "{} has gone, and the server has had a list of clients: put it back, make an empty one, which lets nobody in, or \
         start the server with --allow-anyone", .0.display()
    )]
    AuthorizedClientsGone(PathBuf),
    /// A comment cannot be written.
    #[error(transparent)]
    InvalidComment(#[from] InvalidComment),
    /// Text that is not an invitation. It is not repeated, as it may hold a secret.
    #[error("this is no invitation: {0}")]
    InvalidInvitation(&'static str),
    /// The system has no random numbers to give.
    #[error("the system has no random numbers")]
    NoRandomness,
    /// Servers reject a client's key of this kind.
    #[error(
        "the client's own key {0} is none of Ed25519, and servers take no other; move client.key and client.crt away to \
         have one made, and have that authorised"
    )]
    ClientKey(Fingerprint),
    /// rustls rejects the identity.
    #[error("TLS does not accept the identity: {0}")]
    Tls(rustls::Error),
    /// A key could not be generated.
    #[error("cannot generate a key: {0}")]
    Generate(rcgen::Error),
}
