//! From a name to a connection: the system's resolver, and the race among a name's addresses.
//!
//! Lanes and destinations go the same way. This room knows neither.

mod interfaces;
mod look_up;
mod race;

pub(crate) use interfaces::{is_own_address, own_addresses};
pub(crate) use look_up::{LookUps, Share, as_ipv4, look_up_as_group, split_host_port};
pub(crate) use race::{AttemptError, RaceError, race};
