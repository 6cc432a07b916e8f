//! The two ends' keys. Whose key it is makes no difference, but how long its certificate is does:
//! to the trace.

use std::sync::{Arc, LazyLock};

use imux::trust::{Identity, client_config};
use rustls::SignatureScheme;

/// The server's, in all runs of this process.
pub static SERVER: LazyLock<Arc<Identity>> = LazyLock::new(usual);

/// The client's.
pub static CLIENT: LazyLock<Arc<Identity>> = LazyLock::new(usual);

/// An identity whose certificate has the usual length. One in a hundred or so is shorter: its
/// serial number, which is drawn by chance, begins with zeroes.
fn usual() -> Arc<Identity> {
    let some = (0..6).map(|_| Identity::generate().expect("a key can be made"));
    Arc::new(some.max_by_key(certificate_len).expect("there are six"))
}

fn certificate_len(identity: &Identity) -> usize {
    let config = client_config(identity).expect("a new key can be used");
    let shown = config.client_auth_cert_resolver.resolve(&[], &[SignatureScheme::ED25519]);
    shown.map_or(0, |shown| shown.cert.iter().map(|certificate| certificate.len()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_of_one_length() {
        assert_ne!(certificate_len(&SERVER), 0);
        assert_eq!(certificate_len(&SERVER), certificate_len(&CLIENT));
        assert_ne!(SERVER.fingerprint(), CLIENT.fingerprint());
    }
}
