//! One direction of a lane: what was written, what is in flight, what was acknowledged.

use std::collections::VecDeque;
use std::time::Duration;

use imux::proto::KernelSample;

use super::bbr::{Bbr, Sample};
use super::link::Fate;
use super::tcp::{Estimates, Window};
use super::{Link, MS, MSS, Parcel, RTO_MIN, SECOND, Time};
use crate::options::Congestion;
use crate::rng::Rng;

/// A pipe sender keeps this much of its link's time queued.
const PIPE_AHEAD: Time = MS / 2;
/// When lost bytes arrive: not before they are sent again.
const NEVER: Time = Time::MAX;

/// TCP's own acknowledgement of a segment.
#[derive(Clone, Copy, Debug)]
pub struct TcpAck {
    pub bytes: u64,
    sent_at: Time,
    delivered_then: u64,
    delivered_at_then: Time,
    first_sent_then: Time,
    app_limited: bool,
    lost: bool,
}

/// What must happen later because of a send.
#[derive(Clone, Copy, Debug)]
pub enum Later {
    Arrive,
    Ack(TcpAck),
    /// The sender finds that this one was lost, counted from the first it sent.
    Lost(u64),
    Pump,
}

/// Something sent that has not arrived.
#[derive(Debug)]
struct Flying {
    arrives: Time,
    parcel: Parcel,
    /// How often it was sent again.
    repairs: u32,
}

/// One direction of a lane.
#[derive(Debug)]
pub struct Pipe {
    unsent: VecDeque<Parcel>,
    unsent_bytes: u64,
    flying: VecDeque<Flying>,
    /// How many have arrived.
    landed: u64,
    /// What to send again, by number.
    lost: VecDeque<u64>,
    /// Something was lost since the last acknowledgement.
    losing: bool,
    in_flight: u64,
    window: Window,
    /// Decides in place of the window, if present.
    bbr: Option<Box<Bbr>>,
    last_arrival: Time,
    pump_at: Option<Time>,
    /// When everything it has sent would be through at just its share of the link.
    paced_until: Time,
    /// Swallows everything for good.
    pub stuck: bool,
    /// Acknowledgements that an outage swallowed.
    unheard: u64,
    delivered: u64,
    /// When it reached this amount, or nothing was in flight.
    delivered_at: Time,
    /// When the segment acknowledged last was sent, or nothing was in flight.
    first_sent_at: Time,
    estimates: Estimates,
    /// When anything was last acknowledged.
    heard_at: Option<Time>,
}

impl Pipe {
    /// A lane on a path with this `control`; its handshake took `rtt`.
    pub fn new(control: Congestion, now: Time, rtt: Time) -> Self {
        let bbr = (control == Congestion::Bbr).then(|| Box::new(Bbr::new(now, rtt)));
        Self {
            unsent: VecDeque::new(),
            unsent_bytes: 0,
            flying: VecDeque::new(),
            landed: 0,
            lost: VecDeque::new(),
            losing: false,
            in_flight: 0,
            window: Window::new(),
            bbr,
            last_arrival: 0,
            pump_at: None,
            paced_until: 0,
            stuck: false,
            unheard: 0,
            delivered: 0,
            delivered_at: 0,
            first_sent_at: 0,
            estimates: Estimates::new(),
            heard_at: None,
        }
    }

    /// The kernel has seen a handshake: empty packets that took `rtt`, and one that took longer by
    /// the time of a `packet`.
    pub fn shake_hands(&mut self, rtt: Time, packet: Time) {
        self.estimates.on_round_trip(rtt as f64);
        self.estimates.on_round_trip((rtt + packet) as f64);
    }

    /// Bytes written and not sent.
    pub fn unsent_bytes(&self) -> u64 {
        self.unsent_bytes
    }

    /// Takes a parcel, which `pump` sends.
    pub fn write(&mut self, parcel: Parcel) {
        if let Some(bbr) = &mut self.bbr
            && (self.unsent_bytes as f64) < MSS
            && self.lost.is_empty()
        {
            bbr.on_ran_dry(self.delivered, self.in_flight);
        }
        self.unsent_bytes += parcel.len();
        self.unsent.push_back(parcel);
    }

    /// Drops unsent data: the socket was closed with a reset.
    pub fn abort(&mut self) {
        self.unsent.clear();
        self.unsent_bytes = 0;
        self.in_flight = 0;
        self.window.reopen();
        if let Some(bbr) = &mut self.bbr {
            bbr.reopen();
        }
    }

    /// How fast the socket may send from now on, in bytes a second, if it paces.
    pub fn limit_pacing(&mut self, bytes_a_second: u64) {
        if let Some(bbr) = &mut self.bbr {
            bbr.limit_pacing(bytes_a_second as f64);
        }
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
        let window = self.bbr.as_ref().map_or(self.window.now(link), |bbr| bbr.window());
        while (self.unsent_bytes > 0 || !self.lost.is_empty())
            && !(link.down || self.stuck)
            && (self.in_flight as f64) < window
        {
            if let Some(at) = self.held_until(link, now).filter(|at| *at > now) {
                self.pump_later(at, later);
                return;
            }
            if let Some(number) = self.lost.pop_front() {
                self.send_again(now, number, link, back, rng, later);
                continue;
            }
            let Some(parcel) = self.next_parcel(segment) else { return };
            self.send(now, parcel, link, back, rng, later);
        }
    }

    /// Until when pacing holds it: by its own model for BBR, by the link for a pipe.
    fn held_until(&self, link: &Link, now: Time) -> Option<Time> {
        if let Some(bbr) = &self.bbr {
            return Some(bbr.paced_until());
        }
        let ahead = link.free_at.saturating_sub(now);
        // A sender is paced by its own rate, not by what others have queued.
        let paces = link.control == Congestion::Pipe && ahead > PIPE_AHEAD;
        paces.then(|| self.paced_until.min(link.free_at - PIPE_AHEAD))
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
        self.leaves(now, bytes, link, rng);
        let (leaves, fate) = link.carry(now, bytes, rng);
        let lost = fate != Fate::Passed;
        let mut arrives = leaves + link.delay;
        if lost && self.bbr.is_some() {
            let number = self.landed + self.flying.len() as u64;
            self.lose(now, arrives - now + back, number, 0, later);
            self.flying.push_back(Flying { arrives: NEVER, parcel, repairs: 0 });
            self.in_flight += bytes;
            return;
        }
        if lost {
            arrives += self.repair(now, arrives - now + back, link, rng);
        }
        later.push((arrives + back, Later::Ack(self.ack_of(now, bytes, lost))));
        self.in_flight += bytes;
        // Nothing overtakes on a lane: a loss holds up everything behind it.
        self.last_arrival = self.last_arrival.max(arrives);
        self.flying.push_back(Flying { arrives: self.last_arrival, parcel, repairs: 0 });
        later.push((self.last_arrival, Later::Arrive));
    }

    /// Sends a lost parcel again.
    fn send_again(
        &mut self,
        now: Time,
        number: u64,
        link: &mut Link,
        back: Time,
        rng: &mut Rng,
        later: &mut Vec<(Time, Later)>,
    ) {
        let Some(place) = number.checked_sub(self.landed).map(|place| place as usize) else {
            return;
        };
        let Some(flying) = self.flying.get_mut(place) else { return };
        flying.repairs += 1;
        let (bytes, repairs) = (flying.parcel.len(), flying.repairs);
        self.leaves(now, bytes, link, rng);
        let (leaves, fate) = link.carry_again(now, bytes, rng);
        let arrives = leaves + link.delay;
        if fate == Fate::Passed {
            // Later data that has arrived waits for it.
            self.flying[place].arrives = arrives;
            self.last_arrival = self.last_arrival.max(arrives);
            later.push((arrives, Later::Arrive));
            later.push((arrives + back, Later::Ack(self.ack_of(now, bytes, true))));
        } else {
            self.lose(now, arrives - now + back, number, repairs, later);
        }
        self.in_flight += bytes;
    }

    /// Bytes leave the host: updates measurement and pacing.
    fn leaves(&mut self, now: Time, bytes: u64, link: &Link, rng: &mut Rng) {
        if self.in_flight == 0 {
            self.delivered_at = now;
            self.first_sent_at = now;
        }
        let time = link.time_of(bytes) * link.sharers as Time;
        self.paced_until = self.paced_until.max(now) + time;
        if let Some(bbr) = &mut self.bbr {
            bbr.on_sent(now, bytes, self.in_flight == 0, rng);
        }
    }

    /// The acknowledgement for what is sent now.
    fn ack_of(&self, now: Time, bytes: u64, lost: bool) -> TcpAck {
        TcpAck {
            bytes,
            sent_at: now,
            delivered_then: self.delivered,
            delivered_at_then: self.delivered_at,
            first_sent_then: self.first_sent_at,
            app_limited: self.is_app_limited(),
            lost,
        }
    }

    /// Something will not arrive: schedules when the sender learns of it.
    fn lose(
        &mut self,
        now: Time,
        round_trip: Time,
        number: u64,
        repairs: u32,
        later: &mut Vec<(Time, Later)>,
    ) {
        let few = (self.in_flight as f64) < 3.0 * MSS;
        let known_after = match (few, repairs) {
            // Acknowledgements of others reveal it (RFC 8985, 6.2), or a probe does (7.2).
            (false, 0) => round_trip,
            (true, 0) => 3 * round_trip + 2 * MS,
            // They reveal a lost repair once they cannot merely have overtaken it.
            (_, 1) | (false, _) => round_trip * 5 / 4,
            // Without them, the retransmission time-out does.
            (true, _) => (2 * round_trip).max(RTO_MIN) << (repairs - 2).min(4),
        };
        later.push((now + known_after, Later::Lost(number)));
    }

    /// A loss is known: the parcel is no longer in flight, and is sent again when there is room.
    pub fn on_lost(&mut self, number: u64) {
        let Some(place) = number.checked_sub(self.landed) else { return };
        let Some(flying) = self.flying.get(place as usize) else { return };
        self.in_flight = self.in_flight.saturating_sub(flying.parcel.len());
        self.lost.push_back(number);
        self.losing = true;
    }

    fn is_app_limited(&self) -> bool {
        self.bbr.as_ref().map_or(self.unsent_bytes == 0, |bbr| bbr.is_app_limited())
    }

    /// A segment was lost and is repaired without the sender's help: cuts the window and returns
    /// how much later it arrives.
    fn repair(&mut self, now: Time, round_trip: Time, link: &Link, rng: &mut Rng) -> Time {
        if link.control == Congestion::Cubic {
            self.window.cut(now, round_trip);
        }
        // Three segments behind it reveal the loss; without them a probe does (RFC 8985, 7.2).
        let few = (self.in_flight as f64) < 3.0 * MSS;
        let mut wait = if few { 3 * round_trip + 2 * MS } else { round_trip };
        // A lost repair is found after another round trip, the next one by the time-out.
        let mut backoff = round_trip * 5 / 4;
        while rng.chance(link.loss) && wait < 3 * SECOND {
            wait += backoff;
            backoff = (2 * backoff).max(RTO_MIN);
        }
        wait
    }

    /// A segment was acknowledged. `false` if an outage swallowed the acknowledgement.
    pub fn on_ack(&mut self, now: Time, ack: TcpAck, down: bool, rng: &mut Rng) -> bool {
        if down || self.stuck {
            self.unheard += ack.bytes;
            return false;
        }
        self.in_flight = self.in_flight.saturating_sub(ack.bytes);
        self.delivered += ack.bytes;
        self.delivered_at = now;
        self.first_sent_at = self.first_sent_at.max(ack.sent_at);
        self.heard_at = Some(now);
        // A segment sent twice gives no round-trip time (Karn), and no rate if the link carried it
        // twice at once.
        let rtt = (!ack.lost).then(|| now.saturating_sub(ack.sent_at).max(1));
        let rate = (!ack.lost || self.bbr.is_some()).then(|| self.rate_of(now, ack));
        if let Some(rtt) = rtt {
            self.estimates.on_round_trip(rtt as f64);
        }
        if let Some(rate) = rate {
            self.estimates.on_delivery(rate, ack.app_limited);
        }
        match &mut self.bbr {
            Some(bbr) => bbr.on_ack(
                &Sample {
                    now,
                    bytes: ack.bytes,
                    delivered: self.delivered,
                    delivered_then: ack.delivered_then,
                    in_flight: self.in_flight,
                    rtt,
                    rate,
                    app_limited: ack.app_limited,
                    losing: std::mem::take(&mut self.losing),
                },
                rng,
            ),
            None => self.window.grow(now, ack.bytes as f64),
        }
        true
    }

    /// How fast it was delivered, in bytes a second.
    fn rate_of(&self, now: Time, ack: TcpAck) -> f64 {
        // From one acknowledgement to another, as in Linux: counted from the sending, the last
        // segment delivered before would be one too many.
        let heard = now.saturating_sub(ack.delivered_at_then);
        // Nothing is delivered faster than it was sent, even if acknowledgements come in a burst.
        let sent =
            if self.bbr.is_some() { ack.sent_at.saturating_sub(ack.first_sent_then) } else { 0 };
        let interval = heard.max(sent).max(1) as f64;
        (self.delivered - ack.delivered_then) as f64 / interval * SECOND as f64
    }

    /// What has arrived by now, in order.
    pub fn arrivals(&mut self, now: Time, down: bool) -> Option<Parcel> {
        if down || self.stuck || self.flying.front()?.arrives > now {
            return None;
        }
        self.landed += 1;
        self.flying.pop_front().map(|flying| flying.parcel)
    }

    /// What will arrive last, and when.
    #[cfg(test)]
    pub(super) fn last_flying(&self) -> Option<(Time, &Parcel)> {
        self.flying.back().map(|flying| (flying.arrives, &flying.parcel))
    }

    /// The path is back after `outage`: TCP repairs losses at its next time-out.
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
        for flying in &mut self.flying {
            if flying.arrives <= retry {
                spent += link.time_of(flying.parcel.len());
                flying.arrives = retry + spent;
                later.push((flying.arrives, Later::Arrive));
                self.last_arrival = self.last_arrival.max(flying.arrives);
            }
        }
        if self.unheard > 0 {
            let ack = TcpAck {
                bytes: std::mem::take(&mut self.unheard),
                sent_at: now,
                delivered_then: self.delivered,
                delivered_at_then: self.delivered_at,
                first_sent_then: self.first_sent_at,
                app_limited: true,
                lost: true,
            };
            later.push((retry + back, Later::Ack(ack)));
        }
        later.sort_by_key(|(at, _)| *at);
    }

    /// What a kernel would report about it.
    pub fn metrics(&self, now: Time) -> Option<KernelSample> {
        let silence = self.heard_at.map(|at| Duration::from_nanos(now.saturating_sub(at)));
        let bbr = self.bbr.as_deref();
        let window = bbr.map_or(self.window.bytes(), Bbr::window);
        self.estimates.metrics(window, bbr.map(Bbr::pacing_rate), self.delivered, silence)
    }
}
