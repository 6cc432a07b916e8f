//! Fuzz targets of the code that decides whom to trust (see `crate::fuzz`).

use std::net::{IpAddr, SocketAddr};

use rustls::pki_types::CertificateDer;

pub(crate) use super::authorized_clients::fuzz::authorized_clients;
use super::host_name::HostPlace;
use super::known_hosts::{KnownKey, can_stand_in_a_line, look_up, malformed, recorded};
use super::{
    Destination, DestinationRule, Destinations, Fingerprint, Invitation, PeerIdentity, Target,
    TrustError,
};

/// Any file of known hosts: what is recorded is found again, and no other entry changes its
/// meaning.
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
    let place = HostPlace::of(&host);
    for line in text.lines() {
        let Some(other) = line.split_ascii_whitespace().next() else { continue };
        if !HostPlace::of(other).is(&place) {
            let (before, after) = (look_up(&text, other), look_up(&new, other));
            // The number of an unreadable line may have changed.
            assert_eq!(before.map_err(drop), after.map_err(drop), "{other:?}");
        }
    }
}

/// Any bytes as a certificate: a peer's is read before anybody knows who it is.
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

/// Any place a client asks for, any rules about it, any address its name may resolve to: what is
/// read is written back the same, and only a rule that names a dangerous address reaches it.
pub(crate) fn destinations(data: &[u8]) {
    let (address, text) = data.split_at(data.len().min(16));
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    let asked = lines.next().unwrap_or_default().parse::<Destination>();
    let rules: Vec<_> = lines.map(str::parse::<DestinationRule>).collect();
    for rule in &rules {
        match rule {
            Ok(rule) => assert_eq!(rule.to_string().parse().as_ref(), Ok(rule)),
            Err(error) => assert!(!error.to_string().contains(char::is_control), "{error:?}"),
        }
    }
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => return assert!(!error.to_string().contains(char::is_control), "{error:?}"),
    };
    let said = asked.to_string();
    assert!(said.bytes().all(|byte| byte.is_ascii_graphic()), "{said:?}");
    assert_eq!(said.parse().as_ref(), Ok(&asked));
    let (host, port) = match asked.target() {
        Target::Host(host, port) => (host, port),
        Target::Unix(path) => {
            assert!(path.is_absolute());
            let rules = Destinations::new(rules.into_iter().flatten());
            let by_itself = rules.rules().iter().any(|rule| rule.to_string() == said);
            assert_eq!(rules.may_allow(&asked), by_itself);
            let ip = IpAddr::from([127, 0, 0, 1]);
            return assert!(!rules.allows(&asked, SocketAddr::new(ip, 1), &[ip]));
        }
    };
    assert!(!host.is_empty() && port != 0);

    let ip = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
        (Ok(v4), _) => IpAddr::from(v4),
        // Every second one uses only its last four bytes: short inputs are rare.
        (_, Ok(v6)) if v6[0] % 2 == 0 => IpAddr::from([v6[12], v6[13], v6[14], v6[15]]),
        (_, Ok(v6)) => IpAddr::from(v6),
        _ => return,
    };
    let rules = Destinations::new(rules.into_iter().flatten());
    let address = SocketAddr::new(ip, port);
    if rules.allows(&asked, address, &[]) {
        assert!(rules.may_allow(&asked));
        let ip = ip.to_canonical();
        let udp = if asked.is_udp() { "udp:" } else { "" };
        assert!(udp.is_empty() || !ip.is_multicast(), "{said} leads to {ip}");
        let exact = format!("{udp}{}", SocketAddr::new(ip, port));
        let any_port = format!("{}*", exact.trim_end_matches(|c: char| c.is_ascii_digit()));
        let by_itself =
            rules.rules().iter().any(|rule| [&exact, &any_port].contains(&&rule.to_string()));
        let local = ip.is_loopback() && host == "localhost";
        assert!(by_itself || local || !must_be_named(ip), "{said} leads to {ip} by {rules:?}");
    }
    assert!(
        !rules.allows(&asked, SocketAddr::new(ip, port ^ 1), &[]),
        "another port than was asked for"
    );
}

/// Addresses that mean the machine itself, its link, its cloud, or no single machine.
fn must_be_named(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.is_broadcast()
                || ip.is_multicast()
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.to_ipv4().is_some_and(|ip| must_be_named(ip.into()))
        }
    }
}

/// Any text as an invitation: what is read is written back the same, and no error repeats it.
pub(crate) fn invitation(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match text.parse::<Invitation>() {
        Ok(invitation) => {
            let said = invitation.to_text();
            assert!(said.bytes().all(|byte| byte.is_ascii_graphic()), "{said:?}");
            let Ok(again) = said.parse::<Invitation>() else { panic!("{said:?}") };
            assert_eq!((again.server(), again.key()), (invitation.server(), invitation.key()));
            assert_eq!(again.secret().as_bytes(), invitation.secret().as_bytes());
        }
        // The message was written before the text arrived.
        Err(TrustError::InvalidInvitation(why)) => {
            let _: &'static str = why;
        }
        Err(error) => panic!("{error}"),
    }
}
