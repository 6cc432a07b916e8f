//! The links of a running client: added, taken away, and told when the network below them changes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::config::Link;
use crate::driver::error::ConnectError;
use crate::proto::LinkId;

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
    lanes: u16,
    network: watch::Sender<Network>,
}

/// What a link's lanes are told of their network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Network {
    is_gone: bool,
    /// How often it has become another: lanes made before are of no use.
    changes: u64,
    /// How often there was reason to try again at once.
    wakes: u64,
}

impl Links {
    /// A place for one more link with so many lanes. Numbers are not used again.
    ///
    /// # Errors
    /// All links together would have too many lanes.
    pub(super) fn add(&self, lanes: u16) -> Result<(LinkId, LinkWatch), ConnectError> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let others = table.links.values().map(|link| usize::from(link.lanes)).sum::<usize>();
        let (asked, max) = (others + usize::from(lanes), usize::from(Link::LANES_MAX));
        if asked > max {
            return Err(ConnectError::TooManyLanes { asked, max });
        }
        let id = LinkId::new(table.next);
        table.next += 1;
        let network = watch::Sender::new(Network::default());
        let watch = LinkWatch { network: network.subscribe(), seen: Network::default() };
        table.links.insert(id, Entry { lanes, network });
        Ok((id, watch))
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

    fn tell(&self, id: LinkId, change: impl FnOnce(&mut Network)) {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = table.links.get(&id) {
            entry.network.send_modify(change);
        }
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

    /// Waits until there is reason to dial again at once, or the link is taken away. Cancel safe.
    pub(super) async fn news(&mut self) {
        let seen = self.seen;
        self.wait(|network| *network != seen).await;
    }

    /// Waits until the lane that was begun is of no use. Cancel safe.
    pub(super) async fn outdated(&mut self) {
        let seen = self.seen.changes;
        self.wait(|network| network.is_gone || network.changes != seen).await;
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

    #[test]
    fn a_link_that_is_taken_away_makes_room_for_another() {
        let links = Links::default();
        let (first, mut watch) = links.add(200).unwrap();
        let refused = links.add(57).unwrap_err();
        assert!(matches!(refused, ConnectError::TooManyLanes { asked: 257, max: 256 }));
        assert!(watch.begin() && watch.outdated().now_or_never().is_none());
        assert!(links.remove(first) && !links.remove(first));
        assert!(watch.outdated().now_or_never().is_some() && !watch.begin());
        let (second, _) = links.add(256).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn lanes_that_are_up_mind_only_a_changed_network() {
        let links = Links::default();
        let (id, mut watch) = links.add(1).unwrap();
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
}
