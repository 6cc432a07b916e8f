//! The links of a running client: added, taken away, and told when the network below them changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::config::Link;
use crate::driver::carried::{Carried, Totals};
use crate::driver::clock;
use crate::driver::error::ConnectError;
use crate::proto::{LinkId, Tier};

/// All links there are now.
#[derive(Debug, Default)]
pub(super) struct Links(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    links: BTreeMap<LinkId, Entry>,
}

#[derive(Debug)]
struct Entry {
    state: Arc<LinkState>,
    network: watch::Sender<Network>,
}

/// What is known of a link besides.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) name: Arc<str>,
    pub(super) totals: Arc<Totals>,
    lanes: u16,
    rate_max: Option<u64>,
    failed: Mutex<Option<(Instant, String)>>,
}

/// A client's link at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinkStatus {
    /// Which.
    pub id: LinkId,
    /// What its dialer is bound to.
    pub name: Arc<str>,
    /// When its lanes carry streams.
    pub tier: Tier,
    /// How many are to be kept up.
    pub lanes: u16,
    /// Most bytes a second that they carry together, each way.
    pub rate_max: Option<u64>,
    /// It has no lanes until it is resumed.
    pub paused: bool,
    /// What its lanes have carried, in all sessions of the client.
    pub carried: Carried,
    /// Why a lane could not be made last, and how long ago that was.
    pub failed: Option<(String, Duration)>,
}

/// What a link's lanes are told of it and of their network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    tier: Tier,
    /// There are to be no lanes now.
    is_paused: bool,
    is_gone: bool,
    /// How often it has become another: lanes made before are of no use.
    changes: u64,
    /// How often there was reason to try again at once.
    wakes: u64,
}

impl Links {
    /// A place for one more link. Numbers are not used again.
    ///
    /// # Errors
    /// All links together would have too many lanes.
    pub(super) fn add(&self, link: &Link) -> Result<Place, ConnectError> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = table.links.values().map(|link| usize::from(link.state.lanes)).sum::<usize>();
        let (asked, max) = (others + usize::from(link.lanes), usize::from(Link::LANES_MAX));
        if asked > max {
            return Err(ConnectError::TooManyLanes { asked, max });
        }
        let id = LinkId::new(table.next);
        table.next += 1;
        let first =
            Network { tier: link.tier, is_paused: false, is_gone: false, changes: 0, wakes: 0 };
        let network = watch::Sender::new(first);
        let watch = LinkWatch { network: network.subscribe(), seen: first };
        let state = Arc::new(LinkState::new(link));
        table.links.insert(id, Entry { state: state.clone(), network });
        Ok(Place { id, watch, state })
    }

    /// Its lanes end; `false` if there is no such link.
    pub(super) fn remove(&self, id: LinkId) -> bool {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = table.links.remove(&id) else { return false };
        entry.network.send_modify(|network| network.is_gone = true);
        true
    }

    /// Its lanes end, and all are dialled at once.
    pub(super) fn redial(&self, id: LinkId) {
        self.tell(id, |network| network.changes += 1);
    }

    /// Lanes that are not up are dialled at once.
    pub(super) fn wake(&self, id: LinkId) {
        self.tell(id, |network| network.wakes += 1);
    }

    /// Its lanes end, and there are none until it is resumed.
    pub(super) fn pause(&self, id: LinkId) -> bool {
        self.tell(id, |network| network.is_paused = true)
    }

    /// It may have lanes again.
    pub(super) fn resume(&self, id: LinkId) -> bool {
        self.tell(id, |network| network.is_paused = false)
    }

    /// Its lanes end, and those that follow are of this tier.
    pub(super) fn set_tier(&self, id: LinkId, tier: Tier) -> bool {
        self.tell(id, |network| network.tier = tier)
    }

    /// All of them, by number.
    pub(super) fn status(&self) -> Vec<LinkStatus> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |(id, entry): (&LinkId, &Entry)| {
            let network = *entry.network.borrow();
            entry.state.status(*id, &network)
        };
        table.links.iter().map(status).collect()
    }

    /// `false`: there is no such link.
    fn tell(&self, id: LinkId, change: impl FnOnce(&mut Network)) -> bool {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = table.links.get(&id) else { return false };
        entry.network.send_modify(change);
        true
    }
}

/// A link among the others.
pub(super) struct Place {
    pub(super) id: LinkId,
    pub(super) watch: LinkWatch,
    pub(super) state: Arc<LinkState>,
}

impl LinkState {
    fn new(link: &Link) -> Self {
        Self {
            name: link.dialer.name().into(),
            totals: Arc::default(),
            lanes: link.lanes,
            rate_max: link.rate_max,
            failed: Mutex::default(),
        }
    }

    pub(super) fn on_failed(&self, error: &ConnectError) {
        let failed = Some((clock::now(), error.to_string()));
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }

    fn status(&self, id: LinkId, network: &Network) -> LinkStatus {
        let now = clock::now();
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        LinkStatus {
            id,
            name: self.name.clone(),
            tier: network.tier,
            lanes: self.lanes,
            rate_max: self.rate_max,
            paused: network.is_paused,
            carried: self.totals.read(),
            failed: failed.map(|(at, why)| (why, now.duration_since(at))),
        }
    }
}

impl Network {
    /// The tier of a lane, if there is to be one now. An express lane goes with primary ones.
    fn tier_of(&self, express: bool) -> Option<Tier> {
        match (self.is_paused, express) {
            (true, _) => None,
            (false, false) => Some(self.tier),
            (false, true) => (self.tier == Tier::Primary).then_some(Tier::Express),
        }
    }

    /// Whether lanes that were begun then are of no use any more.
    fn outdates(&self, then: &Self) -> bool {
        let same = |it: &Self| (it.tier, it.is_paused, it.is_gone, it.changes);
        same(self) != same(then)
    }
}

/// One lane's view of its link.
#[derive(Clone, Debug)]
pub(super) struct LinkWatch {
    network: watch::Receiver<Network>,
    seen: Network,
}

impl LinkWatch {
    /// A lane is about to be dialled: what has changed so far no longer matters to it. `false`: the
    /// link has been taken away.
    pub(super) fn begin(&mut self) -> bool {
        self.seen = *self.network.borrow();
        !self.seen.is_gone
    }

    /// As [`begin`](Self::begin), once the link is to have such a lane: its tier, or `None` if the
    /// link has been taken away. Cancel safe.
    pub(super) async fn wished(&mut self, express: bool) -> Option<Tier> {
        while self.begin() {
            match self.seen.tier_of(express) {
                Some(tier) => return Some(tier),
                None => self.news().await,
            }
        }
        None
    }

    /// Waits until there is reason to dial again at once, or the link is taken away. Cancel safe.
    pub(super) async fn news(&mut self) {
        let seen = self.seen;
        self.wait(|network| *network != seen).await;
    }

    /// Waits until the lane that was begun is of no use. Cancel safe.
    pub(super) async fn outdated(&mut self) {
        let seen = self.seen;
        self.wait(|network| network.outdates(&seen)).await;
    }

    async fn wait(&mut self, is_so: impl Fn(&Network) -> bool) {
        if self.network.wait_for(|network| is_so(network)).await.is_err() {
            // The client is gone, and says so by itself.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::lane::memory;

    fn link(lanes: u16) -> Link {
        let (dialer, _) = memory::network(memory::DEFAULT_CAPACITY);
        Link::new(Arc::new(dialer), lanes)
    }

    #[test]
    fn a_link_that_is_taken_away_makes_room_for_another() {
        let links = Links::default();
        let Place { id: first, mut watch, .. } = links.add(&link(200)).unwrap();
        let refused = links.add(&link(57)).err().unwrap();
        assert!(matches!(refused, ConnectError::TooManyLanes { asked: 257, max: 256 }));
        assert!(watch.begin() && watch.outdated().now_or_never().is_none());
        assert!(links.remove(first) && !links.remove(first));
        assert!(watch.outdated().now_or_never().is_some() && !watch.begin());
        let second = links.add(&link(256)).unwrap().id;
        assert_ne!(first, second);
    }

    #[test]
    fn lanes_that_are_up_mind_only_a_changed_network() {
        let links = Links::default();
        let Place { id, mut watch, .. } = links.add(&link(1)).unwrap();
        let mut other = watch.clone();
        assert!(watch.begin() && other.begin());
        links.wake(id);
        assert!(watch.news().now_or_never().is_some());
        assert!(watch.outdated().now_or_never().is_none());
        assert!(watch.begin() && watch.news().now_or_never().is_none());
        links.redial(id);
        assert!(watch.outdated().now_or_never().is_some());
        assert!(other.outdated().now_or_never().is_some(), "each lane is told");
        assert!(watch.begin() && watch.outdated().now_or_never().is_none());
    }

    #[test]
    fn a_paused_link_has_no_lanes_and_express_lanes_go_with_primary_ones() {
        let links = Links::default();
        let Place { id, mut watch, .. } = links.add(&link(1)).unwrap();
        let wished = |watch: &mut LinkWatch, express| watch.wished(express).now_or_never();
        assert_eq!(wished(&mut watch, false), Some(Some(Tier::Primary)));
        assert_eq!(wished(&mut watch, true), Some(Some(Tier::Express)));
        assert!(links.pause(id) && links.status()[0].paused);
        assert!(watch.outdated().now_or_never().is_some());
        assert_eq!((wished(&mut watch, false), wished(&mut watch, true)), (None, None));
        assert!(links.set_tier(id, Tier::Backup) && links.resume(id));
        assert_eq!(wished(&mut watch, false), Some(Some(Tier::Backup)));
        assert_eq!(wished(&mut watch, true), None);
        // What it is already ends no lane.
        assert!(links.set_tier(id, Tier::Backup) && links.resume(id));
        assert!(watch.outdated().now_or_never().is_none());
        assert!(links.remove(id) && !links.pause(id));
        assert_eq!(wished(&mut watch, false), Some(None));
    }
}
