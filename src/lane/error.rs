//! Why a lane could not be dialled.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::BindSource;
use crate::trust::PeerIdentity;

/// Why there is no lane. Each says what was tried; none is final, since links and names come and
/// go.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// `host:port` is not of that form.
    #[error("{0:?} is not an address of the form host:port ({1})")]
    InvalidAddress(String, &'static str),
    /// The server's key was ruled out in the handshake, before anything of ours was shown.
    #[error("another server answers, with the key {}", presented.fingerprint)]
    KeyRefused {
        /// What it has shown.
        presented: PeerIdentity,
    },
    /// The name has no address, or nobody could be asked.
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
    /// The kernel does not have, or does not allow, the congestion control that was asked for.
    #[error("cannot use congestion control {name:?}: {source}")]
    Congestion {
        /// The name asked for.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A socket option could not be set, or no socket could be made.
    #[error("cannot set up a socket: {0}")]
    Socket(io::Error),
    /// No address took the connection.
    #[error("cannot connect to {host:?} from {bind}: {}", describe_attempts(.attempts))]
    Connect {
        /// The name.
        host: String,
        /// The local address lanes are bound to.
        bind: BindSource,
        /// What came of each address.
        attempts: Vec<(SocketAddr, io::Error)>,
    },
    /// Connected, but no keys were agreed on.
    #[error("no TLS session with {addr}: {source}")]
    Handshake {
        /// Where it was connected to.
        addr: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
    /// Connected, and TLS's first message is not answered, again and again, while a small one is:
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
    /// It took too long, all steps together.
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
