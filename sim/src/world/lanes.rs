//! Lanes and the network below them: dialled, joined, carrying, failing.

use std::time::Duration;

use imux::proto::{Code, LaneId, LanePolicy};

use super::slot::{Slot, Wire};
use super::{CLIENT, Event, NAMES, SERVER, World};
use crate::net::{Later, Link, MS, Parcel, Pipe, SECOND, TcpAck, Time, ms};

/// A socket that does not connect is given up after this.
const CONNECT_TIMEOUT: Time = 2 * SECOND;
/// On links up to this rate, in bytes a second, a handshake's bytes are worth counting: those
/// below, one packet first. On faster ones they take less than a task's wake-up.
const SLOW_RATE: f64 = 100_000.0;
const HANDSHAKE_BYTES: u64 = 4_096;
const PACKET_BYTES: u64 = 1_500;
/// The longest wait before dialling again.
const REDIAL_MAX: Time = 5 * SECOND;

impl World {
    pub(super) fn on_net(&mut self, lane: u64, direction: usize, later: Later) {
        match later {
            Later::Pump => self.pump(lane, direction),
            Later::Ack(ack) => self.on_tcp_ack(lane, direction, ack),
            Later::Arrive => self.on_arrive(lane, direction),
            Later::Lost(number) => {
                self.wires[lane as usize].pipes[direction].on_lost(number);
                self.pump(lane, direction);
            }
        }
    }

    /// Sends what the lane's window allows, and pulls more if its writer waits for room.
    pub(super) fn pump(&mut self, lane: u64, direction: usize) {
        self.send(lane, direction);
        let end = direction;
        if self.ends[end].wants_to_write(LaneId::new(lane)) {
            self.pull(end, LaneId::new(lane));
        }
    }

    /// Sends what the lane's window allows.
    pub(super) fn send(&mut self, lane: u64, direction: usize) {
        let wire = &mut self.wires[lane as usize];
        let links = &mut self.links[wire.path];
        let back = links[1 - direction].delay;
        let mut later = std::mem::take(&mut self.later);
        wire.pipes[direction].pump(
            self.now,
            &mut links[direction],
            back,
            &mut self.rng,
            &mut later,
        );
        self.schedule(lane, direction, &mut later);
    }

    pub(super) fn schedule(&mut self, lane: u64, direction: usize, later: &mut Vec<(Time, Later)>) {
        for (time, later) in later.drain(..) {
            self.at(time, Event::Net { lane, direction, later });
        }
        self.later = std::mem::take(later);
    }

    fn on_tcp_ack(&mut self, lane: u64, direction: usize, ack: TcpAck) {
        let wire = &mut self.wires[lane as usize];
        let down =
            self.links[wire.path][direction].down || self.links[wire.path][1 - direction].down;
        if wire.pipes[direction].on_ack(self.now, ack, down, &mut self.rng) {
            self.pump(lane, direction);
        }
    }

    fn on_arrive(&mut self, lane: u64, direction: usize) {
        let end = 1 - direction;
        loop {
            let wire = &mut self.wires[lane as usize];
            let down = self.links[wire.path][direction].down;
            let Some(parcel) = wire.pipes[direction].arrivals(self.now, down) else { return };
            let path = wire.path;
            match parcel {
                Parcel::Bytes(bytes) => {
                    self.path_bytes[path][direction] += bytes.len() as u64;
                    self.copies[direction].on_arrive(LaneId::new(lane), bytes.len() as u64);
                    if !self.ends[end].has_lane(LaneId::new(lane)) {
                        self.refuse(end, lane);
                        continue;
                    }
                    self.note("arrive", NAMES[end], lane, bytes.len() as u64, 0);
                    let now = self.now;
                    let at = self.instant();
                    let rng = &mut self.rng;
                    if let Err(error) =
                        self.ends[end].receive(now, at, LaneId::new(lane), &bytes, rng)
                    {
                        self.fail(format!("{}: {error} on lane {lane}", NAMES[end]));
                    }
                    self.serve(end);
                }
                Parcel::Hello if end == SERVER => self.on_join(lane),
                Parcel::Hello => {}
                Parcel::Eof | Parcel::Reset => {
                    self.lane_failed(end, lane, true);
                }
            }
        }
    }

    /// Bytes arrived for a socket that is gone.
    fn refuse(&mut self, end: usize, lane: u64) {
        if !std::mem::replace(&mut self.wires[lane as usize].refused, true) {
            self.send_reset(end, lane);
        }
    }

    fn send_reset(&mut self, end: usize, lane: u64) {
        let pipe = &mut self.wires[lane as usize].pipes[end];
        pipe.abort();
        pipe.write(Parcel::Reset);
        self.pump(lane, end);
    }

    fn on_join(&mut self, lane: u64) {
        let path = self.wires[lane as usize].path;
        if self.ends[SERVER].session.is_closed() {
            self.count("join refused");
            self.note("refused", "server", lane, 0, 0);
            self.send_reset(SERVER, lane);
            // The client's driver learns that the session is gone.
            self.ends[CLIENT].closed_by_user = true;
            self.ends[CLIENT].session.close(Code::JOIN_REFUSED);
            self.serve(CLIENT);
            return;
        }
        let rtt = self.options.driver.metrics.then(|| self.handshake_rtt(path));
        if !self.ends[SERVER].session.handle_lane_up(self.instant(), LaneId::new(lane), rtt) {
            self.fail(format!("the server does not take lane {lane}"));
            return;
        }
        let policy = self.policy_of(lane);
        self.ends[SERVER].session.handle_lane_policy(self.instant(), LaneId::new(lane), policy);
        self.note("lane up", "server", lane, path as u64, 0);
        if self.ends[SERVER].session.lane_count() == 1 && lane > 0 {
            self.count("resumed from no lanes");
        }
        self.ends[SERVER].lane_up(LaneId::new(lane));
        self.wires[lane as usize].pipes[SERVER].write(Parcel::Hello);
        self.pump(lane, SERVER);
        self.serve(SERVER);
    }

    pub(super) fn policy_of(&self, lane: u64) -> LanePolicy {
        self.slots[self.wires[lane as usize].slot].policy
    }

    fn round_trip(&self, path: usize) -> Duration {
        Duration::from_nanos(self.links[path].iter().map(|link| link.delay).sum::<Time>() + 100_000)
    }

    /// Half of what the TCP and TLS handshakes took together.
    fn handshake_rtt(&self, path: usize) -> Duration {
        let links = self.links[path].iter();
        let sent: Time = links.map(|link| handshake_time(link, HANDSHAKE_BYTES / 2)).sum();
        self.round_trip(path) + Duration::from_nanos(sent / 2)
    }

    /// The socket at `end` has failed or closed; the driver closes it and tells its session.
    pub(super) fn lane_failed(&mut self, end: usize, lane: u64, tell_peer: bool) {
        let id = LaneId::new(lane);
        if self.ends[end].has_lane(id) {
            self.note("lane down", NAMES[end], lane, 0, 0);
            let at = self.instant();
            self.ends[end].session.handle_lane_down(at, id, Code::NONE);
            self.drop_lane(end, lane, tell_peer);
            self.serve(end);
        }
    }

    /// The driver's half of a lane's end.
    pub(super) fn drop_lane(&mut self, end: usize, lane: u64, tell_peer: bool) {
        self.ends[end].forget_lane(LaneId::new(lane));
        self.copies[end].excuse(LaneId::new(lane));
        if tell_peer {
            self.send_reset(end, lane);
        } else {
            self.wires[lane as usize].pipes[end].abort();
        }
        if end == CLIENT {
            let slot = self.wires[lane as usize].slot;
            self.slots[slot].lane = None;
            self.redial(slot);
        }
        if self.ends[end].session.lane_count() == 0 {
            self.count("no lanes");
        }
    }

    fn redial(&mut self, slot: usize) {
        if self.ends[CLIENT].session.is_closed() {
            return;
        }
        let failures = self.slots[slot].failures.min(10);
        let wait = (ms(self.options.driver.redial_ms) << failures).clamp(MS, REDIAL_MAX);
        let wait = self.rng.range(wait / 2..=wait);
        self.at(self.now + wait, Event::Dial { slot });
    }

    /// Dials the express lanes of all paths, or all lanes but those.
    pub(super) fn dial(&mut self, express: bool) {
        for slot in 0..self.slots.len() {
            let Slot { path, policy, .. } = self.slots[slot];
            if express == (policy.tier != self.options.paths[path].policy(path).tier) {
                self.at(self.now, Event::Dial { slot });
            }
        }
    }

    pub(super) fn on_dial(&mut self, slot: usize) {
        if self.ends[CLIENT].session.is_closed() {
            return;
        }
        let links = &self.links[self.slots[slot].path];
        let delay: Time = links.iter().map(|link| link.delay).sum();
        if links.iter().any(|link| link.down) {
            self.at(self.now + CONNECT_TIMEOUT, Event::ConnectTimeout { slot });
        } else {
            // TCP, then TLS.
            let sent: Time =
                links.iter().map(|link| handshake_time(link, HANDSHAKE_BYTES / 2)).sum();
            self.at(self.now + 2 * delay + sent + MS, Event::Connected { slot });
        }
    }

    pub(super) fn on_connect_timeout(&mut self, slot: usize) {
        self.slots[slot].failures += 1;
        self.redial(slot);
    }

    pub(super) fn on_connected(&mut self, slot: usize) {
        let path = self.slots[slot].path;
        if self.ends[CLIENT].session.is_closed() {
            return;
        }
        if self.links[path].iter().any(|link| link.down) {
            self.at(self.now + CONNECT_TIMEOUT, Event::ConnectTimeout { slot });
            return;
        }
        let lane = self.wires.len() as u64;
        let (control, rtt) = (self.options.paths[path].control, self.round_trip(path));
        let pipes = [0, 1].map(|way| {
            let mut pipe = Pipe::new(control, self.now, rtt.as_nanos() as Time);
            let packet = handshake_time(&self.links[path][way], PACKET_BYTES);
            if packet > 0 {
                pipe.shake_hands(rtt.as_nanos() as Time, packet);
            }
            pipe
        });
        let up_at = self.now;
        self.wires.push(Wire {
            path,
            slot,
            pipes,
            up_at,
            measured_at: [None; 2],
            advice: [None; 2],
            refused: false,
        });
        let policy = self.slots[slot].policy;
        self.slots[slot] = Slot { lane: Some(lane), ..Slot::new(path, policy) };
        let id = LaneId::new(lane);
        let rtt = self.handshake_rtt(path);
        if !self.ends[CLIENT].session.handle_lane_up(self.instant(), id, Some(rtt)) {
            self.fail(format!("the client does not take lane {lane}"));
            return;
        }
        self.ends[CLIENT].session.handle_lane_policy(self.instant(), id, policy);
        self.note("lane up", "client", lane, path as u64, 0);
        self.ends[CLIENT].lane_up(id);
        self.wires[lane as usize].pipes[CLIENT].write(Parcel::Hello);
        self.pump(lane, CLIENT);
        self.serve(CLIENT);
    }
}

/// How long this many handshake bytes take, if that counts.
fn handshake_time(link: &Link, bytes: u64) -> Time {
    if link.rate < SLOW_RATE { (bytes as f64 / link.rate * SECOND as f64) as Time } else { 0 }
}
