//! How far writers may be ahead of the lanes: enough for each lane to find bytes when it pulls.

use super::Lanes;

/// At least this much of a stream may wait for lanes, or a lane that pulls finds nothing while the
/// writer is being woken.
const SEND_ROOM_MIN: u64 = 256 * 1024;

/// A writer is kept this far ahead of the lanes, beyond the difference of their delays: it has to
/// be woken and to run before they run dry.
const SEND_AHEAD_SECONDS: f64 = 0.004;

impl Lanes {
    /// How far a stream's writer may be ahead of the lanes, in bytes: what the fast lanes carry
    /// before the slowest one would deliver its next frame, so that the slow one finds bytes that
    /// are due by then.
    pub fn send_room(&self) -> u64 {
        let bytes = self.send_spread().saturating_add(self.send_slack());
        bytes.min(self.config.send_buffer_max.max(SEND_ROOM_MIN))
    }

    /// A blocked writer is woken once less than this waits: not for every frame, because waking it
    /// costs more than the frame.
    pub fn send_low_water(&self) -> u64 {
        self.send_room().saturating_sub(self.send_slack() / 2)
    }

    fn send_spread(&self) -> u64 {
        let mut rate = 0.0;
        let (mut near, mut far) = (f64::INFINITY, 0.0f64);
        for lane in self.usable(self.best_rank()) {
            let queue = lane.ledger.in_flight() as f64 / lane.estimate.rate().max(1.0);
            let arrival = lane.estimate.delay().as_secs_f64() + queue;
            rate += lane.estimate.rate();
            near = near.min(arrival);
            far = far.max(arrival);
        }
        (rate * (far - near).max(0.0)) as u64
    }

    fn send_slack(&self) -> u64 {
        let used = self.usable(self.best_rank());
        let rate: f64 = used.map(|lane| lane.estimate.rate()).sum();
        ((rate * SEND_AHEAD_SECONDS) as u64).max(SEND_ROOM_MIN)
    }
}
