//! Which lanes are given work: by tier, and by whether they answer.

use std::time::Duration;

use crate::proto::ids::{LaneId, LinkId};
use crate::proto::lane::{Condition, Lane};
use crate::proto::policy::Tier;

/// How far a lane is preferred, in ascending order: only lanes of the best rank are given what
/// another could carry as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Does not answer.
    SuspectMetered,
    SuspectBackup,
    Suspect,
    /// Costs money: preferred only to lanes that do not answer at all.
    LateMetered,
    Metered,
    /// What it carries is overdue and goes elsewhere too: if it were given that again, or what
    /// comes next, the reader would wait for it until the lane is suspect.
    LateBackup,
    Late,
    Backup,
    Good,
}

impl Rank {
    pub const WORST: Self = Self::SuspectMetered;

    pub fn of(lane: &Lane) -> Self {
        match (lane.condition, lane.policy.tier) {
            (Condition::Suspect, Tier::Metered) => Self::SuspectMetered,
            (Condition::Suspect, Tier::Backup) => Self::SuspectBackup,
            (Condition::Suspect, Tier::Primary | Tier::Express) => Self::Suspect,
            (Condition::Late, Tier::Metered) => Self::LateMetered,
            (Condition::Late, Tier::Backup) => Self::LateBackup,
            (Condition::Late, Tier::Primary | Tier::Express) => Self::Late,
            (Condition::Good, Tier::Metered) => Self::Metered,
            (Condition::Good, Tier::Backup) => Self::Backup,
            (Condition::Good, Tier::Primary | Tier::Express) => Self::Good,
        }
    }
}

/// How many lanes of each tier answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answering {
    primary: usize,
    express: usize,
    backup: usize,
    metered: usize,
    /// The two lanes with the shortest round trips, queues included, among those that carry bulk.
    quickest: [Option<(Duration, LaneId)>; 2],
    /// The links of unmetered lanes, and of metered ones.
    links: LinksSeen,
    metered_links: LinksSeen,
}

/// Whether lanes belong to one link or several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LinksSeen {
    #[default]
    None,
    One(LinkId),
    Several,
}

impl LinksSeen {
    fn add(&mut self, link: LinkId) {
        *self = match *self {
            Self::None => Self::One(link),
            Self::One(one) if one == link => Self::One(link),
            Self::One(_) | Self::Several => Self::Several,
        };
    }

    fn any_but(self, link: LinkId) -> bool {
        match self {
            Self::None => false,
            Self::One(one) => one != link,
            Self::Several => true,
        }
    }
}

/// What could take over from a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Nothing: it is used until it is lost.
    None,
    /// Lanes that are used only if it does not answer.
    Backup,
    /// Lanes as good as it, or better; the quickest has this round trip.
    Peers { rtt: Duration },
}

impl Answering {
    pub fn count<'a>(lanes: impl Iterator<Item = &'a Lane>) -> Self {
        let mut answering = Self::default();
        for lane in lanes.filter(|lane| !lane.is_suspect()) {
            let count = match lane.policy.tier {
                Tier::Primary => &mut answering.primary,
                Tier::Express => &mut answering.express,
                Tier::Backup => &mut answering.backup,
                Tier::Metered => &mut answering.metered,
            };
            *count = count.saturating_add(1);
            let metered = lane.policy.tier == Tier::Metered;
            let links = if metered { &mut answering.metered_links } else { &mut answering.links };
            links.add(lane.policy.link);
            if !lane.is_urgent_only() {
                answering.time(lane);
            }
        }
        answering
    }

    fn time(&mut self, lane: &Lane) {
        let new = (lane.estimate.rtt(), lane.id);
        let [first, second] = self.quickest;
        if first.is_none_or(|first| new < first) {
            self.quickest = [Some(new), first];
        } else if second.is_none_or(|second| new < second) {
            self.quickest = [first, Some(new)];
        }
    }

    /// Whether any unmetered lane answers.
    pub fn unmetered(&self) -> bool {
        self.primary > 0 || self.express > 0 || self.backup > 0
    }

    /// Whether a lane on another link could take over from this one.
    pub fn on_another_link(&self, lane: &Lane) -> bool {
        let link = lane.policy.link;
        let metered = lane.policy.tier == Tier::Metered && self.metered_links.any_but(link);
        metered || self.links.any_but(link)
    }

    /// What could take over from the lane. Metered lanes wait until the others are lost.
    pub fn fallback(&self, lane: &Lane) -> Fallback {
        let preferred = self.primary.saturating_add(self.express).saturating_add(self.backup);
        let (same_or_better, worse) = match lane.policy.tier {
            Tier::Primary => (self.primary, self.express.saturating_add(self.backup)),
            Tier::Express => (self.primary.saturating_add(self.express), self.backup),
            Tier::Backup => (preferred, 0),
            Tier::Metered => (preferred.saturating_add(self.metered), 0),
        };
        if same_or_better > usize::from(!lane.is_suspect()) {
            let mut others = self.quickest.into_iter().flatten().filter(|(_, id)| *id != lane.id);
            Fallback::Peers { rtt: others.next().map_or(Duration::MAX, |(rtt, _)| rtt) }
        } else if worse > 0 {
            Fallback::Backup
        } else {
            Fallback::None
        }
    }
}
