//! Why a lane could not be dialled.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::BindSource;
use crate::trust::PeerIdentity;

/// Why there is no lane. Each says what was tried; none is final, as links and names come and go.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Not of the form `host:port`.
    #[error("{0:?} is not an address of the form host:port ({1})")]
    InvalidAddress(String, &'static str),
    /// The server's key was rejected in the handshake, before we showed anything of ours.
    #[error("another server answers, with the key {}", presented.fingerprint)]
    KeyRefused {
        /// The key it presented.
        presented: PeerIdentity,
    },
    /// The name has no address, or no resolver could be asked.
    #[error("cannot resolve {host:?}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name has addresses, but none of the family of the local address.
    #[error("no address of {host:?} can be reached from {bind}: it has only {addresses:?}")]
    NoAddressOfFamily {
        /// The name.
        host: String,
        /// The local address lanes are bound to.
        bind: BindSource,
        /// The addresses the name has.
        addresses: Vec<SocketAddr>,
    },
    /// The local address or device cannot be used.
    #[error("cannot bind to {bind}: {source}")]
    Bind {
        /// The local address or device.
        bind: BindSource,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel lacks the requested congestion control, or does not allow it.
    #[error("cannot use congestion control {name:?}: {source}")]
    Congestion {
        /// The requested name.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A socket option could not be set, or no socket could be made.
    #[error("cannot set up a socket: {0}")]
    Socket(io::Error),
    /// No address accepted the connection.
    #[error("cannot connect to {host:?} from {bind}: {}", describe_attempts(.attempts))]
    Connect {
        /// The name.
        host: String,
        /// The local address lanes are bound to.
        bind: BindSource,
        /// How each address failed.
        attempts: Vec<(SocketAddr, io::Error)>,
    },
    /// Connected, but the handshake failed.
    #[error("no TLS session with {addr}: {source}")]
    Handshake {
        /// Where it was connected to.
        addr: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
    /// Connected, but TLS's first message repeatedly goes unanswered while a small one is answered:
    /// its size is what stops it.
    #[error(
        "{addr} takes connections, but never answers the first message of TLS, while it answers a \
         smaller one: something on the way stops large ones; as long as that is so, lanes come \
         through with --classical-key-exchange only, and without its protection from quantum \
         computers"
    )]
    LargeHello {
        /// Where it was connected to.
        addr: SocketAddr,
    },
    /// All steps together took too long.
    #[error("cannot connect to {host:?} from {bind} within {after:?}")]
    Timeout {
        /// The name.
        host: String,
        /// The local address lanes are bound to.
        bind: BindSource,
        /// The limit, or how long it took if finding out why took longer.
        after: Duration,
    },
    /// For dialers outside this crate.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

fn describe_attempts(attempts: &[(SocketAddr, io::Error)]) -> String {
    let each: Vec<_> = attempts.iter().map(|(addr, error)| format!("{addr}: {error}")).collect();
    each.join("; ")
}
