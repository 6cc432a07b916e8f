//! TLS settings of both ends.
//!
//! TLS 1.3 and nothing older; no resumption and no early data (a lane's first bytes must not be replayable); key exchange
//! X25519MLKEM768 first. The verifiers take any certificate, because whose key it is gets decided later and once, but they
//! verify the handshake's signature: without it, anybody could show another's certificate.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::cipher_suite;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, PeerIncompatible, ServerConfig,
    SignatureScheme, version,
};

use super::{Identity, PeerIdentity, TrustError};

/// The application protocol of lanes (RFC 7301).
pub const ALPN: &[u8] = b"imux/1";

/// Settings of the end that dials; it shows `identity` when asked for a certificate.
///
/// # Errors
/// [`TrustError::Tls`] where the identity's key cannot be used.
pub fn client_config(identity: &Identity) -> Result<Arc<ClientConfig>, TrustError> {
    client_config_of(identity, provider())
}

/// As [`client_config`], with X25519 alone. What is recorded of it today can be decrypted by whoever has a quantum computer
/// some day; it is for networks that do not let the other's larger messages through.
///
/// # Errors
/// As [`client_config`].
pub fn classical_client_config(identity: &Identity) -> Result<Arc<ClientConfig>, TrustError> {
    client_config_of(identity, classical_provider())
}

/// Settings for a ClientHello with X25519 alone that is asked for its answer, and no more: no lane is made with them.
pub(crate) fn question_config() -> Result<Arc<ClientConfig>, TrustError> {
    let provider = Arc::new(classical_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TrustError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey(provider)))
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
    let provider = Arc::new(provider);
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TrustError::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyKey(provider)))
        .with_client_auth_cert(identity.certificate_chain(), identity.private_key())
        .map_err(TrustError::Tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Settings of the end that listens; it shows `identity`, and asks for a certificate without insisting.
///
/// # Errors
/// [`TrustError::Tls`] where the identity's key cannot be used.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, TrustError> {
    let provider = Arc::new(provider());
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TrustError::Tls)?
        .with_client_cert_verifier(Arc::new(AnyKey(provider)))
        .with_single_cert(identity.certificate_chain(), identity.private_key())
        .map_err(TrustError::Tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// aws-lc-rs, with AES-128-GCM before AES-256-GCM: a lane's cost is mostly its cipher, 128 bits are beyond anybody's reach,
/// and the key exchange is what a quantum computer would attack.
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

/// Takes any certificate that can be read, from whoever proves to hold its key.
#[derive(Debug)]
struct AnyKey(Arc<CryptoProvider>);

/// What both verifiers have to say of signatures: those of TLS 1.3 are verified, those of TLS 1.2 do not come up.
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
            verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
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
        PeerIdentity::from_certificate(end_entity).map(|_| ServerCertVerified::assertion())
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
        PeerIdentity::from_certificate(end_entity).map(|_| ClientCertVerified::assertion())
    }

    verify_signatures!();
}
