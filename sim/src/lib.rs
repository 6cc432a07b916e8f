//! Proof of imux from the outside: deterministic simulation of the core (two sessions, modelled
//! lanes, one seed).

pub mod app;
pub mod cli;
pub mod end;
mod flow;
pub mod net;
pub mod options;
pub mod oracle;
pub mod order;
pub mod picture;
pub mod planted;
pub mod report;
pub mod rng;
pub mod scenarios;
pub mod soak;
pub mod swarm;
pub mod trace;
pub mod world;
