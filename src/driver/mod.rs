//! The driver: sessions on tokio. One task per lane; one timer and one lock per session. The lock
//! is held for bookkeeping only, never across IO, TLS or an await.

mod admission;
mod audit;
mod budget;
mod carried;
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
mod seen;
mod server;
mod session;
mod shared;
mod state;
mod stream;
mod table;
mod view;
mod wait;
mod waiters;
mod wants;

pub use audit::Subject;
pub use budget::ProcessMemory;
pub use carried::Carried;
#[cfg(imux_seeded)]
pub use chance::seed as seed_chance;
pub use client::{Client, ClientConfig, Link, LinkStatus};
pub use error::{ConnectError, OpenError, StreamError};
pub use flow::{Flow, FlowError, FlowOptions};
pub use lane_event::LaneEvent;
pub use seen::{LaneGone, LaneStatus, StreamStatus};
pub use server::{Server, ServerConfig, ServerView};
pub(crate) use session::Kept;
pub use session::{Incoming, Session};
pub use stream::{ReadHalf, Stream, WriteHalf};
pub use table::SessionLimits;
pub use view::SessionView;
pub use wants::OpenOptions;

pub(crate) use crate::proto::limits::{
    FLOWS_PER_SESSION_MAX, LISTENERS_MAX, LISTENERS_PER_CLIENT_MAX, VISITORS_PER_LISTENER_MAX,
};
pub use crate::proto::wire::{StreamKind, Wants};
pub use crate::proto::{
    Code, Config, FlowStats, InvalidConfig, LaneId, LaneStats, LinkId, SchedulerKind, SessionError,
    SessionId, SessionStats, Side, StreamId, StreamStats, StreamWait, Tier, Undelivered,
    UnknownScheduler, UnknownTier,
};
