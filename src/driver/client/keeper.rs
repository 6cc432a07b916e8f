//! Keeps lanes up: redials each lost one after a while.

use std::mem::Discriminant;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::sync::{Notify, mpsc};

use super::connector::{Connector, LaneSlot};
use super::failure::{Failed, is_final, panicked};
use super::links::LinkWatch;
use super::stagger::Stagger;
use crate::driver::error::ConnectError;
use crate::driver::{chance, clock};

/// A lost lane is dialled again after this long. Each failure doubles it.
const REDIAL_MIN: Duration = Duration::from_millis(200);
/// A lost lane is dialled again after this long at most, however often that has failed.
const REDIAL_MAX: Duration = Duration::from_secs(5);
/// A lane that lived this long was a good one: the next is dialled soon.
const LIVED_WELL: Duration = Duration::from_secs(1);
/// How long `open` waits for a session.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// While somebody waits in `open`, one of the lanes waiting to redial is dialled this often.
const NUDGE_EVERY: Duration = Duration::from_millis(500);

/// What the keepers of all lanes share: one task keeps one lane up.
#[derive(Debug)]
pub(super) struct Keepers {
    pub(super) connector: Connector,
    stagger: Stagger,
    /// Whether to wait for a server that is away at the start.
    pub(super) keeps_trying: bool,
    /// Has one of the lanes waiting to redial dialled, and when it last did.
    nudge: Notify,
    nudged: Mutex<Option<Instant>>,
}

impl Keepers {
    pub(super) fn new(connector: Connector, keeps_trying: bool) -> Self {
        Self {
            connector,
            stagger: Stagger::new(),
            keeps_trying,
            nudge: Notify::new(),
            nudged: Mutex::default(),
        }
    }

    /// Waits as long as `open` may, and has a lane dialled now and then.
    pub(super) async fn patience(&self) {
        for _ in 0..OPEN_PATIENCE.div_duration_f64(NUDGE_EVERY) as u32 {
            tokio::time::sleep(NUDGE_EVERY).await;
            let now = clock::now();
            let mut nudged = self.nudged.lock().unwrap_or_else(PoisonError::into_inner);
            // However many are waiting.
            if nudged.is_none_or(|at| now.duration_since(at) >= NUDGE_EVERY) {
                *nudged = Some(now);
                self.nudge.notify_one();
            }
        }
    }

    /// Keeps one lane up, as long as the client has its link and that is not paused.
    pub(super) async fn keep_lane(
        self: Arc<Self>,
        mut slot: LaneSlot,
        mut network: LinkWatch,
        express: bool,
        failures: Option<mpsc::UnboundedSender<Failed>>,
    ) {
        let dialer = slot.dialer.clone();
        let mut backoff = Backoff::default();
        let mut outage = Outage { waiting: failures, told: None };
        let mut stopped = self.connector.stopped.subscribe();
        let link = slot.policy.link;
        loop {
            slot.policy.tier = tokio::select! {
                tier = network.wished(express) => match tier {
                    Some(tier) => tier,
                    None => return,
                },
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let dialled = async {
                let turn = self.stagger.turn(link, || self.connector.is_slow(link)).await;
                (unharmed(self.connector.lane(&slot)).await, turn)
            };
            let (dialled, turn) = tokio::select! {
                dialled = dialled => dialled,
                () = network.news() => {
                    backoff = Backoff::default();
                    continue;
                }
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            match dialled.unwrap_or_else(|| Err(panicked())) {
                Ok(ready) => {
                    outage = Outage::default();
                    let _up = turn.up();
                    let begun = clock::now();
                    let outdated = network.outdated();
                    let _ = unharmed(self.connector.run(ready, &dialer.name(), outdated)).await;
                    if clock::now().duration_since(begun) >= LIVED_WELL {
                        backoff = Backoff::default();
                    }
                }
                Err(error) => {
                    drop(turn);
                    self.connector.key.failed(slot.link);
                    slot.state.on_failed(&error);
                    let failed = Failed { link: slot.link, via: dialer.name(), error };
                    if outage.tell(failed, self.keeps_trying, || *stopped.borrow()).is_break() {
                        return;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                () = network.news() => backoff = Backoff::default(),
                () = self.nudge.notified() => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    /// Keeps an express lane up once it is of use.
    pub(super) async fn keep_express_lane(self: Arc<Self>, slot: LaneSlot, network: LinkWatch) {
        let (mut wanted, mut stopped) =
            (self.connector.express.subscribe(), self.connector.stopped.subscribe());
        tokio::select! {
            _ = wanted.wait_for(|wanted| *wanted) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        self.keep_lane(slot, network, true, None).await;
    }
}

/// Who has heard why a lane cannot be made.
#[derive(Debug, Default)]
struct Outage {
    /// Whoever waits for the first lane.
    waiting: Option<mpsc::UnboundedSender<Failed>>,
    /// What was told last.
    told: Option<Discriminant<ConnectError>>,
}

impl Outage {
    /// Reports a failure once to whoever waits for the first lane, and again if it ends that wait;
    /// then logs each kind of outage once: a server that was away and comes back as another is
    /// news. Breaks if nobody waits any more because the client was `stopped`.
    fn tell(
        &mut self,
        failed: Failed,
        keeps_trying: bool,
        stopped: impl Fn() -> bool,
    ) -> ControlFlow<()> {
        let kind = Some(std::mem::discriminant(&failed.error));
        let unheard = match &self.waiting {
            Some(to) if self.told.is_none() || is_final(&failed.error, keeps_trying) => {
                to.send(failed).err().map(|unheard| unheard.0)
            }
            _ => Some(failed),
        };
        match unheard {
            None => self.told = kind,
            Some(_) if stopped() => return ControlFlow::Break(()),
            Some(failed) if self.told != kind => {
                *self = Self { waiting: None, told: kind };
                failed.tell();
            }
            Some(Failed { via, error, .. }) => {
                tracing::debug!(via, %error, "a lane still cannot be made");
            }
        }
        ControlFlow::Continue(())
    }
}

/// What becomes of a lane; `None` if it panics, which ends the lane and not its keeper.
async fn unharmed<T>(lane: impl Future<Output = T>) -> Option<T> {
    let caught = AssertUnwindSafe(lane).catch_unwind().await;
    caught.inspect_err(|_| tracing::error!("internal error: a lane is given up")).ok()
}

/// The wait grows with each failure; jitter keeps many lanes from coming back in step.
#[derive(Debug, Default)]
struct Backoff {
    waits: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let full = REDIAL_MIN.saturating_mul(1 << self.waits.min(5)).min(REDIAL_MAX);
        self.waits = self.waits.saturating_add(1);
        let mut byte = [0];
        // Without randomness the lanes come back in step, which is no worse than a busy second.
        let _ = chance::fill(&mut byte);
        full / 2 + (full / 2).mul_f64(f64::from(byte[0]) / 255.0)
    }
}
