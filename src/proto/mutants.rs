//! Planted bugs, to prove that the simulator would find such: `imux-sim mutants`.
//!
//! They exist only where the compiler is told `--cfg imux_mutants`. Everywhere else `mutant!` is
//! the constant `false`, and no feature or variable can make it otherwise.

/// Whether the bug of that name is switched on.
macro_rules! mutant {
    ($name:literal) => {{
        #[cfg(imux_mutants)]
        let on = $crate::proto::mutants::is_on($name);
        #[cfg(not(imux_mutants))]
        let on = false;
        on
    }};
}

pub(in crate::proto) use mutant;

/// All of them.
#[cfg(imux_mutants)]
pub const ALL: &[&str] = &[
    "ack-counted-twice",
    "ack-misses-last",
    "discard-keeps-credit",
    "stopped-keeps-credit",
    "credit-taken-twice",
    "bare-fin-wakes-nobody",
    "fin-too-early",
    "lost-range-not-resent",
    "lost-fin-not-resent",
    "done-with-fin-alone",
    "reset-size-off-by-one",
    "ack-in-the-middle-moves-base",
    "one-acknowledged-part-released",
    "overlap-not-trimmed",
    "lost-max-data-not-resent",
    "lost-max-streams-not-resent",
    "lost-stream-credit-not-resent",
    "lost-open-not-resent",
    "lost-reset-not-resent",
    "closed-streams-not-freed",
    "credit-waiters-forgotten",
    "dead-lane-forgets-a-frame",
    "pings-without-end",
    "wake-up-lost",
    "stream-credit-off-by-one",
    "decoder-skips-a-byte",
];

/// The index in `ALL` of the bug that is switched on, plus one; 0: none.
#[cfg(imux_mutants)]
static ON: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Switches one bug on, and all others off, in all threads.
#[cfg(imux_mutants)]
pub fn switch_on(name: Option<&str>) {
    let index = name.and_then(|name| ALL.iter().position(|other| *other == name));
    ON.store(index.map_or(0, |index| index + 1), std::sync::atomic::Ordering::Relaxed);
}

#[cfg(imux_mutants)]
pub(in crate::proto) fn is_on(name: &str) -> bool {
    match ON.load(std::sync::atomic::Ordering::Relaxed).checked_sub(1) {
        None => false,
        Some(index) => ALL.get(index) == Some(&name),
    }
}
