//! What is to be run: the validated configuration, free of how it was written.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::address::HostPort;
use super::args::{HostKey, Scheduler};
use super::bind::{self, Bind, BindMap, Source};
use super::logging;

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) task: Task,
    pub(crate) logging: logging::Options,
    /// What the user should know about the options given; logged once, as a notice.
    pub(crate) notices: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Task {
    Server(ServerConfig),
    Client(ClientConfig),
    Demo(DemoConfig),
}

#[derive(Debug)]
pub(crate) struct ServerConfig {
    pub(crate) listen: HostPort,
    pub(crate) dial: HostPort,
    pub(crate) session: SessionConfig,
    /// Directory of keys; None when neither IMUX_HOME nor a home directory is known.
    pub(crate) home: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct ClientConfig {
    pub(crate) listen: HostPort,
    pub(crate) dial: HostPort,
    /// Not empty; no source twice; at most [`bind::LANES_MAX`] lanes in all.
    pub(crate) binds: Vec<Bind>,
    pub(crate) trust: Trust,
    pub(crate) connect_timeout: Duration,
    pub(crate) session: SessionConfig,
    /// As in [`ServerConfig`].
    pub(crate) home: Option<PathBuf>,
}

/// How a client decides about the server's key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// By known_hosts, and this policy for servers not in it.
    KnownHosts(HostKey),
    /// One of these keys and no other; not empty.
    Pinned(Vec<Pin>),
}

/// What client and server decide for themselves about a session.
#[derive(Debug)]
pub(crate) struct SessionConfig {
    pub(crate) grace: Duration,
    pub(crate) congestion: Congestion,
    /// Bytes that may wait for the reader of one stream; None is the library's choice.
    pub(crate) window: Option<u64>,
    /// Bytes that may wait for the readers of all streams; None is the library's choice.
    pub(crate) session_window: Option<u64>,
    pub(crate) scheduler: Scheduler,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Congestion {
    /// bbr, or without a word the system's where it is not allowed.
    BbrIfAllowed,
    /// The system's own choice.
    System,
    /// This one; a lane that cannot have it is an error worth telling.
    Named(String),
}

#[derive(Debug)]
pub(crate) struct DemoConfig {
    /// Bytes to send each way.
    pub(crate) bytes: u64,
    pub(crate) json: bool,
}

/// `--pin`: the SHA-256 of a server's public key (SPKI).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin(pub(crate) [u8; 32]);

impl FromStr for Pin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected SHA256: and 43 characters of base64, as the server logs \
                                it at its start, or 64 hexadecimal digits";
        let bytes = match text.strip_prefix("SHA256:") {
            Some(base64) => decode_base64(base64),
            None => decode_hex(text),
        };
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Pin).ok_or_else(|| EXPECTED.to_owned())
    }
}

/// Standard alphabet; padding may be there or not. None for anything else, also for bits set
/// beyond the last byte.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_suffix('=').unwrap_or(text);
    let (mut bits, mut count) = (0u32, 0);
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    (bits & ((1 << count) - 1) == 0).then_some(bytes)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// The directory of keys and known servers.
pub(crate) fn home(imux_home: Option<OsString>, user_home: Option<PathBuf>) -> Option<PathBuf> {
    let set = |path: &PathBuf| !path.as_os_str().is_empty();
    let chosen = imux_home.map(PathBuf::from).filter(set);
    chosen.or_else(|| user_home.filter(set).map(|home| home.join(".imux")))
}

/// Refuses a forward that would connect to itself, for ever.
pub(crate) fn check_forward(listen: &HostPort, dial: &HostPort) -> Result<(), String> {
    if listen.is_reached_by(dial) {
        return Err(format!(
            "--listen {listen} and --dial {dial} are the same place: imux would forward to itself\n\n\
             Give --dial the address of something else, or --listen another port."
        ));
    }
    Ok(())
}

/// All binds, those of `--binds` first; the original's default when there are none.
pub(crate) fn binds(map: Option<BindMap>, mut list: Vec<Bind>) -> Result<Vec<Bind>, String> {
    let mut binds = map.map(|map| map.0).unwrap_or_default();
    binds.append(&mut list);
    if binds.is_empty() {
        let anywhere = Source::Addr(std::net::Ipv4Addr::UNSPECIFIED.into());
        binds.push(Bind { source: anywhere, lanes: bind::LANES_DEFAULT });
    }
    bind::check_all(&binds)?;
    Ok(binds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_in_both_forms() {
        let zeros: Pin = format!("SHA256:{}", "A".repeat(43)).parse().unwrap();
        assert_eq!(zeros, Pin([0; 32]));
        let padded: Pin = format!("SHA256:{}=", "A".repeat(43)).parse().unwrap();
        assert_eq!(padded, zeros);
        let ones: Pin = "f".repeat(64).parse().unwrap();
        assert_eq!(ones, Pin([0xff; 32]));
        // SHA-256 of nothing, in both.
        let base64: Pin = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU".parse().unwrap();
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex.parse::<Pin>(), Ok(base64));
    }

    #[test]
    fn pins_that_are_none() {
        for text in [
            "",
            "SHA256:",
            "SHA256:AAAA",
            &format!("SHA256:{}", "A".repeat(44)),
            // The last character carries two bits that must be zero.
            &format!("SHA256:{}B", "A".repeat(42)),
            &format!("SHA256:{}_", "A".repeat(42)),
            &format!("sha1:{}", "A".repeat(43)),
            &"f".repeat(63),
            &"f".repeat(66),
            &"g".repeat(64),
            &"ü".repeat(32),
        ] {
            assert!(text.parse::<Pin>().is_err(), "{text}");
        }
    }

    #[test]
    fn home_directory() {
        let user = || Some(PathBuf::from("/home/u"));
        assert_eq!(home(None, user()), Some("/home/u/.imux".into()));
        assert_eq!(home(Some("/keys".into()), user()), Some("/keys".into()));
        assert_eq!(home(Some("".into()), user()), Some("/home/u/.imux".into()));
        assert_eq!(home(None, Some("".into())), None);
        assert_eq!(home(None, None), None);
    }
}
