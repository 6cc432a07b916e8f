//! The compiled program under load: large transfers, many connections, readers that are slow or
//! have stopped. Each test wants the machine for itself.

#![cfg(feature = "cli")]

mod bulk;
mod handed;
mod memory;
mod paused;

#[path = "../support/mod.rs"]
mod support;
