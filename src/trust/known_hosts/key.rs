//! The key in a line of the known hosts.

use std::fmt;

use crate::trust::fingerprint::{Fingerprint, PeerIdentity, hex_decode, hex_encode};

/// What a line says about its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownKey {
    /// Its key.
    Fingerprint(Fingerprint),
    /// SHA-256 of its certificate's signature, as the original imux wrote it.
    LegacySignature([u8; 32]),
}

impl KnownKey {
    pub(super) fn parse(text: &str) -> Option<Self> {
        // A bare hash is the original's; a fingerprint must say what it is.
        if text.starts_with("SHA256:") {
            text.parse().ok().map(Self::Fingerprint)
        } else {
            hex_decode(text).map(Self::LegacySignature)
        }
    }

    pub(super) fn is(&self, peer: &PeerIdentity) -> bool {
        match self {
            Self::Fingerprint(known) => *known == peer.fingerprint,
            Self::LegacySignature(known) => Some(*known) == peer.certificate_signature,
        }
    }
}

impl fmt::Display for KnownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(fingerprint) => write!(f, "{fingerprint}"),
            Self::LegacySignature(hash) => {
                write!(f, "{} (certificate signature)", hex_encode(hash))
            }
        }
    }
}
