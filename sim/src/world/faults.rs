//! What goes wrong in the network, and what the ends do to the whole session.

use imux::proto::Code;

use super::{CLIENT, Event, NAMES, SERVER, World};
use crate::net::{Link, Parcel, Time, ms};
use crate::options::{Ending, FaultKind};
use crate::oracle::liveness;

impl World {
    /// One of the path's lanes, if any is up.
    fn lane_on(&mut self, path: usize) -> Option<u64> {
        let lanes: Vec<u64> =
            self.slots.iter().filter(|s| s.path == path).filter_map(|s| s.lane).collect();
        if lanes.is_empty() { None } else { Some(*self.rng.pick(&lanes)) }
    }

    pub(super) fn on_fault(&mut self, index: usize) {
        let fault = self.options.faults[index].clone();
        let path = fault.path % self.links.len();
        self.note(fault.kind.name(), "net", path as u64, 0, 0);
        self.count(fault.kind.name());
        match fault.kind {
            FaultKind::Down { for_ms } => return self.path_down(path, ms(for_ms)),
            FaultKind::Outage { for_ms } => {
                return (0..self.links.len()).for_each(|path| self.path_down(path, ms(for_ms)));
            }
            FaultKind::Rate { mbit } => {
                let factor = mbit * 125_000.0 / self.links[path][0].rate;
                return self.links[path].iter_mut().for_each(|link| {
                    link.rate = (link.rate * factor).max(10_000.0);
                });
            }
            FaultKind::Delay { delay_ms } => {
                return self.links[path].iter_mut().for_each(|link| link.delay = ms(delay_ms));
            }
            FaultKind::Loss { loss } => {
                return self.links[path].iter_mut().for_each(|link| link.loss = loss);
            }
            _ => {}
        }
        let Some(lane) = self.lane_on(path) else { return };
        match fault.kind {
            FaultKind::Reset => {
                self.lane_failed(CLIENT, lane, false);
                self.lane_failed(SERVER, lane, false);
            }
            FaultKind::ResetOneEnd { server, told } => {
                self.lane_failed(usize::from(server), lane, told);
                self.wires[lane as usize].refused |= !told;
            }
            FaultKind::HalfClose { server } => {
                self.wires[lane as usize].pipes[usize::from(server)].write(Parcel::Eof);
                self.pump(lane, usize::from(server));
            }
            FaultKind::Silent => {
                self.wires[lane as usize].pipes.iter_mut().for_each(|pipe| pipe.stuck = true);
            }
            FaultKind::OneWay { to_server } => {
                self.wires[lane as usize].pipes[usize::from(!to_server)].stuck = true;
            }
            _ => {}
        }
    }

    fn path_down(&mut self, path: usize, outage: Time) {
        if self.links[path][0].down {
            return;
        }
        self.links[path].iter_mut().for_each(|link| link.down = true);
        self.note("path down", "net", path as u64, 0, 0);
        let until = (self.now + outage).min(self.faults_end.max(self.now));
        self.at(until, Event::PathUp { path, down_since: self.now });
    }

    pub(super) fn on_path_up(&mut self, path: usize, down_since: Time) {
        if !self.links[path][0].down {
            return;
        }
        self.links[path].iter_mut().for_each(|link| link.down = false);
        self.note("path up", "net", path as u64, 0, 0);
        for lane in 0..self.wires.len() {
            if self.wires[lane].path != path {
                continue;
            }
            for direction in [0, 1] {
                let links = &self.links[path];
                let mut later = std::mem::take(&mut self.later);
                self.wires[lane].pipes[direction].revive(
                    self.now,
                    self.now - down_since,
                    &links[direction],
                    links[1 - direction].delay,
                    &mut self.rng,
                    &mut later,
                );
                self.schedule(lane as u64, direction, &mut later);
                self.pump(lane as u64, direction);
            }
        }
    }

    pub(super) fn on_faults_end(&mut self) {
        self.note("faults end", "net", 0, 0, 0);
        self.check_that_others_went_on();
        if self.options.faults.is_empty() {
            return;
        }
        for path in 0..self.links.len() {
            for way in [0, 1] {
                let healthy = Link::new(&self.options.paths[path], way);
                let link = &mut self.links[path][way];
                link.rate = healthy.rate;
                link.delay = healthy.delay;
                link.loss = healthy.loss;
            }
        }
    }

    /// Paused readers read on from now on: nobody may have had to wait for that.
    fn check_that_others_went_on(&mut self) {
        for (plan, stream) in self.options.streams.iter().enumerate() {
            let due =
                liveness::due(&self.options, stream).is_some_and(|due| due <= self.faults_end);
            if due && !self.ends.iter().all(|end| end.has_done(plan)) {
                let undone = self.undone();
                return self.fail(format!("stream {plan} waits for readers of others: {undone}"));
            }
        }
    }

    pub(super) fn on_ending(&mut self, ending: Ending) {
        let end = usize::from(ending.server);
        if ending.close {
            self.count("close");
            self.ends[end].closed_by_user = true;
            self.ends[end].session.close(Code::application(7));
        } else {
            self.count("drain");
            self.ends[end].session.drain();
            self.ends[end].draining = true;
        }
        self.note(if ending.close { "close" } else { "drain" }, NAMES[end], 0, 0, 0);
        self.serve(end);
    }
}
