//! Fuzz targets of the core (see `crate::fuzz`).

mod endpoints;
mod frames;
mod hostile;
mod models;
mod wire;

pub(crate) use endpoints::endpoints;
#[cfg(test)]
pub(in crate::proto) use endpoints::{Case, Op, some_policy};
pub(crate) use hostile::hostile;
pub(crate) use models::{assembler, range_set};
pub(crate) use wire::{cuts, decode, round_trip};
