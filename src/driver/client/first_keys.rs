//! The keys that the links' servers have shown while none is decided on: what answers in the
//! server's place (a captive portal, say) is mostly on one link, not on all.

use tokio::sync::watch;

use crate::trust::{Fingerprint, Recognised};

/// What is known of each link; shared by their lanes.
#[derive(Debug)]
pub(super) struct FirstKeys(watch::Sender<State>);

#[derive(Debug)]
struct State {
    links: Vec<Shown>,
    /// A key is decided on; what the links show no longer matters.
    is_decided: bool,
    /// One is being decided on, perhaps by a person, who takes as long as it takes.
    is_deciding: bool,
}

/// While this lives, a key is being decided on.
#[derive(Debug)]
pub(super) struct Deciding<'a>(&'a FirstKeys);

impl Drop for Deciding<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| state.is_deciding = false);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Pending,
    /// Its first lane could not be made.
    Nothing,
    Key(Fingerprint, Recognised),
}

impl FirstKeys {
    /// For links with this many lanes each; one without lanes shows nothing.
    pub(super) fn new(lanes: impl Iterator<Item = u16>) -> Self {
        let shown = |lanes| if lanes == 0 { Shown::Nothing } else { Shown::Pending };
        Self(watch::Sender::new(State {
            links: lanes.map(shown).collect(),
            is_decided: false,
            is_deciding: false,
        }))
    }

    /// A lane of the link `link` has shown `key`.
    pub(super) fn shown(&self, link: usize, key: Fingerprint, recognised: Recognised) {
        self.set(link, |_| Shown::Key(key, recognised));
    }

    /// A lane of the link `link` could not be made, which says nothing about a link that has shown
    /// a key.
    pub(super) fn failed(&self, link: usize) {
        self.set(link, |before| if before == Shown::Pending { Shown::Nothing } else { before });
    }

    fn set(&self, link: usize, shown: impl FnOnce(Shown) -> Shown) {
        self.0.send_if_modified(|state| {
            let Some(place) = state.links.get_mut(link) else { return false };
            let shown = shown(*place);
            std::mem::replace(place, shown) != shown
        });
    }

    pub(super) fn decided(&self) {
        self.0.send_modify(|state| state.is_decided = true);
    }

    /// A key is about to be decided on: nobody else decides meanwhile.
    pub(super) fn deciding(&self) -> Deciding<'_> {
        self.0.send_modify(|state| state.is_deciding = true);
        Deciding(self)
    }

    pub(super) fn is_deciding(&self) -> bool {
        self.0.borrow().is_deciding
    }

    /// Waits while a key is being decided on. Cancel safe.
    pub(super) async fn undisturbed(&self) {
        // The sender is ours: this cannot fail.
        let _ = self.0.subscribe().wait_for(|state| !state.is_deciding).await;
    }

    /// Waits until a key is decided on, or every link has shown what it has and the known key is
    /// not among it: that one, if shown, is about to be decided on.
    pub(super) async fn wait(&self) {
        let known = |shown: &Shown| matches!(shown, Shown::Key(_, Recognised::Known));
        let mut state = self.0.subscribe();
        // The sender is ours: this cannot fail.
        let _ = state
            .wait_for(|state| {
                let all = state.links.iter().all(|shown| *shown != Shown::Pending);
                state.is_decided || all && !state.links.iter().any(known)
            })
            .await;
    }

    /// Another key that a link has shown.
    pub(super) fn other_than(&self, key: Fingerprint) -> Option<Fingerprint> {
        self.0.borrow().links.iter().find_map(|shown| match shown {
            Shown::Key(other, _) if *other != key => Some(*other),
            _ => None,
        })
    }

    /// Whether there is a link whose server is not known to have a wrong key.
    pub(super) fn may_be_right_elsewhere(&self) -> bool {
        let another = |shown: &Shown| matches!(shown, Shown::Key(_, Recognised::Another));
        !self.0.borrow().links.iter().all(another)
    }

    /// Whether there is more than one link.
    pub(super) fn are_several(&self) -> bool {
        self.0.borrow().links.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn key(byte: u8) -> Fingerprint {
        Fingerprint::from_bytes([byte; 32])
    }

    #[test]
    fn the_last_link_to_show_something_ends_the_wait() {
        let keys = FirstKeys::new([1, 2, 0].into_iter());
        keys.shown(0, key(1), Recognised::New);
        assert!(keys.wait().now_or_never().is_none());
        assert_eq!(keys.other_than(key(1)), None);
        keys.failed(1);
        assert!(keys.wait().now_or_never().is_some());
        // The link's other lane.
        keys.shown(1, key(2), Recognised::New);
        keys.failed(1);
        assert_eq!(keys.other_than(key(1)), Some(key(2)));
        assert_eq!(keys.other_than(key(2)), Some(key(1)));
    }

    #[test]
    fn where_the_known_key_was_shown_its_decision_is_waited_for() {
        let keys = FirstKeys::new([1, 1].into_iter());
        keys.shown(0, key(1), Recognised::Another);
        keys.shown(1, key(2), Recognised::Known);
        assert!(keys.wait().now_or_never().is_none());
        keys.decided();
        assert!(keys.wait().now_or_never().is_some());
    }

    #[test]
    fn lanes_wait_while_a_key_is_decided_on() {
        let keys = FirstKeys::new([1].into_iter());
        assert!(keys.undisturbed().now_or_never().is_some());
        let deciding = keys.deciding();
        assert!(keys.is_deciding() && keys.undisturbed().now_or_never().is_none());
        drop(deciding);
        assert!(!keys.is_deciding() && keys.undisturbed().now_or_never().is_some());
    }

    #[test]
    fn a_link_that_shows_nothing_may_be_the_right_one() {
        let keys = FirstKeys::new([1, 1].into_iter());
        keys.shown(0, key(1), Recognised::Another);
        keys.failed(1);
        assert!(keys.may_be_right_elsewhere());
        keys.shown(1, key(3), Recognised::Another);
        assert!(!keys.may_be_right_elsewhere());
    }
}
