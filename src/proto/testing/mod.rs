//! What tests and fuzz targets of the core share.
#![cfg_attr(not(test), allow(dead_code, reason = "the tests use all of it, the targets a part"))]

pub(crate) mod pair;

use std::time::Instant;

/// Any instant will do: the core only ever adds to it and takes differences.
#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made any other way")]
pub(crate) fn start() -> Instant {
    Instant::now()
}
