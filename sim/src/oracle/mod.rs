//! The rules that every run is held to, whatever its network does. Each is a function of what can be
//! seen from outside: a test can lie to it, and see that it complains.

pub mod copies;
pub mod ending;
pub mod liveness;
pub mod memory;
pub mod policy;
pub mod session;
pub mod stream;
