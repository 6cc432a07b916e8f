//! TLS settings for both ends.
//!
//! TLS 1.3 and nothing older; no resumption and no early data (a lane's first bytes must not be
//! replayable); key exchange X25519MLKEM768 first. The verifiers accept any certificate, because
//! whose key it is gets decided later, once. They do verify the handshake's signature: otherwise
//! anybody could show another's certificate.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError,
    PeerIncompatible, ServerConfig, SignatureScheme, version,
};

use super::fingerprint::is_of_ed25519;
use super::{HostTrust, Identity, PeerIdentity, TrustError};

/// The application protocol of lanes (RFC 7301).
pub const ALPN: &[u8] = b"imux/1";

/// Settings for the end that dials; it shows `identity` when asked for a certificate.
///
/// # Errors
/// [`TrustError::ClientKey`] if the identity's key is not Ed25519: servers accept no other;
/// [`TrustError::Tls`] if it cannot be used.
pub fn client_config(identity: &Identity) -> Result<Arc<ClientConfig>, TrustError> {
    client_config_of(identity, provider())
}

/// `config`, made by [`client_config`], for lanes to a server that `trust` decides about: a server
/// it [rules out](HostTrust::rules_out) never sees the client's certificate.
#[must_use]
pub fn with_host_trust(
    mut config: Arc<ClientConfig>,
    trust: Arc<dyn HostTrust>,
) -> Arc<ClientConfig> {
    let provider = config.crypto_provider().clone();
    let verifier = Arc::new(AnyKey { provider, trust: Some(trust) });
    Arc::make_mut(&mut config).dangerous().set_certificate_verifier(verifier);
    config
}

/// As [`client_config`], with X25519 alone: for networks that block the larger messages. Traffic
/// recorded today can be decrypted by a future quantum computer.
///
/// # Errors
/// As [`client_config`].
pub fn classical_client_config(identity: &Identity) -> Result<Arc<ClientConfig>, TrustError> {
    client_config_of(identity, classical_provider())
}

/// Settings for a ClientHello with X25519 alone, sent only to see whether it is answered: no lane
/// uses them.
pub(crate) fn question_config() -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(classical_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TrustError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey { provider, trust: None }))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn classical_provider() -> CryptoProvider {
    CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..provider() }
}

/// As [`client_config`], with another choice of ciphers.
pub(crate) fn client_config_of(
    identity: &Identity,
    provider: CryptoProvider,
) -> Result<Arc<ClientConfig>, TrustError> {
    let ed25519 = identity.certificate_chain().first().map(is_of_ed25519);
    if !matches!(ed25519, Some(Ok(true))) {
        return Err(TrustError::ClientKey(identity.fingerprint()));
    }
    let provider = Arc::new(provider);
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TrustError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey { provider, trust: None }))
        .with_client_cert_resolver(Arc::new(own_key(identity)?));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Settings for the end that listens; it shows `identity`, and asks for a certificate without
/// insisting.
///
/// # Errors
/// [`TrustError::Tls`] if the identity's key cannot be used.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, TrustError> {
    let provider = Arc::new(provider());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TrustError::Tls)?
        .with_client_cert_verifier(Arc::new(AnyKey { provider, trust: None }))
        .with_cert_resolver(Arc::new(own_key(identity)?));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn own_key(identity: &Identity) -> Result<SingleCertAndKey, TrustError> {
    identity.certified_key().map(Into::into).map_err(TrustError::Tls)
}

/// aws-lc-rs, with AES-128-GCM before AES-256-GCM: a lane's cost is mostly its cipher, 128 bits are
/// beyond anybody's reach, and a quantum computer would attack the key exchange.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    }
}

/// Why a client's certificate is rejected.
#[derive(Debug, thiserror::Error)]
#[error("the client's key is none of Ed25519")]
struct NotEd25519;

/// Accepts any readable certificate that is not ruled out, from whoever proves to hold its key.
struct AnyKey {
    provider: Arc<CryptoProvider>,
    trust: Option<Arc<dyn HostTrust>>,
}

impl fmt::Debug for AnyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyKey").field("trust", &self.trust.is_some()).finish_non_exhaustive()
    }
}

/// Why a server's certificate is rejected: its key cannot be the right one.
#[derive(Debug, thiserror::Error)]
#[error("the server's key is another one than is known: {}", .0.fingerprint)]
struct RuledOut(PeerIdentity);

/// The key of a server that was ruled out, if that is what ended a handshake.
pub(crate) fn ruled_out(error: &io::Error) -> Option<PeerIdentity> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => {
            why.downcast_ref().map(|RuledOut(presented)| *presented)
        }
        _ => None,
    }
}

/// How both verifiers treat signatures: those of TLS 1.3 are verified, those of TLS 1.2 never come
/// up.
macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(PeerIncompatible::Tls12NotOfferedOrEnabled.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(
                message,
                cert,
                dss,
                &self.provider.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for AnyKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let presented = PeerIdentity::from_certificate(end_entity)?;
        if self.trust.as_ref().is_some_and(|trust| trust.rules_out(&presented)) {
            let why = OtherError(Arc::new(RuledOut(presented)));
            return Err(CertificateError::Other(why).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        PeerIdentity::from_certificate(end_entity)?;
        // All that imux makes are Ed25519: others cost more to verify and are of no use.
        if !is_of_ed25519(end_entity)? {
            let why = OtherError(Arc::new(NotEd25519));
            return Err(CertificateError::Other(why).into());
        }
        Ok(ClientCertVerified::assertion())
    }

    verify_signatures!();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(certificate: &CertificateDer<'_>) -> Result<ClientCertVerified, rustls::Error> {
        let verifier = AnyKey { provider: Arc::new(provider()), trust: None };
        verifier.verify_client_cert(certificate, &[], UnixTime::now())
    }

    #[test]
    fn clients_have_keys_of_ed25519_and_no_other() {
        for (algorithm, taken) in
            [(&rcgen::PKCS_ED25519, true), (&rcgen::PKCS_ECDSA_P256_SHA256, false)]
        {
            let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
            let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
            let verified = verify(certificate.der());
            assert_eq!(verified.is_ok(), taken, "{verified:?}");
            if let Err(error) = verified {
                assert!(error.to_string().contains("Ed25519"), "{error}");
            }
        }
    }
}
