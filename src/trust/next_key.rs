//! The key a server will have later, and the proof that it holds it.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::fingerprint::ED25519_SPKI_PREFIX;
use super::{Fingerprint, Identity, SessionSecret, TrustError};

/// A signature covers this and a value that only the two ends of one session can compute.
const LABEL: &[u8; 22] = b"imux/1 next server key";

const KEY_LEN: usize = 32;
const SIGNATURE_LEN: usize = 64;

/// The key a server will have later: an Ed25519 key.
#[derive(Debug)]
pub struct NextKey {
    key: Ed25519KeyPair,
}

impl NextKey {
    /// The key of `identity`.
    ///
    /// # Errors
    /// [`TrustError::Tls`] if it is not an Ed25519 key.
    pub fn new(identity: &Identity) -> Result<Self, TrustError> {
        let der = identity.private_key();
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_der());
        let no = |_| TrustError::Tls(rustls::Error::General("not an Ed25519 key".to_owned()));
        Ok(Self { key: key.map_err(no)? })
    }

    /// Its fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(self.key.public_key().as_ref())
    }

    /// The key and its signature, for this session only: a server cannot announce a key it does not
    /// hold, and nobody can replay an announcement.
    #[must_use]
    pub fn announcement(&self, session: &SessionSecret) -> [u8; KEY_LEN + SIGNATURE_LEN] {
        let mut out = [0; KEY_LEN + SIGNATURE_LEN];
        let (key, signature) = out.split_at_mut(KEY_LEN);
        key.copy_from_slice(self.key.public_key().as_ref());
        signature.copy_from_slice(self.key.sign(&message(session)).as_ref());
        out
    }

    /// The fingerprint of the announced key, if whoever announced it for this session holds it.
    #[must_use]
    pub fn verify(announcement: &[u8], session: &SessionSecret) -> Option<Fingerprint> {
        let (key, signature) = announcement.split_at_checked(KEY_LEN)?;
        let verified = UnparsedPublicKey::new(&ED25519, key).verify(&message(session), signature);
        verified.ok().map(|()| fingerprint(key))
    }
}

fn message(session: &SessionSecret) -> [u8; LABEL.len() + 32] {
    let mut message = [0; LABEL.len() + 32];
    let (label, bound) = message.split_at_mut(LABEL.len());
    label.copy_from_slice(LABEL);
    bound.copy_from_slice(&session.mac(LABEL));
    message
}

fn fingerprint(key: &[u8]) -> Fingerprint {
    Fingerprint::of_public_key(&[&ED25519_SPKI_PREFIX, key].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_for_its_session_and_by_its_key() {
        let identity = Identity::generate().unwrap();
        let next = NextKey::new(&identity).unwrap();
        assert_eq!(next.fingerprint(), identity.fingerprint());
        let session = SessionSecret::new(&[7; 32]);
        let announcement = next.announcement(&session);
        assert_eq!(NextKey::verify(&announcement, &session), Some(identity.fingerprint()));
        assert_eq!(NextKey::verify(&announcement, &SessionSecret::new(&[8; 32])), None);
        for length in [0, 31, 32, 95] {
            assert_eq!(NextKey::verify(&announcement[..length], &session), None);
        }
        for index in 0..announcement.len() {
            let mut forged = announcement;
            forged[index] ^= 1;
            assert_eq!(NextKey::verify(&forged, &session), None, "byte {index}");
        }
        // Another's key with one's own signature.
        let other = NextKey::new(&Identity::generate().unwrap()).unwrap();
        let mut stolen = other.announcement(&session);
        stolen[..KEY_LEN].copy_from_slice(&announcement[..KEY_LEN]);
        assert_eq!(NextKey::verify(&stolen, &session), None);
    }
}
