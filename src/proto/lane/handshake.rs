//! What a lane's handshake shows of its path: it is slow if the handshake took much longer than its
//! round trips.

use std::time::Duration;

use crate::proto::link::{KernelSample, PACKET_BYTES, SLOW_RATE};

/// What a handshake sends in sequence, both ways: TLS with X25519MLKEM768 and certificates. Its
/// longest packet is a full one.
pub(super) const HANDSHAKE_BYTES: f64 = 4_096.0;
/// A handshake shows a slow path if it takes at least this much longer than its round trips.
const HANDSHAKE_EXCESS_MIN: Duration = Duration::from_millis(64);
/// The kernel, too, must have waited this much longer for one of its packets: a busy machine or a
/// lost packet causes only one of the two.
const PACKET_EXCESS_MIN: Duration = Duration::from_millis(30);
/// The kernel gives each sample a weight of an eighth (RFC 6298).
const SRTT_PART: u32 = 8;

/// What the path carries, in bytes a second, if a handshake of `rtt` says that it is slow.
pub(super) fn slow_path(rtt: Duration, kernel: &KernelSample) -> Option<f64> {
    let longer = rtt.saturating_sub(kernel.rtt_min).saturating_mul(2);
    let packet = kernel.rtt.saturating_sub(kernel.rtt_min).saturating_mul(SRTT_PART);
    let shown =
        !kernel.rtt_min.is_zero() && longer >= HANDSHAKE_EXCESS_MIN && packet >= PACKET_EXCESS_MIN;
    let rates = [(HANDSHAKE_BYTES, longer), (PACKET_BYTES, packet)];
    let rates = rates.map(|(bytes, time)| bytes / time.as_secs_f64());
    shown.then(|| rates[0].max(rates[1])).filter(|rate| *rate < SLOW_RATE)
}
