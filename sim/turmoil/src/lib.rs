//! The driver as it is, real TLS included, over simulated paths: one relay host a path, and all
//! that can go wrong there. One seed gives everything: paths, faults, workload.
//!
//! Built with `--cfg tokio_unstable --cfg imux_seeded` (`.cargo/config.toml`).

pub mod book;
pub mod client;
pub mod faults;
pub mod keys;
pub mod observe;
pub mod pipe;
pub mod plan;
pub mod relay;
pub mod run;
pub mod server;
pub mod user;
