//! The decision about a server's key that the options ask for, and what its errors mean to the
//! user.

use std::path::Path;
use std::sync::Arc;

use imux::lane::{BindSource, DialError};
use imux::trust::{Fingerprint, Identity, TrustError, classical_client_config, client_config};
use imux::trust::{HostKeyPolicy, HostTrust, KnownHosts, KnownHostsTrust, PinnedKeys, Prompter};
use imux::{Code, ConnectError};

use super::config::{KeyExchange, Trust, require_home};
use super::exit::{Exit, Failure};
use super::prompt::Terminal;

/// What decides about the key of the server dialled as `host`, the text of `--dial`. A pin needs no
/// home.
pub fn host_trust(
    trust: Trust,
    host: &str,
    home: Option<&Path>,
) -> Result<Arc<dyn HostTrust>, Failure> {
    Ok(match trust {
        Trust::Pinned(pins) => Arc::new(PinnedKeys::new(pins)),
        Trust::KnownHosts(policy) => {
            let terminal = Terminal::of_process().filter(|_| policy == HostKeyPolicy::Ask);
            let prompter = terminal.map(|terminal| Arc::new(terminal) as Arc<dyn Prompter>);
            let hosts = KnownHosts::new(require_home(home)?.join("known_hosts"));
            Arc::new(KnownHostsTrust::new(hosts, host, policy, prompter))
        }
    })
}

/// A client's TLS settings.
pub fn client_tls(
    identity: &Identity,
    key_exchange: KeyExchange,
) -> Result<Arc<rustls::ClientConfig>, Failure> {
    let config = match key_exchange {
        KeyExchange::PostQuantum => client_config(identity),
        KeyExchange::Classical => classical_client_config(identity),
    };
    config.map_err(|error| trust_failure(&error))
}

/// The exit code of an error about keys, and what to do about it.
pub fn trust_failure(error: &TrustError) -> Failure {
    let (exit, advice) = match error {
        TrustError::UnknownHost { presented, .. } => (
            Exit::HostKeyUnknown,
            format!(
                "nothing was sent to it; compare the key with the one the server logs at its \
                 start, then run again with --pin {presented} or --host-key accept-new, \
                 or on a terminal to be asked"
            ),
        ),
        TrustError::Refused { .. } | TrustError::Prompt { .. } => {
            (Exit::HostKeyUnknown, "nothing was sent to it".to_owned())
        }
        TrustError::Changed { host, .. } => (
            Exit::HostKeyChanged,
            format!(
                "nothing was sent to it; if the server really has a new key, remove the line of \
                 {} from known_hosts, or run on a terminal and answer what is asked there",
                super::text::escape(host)
            ),
        ),
        TrustError::PinMismatch { .. } => (
            Exit::HostKeyChanged,
            "nothing was sent to it; compare the key with the one the server logs at its start, \
             and correct --pin or --dial"
                .to_owned(),
        ),
        TrustError::InvalidIdentity { .. } => (
            Exit::Config,
            "nothing was started; put a copy of it back, or remove it with its .crt or .key to have \
             a new one made, which others do not know yet"
                .to_owned(),
        ),
        TrustError::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => (
            Exit::Config,
            "it belongs to another user, or its directory does; run as that user, or set IMUX_HOME \
             to a directory of your own"
                .to_owned(),
        ),
        TrustError::File { .. } => (
            Exit::Config,
            "check that this place is there and can be used, or set IMUX_HOME to another directory"
                .to_owned(),
        ),
        _ => return Failure::message(Exit::Config, error),
    };
    Failure::message(exit, format!("{error}; {advice}"))
}

fn is_no_device(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

/// The failure of a client that never had a lane.
pub fn dial_failure(server: &str, error: &DialError) -> Failure {
    let (exit, advice) = match error {
        DialError::InvalidAddress(..) => (Exit::Usage, "correct --dial"),
        DialError::Resolve { .. } => {
            (Exit::Unreachable, "check the name in --dial and that this machine has a name server")
        }
        DialError::NoAddressOfFamily { .. } => {
            (Exit::Unreachable, "bind to an address of the same IP version as the server's")
        }
        DialError::Bind { bind: BindSource::Device(_) | BindSource::LinkLocal { .. }, source }
            if is_no_device(source) =>
        {
            (Exit::Config, "there is no such interface now; see `ip link` for what it is called")
        }
        DialError::Bind { .. } => (
            Exit::Config,
            "check --bind: the address must be one of this machine's (see `ip address`), \
             and an interface may need CAP_NET_RAW",
        ),
        DialError::Congestion { .. } => (
            Exit::Config,
            "see /proc/sys/net/ipv4/tcp_allowed_congestion_control, or leave out --congestion",
        ),
        DialError::LargeHello { .. } => (
            Exit::Unreachable,
            "that is done by nothing but this option: whoever can cut connections could have it done",
        ),
        DialError::Connect { .. } | DialError::Timeout { .. } => (
            Exit::Unreachable,
            "check that an imux server listens there and that no firewall is in between",
        ),
        DialError::Handshake { .. } => {
            (Exit::Unreachable, "check that it is an imux server that listens there")
        }
        _ => (Exit::Unreachable, "no lane could be made"),
    };
    Failure::message(exit, format!("cannot reach {server}: {error}; {advice}"))
}

/// The exit code of a client that could not start, and what to do about it. `own` is the client's
/// key, if it has one that lasts.
pub(super) fn connect_failure(
    server: &str,
    own: Option<Fingerprint>,
    error: &ConnectError,
) -> Failure {
    match error {
        ConnectError::Refused { code: Code::UNAUTHORIZED, .. } => {
            let advice = own.map_or_else(
                || {
                    "which has no key that lasts; set IMUX_HOME to a directory it can write to, \
                     where it then keeps one"
                        .to_owned()
                },
                |own| {
                    format!(
                        "whose key is {own}; who runs the server has to run there: imux authorize \
                         {own}"
                    )
                },
            );
            let message = format!("{server} does not authorise this client, {advice}");
            Failure::message(Exit::Unauthorized, message)
        }
        ConnectError::Dial(error) => dial_failure(server, error),
        ConnectError::Trust(error) => trust_failure(error),
        ConnectError::SeveralKeys(..) => Failure::message(
            Exit::HostKeyUnknown,
            format!(
                "{server}: {error}; nothing was sent to either; give the right one with --pin (the server logs it at its \
                 start), and the other link is taken for one that is down"
            ),
        ),
        ConnectError::Refused { .. } => Failure::message(
            Exit::Refused,
            format!("{server} does not take this client: {error}; ask who runs the server"),
        ),
        _ => Failure::message(
            Exit::Unreachable,
            format!("cannot reach {server}: {error}; check that it is an imux server"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imux::trust::{Fingerprint, KnownKey, PeerIdentity};

    fn key(byte: u8) -> Fingerprint {
        Fingerprint::from_bytes([byte; 32])
    }

    #[test]
    fn errors_about_keys_have_their_own_codes() {
        let host = || "server:443".to_owned();
        for (error, exit, words) in [
            (
                TrustError::UnknownHost { host: host(), presented: key(1) },
                Exit::HostKeyUnknown,
                "--pin SHA256:AQEB",
            ),
            (
                TrustError::Refused { host: host(), presented: key(1) },
                Exit::HostKeyUnknown,
                "not accepted",
            ),
            (
                TrustError::Changed {
                    host: host(),
                    known: KnownKey::Fingerprint(key(1)),
                    presented: key(2),
                },
                Exit::HostKeyChanged,
                "known_hosts",
            ),
            (TrustError::PinMismatch { presented: key(1) }, Exit::HostKeyChanged, "--pin"),
            (
                TrustError::LoosePermissions { path: "/k/server.key".into(), mode: 0o644 },
                Exit::Config,
                "chmod 600",
            ),
        ] {
            let failure = trust_failure(&error);
            assert_eq!(failure.exit, exit, "{failure}");
            assert!(failure.to_string().contains(words), "{failure}");
        }
    }

    #[test]
    fn errors_of_the_first_dial_say_what_to_do() {
        let name = || "nowhere.invalid".to_owned();
        let io = || std::io::Error::other("no");
        let bind = || imux::lane::BindSource::Device("eth9".to_owned());
        for (error, exit, words) in [
            (DialError::Resolve { host: name(), source: io() }, Exit::Unreachable, "name server"),
            (DialError::Bind { bind: bind(), source: io() }, Exit::Config, "--bind"),
            (
                DialError::Congestion { name: "x".into(), source: io() },
                Exit::Config,
                "--congestion",
            ),
            (
                DialError::Connect { host: name(), bind: bind(), attempts: Vec::new() },
                Exit::Unreachable,
                "firewall",
            ),
        ] {
            let failure = dial_failure("nowhere.invalid:443", &error);
            assert_eq!(failure.exit, exit, "{failure}");
            let message = failure.to_string();
            assert!(message.starts_with("cannot reach nowhere.invalid:443: "), "{message}");
            assert!(message.contains(words), "{message}");
        }
    }

    #[tokio::test]
    async fn without_a_terminal_an_unknown_server_is_an_error_and_no_question() {
        // Tests normally run without a terminal; if there is one, there is nothing to test.
        if Terminal::of_process().is_some() {
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let trust = Trust::KnownHosts(HostKeyPolicy::Ask);
        let trust = host_trust(trust, "server:443", Some(home.path())).unwrap();
        let peer = PeerIdentity { fingerprint: key(7), certificate_signature: None };
        let error = trust.decide(&peer).await.unwrap_err();
        assert_eq!(trust_failure(&error).exit, Exit::HostKeyUnknown);

        let trust = Trust::KnownHosts(HostKeyPolicy::AcceptNew);
        host_trust(trust, "server:443", Some(home.path())).unwrap().decide(&peer).await.unwrap();
        let trust = Trust::KnownHosts(HostKeyPolicy::Strict);
        host_trust(trust, "server:443", Some(home.path())).unwrap().decide(&peer).await.unwrap();

        let other = PeerIdentity { fingerprint: key(8), certificate_signature: None };
        let trust = Trust::KnownHosts(HostKeyPolicy::AcceptNew);
        let error = host_trust(trust, "server:443", Some(home.path()))
            .unwrap()
            .decide(&other)
            .await
            .unwrap_err();
        assert_eq!(trust_failure(&error).exit, Exit::HostKeyChanged);

        let trust =
            host_trust(Trust::Pinned(vec![key(7)]), "server:443", Some(home.path())).unwrap();
        trust.decide(&peer).await.unwrap();
        let error = trust.decide(&other).await.unwrap_err();
        assert_eq!(trust_failure(&error).exit, Exit::HostKeyChanged);
    }
}
