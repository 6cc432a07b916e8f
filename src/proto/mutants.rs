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
    "reset-overtakes-data",
    "reset-drops-unread",
    "ack-in-the-middle-moves-base",
    "acknowledged-parts-not-joined",
    "overlap-not-trimmed",
    "lost-max-data-not-resent",
    "lost-max-streams-not-resent",
    "lost-stream-credit-not-resent",
    "windows-grow-without-room",
    "lost-open-not-resent",
    "lost-reset-not-resent",
    "closed-streams-not-freed",
    "credit-waiters-forgotten",
    "dead-lane-forgets-a-frame",
    "pings-without-end",
    "wake-up-lost",
    "stream-credit-off-by-one",
    "decoder-skips-a-byte",
    "backup-used-like-primary",
    "metered-used-like-backup",
    "cap-doubled",
    "cap-forgotten-after-redial",
    "copy-not-sent",
    "copy-sent-twice",
    "copy-counted-as-new",
    "metered-carries-copies",
];

#[cfg(imux_mutants)]
thread_local! {
    /// The bug that is switched on.
    static ON: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Switches one bug on, and all others off, in this thread.
#[cfg(imux_mutants)]
pub fn switch_on(name: Option<&'static str>) {
    ON.set(name);
}

#[cfg(imux_mutants)]
pub(in crate::proto) fn is_on(name: &str) -> bool {
    ON.get() == Some(name)
}
