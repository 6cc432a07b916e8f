//! The file of known hosts: which key a host has shown before.
//!
//! One line a host, `<host> SHA256:<base64>`; blank lines and those that begin with `#` are
//! comments. The last line for a host counts, however it spells the name: names are compared and
//! written in lower case, without a trailing dot, as punycode if not ASCII; addresses in their
//! canonical form. The default port is 443. A host that has announced its next key has both in its
//! line, `<host> SHA256:…,SHA256:…`, until it shows the second. The original imux wrote `<host> <64
//! hexadecimal digits>`, the SHA-256 of the certificate's signature: such lines are understood, and
//! replaced when the host is next recorded.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

mod key;

pub use key::KnownKey;

use super::files::{self, Lock, failed};
use super::host_name::HostPlace;
use super::{Fingerprint, PeerIdentity, TrustError};

/// The file of known hosts. It is read again for every question, so several processes can share it.
#[derive(Debug, Clone)]
pub struct KnownHosts {
    path: PathBuf,
}

/// What the known hosts say about a key that a host presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is the host's key.
    Known,
    /// It is the host's announced next key, and should take the other's place.
    KnownAsNext,
    /// A line of the original imux lists its certificate: the line should be replaced.
    KnownByLegacySignature,
    /// Nothing is known of the host.
    Unknown,
    /// The host had another key.
    Changed {
        /// What is known of it.
        old: KnownKey,
    },
}

/// A line that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Its number, from 1.
    pub line: usize,
    /// The host it seems to speak of.
    pub host: String,
}

impl KnownHosts {
    /// The known hosts in the file `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of `host`.
    ///
    /// # Errors
    /// If the file, or the line that counts for this host, cannot be read.
    pub fn lookup(&self, host: &str) -> Result<Option<KnownKey>, TrustError> {
        Ok(self.last_word(&self.read()?, host)?.map(|(key, _)| key))
    }

    /// The key of a host, and the next one if it has announced one.
    fn last_word(
        &self,
        text: &str,
        host: &str,
    ) -> Result<Option<(KnownKey, Option<Fingerprint>)>, TrustError> {
        look_up(text, host).map_err(|line| TrustError::MalformedKnownHost {
            path: self.path.clone(),
            line,
            host: host.to_owned(),
        })
    }

    /// Compares the key `host` presents with what is known of it.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    pub fn check(&self, host: &str, peer: &PeerIdentity) -> Result<Verdict, TrustError> {
        Ok(match self.last_word(&self.read()?, host)? {
            None => Verdict::Unknown,
            Some((_, Some(next))) if next == peer.fingerprint => Verdict::KnownAsNext,
            Some((old, _)) if !old.is(peer) => Verdict::Changed { old },
            Some((KnownKey::Fingerprint(_), _)) => Verdict::Known,
            Some((KnownKey::LegacySignature(_), _)) => Verdict::KnownByLegacySignature,
        })
    }

    /// The unreadable lines, to report; they harm no other line.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn malformed(&self) -> Result<Vec<Malformed>, TrustError> {
        Ok(malformed(&self.read()?))
    }

    /// Records the key of `host` in place of all that was known of it. Other lines stay as they
    /// are, to the byte.
    ///
    /// # Errors
    /// If the file or its directory cannot be written; the file then stays as it was.
    pub fn record(&self, host: &str, fingerprint: Fingerprint) -> Result<(), TrustError> {
        self.rewrite(host, |_| Ok(Some(fingerprint.to_string()))).map(|_| ())
    }

    /// As [`record`](Self::record), but replaces only `seen`: what was known of `host` at the
    /// decision.
    ///
    /// # Errors
    /// As [`record`](Self::record), and [`TrustError::Changed`] if another key has been recorded
    /// meanwhile; that one stays.
    pub fn record_over(
        &self,
        host: &str,
        seen: Option<KnownKey>,
        fingerprint: Fingerprint,
    ) -> Result<(), TrustError> {
        let decide = |line| match line {
            Some((known, _)) if known == KnownKey::Fingerprint(fingerprint) => Ok(None),
            Some((known, next)) if Some(known) != seen && next != Some(fingerprint) => {
                Err(TrustError::Changed { host: host.to_owned(), known, presented: fingerprint })
            }
            _ => Ok(Some(fingerprint.to_string())),
        };
        self.rewrite(host, decide).map(|_| ())
    }

    /// Records the next key announced by `host`, which is known by `current`. `false`, and nothing
    /// is written, if it is not.
    ///
    /// # Errors
    /// As [`record`](Self::record), and [`lookup`](Self::lookup).
    pub fn record_next(
        &self,
        host: &str,
        current: Fingerprint,
        next: Fingerprint,
    ) -> Result<bool, TrustError> {
        self.rewrite(host, |line| {
            let is_known = line.is_some_and(|(known, _)| known == KnownKey::Fingerprint(current));
            Ok(is_known.then(|| format!("{current},{next}")))
        })
    }

    /// May replace what is known of `host`, under the lock; `true` if it did.
    fn rewrite(
        &self,
        host: &str,
        keys: impl FnOnce(Option<(KnownKey, Option<Fingerprint>)>) -> Result<Option<String>, TrustError>,
    ) -> Result<bool, TrustError> {
        if !can_stand_in_a_line(host) {
            return Err(TrustError::InvalidHost(host.to_owned()));
        }
        if let Some(dir) = self.path.parent() {
            files::create_dir(dir)?;
        }
        let _lock = Lock::take(&self.path)?;
        let old = self.read_bytes()?;
        // An unreadable line is replaced with the rest: the host's key is known now.
        let known = look_up(&String::from_utf8_lossy(&old), host).ok().flatten();
        let Some(keys) = keys(known)? else { return Ok(false) };
        files::replace(&self.path, &recorded(&old, host, keys))?;
        Ok(true)
    }

    fn read(&self) -> Result<String, TrustError> {
        // A stray byte that is not UTF-8 spoils only its own line.
        self.read_bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn read_bytes(&self) -> Result<Vec<u8>, TrustError> {
        match std::fs::read(&self.path) {
            Ok(bytes) => files::check_owned(&self.path).map(|()| bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed("read", &self.path)(error)),
        }
    }
}

pub(super) fn can_stand_in_a_line(host: &str) -> bool {
    let stands = |host: &str| {
        let drawn = |c: char| c.is_whitespace() || c == BYTE_ORDER_MARK;
        !host.is_empty() && !host.starts_with('#') && !host.contains(drawn)
    };
    stands(host) && stands(&HostPlace::of(host).to_string())
}

/// Some editors put this before a file's first line.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The last word on `host` in a file: its key and the next one, or its line's number if that cannot
/// be read.
pub(super) fn look_up(
    text: &str,
    host: &str,
) -> Result<Option<(KnownKey, Option<Fingerprint>)>, usize> {
    let place = HostPlace::of(host);
    match entries(text).filter(|entry| HostPlace::of(entry.host).is(&place)).last() {
        None => Ok(None),
        // Treating the host as unknown would let anybody take its place.
        Some(Entry { line, key, next, .. }) => key.map(|key| Some((key, next))).ok_or(line),
    }
}

pub(super) fn malformed(text: &str) -> Vec<Malformed> {
    entries(text)
        .filter(|entry| entry.key.is_none())
        .map(|entry| Malformed { line: entry.line, host: entry.host.to_owned() })
        .collect()
}

/// The file `old` with a single line for `host`, at its end.
pub(super) fn recorded(old: &[u8], host: &str, keys: impl fmt::Display) -> Vec<u8> {
    let place = HostPlace::of(host);
    let mut new = Vec::with_capacity(old.len() + 128);
    for line in old.split_inclusive(|&byte| byte == b'\n') {
        if !host_of(line).is_some_and(|host| HostPlace::of(&host).is(&place)) {
            new.extend_from_slice(line);
        }
    }
    if new.last().is_some_and(|&last| last != b'\n') {
        new.push(b'\n');
    }
    new.extend_from_slice(format!("{place} {keys}\n").as_bytes());
    new
}

/// A line about a host.
struct Entry<'a> {
    line: usize,
    host: &'a str,
    /// `None` if unreadable.
    key: Option<KnownKey>,
    /// The key it will have later.
    next: Option<Fingerprint>,
}

fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    text.lines().enumerate().filter_map(|(index, line)| {
        let mut words = line.split_ascii_whitespace();
        let host = words.next().filter(|word| !word.starts_with('#'))?;
        let keys = words.next().and_then(parse_keys).filter(|_| words.next().is_none());
        let (key, next) = keys.map_or((None, None), |(key, next)| (Some(key), next));
        Some(Entry { line: index + 1, host, key, next })
    })
}

/// A key, and the next one after a comma.
fn parse_keys(word: &str) -> Option<(KnownKey, Option<Fingerprint>)> {
    match word.split_once(',') {
        None => Some((KnownKey::parse(word)?, None)),
        Some((key, next)) => {
            next.strip_prefix("SHA256:")?;
            Some((KnownKey::parse(key)?, Some(next.parse().ok()?)))
        }
    }
}

/// The host a line is about, read as [`entries`] reads it.
fn host_of(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line);
    let host = line.split_ascii_whitespace().next()?;
    (!host.starts_with('#')).then(|| host.to_owned())
}

#[cfg(test)]
mod tests;
