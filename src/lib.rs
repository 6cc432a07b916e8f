//! imux: an inverse multiplexer.
pub mod driver;
pub mod lane;
pub mod proto;
pub mod trust;
pub mod tunnel;

pub use driver::*;
