//! What the lanes of one link say of it together: if it carries nothing any more, none of them hears anything, and that shows
//! much sooner than on each of many lanes alone, which share its rate and wait for each other in its queue.

use std::time::Instant;

use litemap::LiteMap;

/// The links that have lanes, by number.
#[derive(Debug, Default)]
pub(super) struct Links(LiteMap<u64, Link>);

#[derive(Debug)]
struct Link {
    lanes: usize,
    /// When any of the lanes last heard of the peer's end.
    heard_at: Instant,
}

impl Links {
    /// A lane of the link is up, of which something was just heard.
    pub(super) fn join(&mut self, number: u64, now: Instant) {
        match self.0.get_mut(&number) {
            Some(link) => {
                link.lanes = link.lanes.saturating_add(1);
                link.heard_at = link.heard_at.max(now);
            }
            None => {
                self.0.insert(number, Link { lanes: 1, heard_at: now });
            }
        }
    }

    /// A lane of the link is down, or belongs to another.
    pub(super) fn leave(&mut self, number: u64) {
        let Some(link) = self.0.get_mut(&number) else { return };
        link.lanes = link.lanes.saturating_sub(1);
        if link.lanes == 0 {
            self.0.remove(&number);
        }
    }

    /// What one of the link's lanes owed was acknowledged, by the peer or by its kernel.
    pub(super) fn heard(&mut self, number: u64, at: Instant) {
        if let Some(link) = self.0.get_mut(&number) {
            link.heard_at = link.heard_at.max(at);
        }
    }

    /// When anything was last heard on the link, if it has several lanes: one knows no more of it than of itself.
    pub(super) fn heard_at(&self, number: u64) -> Option<Instant> {
        self.0.get(&number).filter(|link| link.lanes > 1).map(|link| link.heard_at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proto::testing;

    #[test]
    fn several_lanes_know_when_their_link_was_heard_and_one_does_not() {
        let start = testing::start();
        let later = start + Duration::from_secs(1);
        let mut links = Links::default();
        links.join(7, start);
        assert_eq!(links.heard_at(7), None);
        links.join(7, start);
        links.join(8, start);
        links.heard(7, later);
        links.heard(7, start);
        assert_eq!((links.heard_at(7), links.heard_at(8)), (Some(later), None));
        links.leave(7);
        assert_eq!(links.heard_at(7), None);
        links.leave(7);
        links.leave(7);
        assert_eq!(links.0.len(), 1, "what has no lanes is forgotten");
    }
}
