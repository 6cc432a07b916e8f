//! Shows what lanes are given to the oracles that check it.

use imux::proto::wire::{Decoder, Frame, FrameBatch};
use imux::proto::{LaneId, LaneStats};

use super::{CLIENT, NAMES, SERVER, World};
use crate::net::ms;
use crate::oracle::copies::Pull;

impl World {
    /// An end's lanes as they stand, with their true tiers; none if no rule inspects them.
    pub(super) fn lanes_seen(&self, end: usize) -> Vec<LaneStats> {
        if !self.watched {
            return Vec::new();
        }
        let mut lanes = self.ends[end].session.stats().lanes;
        for lane in &mut lanes {
            lane.tier = self.policy_of(lane.id.number()).tier;
        }
        lanes
    }

    /// A lane was given bytes; `lanes` is the state just before.
    pub(super) fn on_pulled(
        &mut self,
        end: usize,
        lane: LaneId,
        lanes: &[LaneStats],
        bytes: &[u8],
    ) {
        let mut batch = FrameBatch::default();
        if let Err(error) = Decoder::new().decode(bytes, &mut batch) {
            return self
                .fail(format!("{} gives lane {lane} what cannot be read: {error}", NAMES[end]));
        }
        let policy = self.policy_of(lane.number());
        let pull = Pull { lane, lanes, frames: &batch.frames };
        let bytes = bytes.len() as u64;
        match self.policies.on_pull(self.now, end, policy, pull, bytes) {
            Ok(seen) => seen.into_iter().for_each(|what| self.count(what)),
            Err(why) => self.fail(format!("{}: {why}", NAMES[end])),
        }
        self.check_datagrams(end, &batch.frames);
        let (apps, plans) = (&self.ends[end].apps, &self.options.streams);
        let is_redundant = |id| apps.get(&id).is_some_and(|app| plans[app.plan].redundant);
        let seen = self.copies[end].on_pull(pull, bytes, is_redundant);
        seen.into_iter().for_each(|what| self.count(what));
    }

    /// An end gave a lane these frames: none of their datagrams is too old.
    fn check_datagrams(&mut self, end: usize, frames: &[Frame]) {
        for frame in frames {
            let Frame::Datagram(datagram) = frame else { continue };
            let Some(app) = self.ends[end].flows.get(&datagram.id) else {
                return self.fail(format!("{} sends datagrams of no flow", NAMES[end]));
            };
            // The core takes ten seconds at most.
            let deadline = ms(self.options.flows[app.plan].deadline_ms.min(10_000) as f64);
            let truth = &mut self.flow_truths[app.plan][app.own_half()];
            if let Err(why) = truth.on_given(self.now, datagram, deadline) {
                self.fail(format!("{}: {why}", NAMES[end]));
            }
        }
    }

    /// A lane asked for bytes and got none.
    pub(super) fn on_idle_pull(&mut self, end: usize, lane: LaneId, lanes: &[LaneStats]) {
        let capped = self.policy_of(lane.number()).rate_max.is_some();
        let may_wait = capped || self.ends[end].session.is_closed();
        if may_wait || !self.copies[end].owes(lane) {
            return;
        }
        if let Err(why) = self.copies[end].on_idle(lane, lanes) {
            self.fail(format!("{}: {why}", NAMES[end]));
        }
    }

    /// Checks what both ends sent twice.
    pub(super) fn check_copies(&mut self) {
        for end in [CLIENT, SERVER] {
            if let Err(why) = self.copies[end].check(&self.ends[end].session.stats()) {
                self.fail(format!("{}: {why}", NAMES[end]));
            }
        }
    }
}
