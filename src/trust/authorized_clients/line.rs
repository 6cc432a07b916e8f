//! One line of the file of authorised clients.

use std::fmt;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::client::{AuthorizedClient, Grant, InvalidComment};
use crate::trust::invitation::InvitationHash;
use crate::trust::{DestinationRule, Fingerprint, InvitationSecret, TrustError};

const INVITATION: &str = "INVITATION:";
const PROXY_PROTOCOL: &str = "proxy-protocol";
const TRUST_SOURCE: &str = "trust-source";

/// Longest comment, in characters: a name and a place, not a document.
const COMMENT_CHARS_MAX: usize = 200;

/// A line that says something.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Key,
    pub(super) grant: Grant,
    pub(super) comment: String,
}

/// The subject of a line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    Client(Fingerprint),
    /// Whoever shows the secret with this hash.
    Invitation(InvitationHash),
}

impl Entry {
    pub(super) fn new(key: Key, grant: Grant, comment: &str) -> Result<Self, TrustError> {
        let comment = comment.trim();
        // A line break would start another line, and thus another client.
        if comment.chars().any(char::is_control) || comment.chars().count() > COMMENT_CHARS_MAX {
            return Err(TrustError::InvalidComment(InvalidComment(comment.to_owned())));
        }
        Ok(Self { key, grant, comment: comment.to_owned() })
    }

    pub(super) fn client(client: AuthorizedClient) -> Result<Self, TrustError> {
        Self::new(Key::Client(client.key), client.grant, &client.comment)
    }

    pub(super) fn into_client(self) -> Option<AuthorizedClient> {
        let Key::Client(key) = self.key else { return None };
        Some(AuthorizedClient { key, grant: self.grant, comment: self.comment })
    }

    pub(super) fn is_client(&self, client: Fingerprint) -> bool {
        matches!(self.key, Key::Client(key) if key == client)
    }

    pub(super) fn is_invitation(&self, secret: &InvitationSecret) -> bool {
        matches!(self.key, Key::Invitation(hash) if hash.is_of(secret))
    }

    pub(super) fn is_invitation_over(&self, now: SystemTime) -> bool {
        matches!(self.key, Key::Invitation(_)) && self.grant.is_over(now)
    }

    /// What a line says, `None` if it is blank or a comment; or why it cannot be read.
    pub(super) fn parse(line: &str) -> Result<Option<Self>, String> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let mut rest = line;
        let grant = if parse_key(first_word(line)).is_some() {
            Grant::default()
        } else {
            parse_options(&mut rest)?
        };
        let word = first_word(rest);
        let key = parse_key(word)
            .ok_or_else(|| format!("where a key SHA256:... is expected stands {}", shown(word)))?;
        if matches!(key, Key::Invitation(_)) && grant.expires.is_none() {
            return Err("an invitation needs an option expires".to_owned());
        }
        let comment = rest[word.len()..].trim().to_owned();
        Ok(Some(Self { key, grant, comment }))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut options = Vec::new();
        options.extend(self.grant.destinations.iter().map(|rule| format!("dial=\"{rule}\"")));
        options.extend(self.grant.listen.iter().map(|rule| format!("listen=\"{rule}\"")));
        options.extend(self.grant.streams_max.map(|max| format!("max-streams={max}")));
        options.extend(self.grant.expires.map(|at| format!("expires=\"{}\"", format_time(at))));
        options.extend(self.grant.tell_source.map(|how| format!("{PROXY_PROTOCOL}={how}")));
        options.extend(self.grant.trust_source.then(|| TRUST_SOURCE.to_owned()));
        if !options.is_empty() {
            write!(f, "{} ", options.join(","))?;
        }
        match &self.key {
            Key::Client(key) => key.fmt(f)?,
            Key::Invitation(hash) => write!(f, "{INVITATION}{hash}")?,
        }
        if !self.comment.is_empty() {
            write!(f, " {}", self.comment)?;
        }
        Ok(())
    }
}

fn first_word(text: &str) -> &str {
    text.split_ascii_whitespace().next().unwrap_or_default()
}

fn parse_key(word: &str) -> Option<Key> {
    match word.strip_prefix(INVITATION) {
        Some(hash) => InvitationHash::parse(hash).map(Key::Invitation),
        // Bare hexadecimal digits are a fingerprint elsewhere; here a key must say what it is.
        None => word.strip_prefix("SHA256:").and_then(|_| word.parse().ok()).map(Key::Client),
    }
}

/// Takes `name=value,name="value",…` and the blanks behind it off the front of `rest`.
fn parse_options(rest: &mut &str) -> Result<Grant, String> {
    let mut grant = Grant::default();
    loop {
        let end = rest.find(['=', ',', ' ', '\t']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let (value, after) = match after.strip_prefix('=') {
            Some(after) => parse_value(after)?,
            // The options that need no value.
            None if name == PROXY_PROTOCOL => ("v2", after),
            None if name == TRUST_SOURCE => ("", after),
            None => {
                return Err(format!("neither a key nor an option with its value: {}", shown(name)));
            }
        };
        set_option(&mut grant, name, value)?;
        match after.strip_prefix(',') {
            Some(after) => *rest = after,
            None if after.starts_with([' ', '\t']) => {
                *rest = after.trim_start();
                return Ok(grant);
            }
            None => return Err(format!("no key follows the option {}", shown(name))),
        }
    }
}

/// A value, in quotes or up to a comma or blank. No value holds a quote or a backslash, so there is
/// nothing to escape.
fn parse_value(text: &str) -> Result<(&str, &str), String> {
    match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').ok_or_else(|| "a quote is not closed".to_owned()),
        None => Ok(text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()))),
    }
}

fn set_option(grant: &mut Grant, name: &str, value: &str) -> Result<(), String> {
    let twice = |set: bool| {
        if set { Err(format!("the option {name} stands twice")) } else { Ok(()) }
    };
    match name {
        "dial" => {
            let rule = value.parse().map_err(|error| format!("dial: {error}"))?;
            grant.destinations.push(rule);
        }
        "listen" => {
            let rule: DestinationRule =
                value.parse().map_err(|error| format!("listen: {error}"))?;
            if !rule.is_place_to_listen() {
                return Err(format!(
                    "listen: {} names a host; an address of the server, `localhost` or `*` is meant",
                    shown(value)
                ));
            }
            grant.listen.push(rule);
        }
        "max-streams" => {
            twice(grant.streams_max.is_some())?;
            let max = value.parse().ok().filter(|max| *max > 0);
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            let max = max.filter(|_| digits).ok_or_else(|| {
                format!("max-streams: {} is no number from 1 to 4294967295", shown(value))
            })?;
            grant.streams_max = Some(max);
        }
        "expires" => {
            twice(grant.expires.is_some())?;
            let at = parse_time(value).ok_or_else(|| {
                format!("expires: {} is no time such as 2030-12-31T23:59:59Z", shown(value))
            })?;
            grant.expires = Some(at);
        }
        PROXY_PROTOCOL => {
            twice(grant.tell_source.is_some())?;
            let how = value.parse().map_err(|error| format!("{PROXY_PROTOCOL}: {error}"))?;
            grant.tell_source = Some(how);
        }
        TRUST_SOURCE => {
            twice(grant.trust_source)?;
            if !value.is_empty() {
                return Err(format!("{TRUST_SOURCE} stands without a value"));
            }
            grant.trust_source = true;
        }
        // What it was meant to forbid or allow is unknown: it cannot be ignored.
        _ => return Err(format!("there is no option {}", shown(name))),
    }
    Ok(())
}

fn parse_time(text: &str) -> Option<SystemTime> {
    let seconds = OffsetDateTime::parse(text, &Rfc3339).ok()?.unix_timestamp();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn format_time(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // Years beyond 9999 have no text: that is as good as forever.
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX).min(253_402_300_799);
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// A piece of the file for a message, bounded and escaped.
fn shown(text: &str) -> String {
    let start: String = text.chars().take(60).collect();
    if start.len() < text.len() { format!("{start:?}...") } else { format!("{start:?}") }
}
