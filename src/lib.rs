//! imux: an inverse multiplexer. Many ordered byte streams over a changing set of *lanes*.
//!
//! A lane is one reliable, ordered, confidential byte pipe; in production TLS 1.3 over a TCP socket
//! bound to an address or a device of your choice. A session spreads its streams over all lanes
//! there are, at once and byte by byte: one stream is as fast as the lanes together, and a lane
//! that dies costs its speed and nothing else.
//!
//! # Map
//!
//! | module | what is there |
//! |---|---|
//! | (here) | [`Server`] and [`Client`], the [`Session`]s between them and their [`Stream`]s, errors |
//! | [`lane`] | the traits [`Lane`](lane::Lane), [`Dialer`](lane::Dialer) and [`Listener`](lane::Listener); lanes over TLS and in memory |
//! | [`trust`] | keys and certificates, known hosts, pins, who decides whether a server is the right one |
//! | [`tunnel`] | streams into forwarded TCP connections and back |
//! | [`proto`] | the protocol's state machine without IO or clock, for simulators, fuzzers and other runtimes |
//!
//! A program that forwards connections needs [`Client::connect`] and [`tunnel::forward`] on one
//! side, [`Server::start`] and [`tunnel::serve`] on the other; that is all the `imux` command does
//! besides reading its options. `docs/PROTOCOL.md` specifies the wire, `docs/ARCHITECTURE.md` shows
//! how the crate is built.
//!
//! # Example
//!
//! A server that sends back what it gets, and a client with two lanes on each of two links. The
//! lanes are in memory; with [`lane::TlsDialer`] and [`lane::TlsListener`] in their place the rest
//! stays as it is.
//!
//! ```
//! use std::sync::Arc;
//!
//! use imux::lane::memory;
//! use imux::trust::{Fingerprint, PeerIdentity, PinnedKeys};
//! use imux::{Client, ClientConfig, Link, Server, ServerConfig, StreamKind};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Lanes in memory have no keys; they show whatever identity they are given.
//! let key = Fingerprint::from_bytes([7; 32]);
//! let identity = PeerIdentity { fingerprint: key, certificate_signature: None };
//! let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
//!
//! let mut server = Server::start(listener, ServerConfig::default());
//! tokio::spawn(async move {
//!     while let Some((session, _from)) = server.accept().await {
//!         tokio::spawn(async move {
//!             while let Ok(incoming) = session.accept().await {
//!                 let (mut read, mut write) = tokio::io::split(incoming.stream);
//!                 tokio::spawn(async move {
//!                     tokio::io::copy(&mut read, &mut write).await?;
//!                     write.shutdown().await // the end is passed on, too
//!                 });
//!             }
//!         });
//!     }
//! });
//!
//! let link = |name: &str| Link::new(Arc::new(dialer.named(name).with_peer(identity)), 2);
//! let config = ClientConfig::new(Arc::new(PinnedKeys::new([key])));
//! let client = Client::connect(vec![link("dsl"), link("lte")], config).await?;
//!
//! let mut stream = client.open(StreamKind::Raw).await?;
//! stream.write_all(b"over whichever lane is best").await?;
//! stream.shutdown().await?; // half-close: reading goes on
//! let mut back = String::new();
//! stream.read_to_string(&mut back).await?;
//! assert_eq!(back, "over whichever lane is best");
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `cli` (on by default) builds the `imux` program and brings its dependencies; a library user
//! turns it off with `default-features = false`. The library needs a tokio runtime with IO and time
//! enabled.

#![warn(missing_docs)]

// In fuzzing builds the command line is a part of the library, so that targets can reach its
// parsers.
#[cfg(all(fuzzing, feature = "cli"))]
#[allow(dead_code, unused_imports, reason = "nothing is run here, only parsed")]
mod cli;
mod driver;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod lane;
mod net;
pub mod proto;
pub mod trust;
pub mod tunnel;

// `cli` names the library as the program does.
#[cfg(all(fuzzing, feature = "cli"))]
extern crate self as imux;

#[cfg(imux_seeded)]
pub use driver::seed_chance;
pub use driver::{
    Carried, Client, ClientConfig, Code, Config, ConnectError, Flow, FlowError, FlowOptions,
    FlowStats, Incoming, InvalidConfig, LaneEvent, LaneGone, LaneId, LaneStats, LaneStatus, Link,
    LinkId, LinkStatus, OpenError, OpenOptions, ProcessMemory, ReadHalf, SchedulerKind, Server,
    ServerConfig, ServerView, Session, SessionError, SessionId, SessionLimits, SessionStats,
    SessionView, Side, Stream, StreamError, StreamId, StreamKind, StreamStats, StreamStatus,
    StreamWait, Subject, Tier, Undelivered, UnknownScheduler, UnknownTier, Wants, WriteHalf,
};
pub use proto::{CreditStats, Health};

// Crates that appear in public signatures, in versions that fit: TLS settings, and the traits'
// attribute.
#[doc(no_inline)]
pub use {async_trait::async_trait, rustls};

// Run the guide's example with the others.
#[cfg(doctest)]
#[doc = include_str!("../docs/GUIDE.md")]
struct Guide;
