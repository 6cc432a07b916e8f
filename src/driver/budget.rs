//! One budget for the memory kept for peers, shared by all sessions that draw on it.
//!
//! A session asks for more before it promises more (its core: `proto::streams::memory`), under its
//! own lock; the account's lock is a leaf. If the account is overdrawn all the same, by what cannot
//! be foreseen, whoever notices ends sessions that hold more than they were granted.

mod account;
mod machine;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

pub(super) use self::account::Debtor;
use self::account::{Account, Number, who_ends};
use super::clock;
use crate::proto::limits::{
    FIRST_MEMORY_BYTES, FIRST_UNACKED_BYTES, MEMORY_BYTES_MAX, MEMORY_PART,
};
use crate::proto::{Allowance, Config, MemoryUse};

/// Memory kept for peers: data that arrived out of order or is unread, data that credit given still
/// allows, and data sent but not acknowledged; bookkeeping included. Clones share the budget.
#[derive(Clone)]
pub(super) struct MemoryBudget(Arc<Inner>);

/// A session that was refused more asks again after this long, or once much of what it holds has
/// moved.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// After this long without streams, a session needs little of what it has.
const UNUSED: Duration = Duration::from_secs(30);

/// The process's budget.
static PROCESS: OnceLock<MemoryBudget> = OnceLock::new();

/// A session, as the budget knows it. Neither method is called under the account's lock.
pub(super) trait Charged: Send + Sync {
    /// For how long nothing it keeps for its peer has moved.
    fn stalled(&self, now: Instant) -> Duration;

    /// Ends it: it has more than granted, and memory is short.
    fn end(&self);
}

struct Inner {
    account: Mutex<Account>,
    sessions: Mutex<BTreeMap<Number, Weak<dyn Charged>>>,
    /// Somebody is ending sessions already.
    enforcing: AtomicBool,
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget").finish_non_exhaustive()
    }
}

/// The memory this process keeps for the peers of all its servers and clients together: data that
/// arrived out of order or is unread, data that credit given still allows, and data sent but not
/// acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct ProcessMemory;

impl ProcessMemory {
    /// Sets it, in bytes. The default is a quarter of the machine's memory, or of its control
    /// group's, and at most 1 GiB.
    ///
    /// Returns `false` if it is too late: there has been a server or a session.
    pub fn limit(bytes: u64) -> bool {
        PROCESS.set(MemoryBudget::new(bytes)).is_ok()
    }
}

/// The default share of a machine's memory.
fn of_machine(memory: Option<u64>) -> u64 {
    memory.map_or(MEMORY_BYTES_MAX, |bytes| (bytes / MEMORY_PART).min(MEMORY_BYTES_MAX))
}

impl MemoryBudget {
    fn new(bytes: u64) -> Self {
        Self(Arc::new(Inner {
            account: Mutex::new(Account::new(bytes)),
            sessions: Mutex::default(),
            enforcing: AtomicBool::new(false),
        }))
    }

    /// The process's budget.
    pub(super) fn of_process() -> Self {
        PROCESS.get_or_init(|| Self::new(of_machine(machine::memory()))).clone()
    }

    /// Room for one more session, with its first allowance. `None` if there is no memory for it.
    pub(super) fn open(&self, debtor: Debtor, wants: Allowance) -> Option<Reservation> {
        let (number, begins) = self.0.account().open(debtor, wants)?;
        let (moved, asked, unused) = (Moved::default(), None, None);
        Some(Reservation { budget: self.clone(), number, begins, moved, asked, unused })
    }

    /// Ends sessions until the account is no longer overdrawn, or none holds more than it was
    /// granted. The caller must hold no session's lock.
    pub(super) fn enforce(&self) {
        if self.0.enforcing.swap(true, Ordering::Acquire) {
            return;
        }
        while let Some((number, session)) = self.next_to_end() {
            self.0.account().close(number);
            if let Some(session) = session {
                tracing::warn!("memory is short: a session that takes more than its share ends");
                session.end();
            }
        }
        self.0.enforcing.store(false, Ordering::Release);
    }

    fn next_to_end(&self) -> Option<(Number, Option<Arc<dyn Charged>>)> {
        let mut overdrawn = {
            let account = self.0.account();
            if !account.is_overdrawn() {
                return None;
            }
            account.overdrawn()
        };
        let now = clock::now();
        for one in &mut overdrawn {
            let session = self.0.sessions().get(&one.number).and_then(Weak::upgrade);
            one.stalled = session.map(|session| session.stalled(now)).unwrap_or_default();
        }
        let number = who_ends(&overdrawn)?;
        Some((number, self.0.sessions().get(&number).and_then(Weak::upgrade)))
    }
}

impl Inner {
    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<Number, Weak<dyn Charged>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a session wants at first.
pub(super) fn first_wants(config: &Config) -> Allowance {
    let receive = FIRST_MEMORY_BYTES.min(config.session_window);
    Allowance { receive, send: FIRST_UNACKED_BYTES }
}

/// A session's part of the account, given back on drop.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: MemoryBudget,
    number: Number,
    begins: Allowance,
    moved: Moved,
    asked: Option<Instant>,
    /// Since when there has been no stream.
    unused: Option<Instant>,
}

impl Reservation {
    /// What the session may have at first.
    pub(super) fn begins(&self) -> Allowance {
        self.begins
    }

    /// A session's settings, limited so that it announces no more at first than it may have.
    pub(super) fn begin_with(&self, config: &Config) -> Config {
        let initial = config.session_window_initial.min(self.begins.receive);
        Config { session_window_initial: initial, ..config.clone() }
    }

    /// Records which session it is for.
    pub(super) fn is_of(&self, session: Weak<dyn Charged>) {
        self.budget.0.sessions().insert(self.number, session);
    }

    /// Reports what the session uses; returns what it may have from now on, and the budget if that
    /// is overdrawn.
    pub(super) fn renew(
        &mut self,
        now: Instant,
        used: &MemoryUse,
    ) -> (Allowance, Option<MemoryBudget>) {
        self.asked = Some(now);
        let mut account = self.budget.0.account();
        let granted = account.renew(self.number, used);
        let overdrawn = account.is_overdrawn().then(|| self.budget.clone());
        (granted, overdrawn)
    }

    /// Whether a session that was refused may ask again.
    pub(super) fn is_time_to_ask(&self, now: Instant) -> bool {
        self.asked.is_none_or(|asked| now.saturating_duration_since(asked) >= ASK_AGAIN)
    }

    /// Records that `moved` bytes have moved by now, and `kept` have not.
    pub(super) fn note_moved(&mut self, now: Instant, moved: u64, kept: u64) {
        self.moved.note(now, moved, kept);
    }

    /// Whether there has been no stream for a while, given `streams` now.
    pub(super) fn is_unused(&mut self, now: Instant, streams: usize) -> bool {
        let since = (streams == 0).then(|| self.unused.unwrap_or(now));
        self.unused = since;
        since.is_some_and(|since| now.saturating_duration_since(since) >= UNUSED)
    }

    /// For how long nothing the session keeps has moved.
    pub(super) fn stalled(&self, now: Instant) -> Duration {
        self.moved.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.account().close(self.number);
        self.budget.0.sessions().remove(&self.number);
    }
}

/// Since when nothing a session keeps has moved. It has moved once as many bytes have moved on as
/// were kept then.
#[derive(Clone, Copy, Debug, Default)]
struct Moved {
    since: Option<Instant>,
    goal: u64,
}

impl Moved {
    fn note(&mut self, now: Instant, moved: u64, kept: u64) {
        if self.since.is_none() || moved >= self.goal {
            *self = Self { since: Some(now), goal: moved.saturating_add(kept) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_memory_there_is_and_at_most_a_gibibyte() {
        assert_eq!(of_machine(Some(256 << 20)), 64 << 20);
        assert_eq!(of_machine(Some(64 << 30)), 1 << 30);
        assert_eq!(of_machine(None), 1 << 30);
    }

    #[test]
    fn the_process_has_one_budget_that_is_set_before_its_first_session() {
        assert!(ProcessMemory::limit(5 << 20));
        let budget = MemoryBudget::of_process();
        assert!(Arc::ptr_eq(&budget.0, &MemoryBudget::of_process().0));
        assert!(!ProcessMemory::limit(6 << 20));
    }

    #[test]
    fn a_session_is_unused_once_it_has_had_no_stream_for_a_while() {
        let source = super::super::door::Source::of(None);
        let debtor = Debtor { holder: super::super::owner::Holder::Source(source), listed: false };
        let wants = first_wants(&Config::default());
        let mut place = MemoryBudget::new(64 << 20).open(debtor, wants).unwrap();
        let begun = clock::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        for (seconds, streams, unused) in [
            (0, 0, false),
            (29, 0, false),
            (30, 0, true),
            (31, 1, false),
            (60, 0, false),
            (90, 0, true),
        ] {
            assert_eq!(place.is_unused(at(seconds), streams), unused, "after {seconds} s");
        }
    }

    #[test]
    fn what_is_kept_has_moved_once_as_much_has_come_and_gone() {
        let begun = clock::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut moved = Moved::default();
        moved.note(at(0), 0, 0);
        moved.note(at(1), 0, 100);
        assert_eq!(moved.since, Some(at(1)), "nothing was kept before");
        moved.note(at(2), 99, 100);
        assert_eq!(moved.since, Some(at(1)));
        moved.note(at(3), 100, 100);
        assert_eq!(moved.since, Some(at(3)));
    }
}
