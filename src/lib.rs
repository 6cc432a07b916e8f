pub mod lane;
pub mod proto;
pub mod trust;
