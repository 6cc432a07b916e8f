//! The network: paths with a bottleneck each way, and lanes on them as TCP makes them: reliable,
//! ordered, bounded by a window, and blocked at the head by a loss.

mod bbr;
mod link;
mod pipe;
mod tcp;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use self::link::Link;
pub use self::pipe::{Later, Pipe, TcpAck};

/// Nanoseconds since the run began.
pub type Time = u64;

pub const MS: Time = 1_000_000;
pub const SECOND: Time = 1_000 * MS;

/// An Ethernet segment without headers and timestamps.
const MSS: f64 = 1_448.0;
/// Linux's shortest retransmission time-out.
const RTO_MIN: Time = 200 * MS;

/// Milliseconds as time.
pub fn ms(value: f64) -> Time {
    (value.max(0.0) * MS as f64) as Time
}

/// What travels on a lane.
#[derive(Clone, Debug)]
pub enum Parcel {
    Bytes(Bytes),
    /// The lane's opening handshake.
    Hello,
    /// The other end has closed cleanly.
    Eof,
    /// The other end has given up the lane.
    Reset,
}

impl Parcel {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Hello => 120,
            Self::Eof | Self::Reset => 40,
        }
    }
}
