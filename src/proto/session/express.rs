//! Express lanes: kept free of bulk, so that what is urgent waits for the path alone.

use super::Session;
use crate::proto::event::Event;
use crate::proto::ids::Side;
use crate::proto::lanes::Rank;
use crate::proto::scheduler::LaneView;

/// Urgent data may wait this long behind bulk before a lane of its own is worth a connection.
const WAIT_SECONDS: f64 = 0.002;

impl Session {
    /// `lane` is given something urgent: notes whether it has to wait behind bulk.
    pub(super) fn heed_wait(&mut self, lane: &LaneView) {
        if self.streams.bulk_waits() && lane.queue > WAIT_SECONDS && !lane.urgent_only {
            self.want_express();
        }
    }

    /// Tells whoever dials, once, that express lanes would help.
    pub(super) fn want_express(&mut self) {
        if std::mem::replace(&mut self.notices.express_wanted, true) {
            return;
        }
        match self.side {
            Side::Client => self.tell(Event::ExpressWanted),
            Side::Server => self.notices.due.express = true,
        }
    }

    /// Whether only bulk waits and only lanes kept free of it sleep: the usual state under load, so
    /// it is checked cheaply.
    pub(super) fn bulk_waits_for_others(&self) -> bool {
        let mut sleeping = self.lanes.values().filter(|lane| lane.is_asleep());
        if self.streams.urgent_waits()
            || self.flows.wait()
            || !sleeping.all(|lane| lane.is_urgent_only() && lane.copies.is_empty())
        {
            return false;
        }
        let best = self.lanes.best_rank();
        self.lanes.values().any(|lane| !lane.is_urgent_only() && Rank::of(lane) >= best)
    }
}
