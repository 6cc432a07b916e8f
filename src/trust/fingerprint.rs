//! The short name of a public key, and what a peer has shown of itself.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use x509_parser::oid_registry::OID_PKCS1_SHA256WITHRSA;
use x509_parser::prelude::{FromDer, X509Certificate};

/// SHA-256 of a public key (its DER `SubjectPublicKeyInfo`): the same for every certificate of one key.
///
/// Written as OpenSSH writes its own, `SHA256:` and unpadded base64; read in that form or as 64 hexadecimal digits.
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
            // Some tools pad; the padding carries nothing.
            Some(base64) => base64_decode(base64.strip_suffix('=').unwrap_or(base64)),
            None => hex_decode(text),
        };
        bytes.map(Self).ok_or_else(|| FingerprintError(text.to_owned()))
    }
}

/// What the other end of a lane has proven, or shown, of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The key it has proven to hold.
    pub fingerprint: Fingerprint,
    /// SHA-256 of the signature in its certificate, by which the original imux (in Go) knew a host. Present only where that
    /// signature was made with the very key of the certificate, as RSA with SHA-256: anybody can paste another
    /// certificate's signature into one of their own, and must not be taken for its owner.
    pub certificate_signature: Option<[u8; 32]>,
}

impl PeerIdentity {
    /// Reads the identity out of an end-entity certificate.
    ///
    /// # Errors
    /// Where the certificate cannot be parsed.
    pub fn from_certificate(der: &CertificateDer<'_>) -> Result<Self, rustls::Error> {
        // The handshake's signature is verified with the key that rustls finds in the certificate: that key is the
        // identity, and a certificate which another parser reads differently is no certificate.
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

/// Whether a certificate is of an Ed25519 key.
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

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(super) fn base64_encode(bytes: &[u8; 32]) -> String {
    let mut out = String::with_capacity(43);
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for digit in 0..=chunk.len() {
            let index = (word >> (18 - 6 * digit)) & 63;
            out.push(char::from(BASE64[index as usize]));
        }
    }
    out
}

/// 43 digits to 32 bytes; takes the URL-safe alphabet too. The two bits left over must be zero: one fingerprint, one text.
pub(super) fn base64_decode(text: &str) -> Option<[u8; 32]> {
    if text.len() != 43 {
        return None;
    }
    let mut out = [0; 32];
    let mut next = out.iter_mut();
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in text.bytes() {
        let digit = match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        };
        let value = BASE64.iter().position(|&b| b == digit)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            *next.next()? = (bits >> held) as u8;
            bits &= (1 << held) - 1;
        }
    }
    (bits == 0).then_some(out)
}

pub(super) fn hex_decode(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(out)
}

pub(super) fn hex_encode(bytes: &[u8; 32]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}"); // writing to a String cannot fail
        out
    })
}

#[cfg(test)]
mod tests;
