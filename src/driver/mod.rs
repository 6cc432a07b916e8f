//! The driver: sessions on tokio. One task per lane; one timer and one lock per session. The lock
//! is held for bookkeeping only, never across IO, TLS or an await.

mod admission;
mod audit;
mod budget;
mod chance;
mod client;
mod clock;
mod door;
mod error;
mod flow;
mod greeting;
mod handshake_rate;
mod invitation;
mod lane_event;
mod lane_task;
mod owner;
mod server;
mod session;
mod shared;
mod state;
mod stream;
mod table;
mod wait;
mod waiters;
mod wants;

pub use audit::Subject;
pub use budget::ProcessMemory;
#[cfg(imux_seeded)]
pub use chance::seed as seed_chance;
pub use client::{Client, ClientConfig, Link};
pub use error::{ConnectError, OpenError, StreamError};
pub use flow::{Flow, FlowError, FlowOptions};
pub use lane_event::LaneEvent;
pub use server::{Server, ServerConfig};
pub(crate) use session::Kept;
pub use session::{Incoming, Session};
pub use stream::{ReadHalf, Stream, WriteHalf};
pub use table::SessionLimits;
pub use wants::OpenOptions;

pub(crate) use crate::proto::limits::{
    LISTENERS_MAX, LISTENERS_PER_CLIENT_MAX, VISITORS_PER_LISTENER_MAX,
};
pub use crate::proto::wire::{StreamKind, Wants};
pub use crate::proto::{
    Code, Config, FlowStats, InvalidConfig, LaneId, LaneStats, LinkId, SchedulerKind, SessionError,
    SessionId, SessionStats, Side, StreamId, Tier, Undelivered, UnknownScheduler, UnknownTier,
};
