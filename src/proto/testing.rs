//! What tests of the core share.

use std::time::Instant;

/// Any instant will do: the core only ever adds to it and takes differences.
#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made any other way")]
pub(crate) fn start() -> Instant {
    Instant::now()
}
