//! Deterministic simulation of the imux core: two sessions, modelled lanes, one seed.

pub mod app;
pub mod cli;
pub mod end;
pub mod net;
pub mod options;
pub mod picture;
pub mod report;
pub mod rng;
pub mod scenarios;
pub mod soak;
pub mod swarm;
pub mod trace;
pub mod world;
