//! The compiled program from outside, both ends of it running: what goes through it arrives, what
//! breaks is told, and nothing hangs.

#![cfg(feature = "cli")]

mod bulk;
mod connections;
mod demo;
mod descriptors;
mod lanes;
mod memory;
mod trust;

#[path = "../support/mod.rs"]
mod support;
