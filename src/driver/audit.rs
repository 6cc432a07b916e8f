//! The audit trail: who was let in, and for what, as events of the target `imux::audit`.
//!
//! Every event of a listed client is logged. Strangers' events are counted per source and logged
//! once a minute, for a bounded number of sources: nobody can fill a disk by knocking.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::proto::{Code, SessionId};
use crate::trust::{Fingerprint, Permit};

/// The target of all events.
macro_rules! target {
    () => {
        "imux::audit"
    };
}

/// Sources of strangers that are counted separately; all others share one line.
const SOURCES_MAX: usize = 64;

/// How often counts per source are logged.
const EVERY: Duration = Duration::from_secs(60);

/// On whose behalf something happens.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    pub(super) session: Option<SessionId>,
    pub(super) key: Option<Fingerprint>,
    pub(super) comment: String,
    pub(super) remote: Option<SocketAddr>,
    pub(super) listed: bool,
}

impl Subject {
    pub(super) fn new(
        key: Option<Fingerprint>,
        permit: Option<&Permit>,
        remote: Option<SocketAddr>,
    ) -> Self {
        let comment = permit.map_or_else(String::new, |permit| permit.comment().to_owned());
        let listed = permit.is_some_and(Permit::is_listed);
        Self { session: None, key, comment, remote, listed }
    }

    /// The comment that its client was listed with.
    pub(crate) fn comment(&self) -> &str {
        &self.comment
    }

    /// Where the first lane of its session came from, if known.
    pub fn source(&self) -> Option<SocketAddr> {
        self.remote
    }

    pub(super) fn started(&self) {
        tracing::info!(
            target: target!(), session = %Shown(self.session), key = %Shown(self.key), comment = self.comment,
            source = %Shown(self.remote), listed = self.listed, "session start"
        );
    }

    pub(super) fn ended(&self, why: &dyn fmt::Display) {
        tracing::info!(
            target: target!(), session = %Shown(self.session), key = %Shown(self.key), comment = self.comment,
            source = %Shown(self.remote), listed = self.listed, %why, "session end"
        );
    }

    pub(super) fn refused(&self, code: Code) {
        tracing::info!(
            target: target!(), key = %Shown(self.key), comment = self.comment,
            source = %Shown(self.remote), listed = self.listed, why = %code, "session refused"
        );
    }

    pub(super) fn proved_wrongly(&self) {
        tracing::info!(
            target: target!(), session = %Shown(self.session), key = %Shown(self.key), comment = self.comment,
            source = %Shown(self.remote), listed = self.listed, "wrong proof"
        );
    }

    /// A stream to `destination` has started.
    pub fn stream_started(&self, destination: &dyn fmt::Display) {
        if self.listed {
            tracing::debug!(
                target: target!(), session = %Shown(self.session), key = %Shown(self.key), comment = self.comment,
                source = %Shown(self.remote), %destination, "stream start"
            );
        }
    }

    /// A stream to `destination` has ended, or never started.
    pub fn stream_ended(&self, destination: &dyn fmt::Display, why: &dyn fmt::Display) {
        if self.listed {
            tracing::debug!(
                target: target!(), session = %Shown(self.session), key = %Shown(self.key), comment = self.comment,
                source = %Shown(self.remote), %destination, %why, "stream end"
            );
        }
    }
}

/// A value, or `-`.
struct Shown<T>(Option<T>);

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// What is logged about a subject.
#[derive(Clone, Copy)]
pub(super) enum Event<'a> {
    Started,
    Ended(&'a dyn fmt::Display),
    Refused(Code),
    WrongProof,
}

/// Counts of what strangers from one source did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    started: u64,
    ended: u64,
    refused: u64,
    wrong_proofs: u64,
}

impl Counts {
    fn add(&mut self, event: Event<'_>) {
        let count = match event {
            Event::Started => &mut self.started,
            Event::Ended(_) => &mut self.ended,
            Event::Refused(_) => &mut self.refused,
            Event::WrongProof => &mut self.wrong_proofs,
        };
        *count = count.saturating_add(1);
    }
}

/// The trail of one server.
#[derive(Debug, Default)]
pub(super) struct Trail {
    strangers: Mutex<Strangers>,
}

#[derive(Debug, Default)]
struct Strangers {
    /// `None` stands for memory, which has no address.
    sources: BTreeMap<Option<IpAddr>, Counts>,
    others: Counts,
    /// When counts are logged next.
    due: Option<Instant>,
}

impl Trail {
    /// Logs an event at once if its client is listed or it is its source's first for a while.
    pub(super) fn tell(&self, subject: &Subject, event: Event<'_>) {
        if !subject.listed && !self.is_first(subject.remote.map(|remote| remote.ip()), event) {
            return;
        }
        match event {
            Event::Started => subject.started(),
            Event::Ended(why) => subject.ended(why),
            Event::Refused(code) => subject.refused(code),
            Event::WrongProof => subject.proved_wrongly(),
        }
    }

    /// Whether to log a stranger's event on its own; if not, it has been counted.
    fn is_first(&self, source: Option<IpAddr>, event: Event<'_>) -> bool {
        let mut strangers = self.lock();
        let full = strangers.sources.len() >= SOURCES_MAX;
        match strangers.sources.get_mut(&source) {
            Some(counts) => counts.add(event),
            None if full => strangers.others.add(event),
            None => {
                strangers.sources.insert(source, Counts::default());
                return true;
            }
        }
        false
    }

    /// Call now and then: logs strangers' counts if a minute has passed.
    pub(super) fn tell_counts(&self, now: Instant) {
        for (source, counts) in self.due(now) {
            let Counts { started, ended, refused, wrong_proofs } = counts;
            tracing::info!(
                target: target!(), source, started, ended, refused, wrong_proofs, "strangers"
            );
        }
    }

    fn due(&self, now: Instant) -> Vec<(String, Counts)> {
        let mut strangers = self.lock();
        let due = *strangers.due.get_or_insert(now + EVERY);
        if now < due {
            return Vec::new();
        }
        strangers.due = Some(now + EVERY);
        let mut told = Vec::new();
        strangers.sources.retain(|source, counts| {
            let counts = std::mem::take(counts);
            let any = counts != Counts::default();
            if any {
                told.push((Shown(*source).to_string(), counts));
            }
            // A source that was quiet for a minute counts as new again.
            any
        });
        let others = std::mem::take(&mut strangers.others);
        if others != Counts::default() {
            told.push(("others".to_owned(), others));
        }
        told
    }

    fn lock(&self) -> MutexGuard<'_, Strangers> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::clock;

    #[test]
    fn strangers_are_counted_by_source_and_told_once_a_minute() {
        let (trail, now) = (Trail::default(), clock::now());
        let ip = |number: u32| Some(IpAddr::V4(number.into()));
        assert_eq!(trail.due(now), []);
        assert!(trail.is_first(ip(1), Event::Refused(Code::UNAUTHORIZED)));
        for _ in 0..10_000 {
            assert!(!trail.is_first(ip(1), Event::WrongProof));
        }
        let at_once = (2..1_000).filter(|&number| trail.is_first(ip(number), Event::Started));
        assert_eq!(at_once.count(), SOURCES_MAX - 1);
        assert_eq!(trail.due(now + EVERY / 2), []);
        let told = trail.due(now + EVERY);
        let wrong = Counts { wrong_proofs: 10_000, ..Counts::default() };
        let others = Counts { started: 1_000 - 1 - SOURCES_MAX as u64, ..Counts::default() };
        assert_eq!(told, [("0.0.0.1".to_owned(), wrong), ("others".to_owned(), others)]);
        // Quiet sources have made room; one that goes on is not logged at once again.
        assert!(!trail.is_first(ip(1), Event::Started));
        assert!(trail.is_first(ip(2_000), Event::Started));
        assert_eq!(trail.due(now + EVERY * 2).len(), 1);
        assert_eq!(trail.due(now + EVERY * 3), []);
        assert!(trail.is_first(ip(1), Event::Started));
    }
}
