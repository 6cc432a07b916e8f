//! Fuzz targets of what decides whom to trust (see `crate::fuzz`).

use rustls::pki_types::CertificateDer;

use super::known_hosts::{KnownKey, can_stand_in_a_line, look_up, malformed, recorded};
use super::{Fingerprint, PeerIdentity};

/// Any file of known hosts: what is recorded is found again, and nothing else changes its meaning.
pub(crate) fn known_hosts(data: &[u8]) {
    let split = data.iter().position(|&byte| byte == 0).unwrap_or(0);
    let (host, rest) = data.split_at(split);
    let file = rest.strip_prefix(&[0]).unwrap_or(rest);
    let text = String::from_utf8_lossy(file);
    let unreadable = malformed(&text);
    let lines = text.lines().count();
    assert!(unreadable.iter().all(|bad| (1..=lines).contains(&bad.line) && !bad.host.is_empty()));

    let host = String::from_utf8_lossy(host);
    let key = Fingerprint::from_bytes([7; 32]);
    if !can_stand_in_a_line(&host) {
        return;
    }
    let new = recorded(file, &host, key);
    assert_eq!(recorded(&new, &host, key), new, "saying it again changes nothing");
    let new = String::from_utf8_lossy(&new);
    assert_eq!(look_up(&new, &host), Ok(Some((KnownKey::Fingerprint(key), None))));
    for line in text.lines() {
        let Some(other) = line.split_ascii_whitespace().next() else { continue };
        if other != host {
            let (before, after) = (look_up(&text, other), look_up(&new, other));
            // The number of a line that cannot be read may have changed.
            assert_eq!(before.map_err(drop), after.map_err(drop), "{other:?}");
        }
    }
}

/// Any bytes as a certificate: the peer's is read before anybody knows who it is.
pub(crate) fn certificate(data: &[u8]) {
    let der = CertificateDer::from(data);
    if let Ok(identity) = PeerIdentity::from_certificate(&der) {
        let text = identity.fingerprint.to_string();
        assert_eq!(text.parse(), Ok(identity.fingerprint));
        assert_eq!(PeerIdentity::from_certificate(&der), Ok(identity));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(fingerprint) = text.parse::<Fingerprint>()
    {
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    }
}
