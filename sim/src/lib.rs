//! Proof of imux from the outside: deterministic simulation of the core, and the real-kernel lab.

pub mod lab;
