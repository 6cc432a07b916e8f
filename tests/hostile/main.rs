//! Hostile peers on the real TLS stack: what they do, what they are thrown out with, what it costs
//! the honest end, and that an honest session beside them goes on.
//!
//! The honest end is a process of its own (this program, started again), so that its heap is
//! measured apart. The hostile one is rustls and a writer of frames made after docs/PROTOCOL.md
//! (`wire`), which shares no code with imux.

#![allow(clippy::disallowed_methods, reason = "scripts wait for a real server in real time")]

mod child;
mod cuts;
#[cfg(feature = "cli")]
mod datagrams;
mod floods;
mod flows;
mod frames;
mod handshakes;
mod honest;
mod joins;
#[cfg(feature = "cli")]
mod memory;
mod peer;
#[cfg(feature = "cli")]
mod reverse;
mod servers;
#[cfg(feature = "cli")]
mod sessions;
mod throughput;
mod wire;

#[path = "../support/mod.rs"]
mod support;

/// Counts the honest end's heap; the other tests do not look at it.
#[global_allocator]
static HEAP: peak_alloc::PeakAlloc = peak_alloc::PeakAlloc;

/// Not a test: what the honest process runs. Without its role in the environment it does nothing.
#[test]
fn honest_end() {
    if let Ok(role) = std::env::var(child::ROLE) {
        child::run(&role);
    }
}
