//! The protocol as a state machine, without IO, clock, tasks or threads.
//!
//! For simulators, fuzzers and other runtimes; a program that just wants sessions uses
//! [`Client`](crate::Client) and [`Server`](crate::Server), which drive this on tokio. The wire is
//! specified in `docs/PROTOCOL.md`.
//!
//! [`Session`] is one end of a session. It has four kinds of method:
//!
//! - *getters* change nothing;
//! - *input*, `handle_*`, tells what happened outside: lanes that came and went, frames, time;
//! - *commands* are the application's: open, accept, write, read, reset, close;
//! - *output*, `poll_*`, is what follows: events, lanes to wake, bytes for a lane, the next
//!   timeout.
//!
//! After any input or command the driver drains [`poll_event`](Session::poll_event), wakes every
//! lane that [`poll_wake`](Session::poll_wake) names, and sets its timer by
//! [`poll_timeout`](Session::poll_timeout). A lane that can take bytes pulls them with
//! [`poll_transmit`](Session::poll_transmit).
//!
//! Time is always an argument, randomness comes from a seed, and effects are returned, never
//! performed: two sessions given the same calls do the same things. Below, one lane is a vector:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Instant;
//!
//! use bytes::Bytes;
//! use imux::proto::wire::{Decoder, FrameBatch, LaneBuf, StreamKind};
//! use imux::proto::{Config, LaneId, Session, Side};
//!
//! let now = Instant::now();
//! let config = Arc::new(Config::default());
//! // What CREATE and CREATED would have told.
//! let peer = config.params();
//! let mut client = Session::new(Side::Client, config.clone(), peer, 1, now);
//! let mut server = Session::new(Side::Server, config, peer, 2, now);
//! assert!(client.handle_lane_up(now, LaneId::FIRST, None));
//! assert!(server.handle_lane_up(now, LaneId::FIRST, None));
//!
//! let id = client.open(StreamKind::Raw).unwrap();
//! client.send_stream(id).write(&mut Bytes::from_static(b"hello"))?;
//! client.send_stream(id).finish()?;
//!
//! // The lane pulls; what it gets arrives at the other end.
//! let (mut out, mut batch) = (LaneBuf::new(), FrameBatch::default());
//! let mut decoder = Decoder::new();
//! while client.poll_transmit(now, LaneId::FIRST, 64 * 1024, &mut out).is_some() {
//!     for piece in out.pieces() {
//!         decoder.decode(piece, &mut batch)?;
//!     }
//!     out.advance(out.len());
//! }
//! server.handle_frames(now, LaneId::FIRST, &mut batch);
//!
//! assert_eq!(server.accept(), Some((id, StreamKind::Raw)));
//! assert_eq!(server.recv_stream(id).read(now, 1024)?, Some(Bytes::from_static(b"hello")));
//! assert_eq!(server.recv_stream(id).read(now, 1024)?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![allow(unreachable_pub, reason = "what leaves the core is decided here, at the top of it")]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used
)]
#![cfg_attr(
    any(test, fuzzing),
    allow(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unwrap_used
    )
)]

pub mod config;
mod copies;
pub(crate) mod count;
pub mod error;
pub mod event;
mod flows;
pub mod handshake;
pub mod ids;
mod lane;
mod lanes;
pub mod limits;
mod link;
pub mod policy;
pub mod range_set;
mod scheduler;
pub mod session;
pub mod stats;
mod stream;
mod streams;
pub mod timer;
pub mod wire;

pub use config::{Config, InvalidConfig};
pub use error::{
    Code, DatagramError, DecodeError, ReadError, SessionError, Undelivered, WriteError,
};
pub use event::Event;
pub use flows::FlowStats;
pub use ids::{Dir, LaneId, LinkId, SessionId, Side, StreamId};
pub use lane::Health;
pub use link::{Advice, KernelSample};
pub use policy::{LanePolicy, Tier, UnknownTier};
pub use scheduler::{SchedulerKind, UnknownScheduler};
pub use session::{Allowance, MemoryUse, Session, Transmit};
pub use stats::{CreditStats, LaneStats, SessionStats, StreamStats, StreamWait};
pub use stream::{Assembler, InsertError};
pub use timer::Timer;

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(any(test, fuzzing))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
