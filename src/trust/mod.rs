//! Who the other end is, and what it may do: identity keys, known hosts, authorised clients, and
//! the TLS settings that enforce it all.
//!
//! Certificates are self-signed and mean nothing but the key in them. TLS proves that the peer
//! holds that key (the handshake's signature is verified by rustls); whether it is the *right* key
//! is decided once, on a session's first lane, by a [`HostTrust`] for the client and by a
//! [`ClientTrust`] for the server. Every other lane must show the same key and prove membership
//! with a [`SessionSecret`].

mod authorized_clients;
mod client_trust;
mod destination;
mod error;
mod files;
mod fingerprint;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host_name;
mod host_trust;
mod identity;
mod invitation;
mod known_hosts;
mod next_key;
mod proxy_header;
mod secret;
mod tls;

pub use authorized_clients::{AuthorizedClient, AuthorizedClients, Grant, InvalidComment};
pub use client_trust::{AnyClient, AuthorizedClientsTrust, ClientTrust, Permit, StreamPlace};
pub use destination::{
    Destination, DestinationError, DestinationRule, Destinations, ListenAt, Target,
};
pub use error::TrustError;
pub use fingerprint::{Fingerprint, FingerprintError, PeerIdentity};
pub use host_name::ascii_host_name;
pub use host_trust::{
    Answer, HostKeyPolicy, HostTrust, KnownHostsTrust, PinnedKeys, Prompter, Recognised,
};
pub use identity::Identity;
pub use invitation::{Invitation, InvitationSecret};
pub use known_hosts::{KnownHosts, KnownKey, Malformed, Verdict};
pub use next_key::NextKey;
pub use proxy_header::{ProxyHeader, UnknownProxyHeader};
pub use secret::{LANE_EXPORTER_LABEL, SESSION_EXPORTER_LABEL, SessionSecret};
pub use tls::{ALPN, classical_client_config, client_config, server_config, with_host_trust};
#[cfg(test)]
pub(crate) use tls::{client_config_of, provider};
pub(crate) use tls::{question_config, ruled_out};
