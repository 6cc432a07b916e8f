//! The core (documentation follows).
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)
)]

pub mod config;
pub mod error;
pub mod event;
pub mod ids;
mod lane;
pub mod limits;
#[cfg(imux_mutants)]
pub mod mutants;
#[cfg(not(imux_mutants))]
mod mutants;
pub mod range_set;
mod scheduler;
pub mod session;
pub mod stats;
mod stream;
pub mod timer;
pub mod wire;

pub use config::Config;
pub use error::{Code, DecodeError, ReadError, SessionError, WriteError};
pub use event::Event;
pub use ids::{Dir, LaneId, SessionId, Side, StreamId};
pub use lane::{Health, LaneMetrics};
pub use scheduler::{SchedulerKind, UnknownScheduler};
pub use session::{Session, Transmit};
pub use stats::{CreditStats, LaneStats, SessionStats};
pub use stream::{Assembler, InsertError};
pub use timer::Timer;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
