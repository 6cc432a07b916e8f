use rustls::pki_types::pem::PemObject;

use super::*;

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

const LEGACY: &str = include_str!("../../../tests/fixtures/legacy/legacy.crt");
const PASTED: &str = include_str!("../../../tests/fixtures/legacy/pasted.crt");

// As `openssl x509 -pubkey | openssl pkey -pubin -outform der | sha256sum`, and the same for the
// last 256 bytes of the DER.
const LEGACY_KEY: &str = "SHA256:dwC5/gMXJXZ88XGNk1whj9PjktSkPcaOujFz80KAoQo";
const LEGACY_SIGNATURE: &str = "c78d26bff9e10b4507d78a24db123d57805261954edc0db9b9c7082ea2bc64e1";

#[test]
fn text_is_that_of_openssh() {
    let empty = Fingerprint::of_public_key(b"");
    let text = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    assert_eq!(empty.to_string(), text);
    assert_eq!(text.parse(), Ok(empty));
    assert_eq!(format!("{text}=").parse(), Ok(empty));
    assert_eq!(text.replace('+', "-").replace('/', "_").parse(), Ok(empty));
    let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(hex.parse(), Ok(empty));
    assert_eq!(hex.to_uppercase().parse(), Ok(empty));
    assert_eq!(hex_encode(empty.as_bytes()), hex);
}

#[test]
fn other_text_is_refused() {
    let good = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    for bad in [
        "",
        "SHA256:",
        &good[..good.len() - 1],
        &format!("{good}A"),
        &format!("{good}=="),
        // The last digit's two low bits carry nothing: another spelling of the same key is
        // rejected.
        &good.replace("SuFU", "SuFV"),
        &good.replace('+', " "),
        &good.replace("SHA256:", "sha256:"),
        &good.replace("SHA256:", "MD5:"),
        &"é".repeat(32),
        &"0".repeat(63),
        &"g".repeat(64),
        &format!("+{}", "0".repeat(63)),
    ] {
        let error = bad.parse::<Fingerprint>().unwrap_err();
        assert!(error.to_string().contains("fingerprint"), "{bad:?}: {error}");
    }
}

proptest::proptest! {
    #[test]
    fn text_and_back(bytes: [u8; 32]) {
        let fingerprint = Fingerprint::from_bytes(bytes);
        proptest::prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        proptest::prop_assert_eq!(hex_encode(&bytes).parse(), Ok(fingerprint));
    }

    #[test]
    fn no_text_panics(text: String) {
        let _ = text.parse::<Fingerprint>();
        let _ = format!("SHA256:{text}").parse::<Fingerprint>();
    }
}

#[test]
fn an_old_certificate_has_both_names() {
    let peer = PeerIdentity::from_certificate(&certificate(LEGACY)).unwrap();
    assert_eq!(peer.fingerprint.to_string(), LEGACY_KEY);
    assert_eq!(peer.certificate_signature, hex_decode(LEGACY_SIGNATURE));
}

#[test]
fn anothers_signature_pasted_in_is_no_signature() {
    let pasted = certificate(PASTED);
    let (_, parsed) = X509Certificate::from_der(&pasted).unwrap();
    let shown = sha256(&parsed.signature_value.data);
    assert_eq!(Some(shown), hex_decode(LEGACY_SIGNATURE), "the fixture carries the signature");
    let peer = PeerIdentity::from_certificate(&pasted).unwrap();
    assert_eq!(peer.certificate_signature, None);
    assert_ne!(peer.fingerprint.to_string(), LEGACY_KEY);
}

#[test]
fn what_is_no_certificate_is_an_error() {
    let good = certificate(LEGACY);
    let mut longer = good.to_vec();
    longer.push(0);
    for bad in [&b""[..], b"junk", &good[..good.len() - 1], &longer] {
        assert!(PeerIdentity::from_certificate(&CertificateDer::from(bad)).is_err());
    }
    // No changed byte may make it panic.
    for index in 0..good.len() {
        let mut changed = good.to_vec();
        changed[index] ^= 0xff;
        let _ = PeerIdentity::from_certificate(&CertificateDer::from(changed));
    }
}
