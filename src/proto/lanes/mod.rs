//! All lanes of one end: those that are up, those that are down but not forgotten, and their links.
//! What depends on several lanes is decided here: which are given work (`rank`, `views`), which are
//! active (`arrange`), when a silent one is suspected and given up (`silence`), and how far writers
//! may be ahead of them (`send_room`).
//!
//! Nothing here knows what a stream is. What a lane owes is handed to code that does.

mod arrange;
mod dead;
mod rank;
mod send_room;
mod silence;
mod views;

pub use dead::{DeadLanes, Notice};
pub use rank::{Answering, Fallback, Rank};

use std::sync::Arc;
use std::time::{Duration, Instant};

use litemap::LiteMap;

use super::config::Config;
use super::count::end_of;
use super::error::Code;
use super::ids::LaneId;
use super::lane::{Carried, Condition, Lane};
use super::limits::{LANES_MAX, SEGMENT_OVERHEAD_BYTES};
use super::link::{Advice, KernelSample, Links, RateCaps};
use super::policy::{LanePolicy, Tier};

/// The lanes of one end of a session.
#[derive(Debug)]
pub struct Lanes {
    config: Arc<Config>,
    up: LiteMap<LaneId, Lane>,
    pub dead: DeadLanes,
    pub links: Links,
    pub caps: RateCaps,
    /// How many lanes in a row were given up before anything on them was acknowledged.
    unanswered: u32,
    /// When the last lane went.
    alone_since: Option<Instant>,
    /// When a lane held back by its link's cap may resume.
    pub paced_until: Option<Instant>,
    pub totals: Totals,
}

/// Totals over the session's life, dead lanes included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Payload given to lanes, and the part of it that another lane had been given before.
    pub sent_payload: u64,
    pub resent_payload: u64,
    pub lost: u64,
    pub suspected: u64,
}

impl Lanes {
    /// With no lanes yet.
    pub fn new(config: Arc<Config>, now: Instant) -> Self {
        Self {
            config,
            up: LiteMap::new(),
            dead: DeadLanes::default(),
            links: Links::default(),
            caps: RateCaps::default(),
            unanswered: 0,
            alone_since: Some(now),
            paced_until: None,
            totals: Totals::default(),
        }
    }

    pub fn get(&self, id: LaneId) -> Option<&Lane> {
        self.up.get(&id)
    }

    pub fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.up.get_mut(&id)
    }

    pub fn contains(&self, id: LaneId) -> bool {
        self.up.contains_key(&id)
    }

    /// Lanes that are up, by number.
    pub fn values(&self) -> impl Iterator<Item = &Lane> + Clone {
        self.up.values()
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.up.iter_mut().map(|(_, lane)| lane)
    }

    pub fn len(&self) -> usize {
        self.up.len()
    }

    /// Since when there has been none; `None` while there is one.
    pub fn alone_since(&self) -> Option<Instant> {
        self.alone_since
    }

    /// Lanes that answer, by tier.
    pub fn answering(&self) -> Answering {
        Answering::count(self.values())
    }

    /// The longest round trip of any lane.
    pub fn round_trip_max(&self) -> Duration {
        self.values().map(|lane| lane.estimate.rtt()).max().unwrap_or_default()
    }

    /// Frames not acknowledged yet.
    pub fn frames(&self) -> usize {
        let living = self.values().map(|lane| lane.ledger.frames());
        living.fold(self.dead.frames(), usize::saturating_add)
    }

    /// The cost of remembering where unacknowledged bytes went.
    pub fn ledger_bytes(&self) -> u64 {
        (self.frames() as u64).saturating_mul(SEGMENT_OVERHEAD_BYTES)
    }

    /// A lane is up; its handshake took a round trip of `rtt`. `false`: there are too many, or the
    /// number was used; nothing has changed.
    pub fn add(&mut self, now: Instant, id: LaneId, rtt: Option<Duration>) -> bool {
        if self.contains(id) || self.dead.contains(id) || self.len() >= LANES_MAX {
            return false;
        }
        let mut lane = Lane::new(id, now, rtt);
        lane.signs.unanswered = self.unanswered;
        lane.payload.given_at = self.totals.sent_payload;
        lane.standby = true; // the others are active already
        self.links.join(&lane.policy, now);
        let link = lane.policy.link;
        self.up.insert(id, lane);
        self.arrange(link);
        self.alone_since = None;
        true
    }

    /// How a lane may be used from now on.
    pub fn set_policy(&mut self, now: Instant, id: LaneId, policy: LanePolicy) {
        let Some(lane) = self.up.get_mut(&id) else { return };
        let before = std::mem::replace(&mut lane.policy, policy);
        lane.standby = policy.tier != Tier::Express;
        self.links.leave(&before);
        self.links.join(&policy, now);
        let lanes = &self.up;
        let in_use = |link| lanes.values().any(|lane| lane.policy.link == link);
        self.caps.set(now, &policy, in_use);
        self.arrange(before.link);
        self.arrange(policy.link);
    }

    /// What the kernel knows of a lane. Returns how to use the lane; `None`: it is not up.
    pub fn on_metrics(&mut self, now: Instant, id: LaneId, sample: KernelSample) -> Option<Advice> {
        let lane = self.up.get_mut(&id)?;
        let delivered = lane.estimate.on_metrics(now, sample);
        lane.signs.asked_until = None;
        if lane.condition == Condition::Late && lane.answers(now) {
            lane.condition = Condition::Good;
        }
        let link = lane.policy.link;
        self.links.on_delivered(link, delivered, sample.rtt);
        if let Some(at) = lane.estimate.kernel_heard_at() {
            self.links.on_heard(link, at);
        }
        let window = lane.estimate.kernel_window();
        let of_link = self.up.values().filter(|lane| lane.policy.link == link);
        let rearrange = self.links.on_sample(now, link, of_link.map(Lane::sample), window);
        let (rate, by_handshake) = (self.links.path_rate(link), self.links.path_by_handshake(link));
        let of_link = self.values_mut().filter(|lane| lane.policy.link == link);
        of_link.for_each(|lane| lane.estimate.learn_of_path(rate, by_handshake));
        if rearrange {
            self.arrange(link);
        }
        self.advice(id)
    }

    /// How to use a lane, given what is known of its link; `None`: it is not up.
    pub fn advice(&self, id: LaneId) -> Option<Advice> {
        let lane = self.get(id)?;
        Some(self.links.view(lane.policy.link).advice(&lane.sample()))
    }

    /// Takes an acknowledgement for a lane, up or down; what it settles is added to `settled`.
    /// `false`: it acknowledges what was never sent.
    pub fn on_ack(
        &mut self,
        now: Instant,
        id: LaneId,
        position: u64,
        settled: &mut Vec<Carried>,
    ) -> bool {
        let Some(lane) = self.up.get_mut(&id) else {
            return self.dead.on_ack(id, position, settled);
        };
        let more = position.saturating_sub(lane.ledger.acked_position());
        if more > 0 && position <= lane.ledger.sent_position() {
            self.links.on_heard(lane.policy.link, now);
            self.links.on_ack(lane.policy.link, more);
        }
        lane.on_ack(now, position, |entry| settled.push(entry.carried))
    }

    /// A lane was given stream payload, for the `first_time` or not.
    pub fn on_payload(&mut self, id: LaneId, payload: u64, first_time: bool) {
        let resent = if first_time { 0 } else { payload };
        let totals = &mut self.totals;
        totals.sent_payload = end_of(totals.sent_payload, payload);
        totals.resent_payload = end_of(totals.resent_payload, resent);
        if let Some(lane) = self.up.get_mut(&id) {
            lane.payload.sent = end_of(lane.payload.sent, payload);
            lane.payload.resent = end_of(lane.payload.resent, resent);
            lane.payload.given_at = totals.sent_payload;
        }
    }

    /// A lane is down: it leaves its link, and others take its place.
    pub fn remove(&mut self, now: Instant, id: LaneId) -> Option<Lane> {
        let lane = self.up.remove(&id)?;
        self.links.leave(&lane.policy);
        self.arrange(lane.policy.link);
        if self.up.is_empty() {
            self.alone_since = Some(now);
        }
        Some(lane)
    }

    /// A lane is given up.
    pub fn count_unanswered(&mut self, id: LaneId) {
        let Some(lane) = self.up.get(&id) else { return };
        let unanswered = lane.ledger.acked_position() == 0;
        self.unanswered = if unanswered { self.unanswered.saturating_add(1) } else { 0 };
    }

    /// The peer has to be told of a lane that is down.
    pub fn bury(&mut self, lane: Lane, code: Code) {
        self.totals.lost = end_of(self.totals.lost, 1);
        self.dead.add(lane, code);
    }
}
