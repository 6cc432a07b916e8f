//! Links that come and go: what the kernel says of this machine's networks reaches the lanes at
//! once, not when they have fallen silent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use imux::lane::BindSource;
use imux::{Client, LinkId};
use tokio::sync::watch;

mod bound;
mod chosen;
mod clock;
mod ground;
mod network;

use bound::Sources;
pub(super) use bound::{ClientLinks, Linking};
pub(super) use chosen::links as chosen;
use clock::Sleep;
use ground::{Change, Fact};
pub(super) use network::Network;
use network::Watch;

/// Changes come in bursts: an interface, its addresses, its routes.
const SETTLE: Duration = Duration::from_millis(50);
/// Looking takes at most one part in so many of the time, however often routes change.
const LOOKING_SHARE: u32 = 10;
/// After a sleep this long nobody at the other end, and no router between, still knows the lanes.
const SLEEP_LOSES_LANES: Duration = Duration::from_secs(5);

/// A link and what it stands on.
#[derive(Debug)]
struct Followed {
    link: LinkId,
    source: BindSource,
    ground: BTreeSet<Fact>,
}

/// Watches this machine's networks, as long as anybody looks at the result.
pub(super) async fn watch() -> watch::Receiver<Network> {
    let watch = Watch::start();
    let first = match &watch {
        Some(watch) => watch.look().await.unwrap_or_default(),
        None => Network::default(),
    };
    let (tell, told) = watch::channel(first);
    tokio::spawn(async move {
        match watch {
            Some(watch) => tokio::select! {
                () = keep_looking(watch, &tell) => tell.closed().await,
                () = tell.closed() => {}
            },
            None => tell.closed().await,
        }
    });
    told
}

async fn keep_looking(mut watch: Watch, tell: &watch::Sender<Network>) {
    while watch.changed().await {
        tokio::time::sleep(SETTLE).await;
        watch.drain();
        let begun = tokio::time::Instant::now();
        match watch.look().await {
            Ok(now) => {
                tell.send_if_modified(|before| {
                    let changed = *before != now;
                    *before = now;
                    changed
                });
            }
            Err(error) => tracing::debug!(%error, "cannot look at this machine's networks"),
        }
        tokio::time::sleep(begun.elapsed() * LOOKING_SHARE).await;
    }
}

/// Tells the client's links what happens to their networks, as long as it runs; `sources` may
/// change.
pub(super) async fn follow(
    client: Arc<Client>,
    mut networks: watch::Receiver<Network>,
    mut sources: watch::Receiver<Sources>,
) {
    let follows = async {
        let mut sleep = Sleep::notice();
        let mut links = Vec::new();
        adopt(&mut links, &sources.borrow_and_update(), &networks.borrow_and_update());
        loop {
            tokio::select! {
                changed = networks.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let network = networks.borrow_and_update();
                    links.iter_mut().for_each(|link| link.heed(&client, &network));
                }
                slept = sleep.over() => tell_of_sleep(&client, &links, slept),
                Ok(()) = sources.changed() => {
                    adopt(&mut links, &sources.borrow_and_update(), &networks.borrow());
                }
            }
        }
    };
    tokio::select! {
        () = follows => client.stopping().await,
        () = client.stopping() => {}
    }
}

/// Follows these links from now on, and no others.
fn adopt(links: &mut Vec<Followed>, sources: &Sources, network: &Network) {
    links.retain(|it| sources.iter().any(|(link, _)| *link == it.link));
    for (link, source) in sources {
        if links.iter().all(|it| it.link != *link) {
            let ground = ground::of(source, network);
            links.push(Followed { link: *link, source: source.clone(), ground });
        }
    }
}

impl Followed {
    /// Has the link's lanes dialled if there is reason to.
    fn heed(&mut self, client: &Client, network: &Network) {
        let now = ground::of(&self.source, network);
        let before = std::mem::replace(&mut self.ground, now);
        match ground::change(&before, &self.ground) {
            Some(Change::Lost) => {
                tracing::info!(via = %self.source, "its network has changed: its lanes are dialled anew");
                client.redial_link(self.link);
            }
            Some(Change::Gained) => client.wake_link(self.link),
            None => {}
        }
    }
}

fn tell_of_sleep(client: &Client, links: &[Followed], slept: Duration) {
    if slept >= SLEEP_LOSES_LANES {
        let seconds = slept.as_secs();
        tracing::info!(seconds, "this machine has slept: all lanes are dialled anew");
        links.iter().for_each(|link| client.redial_link(link.link));
    } else {
        links.iter().for_each(|link| client.wake_link(link.link));
    }
}
