//! Which lanes of a link are active, and what each can expect from it.

use super::Lanes;
use crate::proto::ids::LinkId;
use crate::proto::lane::Lane;
use crate::proto::link::Candidate;
use crate::proto::policy::Tier;

impl Lanes {
    /// Makes as many of the link's lanes active as its path needs. The others are on standby.
    pub(super) fn arrange(&mut self, link: LinkId) {
        let may_be_active =
            |lane: &&Lane| lane.policy.link == link && lane.policy.tier != Tier::Express;
        let lanes = self.values().filter(may_be_active);
        let mut lanes: Vec<Candidate> = lanes.map(Lane::candidate).collect();
        self.links.choose(link, &mut lanes);
        for chosen in lanes {
            if let Some(lane) = self.get_mut(chosen.id) {
                lane.standby = !chosen.active;
            }
        }
        self.share_link(link);
    }

    /// A link's lanes expect equal parts of its cap, and of what a path is assumed to carry before
    /// it is known.
    fn share_link(&mut self, link: LinkId) {
        let sharing = self.links.view(link).sharing();
        for lane in self.values_mut().filter(|lane| lane.policy.link == link) {
            let rate_max =
                lane.policy.rate_max.map_or(f64::INFINITY, |rate| rate as f64 / sharing as f64);
            lane.estimate.set_share(sharing, rate_max);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::lane::Condition;
    use crate::proto::testing::pair::{CLIENT, Pair, Path, SERVER, pattern};
    use crate::proto::{Config, LaneId};

    const LINK: LinkId = LinkId::new(0);
    const LANES: [LaneId; 3] = [LaneId::new(0), LaneId::new(1), LaneId::new(2)];

    /// Three lanes of one link. At the client this many are active.
    fn pair(active: usize) -> Pair {
        let mut pair = Pair::new(Config::default(), &[Path::new(20.0, 10); 3]);
        pair.ends[CLIENT].session.lanes_mut().links.limit_active(LINK, active);
        pair.ends[CLIENT].session.lanes_mut().arrange(LINK);
        pair
    }

    /// Payload given to each of them.
    fn given(pair: &Pair) -> Vec<u64> {
        let stats = pair.ends[CLIENT].session.stats();
        stats.lanes.iter().map(|lane| lane.sent_bytes).collect()
    }

    #[test]
    fn a_lane_on_standby_carries_no_bulk_until_another_is_gone() {
        let mut pair = pair(1);
        let sent = pattern(6_000_000, 1);
        let id = pair.open(CLIENT, sent.clone());
        pair.drive(Duration::from_secs(1));
        let before = given(&pair);
        assert!(before[0] > 1_000_000, "{before:?}");
        assert!(before[1] + before[2] < 100_000, "before it was known to be bulk: {before:?}");
        pair.lane_down(LANES[0]);
        pair.drive(Duration::from_secs(4));
        assert_eq!(pair.ends[SERVER].read[&id], (sent.to_vec(), true));
        let active = |pair: &Pair| pair.ends[CLIENT].session.lanes().links.view(LINK).sharing();
        assert_eq!(active(&pair), 1, "another has taken its place, and no more");
        pair.lane_up(LaneId::new(3), Path::new(20.0, 10));
        assert_eq!(active(&pair), 1, "what comes new stands by");
    }

    #[test]
    fn lanes_on_standby_are_asked_when_an_active_one_is_silent() {
        let mut pair = pair(2);
        pair.drive(Duration::from_millis(100)); // the ends' first messages have arrived
        let health = |pair: &Pair, id| pair.ends[CLIENT].session.lanes().get(id).unwrap().condition;
        let standby = LANES
            .into_iter()
            .find(|id| pair.ends[CLIENT].session.lanes().get(*id).unwrap().standby);
        let standby = standby.unwrap();
        for id in LANES {
            pair.silence_one_way(id, CLIENT);
        }
        let id = pair.open(CLIENT, pattern(1_000_000, 1));
        pair.drive(Duration::from_millis(600));
        assert_eq!(health(&pair, standby), Condition::Suspect, "it owes an answer, too");
        pair.set_path(standby, |path| path.silent = false);
        pair.drive(Duration::from_secs(8));
        assert!(!pair.ends[SERVER].read[&id].0.is_empty(), "the one that answers carries");
    }
}
