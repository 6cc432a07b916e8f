//! When a lane is dialled, beside the others of its link.
//!
//! Simultaneous handshakes over one path queue behind each other, and on a slow one they are all
//! that it carries for seconds. So the first lane of a link is dialled alone, and the others follow
//! when it is up. On a slow path they follow a minute later, one by one: one lane fills it, each
//! handshake takes the time of some 5 KB of the user's bytes, and more lanes help only where a
//! network polices each connection by itself.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::proto::LinkId;

/// Another lane follows after this long at the latest, and so on, one by one: the first may have
/// met something that silently drops connections. A handshake over 64 kbit/s takes a second, and
/// longer behind somebody else's queue.
const FOLLOW_AFTER: Duration = Duration::from_secs(2);

/// On a slow path another lane follows after this long: until then, only one is tried there.
const FOLLOW_AFTER_SLOW: Duration = Duration::from_secs(60);

/// How often lanes that wait because their path is slow check whether it still is.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A link's lanes.
#[derive(Debug, Default, Clone, Copy)]
struct Lanes {
    up: usize,
    dialling: usize,
    /// When the first of those that are up came up.
    up_since: Option<Instant>,
}

impl Lanes {
    /// When to ask again whether another may be dialled; `None` if it may now.
    fn check_at(
        &self,
        now: Instant,
        asked_at: Instant,
        is_slow: impl Fn() -> bool,
    ) -> Option<Instant> {
        let Some(up_since) = self.up_since else {
            let follow_at = asked_at + FOLLOW_AFTER * self.dialling as u32;
            return Some(follow_at).filter(|at| self.dialling > 0 && now < *at);
        };
        let early = now < up_since + FOLLOW_AFTER_SLOW;
        ((early || self.dialling > 0) && is_slow()).then(|| now + CHECK_EVERY)
    }
}

/// What the keepers of one client's lanes know of each other.
#[derive(Debug)]
pub(super) struct Stagger {
    links: Mutex<HashMap<LinkId, Lanes>>,
    changed: watch::Sender<()>,
}

/// A lane that is being dialled, or is up. Dropping it says that it no longer is.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    stagger: &'a Stagger,
    link: LinkId,
    is_up: bool,
}

impl Stagger {
    pub(super) fn new() -> Self {
        Self { links: Mutex::default(), changed: watch::Sender::new(()) }
    }

    /// Waits until a lane of the link may be dialled. `is_slow` says whether its path is known to
    /// be slow.
    ///
    /// Cancel safe.
    pub(super) async fn turn(&self, link: LinkId, is_slow: impl Fn() -> bool) -> Turn<'_> {
        let asked_at = Instant::now();
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let Some(check_at) = self.try_turn(link, asked_at, &is_slow) else {
                return Turn { stagger: self, link, is_up: false };
            };
            let _ = tokio::time::timeout_at(check_at, changed.changed()).await;
        }
    }

    /// When to try again, if a lane of the link is not to be dialled now.
    fn try_turn(
        &self,
        link: LinkId,
        asked_at: Instant,
        is_slow: impl Fn() -> bool,
    ) -> Option<Instant> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = links.entry(link).or_default();
        let check_at = lanes.check_at(Instant::now(), asked_at, is_slow);
        if check_at.is_none() {
            lanes.dialling += 1;
        }
        check_at
    }

    fn change(&self, link: LinkId, change: impl FnOnce(&mut Lanes)) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let lanes = links.entry(link).or_default();
        change(lanes);
        if lanes.up + lanes.dialling == 0 {
            links.remove(&link);
        }
        drop(links);
        self.changed.send_replace(());
    }
}

impl Turn<'_> {
    /// The lane is up.
    pub(super) fn up(mut self) -> Self {
        self.is_up = true;
        self.stagger.change(self.link, |lanes| {
            lanes.dialling -= 1;
            lanes.up += 1;
            lanes.up_since = lanes.up_since.or(Some(Instant::now()));
        });
        self
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.stagger.change(self.link, |lanes| {
            let counted = if self.is_up { &mut lanes.up } else { &mut lanes.dialling };
            *counted -= 1;
            lanes.up_since = lanes.up_since.filter(|_| lanes.up > 0);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::time::{sleep, timeout};

    use super::*;

    const LINK: LinkId = LinkId::new(7);
    const SOON: Duration = Duration::from_millis(1);

    async fn waits(stagger: &Stagger, is_slow: impl Fn() -> bool) -> bool {
        timeout(SOON, stagger.turn(LINK, is_slow)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn the_others_follow_the_first_lane() {
        let stagger = Stagger::new();
        let first = stagger.turn(LINK, || false).await;
        assert!(waits(&stagger, || false).await);
        assert!(!waits_elsewhere(&stagger).await, "another link is no matter of this one");
        let first = first.up();
        let _second = stagger.turn(LINK, || false).await;
        assert!(!waits(&stagger, || false).await, "all of the others at once");
        drop(first);
        assert!(waits(&stagger, || false).await, "none is up, and one is being dialled");
    }

    async fn waits_elsewhere(stagger: &Stagger) -> bool {
        timeout(SOON, stagger.turn(LinkId::new(8), || false)).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_lane_that_fails_or_hangs_keeps_nobody() {
        let stagger = Arc::new(Stagger::new());
        let begun = Instant::now();
        let first = stagger.turn(LINK, || false).await;
        let waiting = stagger.clone();
        let second = tokio::spawn(async move {
            let turn = waiting.turn(LINK, || false).await;
            let waited = begun.elapsed();
            sleep(Duration::from_secs(60)).await;
            drop(turn);
            waited
        });
        sleep(SOON).await;
        drop(first);
        sleep(SOON).await;
        // The second is being dialled now, and hangs.
        let _third = stagger.turn(LINK, || false).await;
        assert_eq!(begun.elapsed(), FOLLOW_AFTER + 2 * SOON);
        let _fourth = stagger.turn(LINK, || false).await;
        assert_eq!(begun.elapsed(), 3 * FOLLOW_AFTER + 2 * SOON);
        assert_eq!(second.await.unwrap(), SOON);
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_slow_path_they_follow_a_minute_later_and_one_by_one() {
        let stagger = Stagger::new();
        let begun = Instant::now();
        let _first = stagger.turn(LINK, || true).await.up();
        let second = stagger.turn(LINK, || true).await;
        assert_eq!(begun.elapsed(), FOLLOW_AFTER_SLOW);
        assert!(waits(&stagger, || true).await);
        let _second = second.up();
        assert!(!waits(&stagger, || true).await);
    }

    #[tokio::test(start_paused = true)]
    async fn they_follow_once_the_path_is_slow_no_more_or_its_lane_is_gone() {
        let (stagger, slow) = (Stagger::new(), AtomicBool::new(true));
        let is_slow = || slow.load(Ordering::Relaxed);
        let first = stagger.turn(LINK, is_slow).await.up();
        assert!(waits(&stagger, is_slow).await);
        slow.store(false, Ordering::Relaxed);
        assert!(timeout(CHECK_EVERY, stagger.turn(LINK, is_slow)).await.is_ok());
        slow.store(true, Ordering::Relaxed);
        drop(first);
        assert!(!waits(&stagger, is_slow).await, "the slow path has no lane");
    }
}
