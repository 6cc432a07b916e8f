//! Deterministic simulation of the imux core: two sessions, modelled lanes, one seed.

pub mod app;
pub mod cli;
pub mod end;
pub mod net;
pub mod options;
pub mod rng;
pub mod soak;
pub mod swarm;
pub mod trace;
pub mod world;
