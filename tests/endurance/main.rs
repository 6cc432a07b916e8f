//! What only shows after a long time: lanes that die by the thousand, streams that come and go by
//! the million. An ordinary run does a little of it; environment variables make it long.

#![cfg(feature = "cli")]

mod deaths;
mod soak;

#[path = "../support/mod.rs"]
mod support;

/// A number from the environment, for runs that are longer than an ordinary one.
fn from_env(name: &str, ordinary: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.map_or(ordinary, |set| set.parse().unwrap_or_else(|_| panic!("{name}={set}: no number")))
}
