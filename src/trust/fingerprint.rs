//! The short name of a public key, and what a peer has shown about itself.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use data_encoding::{BASE64_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use x509_parser::oid_registry::OID_PKCS1_SHA256WITHRSA;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// SHA-256 of a public key (its DER `SubjectPublicKeyInfo`): the same for every certificate with
/// that key.
///
/// Written as OpenSSH writes its own, `SHA256:` and unpadded base64; read in that form or as 64
/// hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Of a DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn of_public_key(spki_der: &[u8]) -> Self {
        Self(sha256(spki_der))
    }

    /// The hash itself.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", base64_encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a key fingerprint: expected SHA256: and 43 characters of base64, or 64 hexadecimal digits"
)]
pub struct FingerprintError(String);

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = match text.strip_prefix("SHA256:") {
            // Some tools pad; the padding means nothing.
            Some(base64) => base64_decode(base64.strip_suffix('=').unwrap_or(base64)),
            None => hex_decode(text),
        };
        bytes.map(Self).ok_or_else(|| FingerprintError(text.to_owned()))
    }
}

/// What the other end of a lane has proven, or shown, about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The key it has proven to hold.
    pub fingerprint: Fingerprint,
    /// SHA-256 of the signature in its certificate, by which the original imux (in Go) knew a
    /// host. Present only if the certificate's own key made that signature, as RSA with
    /// SHA-256: anybody can paste another certificate's signature into their own, and must not
    /// pass for its owner.
    pub certificate_signature: Option<[u8; 32]>,
}

impl PeerIdentity {
    /// Reads the identity out of an end-entity certificate.
    ///
    /// # Errors
    /// Where the certificate cannot be parsed.
    pub fn from_certificate(der: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        // rustls verifies the handshake's signature with the key it finds in the certificate: that
        // key is the identity, and a certificate that another parser reads differently is rejected.
        let spki = ParsedCertificate::try_from(der)?.subject_public_key_info();
        let bad = || rustls::Error::from(rustls::CertificateError::BadEncoding);
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| bad())?;
        if !rest.is_empty() || parsed.subject_pki.raw != spki.as_ref() {
            return Err(bad());
        }
        Ok(Self {
            fingerprint: Fingerprint::of_public_key(&spki),
            certificate_signature: is_self_signed_rsa(&parsed)
                .then(|| sha256(&parsed.signature_value.data)),
        })
    }
}

/// DER of an Ed25519 SubjectPublicKeyInfo up to the key itself (RFC 8410, 4).
pub(super) const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// Whether a certificate's key is Ed25519.
///
/// # Errors
/// Where the certificate cannot be parsed.
pub(super) fn is_of_ed25519(der: &CertificateDer<'_>) -> Result<bool, rustls::Error> {
    let spki = ParsedCertificate::try_from(der)?.subject_public_key_info();
    Ok(spki.starts_with(&ED25519_SPKI_PREFIX))
}

fn is_self_signed_rsa(certificate: &X509Certificate<'_>) -> bool {
    let signature = &certificate.signature_value.data;
    let key = &certificate.subject_pki.subject_public_key.data;
    certificate.signature_algorithm.algorithm == OID_PKCS1_SHA256WITHRSA
        && UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
            .verify(certificate.tbs_certificate.as_ref(), signature)
            .is_ok()
}

pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

pub(super) fn base64_encode(bytes: &[u8; 32]) -> String {
    BASE64_NOPAD.encode(bytes)
}

/// 43 digits to 32 bytes; accepts the URL-safe alphabet too. The two bits left over must be zero:
/// one fingerprint, one text. As it may be a secret, no copy is left behind.
pub(super) fn base64_decode(text: &str) -> Option<[u8; 32]> {
    let mut digits = Zeroizing::new(<[u8; 43]>::try_from(text.as_bytes()).ok()?);
    for digit in digits.iter_mut() {
        *digit = match *digit {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        };
    }
    let mut out = [0; 32];
    BASE64_NOPAD.decode_mut(digits.as_slice(), &mut out).ok()?;
    Some(out)
}

pub(super) fn hex_decode(text: &str) -> Option<[u8; 32]> {
    let digits = <&[u8; 64]>::try_from(text.as_bytes()).ok()?;
    let mut out = [0; 32];
    HEXLOWER_PERMISSIVE.decode_mut(digits, &mut out).ok()?;
    Some(out)
}

pub(super) fn hex_encode(bytes: &[u8; 32]) -> String {
    HEXLOWER.encode(bytes)
}

#[cfg(test)]
mod tests;
