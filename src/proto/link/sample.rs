//! What goes into a link, and what comes out.

use std::time::{Duration, Instant};

use crate::proto::ids::LaneId;

/// One lane at the moment its link is asked.
#[derive(Debug, Clone, Copy)]
pub struct LaneSample {
    pub active: bool,
    /// Given to it and not acknowledged.
    pub in_flight: u64,
    /// Acknowledged since it came up.
    pub acked_bytes: u64,
    /// When it last owed nothing, made progress, or its peer's kernel acknowledged anything.
    pub answered_at: Instant,
    /// What it is believed to deliver, in bytes a second, and the most it did over a longer time.
    pub rate: f64,
    pub peak_rate: f64,
    /// Its kernel's current pacing rate, in bytes a second; at least the rate.
    pub pacing_rate: f64,
    /// The smallest round trip.
    pub rtt_min: Duration,
    /// Its path is known to carry little.
    pub is_slow: bool,
    /// What its handshake showed its path to carry, in bytes a second, if that is little.
    pub path_by_handshake: Option<f64>,
    /// It fills its path: its kernel need not search for more.
    pub is_full: bool,
    /// Present where the kernel reports and its connection ends where the lane does.
    pub kernel: Option<KernelSample>,
}

/// What the kernel knows of a lane, where it reports (on Linux, `TCP_INFO`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KernelSample {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Its mean deviation.
    pub rtt_var: Duration,
    /// Recent minimum.
    pub rtt_min: Duration,
    /// Most recent delivery rate in bytes a second, where one was measured.
    pub delivery_rate: Option<u64>,
    /// The available data limited the rate: it is a lower bound.
    pub app_limited: bool,
    /// The kernel's current pacing rate in bytes a second, where it paces.
    pub pacing_rate: Option<u64>,
    /// Its congestion window in bytes.
    pub cwnd_bytes: u64,
    /// Bytes that have arrived since the lane came up, in order or not, where known.
    pub delivered_bytes: Option<u64>,
    /// How long ago the peer's kernel last acknowledged anything, where known.
    pub silence: Option<Duration>,
}

/// What a lane's window depends on.
#[derive(Debug, Clone, Copy)]
pub struct WindowSample {
    /// Acknowledged since it came up.
    pub acked_bytes: u64,
    /// What it is believed to deliver, in bytes a second.
    pub rate: f64,
    pub rtt_min: Duration,
    pub is_slow: bool,
    /// Its kernel's congestion window; zero where the kernel does not report.
    pub cwnd_bytes: u64,
}

impl From<&LaneSample> for WindowSample {
    fn from(lane: &LaneSample) -> Self {
        Self {
            acked_bytes: lane.acked_bytes,
            rate: lane.rate,
            rtt_min: lane.rtt_min,
            is_slow: lane.is_slow,
            cwnd_bytes: lane.kernel.map_or(0, |kernel| kernel.cwnd_bytes),
        }
    }
}

/// A lane that may be active or on standby.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub id: LaneId,
    pub active: bool,
    /// In bytes a second.
    pub rate: f64,
}

/// How a lane is to be used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Advice {
    /// It carries bulk. A lane on standby carries what is urgent, and bulk while no other answers.
    pub active: bool,
    /// What it can expect to deliver, as a fraction of its rate: less than one while lanes of its
    /// link hold each other up.
    pub share: f64,
    /// Most bytes a second its kernel should send at; `u64::MAX`: no limit.
    pub pacing_limit: u64,
    /// Most bytes in flight.
    pub window: u64,
    /// Most bytes its kernel should hold unsent: a few milliseconds' worth, so that the choice of
    /// what to send is made late and the lane never runs dry.
    pub unsent_limit: u32,
}
