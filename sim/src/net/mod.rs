//! The network: paths with a bottleneck each way, and lanes on them as TCP makes them — reliable,
//! ordered, bounded by a window, held up at the head when something is lost.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use imux::proto::LaneMetrics;

use crate::options::{Congestion, PathOptions};
use crate::rng::Rng;

/// Nanoseconds since the run began.
pub type Time = u64;

pub const MS: Time = 1_000_000;
pub const SECOND: Time = 1_000 * MS;

/// Ethernet's segment without headers and timestamps.
const MSS: f64 = 1_448.0;
/// Linux's shortest retransmission time-out.
const RTO_MIN: Time = 200 * MS;
/// A sender that is a pipe keeps this much of its link's time queued.
const PIPE_AHEAD: Time = MS / 2;

/// BBR's, at the least: a few segments.
const BBR_AHEAD_MIN: Time = MS;

/// Milliseconds as time.
pub fn ms(value: f64) -> Time {
    (value.max(0.0) * MS as f64) as Time
}

/// One direction of a path.
#[derive(Clone, Debug)]
pub struct Link {
    /// Bytes a second.
    pub rate: f64,
    pub delay: Time,
    queue_bytes: f64,
    pub loss: f64,
    /// When what was queued will have left.
    free_at: Time,
    pub down: bool,
    control: Congestion,
    /// Lanes that share it.
    sharers: f64,
}

impl Link {
    pub fn new(options: &PathOptions, direction: usize) -> Self {
        Self {
            rate: options.mbit[direction] * 125_000.0,
            delay: ms(options.delay_ms[direction]),
            queue_bytes: options.queue_bytes,
            loss: options.loss,
            free_at: 0,
            down: false,
            control: options.control,
            sharers: options.lanes.max(1) as f64,
        }
    }

    /// How much of the link's time a sender that paces what it sends has queued at most: BBR goes a
    /// little beyond the rate of the link, and never in bursts.
    fn paces_ahead(&self, back: Time) -> Time {
        match self.control {
            Congestion::Pipe => PIPE_AHEAD,
            Congestion::Bbr => BBR_AHEAD_MIN + (self.delay + back) * 15 / 100,
            Congestion::Cubic => Time::MAX,
        }
    }

    fn time_of(&self, bytes: u64) -> Time {
        (bytes as f64 / self.rate * SECOND as f64) as Time
    }
}

/// What travels on a lane.
#[derive(Clone, Debug)]
pub enum Parcel {
    Bytes(Bytes),
    /// The lane's opening handshake.
    Hello,
    /// The other end has closed in order.
    Eof,
    /// The other end has given the lane up.
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

/// TCP's own acknowledgement of a segment.
#[derive(Clone, Copy, Debug)]
pub struct TcpAck {
    pub bytes: u64,
    sent_at: Time,
    delivered_then: u64,
    app_limited: bool,
    lost: bool,
}

/// What has to happen later because of a send.
#[derive(Clone, Copy, Debug)]
pub enum Later {
    Arrive,
    Ack(TcpAck),
    Pump,
}

/// One direction of a lane.
#[derive(Debug)]
pub struct Pipe {
    unsent: VecDeque<Parcel>,
    unsent_bytes: u64,
    flying: VecDeque<(Time, Parcel)>,
    in_flight: u64,
    window: f64,
    threshold: f64,
    window_max: f64,
    cut_at: Time,
    recovers_until: Time,
    last_arrival: Time,
    pump_at: Option<Time>,
    /// Swallows everything for good.
    pub stuck: bool,
    /// Acknowledgements that an outage swallowed.
    unheard: u64,
    delivered: u64,
    rtt: f64,
    rtt_var: f64,
    rtt_min: f64,
    delivery_rate: Option<u64>,
    /// When anything was last acknowledged.
    heard_at: Option<Time>,
}

impl Default for Pipe {
    fn default() -> Self {
        Self::new()
    }
}

impl Pipe {
    pub fn new() -> Self {
        Self {
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            flying: VecDeque::new(),
            in_flight: 0,
            window: 10.0 * MSS,
            threshold: f64::INFINITY,
            window_max: 0.0,
            cut_at: 0,
            recovers_until: 0,
            last_arrival: 0,
            pump_at: None,
            stuck: false,
            unheard: 0,
            delivered: 0,
            rtt: 0.0,
            rtt_var: 0.0,
            rtt_min: f64::INFINITY,
            delivery_rate: None,
            heard_at: None,
        }
    }

    /// Bytes written and not sent.
    pub fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes
    }

    /// Takes a parcel; `pump` sends it.
    pub fn write(&mut self, parcel: Parcel) {
        self.unsent_bytes += parcel.len();
        self.unsent.push_back(parcel);
    }

    /// Forgets what was not sent: the socket was closed with a reset.
    pub fn abort(&mut self) {
        self.unsent.clear();
        self.unsent_bytes = 0;
        self.in_flight = 0;
        self.window = self.window.max(10.0 * MSS);
    }

    /// Sends what the window and the bottleneck let through.
    pub fn pump(
        &mut self,
        now: Time,
        link: &mut Link,
        back: Time,
        rng: &mut Rng,
        later: &mut Vec<(Time, Later)>,
    ) {
        if self.pump_at.is_some_and(|at| at <= now) {
            self.pump_at = None;
        }
        let segment = (link.rate * 0.000_4).clamp(MSS, 16_384.0) as u64;
        let window = self.window_now(link, back);
        while self.unsent_bytes > 0 && !link.down && !self.stuck && (self.in_flight as f64) < window
        {
            let ahead = link.free_at.saturating_sub(now);
            let paced = link.paces_ahead(back);
            if ahead > paced {
                self.pump_later(link.free_at - paced, later);
                return;
            }
            let Some(parcel) = self.next_parcel(segment) else { return };
            self.send(now, parcel, link, back, rng, later);
        }
    }

    fn pump_later(&mut self, at: Time, later: &mut Vec<(Time, Later)>) {
        if self.pump_at.is_none_or(|before| before > at) {
            self.pump_at = Some(at);
            later.push((at, Later::Pump));
        }
    }

    fn next_parcel(&mut self, segment: u64) -> Option<Parcel> {
        let parcel = match self.unsent.front_mut()? {
            Parcel::Bytes(bytes) if bytes.len() as u64 > segment => {
                Parcel::Bytes(bytes.split_to(segment as usize))
            }
            _ => self.unsent.pop_front()?,
        };
        self.unsent_bytes -= parcel.len();
        Some(parcel)
    }

    fn send(
        &mut self,
        now: Time,
        parcel: Parcel,
        link: &mut Link,
        back: Time,
        rng: &mut Rng,
        later: &mut Vec<(Time, Later)>,
    ) {
        let bytes = parcel.len();
        let queued = link.free_at.saturating_sub(now) as f64 / SECOND as f64 * link.rate;
        let overflow = link.control != Congestion::Pipe
            && queued + bytes as f64 > link.queue_bytes
            && queued > MSS;
        let segments = (bytes as f64 / MSS).max(1.0);
        let lost =
            overflow || (link.loss > 0.0 && rng.chance(1.0 - (1.0 - link.loss).powf(segments)));
        // What is lost is sent again, on the same link.
        let copies = if lost && !overflow { 2 } else { 1 };
        link.free_at = link.free_at.max(now) + link.time_of(bytes * copies);
        let round_trip = link.free_at.max(now) - now + link.delay + back;
        let mut arrives = link.free_at.max(now) + link.delay;
        if lost {
            arrives += self.repair(now, round_trip, link, rng);
        }
        later.push((
            arrives + back,
            Later::Ack(TcpAck {
                bytes,
                sent_at: now,
                delivered_then: self.delivered,
                app_limited: self.unsent_bytes == 0,
                lost,
            }),
        ));
        self.in_flight += bytes;
        // Nothing overtakes on a lane: what was lost holds up what came after it.
        self.last_arrival = self.last_arrival.max(arrives);
        self.flying.push_back((self.last_arrival, parcel));
        later.push((self.last_arrival, Later::Arrive));
    }

    /// A segment was lost: how much later it arrives; the window is cut.
    fn repair(&mut self, now: Time, round_trip: Time, link: &Link, rng: &mut Rng) -> Time {
        if now >= self.recovers_until && link.control == Congestion::Cubic {
            self.recovers_until = now + round_trip;
            self.window_max = self.window;
            self.window = (self.window * 0.7).max(2.0 * MSS);
            self.threshold = self.window;
            self.cut_at = now;
        }
        // Three segments behind it tell of the loss; without them a probe does (RFC 8985, 7.2).
        let few = (self.in_flight as f64) < 3.0 * MSS;
        let mut wait = if few { 3 * round_trip + 2 * MS } else { round_trip };
        // A lost repair is found after another round trip, the next by the time-out.
        let mut backoff = round_trip * 5 / 4;
        while rng.chance(link.loss) && wait < 3 * SECOND {
            wait += backoff;
            backoff = (2 * backoff).max(RTO_MIN);
        }
        wait
    }

    fn window_now(&self, link: &Link, back: Time) -> f64 {
        match link.control {
            Congestion::Pipe => f64::INFINITY,
            Congestion::Cubic => self.window,
            Congestion::Bbr => {
                let round_trip = (link.delay + back) as f64 / SECOND as f64 + 0.001;
                let pipe = link.rate / link.sharers * round_trip;
                self.window.min(1.15 * pipe + 4.0 * MSS).max(4.0 * MSS)
            }
        }
    }

    /// A segment was acknowledged. `false` if an outage swallowed the acknowledgement.
    pub fn on_ack(&mut self, now: Time, ack: TcpAck, down: bool) -> bool {
        if down || self.stuck {
            self.unheard += ack.bytes;
            return false;
        }
        self.in_flight = self.in_flight.saturating_sub(ack.bytes);
        self.delivered += ack.bytes;
        self.heard_at = Some(now);
        self.grow(now, ack.bytes as f64);
        let sample = now.saturating_sub(ack.sent_at).max(1) as f64;
        if !ack.lost {
            let first = self.rtt == 0.0;
            self.rtt_var = if first {
                sample / 2.0
            } else {
                0.75 * self.rtt_var + 0.25 * (self.rtt - sample).abs()
            };
            self.rtt = if first { sample } else { 0.875 * self.rtt + 0.125 * sample };
            self.rtt_min = self.rtt_min.min(sample);
            let delivered = (self.delivered - ack.delivered_then) as f64;
            let rate = delivered / sample * SECOND as f64;
            // Of a sender that had nothing to send, only what is more than was known.
            if !ack.app_limited || self.delivery_rate.is_some_and(|known| (known as f64) < rate) {
                self.delivery_rate = Some(rate as u64);
            }
        }
        true
    }

    fn grow(&mut self, now: Time, bytes: f64) {
        if self.window < self.threshold {
            self.window = (self.window + bytes).min(64e6);
            return;
        }
        // CUBIC (RFC 9438, 4.2), and no slower than Reno.
        let since = now.saturating_sub(self.cut_at) as f64 / SECOND as f64;
        let segments = self.window_max / MSS;
        let plateau = (segments * 0.3 / 0.4).cbrt();
        let cubic = (0.4 * (since - plateau).powi(3) + segments) * MSS;
        let reno = self.window + MSS * bytes / self.window;
        self.window = reno.max(cubic.min(self.window + bytes)).min(64e6);
    }

    /// What has arrived by now, in order.
    pub fn arrivals(&mut self, now: Time, down: bool) -> Option<Parcel> {
        if down || self.stuck || self.flying.front()?.0 > now {
            return None;
        }
        self.flying.pop_front().map(|(_, parcel)| parcel)
    }

    /// The path is back after `outage`: TCP repairs what was lost when its time-out comes round.
    pub fn revive(
        &mut self,
        now: Time,
        outage: Time,
        link: &Link,
        back: Time,
        rng: &mut Rng,
        later: &mut Vec<(Time, Later)>,
    ) {
        if self.stuck || (self.flying.is_empty() && self.unheard == 0) {
            return;
        }
        let retry = now + rng.range(0..=outage.clamp(RTO_MIN, 2 * SECOND)) + link.delay;
        let mut spent = 0;
        for (at, parcel) in &mut self.flying {
            if *at <= retry {
                spent += link.time_of(parcel.len());
                *at = retry + spent;
                later.push((*at, Later::Arrive));
                self.last_arrival = self.last_arrival.max(*at);
            }
        }
        if self.unheard > 0 {
            let ack = TcpAck {
                bytes: std::mem::take(&mut self.unheard),
                sent_at: now,
                delivered_then: self.delivered,
                app_limited: true,
                lost: true,
            };
            later.push((retry + back, Later::Ack(ack)));
        }
        later.sort_by_key(|(at, _)| *at);
    }

    /// What a kernel would tell of it.
    pub fn metrics(&self, now: Time) -> Option<LaneMetrics> {
        (self.rtt > 0.0).then(|| LaneMetrics {
            rtt: Duration::from_nanos(self.rtt as u64),
            rtt_var: Duration::from_nanos(self.rtt_var as u64),
            rtt_min: Duration::from_nanos(self.rtt_min as u64),
            delivery_rate: self.delivery_rate,
            app_limited: false,
            pacing_rate: None,
            cwnd_bytes: self.window as u64,
            silence: self.heard_at.map(|at| Duration::from_nanos(now.saturating_sub(at))),
        })
    }
}
