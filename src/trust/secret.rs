//! The secret that the lanes of one session share.

use std::fmt;

use aws_lc_rs::hmac;

/// Exporter label of the first lane's keying material, the source of the session secret (RFC 5705).
pub const SESSION_EXPORTER_LABEL: &str = "EXPORTER-imux-1-session";

/// Exporter label of a further lane's keying material, which ties its proof of membership to that
/// lane.
pub const LANE_EXPORTER_LABEL: &str = "EXPORTER-imux-1-lane";

/// A secret that only the two ends of a session's first lane know. Further lanes use it to prove
/// that they belong to the session.
#[derive(Clone)]
pub struct SessionSecret(hmac::Key);

impl SessionSecret {
    /// From the first lane's exporter value, with label [`SESSION_EXPORTER_LABEL`].
    #[must_use]
    pub fn new(exported: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, exported))
    }

    /// HMAC-SHA256 of `message`.
    #[must_use]
    pub fn mac(&self, message: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(hmac::sign(&self.0, message).as_ref());
        out
    }

    /// Whether `mac` is that of `message`; takes the same time either way.
    #[must_use]
    pub fn verify(&self, message: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.0, message, mac).is_ok()
    }
}

impl fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_is_hmac_sha256() {
        // RFC 4231, test case 4 has a 25-byte key; HMAC pads a key with zeroes, so 32 bytes give
        // the same.
        let mut key = [0; 32];
        for (byte, value) in key.iter_mut().zip(1..=25) {
            *byte = value;
        }
        let mac = SessionSecret::new(&key).mac(&[0xcd; 50]);
        assert_eq!(
            crate::trust::fingerprint::hex_encode(&mac),
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"
        );
    }

    #[test]
    fn verify_takes_its_own_mac_only() {
        let secret = SessionSecret::new(&[7; 32]);
        let mac = secret.mac(b"join");
        assert!(secret.verify(b"join", &mac));
        assert!(!secret.verify(b"joim", &mac));
        assert!(!SessionSecret::new(&[8; 32]).verify(b"join", &mac));
        assert!(!secret.verify(b"join", &mac[..31]));
        assert!(!secret.verify(b"join", &[]));
        let mut flipped = mac;
        flipped[31] ^= 1;
        assert!(!secret.verify(b"join", &flipped));
    }

    #[test]
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", SessionSecret::new(&[0x41; 32])), "SessionSecret(..)");
    }
}
