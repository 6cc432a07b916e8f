//! Everything that makes up a run: what `imux-sim` prints, reads from a file and draws from a seed.
//! Times are in milliseconds, rates in Mbit/s, sizes in bytes, unless a name says otherwise.

use std::time::Duration;

use imux::proto::{Config, LanePolicy, LinkId, SchedulerKind, Tier};
use serde::{Deserialize, Serialize};

/// One run. Together with the seed it determines everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pub name: String,
    pub paths: Vec<PathOptions>,
    /// Client's, server's.
    pub sessions: [SessionOptions; 2],
    pub driver: DriverOptions,
    pub streams: Vec<StreamPlan>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flows: Vec<FlowPlan>,
    pub faults: Vec<Fault>,
    /// What one end does to the whole session, and when.
    pub endings: Vec<Ending>,
    /// From here on there are no faults: everything must drain.
    pub faults_end_ms: f64,
    /// Stop here even if not everything has arrived (0: once it has).
    pub stop_ms: f64,
}

/// One network path between the two ends, shared by all lanes on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PathOptions {
    /// Towards the server, and back.
    pub mbit: [f64; 2],
    pub delay_ms: [f64; 2],
    /// The bottleneck's queue, in bytes; what does not fit is lost.
    pub queue_bytes: f64,
    /// Share of segments lost, from 0 to 1.
    pub loss: f64,
    pub lanes: usize,
    /// An extra lane, kept free of bulk.
    pub express: bool,
    pub control: Congestion,
    /// Of the lanes: primary, express, backup or metered.
    pub tier: String,
    /// The most the lanes may carry together, each way; 0: no cap.
    pub cap_mbit: f64,
}

impl PathOptions {
    /// The policy each lane of path `number` tells the server.
    pub fn policies(&self, number: usize) -> impl Iterator<Item = LanePolicy> {
        let policy = self.policy(number);
        let express = self.express.then_some(LanePolicy { tier: Tier::Express, ..policy });
        std::iter::repeat_n(policy, self.lanes.max(1)).chain(express)
    }

    /// The policy the lanes of path `number` tell the server, except its express lane.
    pub fn policy(&self, number: usize) -> LanePolicy {
        LanePolicy {
            tier: self.tier.parse().unwrap_or_default(),
            link: LinkId::new(number as u64),
            rate_max: (self.cap_mbit > 0.0).then_some((self.cap_mbit * 125_000.0) as u64),
        }
    }

    /// What the path carries one way, its cap included.
    pub fn usable_mbit(&self, way: usize) -> f64 {
        if self.cap_mbit > 0.0 { self.mbit[way].min(self.cap_mbit) } else { self.mbit[way] }
    }
}

impl Default for PathOptions {
    fn default() -> Self {
        Self {
            mbit: [50.0; 2],
            delay_ms: [10.0; 2],
            queue_bytes: 125_000.0,
            loss: 0.0,
            lanes: 1,
            express: false,
            control: Congestion::Bbr,
            tier: "primary".to_owned(),
            cap_mbit: 0.0,
        }
    }
}

/// How a lane's TCP reacts to losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    /// It does not: a pipe always full of whatever was written. The simplest model.
    Pipe,
    /// Slow start, then halved by every loss.
    Cubic,
    /// Slow start, then what the path delivers, regardless of losses.
    Bbr,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionOptions {
    pub stream_window: u64,
    pub stream_window_max: u64,
    pub session_window: u64,
    pub session_window_initial: u64,
    pub send_buffer_max: u64,
    pub streams_max: u64,
    pub grace_ms: u64,
    pub keepalive_ms: u64,
    pub scheduler: String,
    pub duplicate_share: f64,
    /// What it may keep for its peer under a budget for many sessions; without one, as much as it
    /// likes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowances: Vec<AllowanceOptions>,
}

/// From then on, how many bytes may be received and how many may be unacknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowanceOptions {
    pub at_ms: f64,
    pub receive: u64,
    pub send: u64,
}

impl Default for SessionOptions {
    fn default() -> Self {
        let config = Config::default();
        Self {
            stream_window: config.stream_window,
            stream_window_max: config.stream_window_max,
            session_window: config.session_window,
            session_window_initial: config.session_window_initial,
            send_buffer_max: config.send_buffer_max,
            streams_max: config.streams_max,
            grace_ms: config.grace.as_millis() as u64,
            keepalive_ms: config.keepalive.as_millis() as u64,
            scheduler: config.scheduler.to_string(),
            duplicate_share: config.duplicate_share,
            allowances: Vec::new(),
        }
    }
}

impl SessionOptions {
    /// In the form the core takes.
    pub fn config(&self) -> Config {
        let mut config = Config::default();
        config.stream_window = self.stream_window;
        config.stream_window_max = self.stream_window_max;
        config.session_window = self.session_window;
        config.session_window_initial = self.session_window_initial;
        config.send_buffer_max = self.send_buffer_max;
        config.streams_max = self.streams_max;
        config.grace = Duration::from_millis(self.grace_ms);
        config.keepalive = Duration::from_millis(self.keepalive_ms);
        config.scheduler = self.scheduler.parse().unwrap_or_default();
        config.duplicate_share = self.duplicate_share;
        config
    }

    pub fn scheduler(&self) -> SchedulerKind {
        self.scheduler.parse().unwrap_or_default()
    }
}

/// What lies between the core and the lanes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DriverOptions {
    /// Arriving bytes are handed over in pieces of these sizes, drawn anew each time.
    pub read_bytes: [u64; 2],
    /// How many unsent bytes a lane's socket takes; 0: what the session asks for.
    pub unsent_bytes: u64,
    /// A woken task runs after up to this long.
    pub wake_us_max: u64,
    /// A timer fires up to this late.
    pub timer_us_max: u64,
    /// The session gets the kernel's figures.
    pub metrics: bool,
    /// At most this often, as in the real driver.
    pub metrics_every_ms: f64,
    /// From a lane's end to the next dial, at first; doubles up to 5 s.
    pub redial_ms: f64,
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self {
            read_bytes: [65_536, 65_536],
            unsent_bytes: 0,
            wake_us_max: 50,
            timer_us_max: 1_000,
            metrics: true,
            metrics_every_ms: 10.0,
            redial_ms: 200.0,
        }
    }
}

/// One stream: who opens it, when, and what happens on each half.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamPlan {
    pub at_ms: f64,
    /// The server opens it.
    pub from_server: bool,
    /// Every byte goes on two lanes.
    pub redundant: bool,
    /// Opener to accepter, and back.
    pub halves: [HalfPlan; 2],
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HalfPlan {
    pub bytes: u64,
    /// The writer writes this much at once.
    pub write_bytes: u64,
    /// How long the writer then waits.
    pub write_every_ms: f64,
    /// The writer ends the stream then, however much it has written (0: once it has written
    /// everything).
    pub until_ms: f64,
    /// The writer begins once it has read this much of the other half.
    pub after_bytes: u64,
    /// The writer resets the stream after this many bytes, instead of ending it.
    pub reset_at: Option<u64>,
    /// All of those bytes must be read before the reset.
    pub in_order: bool,
    /// The reader takes this much at once (0: all there is).
    pub read_bytes: u64,
    /// How long the reader then waits.
    pub read_every_ms: f64,
    /// The reader stops the stream after this many bytes.
    pub stop_at: Option<u64>,
    /// The reader reads nothing until the faults end.
    pub unread: bool,
}

/// One flow: who opens it, when, and what its opener sends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowPlan {
    pub at_ms: f64,
    /// The server opens it.
    pub from_server: bool,
    /// Every datagram goes on two lanes.
    pub redundant: bool,
    pub deadline_ms: u64,
    /// It ends if nothing comes or goes for so long (0: the usual).
    pub idle_ms: f64,
    /// How many datagrams, how often, and of how many bytes: from the one to the other.
    pub count: u64,
    pub every_ms: f64,
    pub bytes: [u64; 2],
    /// The other end sends one for each that it gets.
    pub echo: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub at_ms: f64,
    /// Which path, modulo their number.
    pub path: usize,
    pub kind: FaultKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "what", deny_unknown_fields)]
pub enum FaultKind {
    /// Both ends see their sockets fail at once.
    Reset,
    /// One end's socket fails; the other end learns by an RST, or never.
    ResetOneEnd { server: bool, told: bool },
    /// One end closes its direction cleanly.
    HalfClose { server: bool },
    /// Swallows everything from now on, for good.
    Silent,
    /// Swallows one direction, for good.
    OneWay { to_server: bool },
    /// Nothing passes for this long; TCP repairs it afterwards.
    Down { for_ms: f64 },
    /// All paths at once.
    Outage { for_ms: f64 },
    /// The path's rate from now on.
    Rate { mbit: f64 },
    /// The path's one-way delay from now on.
    Delay { delay_ms: f64 },
    /// The path's loss from now on.
    Loss { loss: f64 },
}

impl FaultKind {
    /// For counts and traces.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Reset => "fault: reset",
            Self::ResetOneEnd { told: true, .. } => "fault: reset at one end",
            Self::ResetOneEnd { told: false, .. } => "fault: reset unheard",
            Self::HalfClose { .. } => "fault: half-close",
            Self::Silent => "fault: silent",
            Self::OneWay { .. } => "fault: one way silent",
            Self::Down { .. } => "fault: down",
            Self::Outage { .. } => "fault: outage",
            Self::Rate { .. } => "fault: rate",
            Self::Delay { .. } => "fault: delay",
            Self::Loss { .. } => "fault: loss",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ending {
    pub at_ms: f64,
    pub server: bool,
    /// Closes the session; otherwise drains it.
    pub close: bool,
}
