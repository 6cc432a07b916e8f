//! The file of authorised clients: which keys a server lets in, and what each may do.
//!
//! One line a client, in the manner of ssh's `authorized_keys`: `[options] SHA256:<base64>
//! comment`. Blank lines and those that begin with `#` are comments. An open invitation is a line
//! too, with `INVITATION:<hash of its secret>` in place of the key: accepting it atomically
//! replaces that line by the client's.
//!
//! The file decides who gets in, so it is read whole or not at all: one unreadable line makes it
//! unusable, and so do permissions that let others write to it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files::{self, Lock, failed};
use super::{Fingerprint, InvitationSecret, TrustError};

mod client;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod line;

pub use client::{AuthorizedClient, Grant, InvalidComment};
use line::{Entry, Key};

/// The file of authorised clients. Writers hold its lock, so several processes may change it.
#[derive(Debug, Clone)]
pub struct AuthorizedClients {
    path: PathBuf,
}

/// The file as it was at one moment.
#[derive(Debug)]
struct Contents {
    text: String,
    stamp: Stamp,
}

/// Tells one version of the file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    bytes: u64,
    /// When its contents were written.
    modified: (i64, i64),
    /// When its contents or permissions changed; nobody can set this.
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a later change would have another stamp: file systems' clocks tick every few
    /// milliseconds, some once in two seconds.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let newest = self.modified.0.max(self.changed.0);
        i64::try_from(since).is_ok_and(|now| now.saturating_sub(newest) > 2)
    }
}

/// What the file said, and whether its stamp will tell it from the next version.
#[derive(Debug)]
pub(super) struct Reading {
    /// `None` while a change might still go unnoticed.
    pub(super) stamp: Option<Stamp>,
    pub(super) text: String,
    pub(super) clients: Vec<AuthorizedClient>,
}

impl AuthorizedClients {
    /// The clients in the file `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listed clients; `None` if there is no file.
    ///
    /// # Errors
    /// If the file cannot be read, others may write to it, or a line cannot be understood.
    pub fn clients(&self) -> Result<Option<Vec<AuthorizedClient>>, TrustError> {
        Ok(self.read_clients()?.map(|reading| reading.clients))
    }

    /// As [`clients`](Self::clients), with the version of the file that lists them.
    pub(super) fn read_clients(&self) -> Result<Option<Reading>, TrustError> {
        let Some(contents) = self.read()? else { return Ok(None) };
        let entries = self.parse(&contents)?;
        let clients = entries.into_iter().filter_map(|(_, entry)| entry?.into_client()).collect();
        let Contents { text, stamp } = contents;
        Ok(Some(Reading {
            stamp: Some(stamp).filter(|stamp| stamp.is_settled(now())),
            text,
            clients,
        }))
    }

    /// Lists a client, replacing any previous line; `true` if it was listed before.
    ///
    /// # Errors
    /// As [`clients`](Self::clients); if the file cannot be written, it stays as it was.
    pub fn authorize(&self, client: &AuthorizedClient) -> Result<bool, TrustError> {
        let entry = Entry::client(client.clone())?;
        let _lock = self.lock()?;
        self.rewrite(|entry| entry.is_client(client.key), Some(&entry))
    }

    /// Takes a client off the list; `true` if it was on it.
    ///
    /// # Errors
    /// As [`authorize`](Self::authorize).
    pub fn revoke(&self, client: Fingerprint) -> Result<bool, TrustError> {
        let _lock = self.lock()?;
        self.rewrite(|entry| entry.is_client(client), None)
    }

    /// Makes an invitation that gives `grant` to whoever accepts it first, until `expires`.
    ///
    /// # Errors
    /// As [`authorize`](Self::authorize), and if there is no randomness.
    pub fn invite(
        &self,
        grant: Grant,
        expires: SystemTime,
        comment: &str,
    ) -> Result<InvitationSecret, TrustError> {
        if grant.expires.is_some() {
            return Err(TrustError::InvalidInvitation("what it grants cannot expire as well"));
        }
        let secret = InvitationSecret::generate()?;
        let grant = Grant { expires: Some(expires), ..grant };
        let entry = Entry::new(Key::Invitation(secret.hash()), grant, comment)?;
        let _lock = self.lock()?;
        self.rewrite(|_| false, Some(&entry))?;
        Ok(secret)
    }

    /// Lists `client` in exchange for an invitation's secret, and removes the invitation; `false`
    /// if there is none (any more). Of many that try at once, one succeeds.
    ///
    /// # Errors
    /// As [`authorize`](Self::authorize).
    pub fn redeem(
        &self,
        secret: &InvitationSecret,
        client: Fingerprint,
    ) -> Result<bool, TrustError> {
        // Look without the lock first: guessing must not keep others from it.
        if self.invitation(secret)?.is_none() {
            return Ok(false);
        }
        let _lock = self.lock()?;
        let Some(invited) = self.invitation(secret)? else { return Ok(false) };
        let grant = Grant { expires: None, ..invited.grant.clone() };
        let entry = Entry::new(Key::Client(client), grant, &invited.comment)?;
        self.rewrite(|entry| entry.is_invitation(secret) || entry.is_client(client), Some(&entry))
    }

    fn invitation(&self, secret: &InvitationSecret) -> Result<Option<Entry>, TrustError> {
        let Some(contents) = self.read()? else { return Ok(None) };
        let now = now();
        let mut found = None;
        for (_, entry) in self.parse(&contents)? {
            let valid =
                entry.filter(|entry| entry.is_invitation(secret) && !entry.grant.is_over(now));
            found = found.or(valid);
        }
        Ok(found)
    }

    fn lock(&self) -> Result<Lock, TrustError> {
        if let Some(dir) = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            files::create_dir(dir)?;
        }
        Lock::take(&self.path)
    }

    /// Drops some lines and expired invitations, and adds one line; `true` if `drop` held for any.
    /// Other lines stay as they are. Hold the lock.
    fn rewrite(
        &self,
        drop: impl Fn(&Entry) -> bool,
        add: Option<&Entry>,
    ) -> Result<bool, TrustError> {
        let contents = self.read()?;
        let lines = contents.as_ref().map_or(Ok(Vec::new()), |contents| self.parse(contents))?;
        let (text, dropped) = edited(lines, drop, add, now());
        if dropped || add.is_some() {
            files::replace(&self.path, text.as_bytes())?;
        }
        Ok(dropped)
    }

    /// The file's current version.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        std::fs::metadata(&self.path).ok().map(|metadata| Stamp::of(&metadata))
    }

    fn read(&self) -> Result<Option<Contents>, TrustError> {
        let read = || -> io::Result<(std::fs::Metadata, String)> {
            let mut file = File::open(&self.path)?;
            let metadata = file.metadata()?;
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            Ok((metadata, text))
        };
        let (metadata, text) = match read() {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.path.is_symlink() => {
                return Ok(None);
            }
            // A dangling link was meant to lead to a list.
            Err(error) => return Err(failed("read", &self.path)(error)),
        };
        files::check_owned(&self.path)?;
        Ok(Some(Contents { text, stamp: Stamp::of(&metadata) }))
    }

    /// All lines, with what each says; an error if one cannot be understood.
    fn parse<'a>(&self, contents: &'a Contents) -> Result<Vec<Line<'a>>, TrustError> {
        parse(&contents.text).map_err(|(line, reason)| TrustError::MalformedAuthorizedClients {
            path: self.path.clone(),
            line,
            reason,
        })
    }
}

/// A line as it is written, and what it says, if anything.
type Line<'a> = (&'a str, Option<Entry>);

/// All lines; or the number of one that cannot be understood, and the reason.
fn parse(text: &str) -> Result<Vec<Line<'_>>, (usize, String)> {
    let mut seen = std::collections::BTreeMap::new();
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let entry = Entry::parse(line).map_err(|reason| (number, reason))?;
        if let Some(Key::Client(key)) = entry.as_ref().map(|entry| entry.key)
            && let Some(first) = seen.insert(key, number)
        {
            // Which of the two counts must not be left to guessing.
            return Err((number, format!("line {first} is about the same key")));
        }
        lines.push((line, entry));
    }
    Ok(lines)
}

/// The lines without dropped ones and invitations expired at `now`, plus one more; and whether
/// `drop` held for any.
fn edited(
    lines: Vec<Line<'_>>,
    drop: impl Fn(&Entry) -> bool,
    add: Option<&Entry>,
    now: SystemTime,
) -> (String, bool) {
    let (mut text, mut dropped) = (String::new(), false);
    for (line, entry) in lines {
        if entry.as_ref().is_some_and(&drop) {
            dropped = true;
        } else if !entry.is_some_and(|entry| entry.is_invitation_over(now)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    if let Some(entry) = add {
        text.push_str(&entry.to_string());
        text.push('\n');
    }
    (text, dropped)
}

/// The date, for expiry.
#[expect(clippy::disallowed_methods, reason = "a file's dates are compared with the day's")]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests;
