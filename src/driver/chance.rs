//! The one source of randomness: the operating system's, so that nobody can guess it.
//!
//! Simulations of the driver are built with `--cfg imux_seeded` and choose its values, so that runs
//! can be repeated. No feature, variable or argument does that to an ordinary build.

/// The system has no random numbers.
#[derive(Debug)]
pub(super) struct NoChance;

/// Fills `out` with random bytes.
#[cfg(not(imux_seeded))]
pub(super) fn fill(out: &mut [u8]) -> Result<(), NoChance> {
    aws_lc_rs::rand::fill(out).map_err(|_| NoChance)
}

#[cfg(imux_seeded)]
pub(super) use seeded::fill;
#[cfg(imux_seeded)]
pub use seeded::seed;

#[cfg(imux_seeded)]
mod seeded {
    use std::cell::Cell;

    use super::NoChance;

    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }

    /// Seeds the driver's randomness on this thread from now on.
    pub fn seed(seed: u64) {
        STATE.set(seed);
    }

    /// By splitmix64 (Steele, Lea and Flood 2014).
    #[allow(clippy::unnecessary_wraps, reason = "the real one may fail")]
    pub(in crate::driver) fn fill(out: &mut [u8]) -> Result<(), NoChance> {
        for chunk in out.chunks_mut(8) {
            let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
            STATE.set(state);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}
