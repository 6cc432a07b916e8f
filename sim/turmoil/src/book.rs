//! What was sent and what came of it, as an omniscient bookkeeper has it; and the rules it holds
//! the driver to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use imux::proto::SessionError;
use imux::{Code, StreamError};
use imux_sim::trace::{Record, Trace};
use tokio::sync::Notify;

use crate::plan::Plan;

/// What a writer resets with.
pub const RESET_CODE: Code = Code::application(1);
/// What a reader stops with.
pub const STOP_CODE: Code = Code::application(2);

/// One attempt at a stream of the plan; a stream that was cut off with its session is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trial {
    pub stream: usize,
    pub attempt: u64,
}

/// One of the four ends of a stream: the writer's or the reader's, of the half towards the accepter
/// (0) or back (1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub trial: Trial,
    pub half: usize,
    pub reader: bool,
    /// At the server's.
    pub server: bool,
}

/// How one of them ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With the end of the stream, written or read.
    Finished,
    /// The writer has reset it, or the reader was told so.
    Reset,
    /// The reader has stopped it, or the writer was told so.
    Stopped,
    /// The session was over.
    Cut,
}

#[derive(Clone, Debug, Default)]
struct Ends {
    /// Sessions lost before it was opened.
    losses_before: u64,
    /// By half; writer's, reader's.
    ends: [[Option<End>; 2]; 2],
}

#[derive(Debug)]
struct Inner {
    failure: Option<String>,
    trace: Trace,
    counts: BTreeMap<&'static str, u64>,
    events: u64,
    trials: BTreeMap<Trial, Ends>,
    /// Sessions that were lost and may have been: what was under way then is under no obligation.
    losses: u64,
    restarts: u64,
    /// Sessions at the server that had a client and are not over.
    server_sessions: u64,
    /// The client ends its session.
    closing: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Book {
    plan: Arc<Plan>,
    inner: Mutex<Inner>,
    changed: Notify,
}

impl Book {
    /// `keep`: the records of the trace too, not only its hash.
    #[must_use]
    pub fn new(plan: Arc<Plan>, keep: bool) -> Arc<Self> {
        let inner = Inner {
            failure: None,
            trace: Trace::new(keep),
            counts: BTreeMap::new(),
            events: 0,
            trials: BTreeMap::new(),
            losses: 0,
            restarts: 0,
            server_sessions: 0,
            closing: false,
        };
        Arc::new(Self { plan, inner: Mutex::new(inner), changed: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened, to be traced and counted.
    pub fn note(&self, what: &'static str, end: &'static str, id: u64, a: u64, b: u64) {
        let t = turmoil::sim_elapsed().map_or(0, |now| now.as_nanos() as u64);
        self.note_at(t, what, end, id, a, b);
    }

    /// As [`note`](Self::note), with the time in nanoseconds: for those outside of all hosts.
    pub fn note_at(&self, t: u64, what: &'static str, end: &'static str, id: u64, a: u64, b: u64) {
        let mut inner = self.lock();
        inner.events += 1;
        inner.trace.note(Record { t, what, end, id, a, b });
        *inner.counts.entry(what).or_default() += 1;
    }

    /// Something happened so many times.
    pub fn count(&self, what: &'static str, times: u64) {
        if times > 0 {
            *self.lock().counts.entry(what).or_default() += times;
        }
    }

    /// A rule was broken; the first one counts.
    pub fn fail(&self, why: String) {
        self.lock().failure.get_or_insert(why);
        self.changed.notify_waiters();
    }

    /// The rule that was broken, if one was.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// A stream is about to be opened once more.
    pub fn begin(&self, stream: usize) -> Trial {
        let mut inner = self.lock();
        let attempt = inner.trials.range(range_of(stream)).count() as u64;
        let trial = Trial { stream, attempt };
        let losses_before = inner.losses;
        inner.trials.insert(trial, Ends { losses_before, ..Ends::default() });
        trial
    }

    /// One end of a stream is over, after so many bytes.
    pub fn end(&self, place: Place, bytes: u64, end: Result<End, StreamError>) -> End {
        let end = match end {
            Ok(end) => end,
            Err(StreamError::Session(why)) => {
                self.check_session_end(place.server, &why, false);
                End::Cut
            }
            Err(other) => {
                self.fail(format!("{place:?} after {bytes} bytes: {other}"));
                End::Cut
            }
        };
        let what = match end {
            End::Finished => "finished",
            End::Reset => "reset",
            End::Stopped => "stopped",
            End::Cut => "cut off",
        };
        let side = if place.server { "server" } else { "client" };
        self.note(what, side, place.trial.stream as u64, place.half as u64, bytes);
        if let Some(ends) = self.lock().trials.get_mut(&place.trial) {
            ends.ends[place.half][usize::from(place.reader)] = Some(end.clone());
        }
        self.changed.notify_waiters();
        end
    }

    /// Whether a stream has come to all its ends, in some attempt.
    #[must_use]
    pub fn is_settled(&self, stream: usize) -> bool {
        let inner = self.lock();
        inner.trials.range(range_of(stream)).any(|(_, trial)| {
            let well = |end: &Option<End>| end.as_ref().is_some_and(|end| *end != End::Cut);
            let all = trial.ends.iter().flatten().all(well);
            // Whoever opened it is through with it, and knows nothing of what was lost with the
            // session.
            let lost = inner.losses > trial.losses_before;
            all || (lost && well(&trial.ends[0][0]) && well(&trial.ends[1][1]))
        })
    }

    /// Waits until everything is settled, or a rule was broken.
    pub async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            let all = (0..self.plan.streams.len()).all(|stream| self.is_settled(stream));
            if all || self.failure().is_some() {
                return;
            }
            changed.await;
        }
    }

    /// What is not settled, for a person.
    #[must_use]
    pub fn unsettled(&self) -> String {
        let open: Vec<usize> =
            (0..self.plan.streams.len()).filter(|stream| !self.is_settled(*stream)).collect();
        let inner = self.lock();
        let trials: Vec<_> =
            inner.trials.iter().filter(|(trial, _)| open.contains(&trial.stream)).collect();
        format!("streams {open:?} are not through: {trials:?}")
    }

    /// The server was killed.
    pub fn restarted(&self) {
        let mut inner = self.lock();
        inner.restarts += 1;
        inner.losses += 1;
        inner.server_sessions = 0;
        drop(inner);
        self.changed.notify_waiters();
    }

    /// The server has a session that its client uses.
    pub fn server_session(&self) {
        self.lock().server_sessions += 1;
    }

    /// A session is over at one end; at the server one that `had` a client or not.
    pub fn session_over(&self, server: bool, why: &SessionError, had: bool) {
        let end = if server { "server" } else { "client" };
        self.note(name_of(why), end, 0, 0, 0);
        self.check_session_end(server, why, server && !had);
        let mut inner = self.lock();
        inner.losses += 1;
        if server && had {
            inner.server_sessions = inner.server_sessions.saturating_sub(1);
        }
        drop(inner);
        self.changed.notify_waiters();
    }

    /// A session may end only for a reason.
    fn check_session_end(&self, server: bool, why: &SessionError, orphan: bool) {
        let inner = self.lock();
        let fine = match why {
            _ if inner.closing => !matches!(why, SessionError::PeerMisbehaved { .. }),
            SessionError::GraceExpired => orphan || self.plan.grace_is_short(),
            // The server knows nothing of it.
            SessionError::Closed(Code::JOIN_REFUSED) => {
                !server && (inner.restarts > 0 || self.plan.grace_is_short())
            }
            _ => false,
        };
        drop(inner);
        if !fine {
            let end = if server { "server" } else { "client" };
            self.fail(format!("the {end}'s session ended without need: {why:?}"));
        }
    }

    /// The client ends its session.
    pub fn close(&self) {
        self.lock().closing = true;
    }

    /// Sessions at the server that had a client and are not over.
    #[must_use]
    pub fn server_sessions(&self) -> u64 {
        self.lock().server_sessions
    }

    /// Waits until something changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What the run came to.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let mut inner = self.lock();
        Outcome {
            failure: inner.failure.clone(),
            counts: inner.counts.clone(),
            events: inner.events,
            trace: std::mem::replace(&mut inner.trace, Trace::new(false)),
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    pub failure: Option<String>,
    pub counts: BTreeMap<&'static str, u64>,
    pub events: u64,
    pub trace: Trace,
}

fn range_of(stream: usize) -> std::ops::RangeInclusive<Trial> {
    Trial { stream, attempt: 0 }..=Trial { stream, attempt: u64::MAX }
}

const fn name_of(why: &SessionError) -> &'static str {
    match why {
        SessionError::PeerMisbehaved { .. } => "session over: peer misbehaved",
        SessionError::ClosedByPeer { .. } => "session over: closed by peer",
        SessionError::Closed(_) => "session over: closed",
        SessionError::GraceExpired => "session over: grace expired",
    }
}

#[cfg(test)]
mod tests {
    use imux_sim::options::StreamPlan;

    use super::*;

    const LONG: u64 = 120_000;
    const SHORT: u64 = 1_000;

    /// The book of a run with one stream, whose sessions bear to be without lanes for `grace_ms`.
    fn book(grace_ms: u64) -> Arc<Book> {
        let mut plan = Plan::draw(1);
        plan.streams = vec![StreamPlan::default()];
        plan.sessions.iter_mut().for_each(|session| session.grace_ms = grace_ms);
        Book::new(Arc::new(plan), false)
    }

    /// The client's ends are the writer of half 0 and the reader of half 1.
    fn place(trial: Trial, half: usize, reader: bool) -> Place {
        Place { trial, half, reader, server: reader == (half == 0) }
    }

    fn end_all(book: &Book, trial: Trial, ends: impl IntoIterator<Item = (usize, bool)>) {
        for (half, reader) in ends {
            book.end(place(trial, half, reader), 0, Ok(End::Finished));
        }
    }

    fn refused() -> SessionError {
        SessionError::Closed(Code::JOIN_REFUSED)
    }

    fn accused() -> SessionError {
        SessionError::PeerMisbehaved { code: Code::PROTOCOL, detail: "" }
    }

    #[test]
    fn a_stream_is_settled_when_all_its_ends_are() {
        let book = book(LONG);
        let trial = book.begin(0);
        let ends = [(0, false), (0, true), (1, false), (1, true)];
        for end in ends {
            assert!(!book.is_settled(0), "before {end:?}");
            end_all(&book, trial, [end]);
        }
        assert!(book.is_settled(0));
        assert_eq!(book.failure(), None);
    }

    #[test]
    fn ends_of_several_attempts_do_not_add_up() {
        let book = book(SHORT);
        let first = book.begin(0);
        end_all(&book, first, [(0, false), (0, true)]);
        let second = book.begin(0);
        assert_eq!((first.attempt, second.attempt), (0, 1));
        end_all(&book, second, [(1, false), (1, true)]);
        assert!(!book.is_settled(0));
        assert!(book.unsettled().contains("streams [0]"), "{}", book.unsettled());
    }

    #[test]
    fn a_lost_session_excuses_only_whoever_did_not_open_the_stream() {
        let lost = book(SHORT);
        let trial = lost.begin(0);
        lost.session_over(true, &SessionError::GraceExpired, true);
        end_all(&lost, trial, [(0, false)]);
        assert!(!lost.is_settled(0));
        end_all(&lost, trial, [(1, true)]);
        assert!(lost.is_settled(0));
        // A loss before the stream was opened is no excuse.
        let fresh = book(SHORT);
        fresh.session_over(true, &SessionError::GraceExpired, true);
        let trial = fresh.begin(0);
        end_all(&fresh, trial, [(0, false), (1, true)]);
        assert!(!fresh.is_settled(0));
    }

    #[test]
    fn a_cut_stream_is_not_settled_and_needs_a_cause() {
        for (grace_ms, fine) in [(SHORT, true), (LONG, false)] {
            let book = book(grace_ms);
            let trial = book.begin(0);
            end_all(&book, trial, [(0, true), (1, false), (1, true)]);
            let why = Err(StreamError::Session(SessionError::GraceExpired));
            assert_eq!(book.end(place(trial, 0, false), 5, why), End::Cut);
            assert!(!book.is_settled(0));
            assert_eq!(book.failure().is_none(), fine, "{:?}", book.failure());
        }
    }

    #[test]
    fn a_stream_error_that_nobody_caused_is_told_of() {
        for error in [StreamError::Reset(Code::application(9)), StreamError::Closed] {
            let book = book(LONG);
            let trial = book.begin(0);
            book.end(place(trial, 0, true), 5, Err(error));
            let why = book.failure().unwrap();
            assert!(why.contains("after 5 bytes"), "{why}");
        }
    }

    #[test]
    fn a_session_that_ends_without_need_is_told_of() {
        let told = |grace_ms, server, why: &SessionError, had| {
            let book = book(grace_ms);
            book.session_over(server, why, had);
            book.failure().is_some()
        };
        let by_peer = SessionError::ClosedByPeer { code: Code::NONE, reason: String::new() };
        for why in [by_peer, SessionError::Closed(Code::NONE), refused(), accused()] {
            assert!(told(LONG, false, &why, true), "{why}");
            assert!(told(LONG, true, &why, true), "{why}");
        }
        assert!(told(LONG, false, &SessionError::GraceExpired, true));
        assert!(told(LONG, true, &SessionError::GraceExpired, true));
        assert!(!told(LONG, true, &SessionError::GraceExpired, false), "it never had a client");
        assert!(!told(SHORT, false, &SessionError::GraceExpired, true));
        assert!(!told(SHORT, false, &refused(), true));
        assert!(told(SHORT, true, &refused(), true), "a server refuses, and is not refused");
    }

    #[test]
    fn a_restart_explains_a_refusal_and_a_close_everything_but_an_accusation() {
        let restarted = book(LONG);
        restarted.restarted();
        restarted.session_over(false, &refused(), true);
        assert_eq!(restarted.failure(), None);
        restarted.session_over(false, &accused(), true);
        assert!(restarted.failure().is_some());

        let closing = book(LONG);
        closing.close();
        for why in [SessionError::GraceExpired, SessionError::Closed(Code::NONE), refused()] {
            closing.session_over(true, &why, true);
            assert_eq!(closing.failure(), None);
        }
        closing.session_over(true, &accused(), true);
        assert!(closing.failure().is_some());
    }

    #[test]
    fn sessions_at_the_server_are_counted() {
        let book = book(SHORT);
        book.server_session();
        book.server_session();
        book.session_over(true, &SessionError::GraceExpired, false);
        book.session_over(false, &SessionError::GraceExpired, true);
        assert_eq!(book.server_sessions(), 2, "neither was one of them");
        book.session_over(true, &SessionError::GraceExpired, true);
        assert_eq!(book.server_sessions(), 1);
        book.restarted();
        assert_eq!(book.server_sessions(), 0);
    }

    #[test]
    fn the_first_failure_counts() {
        let book = book(LONG);
        book.fail("first".to_owned());
        book.fail("second".to_owned());
        assert_eq!(book.outcome().failure.as_deref(), Some("first"));
    }
}
