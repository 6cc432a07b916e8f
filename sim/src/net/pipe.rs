//! One direction of a lane: what was written, what flies, what was acknowledged.

use std::collections::VecDeque;
use std::time::Duration;

use imux::proto::LaneMetrics;

use super::link::Fate;
use super::tcp::{Estimates, Window};
use super::{Link, MS, MSS, Parcel, RTO_MIN, SECOND, Time};
use crate::options::Congestion;
use crate::rng::Rng;

/// TCP's own acknowledgement of a segment.
#[derive(Clone, Copy, Debug)]
pub struct TcpAck {
    pub bytes: u64,
    sent_at: Time,
    delivered_then: u64,
    delivered_at_then: Time,
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
    window: Window,
    last_arrival: Time,
    pump_at: Option<Time>,
    /// Until what it has sent would be through if its share of the link were all there is.
    paced_until: Time,
    /// Swallows everything for good.
    pub stuck: bool,
    /// Acknowledgements that an outage swallowed.
    unheard: u64,
    delivered: u64,
    /// When it was last so much, or nothing was under way.
    delivered_at: Time,
    estimates: Estimates,
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
            window: Window::new(),
            last_arrival: 0,
            pump_at: None,
            paced_until: 0,
            stuck: false,
            unheard: 0,
            delivered: 0,
            delivered_at: 0,
            estimates: Estimates::new(),
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
        self.window.reopen();
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
        let window = self.window.now(link, back);
        while self.unsent_bytes > 0 && !link.down && !self.stuck && (self.in_flight as f64) < window
        {
            let ahead = link.free_at.saturating_sub(now);
            let paced = link.paces_ahead(back);
            // A sender is paced by its own rate, and not by what others have queued.
            if ahead > paced && self.paced_until > now {
                self.pump_later(self.paced_until.min(link.free_at - paced), later);
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
        if self.in_flight == 0 {
            self.delivered_at = now;
        }
        let time = link.time_of(bytes) * link.sharers as Time;
        self.paced_until = self.paced_until.max(now) + time;
        let (leaves, fate) = link.carry(now, bytes, rng);
        let lost = fate != Fate::Passed;
        let mut arrives = leaves + link.delay;
        if lost {
            arrives += self.repair(now, arrives - now + back, link, rng);
        }
        later.push((
            arrives + back,
            Later::Ack(TcpAck {
                bytes,
                sent_at: now,
                delivered_then: self.delivered,
                delivered_at_then: self.delivered_at,
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
        if link.control == Congestion::Cubic {
            self.window.cut(now, round_trip);
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

    /// A segment was acknowledged. `false` if an outage swallowed the acknowledgement.
    pub fn on_ack(&mut self, now: Time, ack: TcpAck, down: bool) -> bool {
        if down || self.stuck {
            self.unheard += ack.bytes;
            return false;
        }
        self.in_flight = self.in_flight.saturating_sub(ack.bytes);
        self.delivered += ack.bytes;
        self.delivered_at = now;
        self.heard_at = Some(now);
        self.window.grow(now, ack.bytes as f64);
        if !ack.lost {
            self.estimates.on_round_trip(now.saturating_sub(ack.sent_at).max(1) as f64);
            // From one acknowledgement to another, as Linux has it: counted from the sending, the last
            // segment that was delivered before would be one too many.
            let interval = now.saturating_sub(ack.delivered_at_then).max(1) as f64;
            let delivered = self.delivered - ack.delivered_then;
            self.estimates.on_delivery(interval, delivered, ack.app_limited);
        }
        true
    }

    /// What has arrived by now, in order.
    pub fn arrivals(&mut self, now: Time, down: bool) -> Option<Parcel> {
        if down || self.stuck || self.flying.front()?.0 > now {
            return None;
        }
        self.flying.pop_front().map(|(_, parcel)| parcel)
    }

    /// What will arrive last, and when.
    #[cfg(test)]
    pub(super) fn last_flying(&self) -> Option<(Time, &Parcel)> {
        self.flying.back().map(|(at, parcel)| (*at, parcel))
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
                delivered_at_then: self.delivered_at,
                app_limited: true,
                lost: true,
            };
            later.push((retry + back, Later::Ack(ack)));
        }
        later.sort_by_key(|(at, _)| *at);
    }

    /// What a kernel would tell of it.
    pub fn metrics(&self, now: Time) -> Option<LaneMetrics> {
        let silence = self.heard_at.map(|at| Duration::from_nanos(now.saturating_sub(at)));
        self.estimates.metrics(&self.window, self.delivered, silence)
    }
}
