//! What is assumed of any path.

/// The initial window of TCP: ten segments a round trip (RFC 6928).
pub const INITIAL_WINDOW_BYTES: f64 = 14_600.0;

/// A packet that any path carries.
pub const PACKET_BYTES: f64 = 1_500.0;

/// A path below this rate, in bytes a second (512 kbit/s), is slow: a packet takes as long as a
/// round trip elsewhere, and a connection's first ten take seconds.
pub const SLOW_RATE: f64 = 64_000.0;
