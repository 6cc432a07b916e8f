//! The account of a memory budget: who has how much, how much more they may have, and whose session
//! ends when it is overdrawn. Numbers only; sessions are known by theirs.
//!
//! What a session may take depends on what is free (dynamic thresholds; Choudhury and Hahne, 1998):
//! nobody ever has all of it, a newcomer always finds some, and the more sessions there are, the
//! less each has.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::owner::Holder;
use crate::proto::count::{Count, end_of, span};
use crate::proto::limits::{
    FIRST_MEMORY_PART, MEMORY_FLOOR_BYTES_MAX, MEMORY_FLOOR_BYTES_MIN, SESSIONS_MAX,
};
use crate::proto::{Allowance, MemoryUse};

/// A session counts as stalled if nothing it keeps has moved for this long.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// A session's number in the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Number(u64);

/// Who a session is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::driver) struct Debtor {
    pub(in crate::driver) holder: Holder,
    pub(in crate::driver) listed: bool,
}

#[derive(Debug)]
pub(super) struct Account {
    budget: u64,
    /// What all sessions together are charged.
    charged: Count,
    /// Only holders with a charge.
    holders: BTreeMap<Holder, Count>,
    /// The sum over all holders.
    weights: u64,
    sessions: BTreeMap<Number, Entry>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    debtor: Debtor,
    /// What is granted now, or was granted before and is still in use.
    granted: Allowance,
    /// What it has beyond the grant.
    excess: u64,
}

impl Entry {
    fn charge(&self) -> u64 {
        end_of(self.granted.sum(), self.excess)
    }
}

/// A listed client's weight, where a stranger's is one.
const WEIGHT_OF_LISTED: u64 = 4;

fn weight(holder: Holder) -> u64 {
    match holder {
        Holder::Key(_) => WEIGHT_OF_LISTED,
        Holder::Source(_) => 1,
    }
}

/// A candidate when a session must end: it holds more than it was granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overdrawn {
    pub(super) number: Number,
    debtor: Debtor,
    excess: u64,
    /// For how long nothing it keeps has moved.
    pub(super) stalled: Duration,
}

impl Account {
    pub(super) fn new(budget: u64) -> Self {
        Self {
            budget,
            charged: Count::ZERO,
            holders: BTreeMap::new(),
            weights: 0,
            sessions: BTreeMap::new(),
            next: 0,
        }
    }

    /// What a session always has. A quarter of the budget is reserved for floors.
    fn floor(&self) -> Allowance {
        let each = self.budget / 4 / SESSIONS_MAX as u64;
        let each = each.clamp(MEMORY_FLOOR_BYTES_MIN, MEMORY_FLOOR_BYTES_MAX);
        Allowance { receive: each / 2, send: each / 2 }
    }

    /// A new session, and how much of what it wants it gets at first. `None` if not even the
    /// minimum is left, with an eighth of the budget kept for the bookkeeping of existing sessions.
    pub(super) fn open(&mut self, debtor: Debtor, wants: Allowance) -> Option<(Number, Allowance)> {
        let floor = self.floor();
        if self.charged.get().saturating_add(floor.sum()) > self.budget - self.budget / 8 {
            return None;
        }
        let number = Number(self.next);
        self.next += 1;
        self.sessions.insert(number, Entry { debtor, granted: Allowance::default(), excess: 0 });
        // Many sessions that do nothing yet must leave enough for those at work.
        let most = self.free(0) / FIRST_MEMORY_PART;
        let receive = wants.receive.min(most);
        let wants = Allowance { receive, send: wants.send.min(most) };
        let begins = MemoryUse { wants, ..MemoryUse::default() };
        Some((number, self.renew(number, &begins)))
    }

    /// Charges a session for what it keeps and has promised; returns what it may have from now on.
    pub(super) fn renew(&mut self, number: Number, used: &MemoryUse) -> Allowance {
        let floor = self.floor();
        let Some(entry) = self.sessions.get(&number).copied() else { return floor };
        let granted = self.share(&entry, used.wants, floor);
        // What was granted before is given back as it is used up.
        let in_use = Allowance { receive: used.promised, send: used.unacknowledged };
        let kept = in_use.at_most(entry.granted).at_least(granted);
        let excess = span(in_use.at_most(kept).sum(), in_use.sum());
        self.charge(number, kept, end_of(excess, used.bookkeeping));
        granted
    }

    /// The session is over.
    pub(super) fn close(&mut self, number: Number) {
        self.charge(number, Allowance::default(), 0);
        self.sessions.remove(&number);
    }

    pub(super) fn is_overdrawn(&self) -> bool {
        self.charged.get() > self.budget
    }

    /// The sessions that hold more than they were granted.
    pub(super) fn overdrawn(&self) -> Vec<Overdrawn> {
        let sessions = self.sessions.iter().filter(|(_, entry)| entry.excess > 0);
        let overdrawn = |(&number, entry): (&Number, &Entry)| Overdrawn {
            number,
            debtor: entry.debtor,
            excess: entry.excess,
            stalled: Duration::ZERO,
        };
        sessions.map(overdrawn).collect()
    }

    /// What may be shared out, including one's `own` bytes: a quarter is reserved for floors.
    fn free(&self, own: u64) -> u64 {
        let others = span(own, self.charged.get());
        (self.budget - self.budget / 4).saturating_sub(others)
    }

    /// How much of `wants` a session may have now. A listed client's session: a third of what
    /// nobody else has, less what its holder's other sessions have; a stranger's: a ninth, less
    /// four times that. So a listed holder may have as much as is then left free, a stranger a
    /// quarter of it, and one holder's sessions share by the same rule. Whoever comes, a session
    /// may keep what it has, up to half its share if everything were shared out by weight.
    fn share(&self, entry: &Entry, wants: Allowance, floor: Allowance) -> Allowance {
        let free = self.free(entry.charge());
        let holder = entry.debtor.holder;
        let of_holder = self.holders.get(&holder).copied().unwrap_or_default();
        let beside = span(entry.charge(), of_holder.get());
        let share = match entry.debtor.listed {
            true => free.saturating_sub(beside) / 3,
            false => free.saturating_sub(beside.saturating_mul(4)) / 9,
        };
        let part = (self.budget - self.budget / 4) / 2 / self.weights.max(1) * weight(holder);
        let share = share.max(entry.granted.sum().min(part.saturating_sub(beside)));
        if wants.sum() <= share {
            return wants.at_least(floor);
        }
        // If it is short, neither direction gets less than half, unless it wants less.
        let receive = wants.receive.min(share.saturating_sub(wants.send).max(share / 2));
        Allowance { receive, send: share - receive }.at_least(floor)
    }

    fn charge(&mut self, number: Number, granted: Allowance, excess: u64) {
        let Some(entry) = self.sessions.get_mut(&number) else { return };
        let before = entry.charge();
        (entry.granted, entry.excess) = (granted, excess);
        let (now, holder) = (entry.charge(), entry.debtor.holder);
        self.charged.replace(before, now);
        let had = self.holders.get(&holder).copied().unwrap_or_default();
        let mut has = had;
        has.replace(before, now);
        let [had_some, has_some] = [had, has].map(|charge| charge != Count::ZERO);
        if has_some {
            self.holders.insert(holder, has);
        } else {
            self.holders.remove(&holder);
        }
        let weight = weight(holder);
        self.weights -= if had_some { weight } else { 0 };
        self.weights += if has_some { weight } else { 0 };
    }
}

/// Which session to end: a stranger's first; then one whose memory does not move; then one of the
/// holder furthest beyond its grants; then the one stalled longest. A session within its grant is
/// never among them, however large that is.
pub(super) fn who_ends(overdrawn: &[Overdrawn]) -> Option<Number> {
    let is_stalled = |one: &Overdrawn| one.stalled >= STALLED_AFTER;
    let mut excess = BTreeMap::<(Holder, bool), u64>::new();
    for one in overdrawn {
        let sum = excess.entry((one.debtor.holder, is_stalled(one))).or_default();
        *sum = end_of(*sum, one.excess);
    }
    let last = overdrawn.iter().max_by_key(|one| {
        let of_holder = excess.get(&(one.debtor.holder, is_stalled(one))).copied();
        (!one.debtor.listed, is_stalled(one), of_holder, one.stalled, one.excess)
    });
    last.map(|one| one.number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Fingerprint;

    const MIB: u64 = 1 << 20;

    fn listed(byte: u8) -> Debtor {
        Debtor { holder: Holder::Key(Fingerprint::from_bytes([byte; 32])), listed: true }
    }

    fn stranger(byte: u8) -> Debtor {
        let source = super::super::super::door::Source::of(Some([127, 0, 0, byte].into()));
        Debtor { holder: Holder::Source(source), listed: false }
    }

    fn wants(receive: u64) -> Allowance {
        Allowance { receive, send: 0 }
    }

    /// A session that takes all it gets.
    fn greedy(account: &mut Account, debtor: Debtor) -> (Number, u64) {
        let (number, _) = account.open(debtor, Allowance::default()).unwrap();
        let used = MemoryUse { wants: wants(u64::MAX), ..MemoryUse::default() };
        (number, account.renew(number, &used).receive)
    }

    #[test]
    fn nobody_has_all_of_it_and_whoever_comes_finds_something() {
        let mut account = Account::new(1024 * MIB);
        let mut before = u64::MAX;
        for byte in 0..10 {
            let (_, got) = greedy(&mut account, listed(byte));
            assert!(got <= before && got > 6 * MIB, "number {byte} has {got}");
            assert!(account.charged.get() <= account.budget);
            before = got;
        }
    }

    #[test]
    fn many_sessions_of_one_holder_have_no_more_than_one_may() {
        for (debtor, other, most) in [(listed(1), listed(2), 2), (stranger(1), stranger(2), 5)] {
            let mut account = Account::new(1024 * MIB);
            let got: u64 = (0..200).map(|_| greedy(&mut account, debtor).1).sum();
            assert!(got <= account.budget / most + 200 * account.floor().sum(), "{got}");
            let (_, other) = greedy(&mut account, other);
            assert!(other > 30 * MIB, "{other}");
        }
    }

    #[test]
    fn a_listed_client_has_more_than_a_stranger_and_strangers_leave_it_something() {
        let mut account = Account::new(1024 * MIB);
        for byte in 0..10 {
            greedy(&mut account, stranger(byte));
        }
        let (_, of_listed) = greedy(&mut account, listed(1));
        let (_, of_stranger) = greedy(&mut account, stranger(100));
        assert!(of_listed > 3 * of_stranger, "{of_listed} {of_stranger}");
        assert!(of_listed > 70 * MIB, "{of_listed}");
    }

    /// Windows shrink as promises are used up, so that in the end the first has no more than
    /// others.
    #[test]
    fn those_who_move_come_to_share_alike() {
        let mut account = Account::new(1024 * MIB);
        let numbers: Vec<_> = (0..4).map(|byte| greedy(&mut account, listed(byte)).0).collect();
        let mut got = vec![];
        for _ in 0..30 {
            let used = MemoryUse { wants: wants(u64::MAX), ..MemoryUse::default() };
            got = numbers.iter().map(|&number| account.renew(number, &used).receive).collect();
        }
        let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
        assert!(most - least < most / 20, "{got:?}");
    }

    #[test]
    fn what_was_promised_is_charged_until_it_is_used() {
        let mut account = Account::new(64 * MIB);
        let (number, _) = account.open(listed(1), wants(MIB)).unwrap();
        let used = MemoryUse { promised: 5 * MIB, wants: wants(MIB), ..MemoryUse::default() };
        assert_eq!(account.renew(number, &used).receive, MIB);
        assert!(account.charged.get() >= 5 * MIB);
        account.close(number);
        assert_eq!((account.charged.get(), account.weights), (0, 0));
        assert!(account.holders.is_empty() && account.sessions.is_empty());
    }

    #[test]
    fn what_was_kept_beyond_what_was_granted_is_excess_and_what_was_granted_once_is_none() {
        let mut account = Account::new(64 * MIB);
        let sending = |send| Allowance { receive: 0, send };
        let (number, _) = account.open(listed(1), sending(MIB)).unwrap();
        let used = |unacknowledged, send| MemoryUse {
            unacknowledged,
            wants: sending(send),
            ..MemoryUse::default()
        };
        account.renew(number, &used(MIB, 8 * MIB));
        account.renew(number, &used(8 * MIB, MIB));
        assert!(account.overdrawn().is_empty(), "it was granted");
        account.renew(number, &used(2 * MIB, MIB));
        account.renew(number, &used(3 * MIB, MIB));
        assert_eq!(account.overdrawn()[0].excess, MIB, "it was given back");
    }

    #[test]
    fn many_that_hold_what_they_have_take_nothing_from_one_that_was_there_before() {
        for who in [listed, stranger] {
            let mut account = Account::new(1024 * MIB);
            let (honest, had) = account.open(listed(0), wants(16 * MIB)).unwrap();
            assert_eq!(had.receive, 16 * MIB);
            for byte in 1..=20 {
                greedy(&mut account, who(byte));
            }
            for _ in 0..50 {
                let used = MemoryUse { wants: wants(64 * MIB), ..MemoryUse::default() };
                let has = account.renew(honest, &used);
                assert!(has.receive >= 15 * MIB, "{has:?}");
            }
            assert!(account.charged.get() <= account.budget);
            let (late, begins) = account.open(listed(100), wants(16 * MIB)).unwrap();
            assert!(begins.receive >= 64 * 1024, "{begins:?}");
            account.close(late);
        }
    }

    #[test]
    fn a_session_can_always_go_on_and_without_the_least_of_memory_there_is_none() {
        let mut account = Account::new(16 * MIB);
        let mut count = 0;
        while let Some((_, begins)) = account.open(stranger(1), wants(4 * MIB)) {
            assert!(begins.receive >= MEMORY_FLOOR_BYTES_MIN / 2);
            count += 1;
        }
        assert!(count >= 400, "{count}");
        assert!(!account.is_overdrawn());
    }

    #[test]
    fn many_that_do_nothing_yet_leave_enough_to_those_that_do() {
        let mut account = Account::new(1024 * MIB);
        for byte in 0..100 {
            let (_, begins) = account.open(listed(byte), wants(16 * MIB)).unwrap();
            assert!(begins.receive >= MIB / 2, "number {byte} has {}", begins.receive);
        }
        let (_, got) = greedy(&mut account, listed(200));
        assert!(got > 8 * MIB, "{got}");
    }

    #[test]
    fn both_directions_share_what_is_short() {
        let mut account = Account::new(12 * MIB);
        let (number, _) = account.open(listed(1), Allowance::default()).unwrap();
        for (send, gets) in [(64 * MIB, (3 * MIB / 2, 3 * MIB / 2)), (MIB, (2 * MIB, MIB))] {
            let wants = Allowance { receive: 64 * MIB, send };
            let used = MemoryUse { wants, ..MemoryUse::default() };
            let got = account.renew(number, &used);
            assert_eq!((got.receive, got.send), gets);
        }
    }

    fn overdrawn(of: &[(Debtor, u64, u64)]) -> Option<u64> {
        let one = |(nth, &(debtor, excess, seconds)): (usize, &(Debtor, u64, u64))| Overdrawn {
            number: Number(nth as u64),
            debtor,
            excess,
            stalled: Duration::from_secs(seconds),
        };
        let all: Vec<_> = of.iter().enumerate().map(one).collect();
        who_ends(&all).map(|number| number.0)
    }

    #[test]
    fn who_keeps_to_what_was_granted_is_not_ended_whatever_it_has() {
        let mut account = Account::new(64 * MIB);
        let (big, _) = greedy(&mut account, stranger(1));
        let (small, _) = account.open(stranger(2), Allowance::default()).unwrap();
        let used = MemoryUse { bookkeeping: 80 * MIB, ..MemoryUse::default() };
        account.renew(small, &used);
        assert!(account.is_overdrawn());
        let overdrawn = account.overdrawn();
        assert!(overdrawn.iter().all(|one| one.number != big));
        assert_eq!(who_ends(&overdrawn), Some(small));
        account.close(small);
        assert!(!account.is_overdrawn() && account.overdrawn().is_empty());
    }

    #[test]
    fn strangers_end_first_and_then_what_does_not_move() {
        let both = [(listed(1), 50, 100), (stranger(1), 1, 0), (stranger(2), 2, 0)];
        assert_eq!(overdrawn(&both), Some(2));
        let moving = [(stranger(1), 50, 0), (stranger(2), 1, 5)];
        assert_eq!(overdrawn(&moving), Some(1));
        assert_eq!(overdrawn(&[]), None);
    }

    #[test]
    fn it_is_summed_by_holder_and_of_one_holder_the_longest_stalled_ends() {
        let many = [(stranger(1), 5, 90), (stranger(2), 3, 2), (stranger(2), 3, 9)];
        assert_eq!(overdrawn(&many), Some(2));
        // A holder's moving memory is not counted with its stalled memory.
        let partly = [(stranger(1), 5, 2), (stranger(2), 3, 2), (stranger(2), 50, 0)];
        assert_eq!(overdrawn(&partly), Some(0));
    }
}
