//! Deterministic simulation of the imux core.
