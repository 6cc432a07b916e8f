//! The links of a client that runs, made anew where its binds change.

use std::sync::Arc;
use std::time::Duration;

use imux::lane::{BindSource, DialError, TcpOptions, TlsDialer};
use imux::{Client, Link, LinkId};
use tokio::sync::watch;

use crate::cli::bind::LinkPlan;
use crate::cli::routes;

/// What links are bound to.
pub(super) type Sources = Vec<(LinkId, BindSource)>;

/// How a client makes links to its server.
pub(in crate::cli) struct Linking {
    pub(in crate::cli) place: String,
    pub(in crate::cli) tls: Arc<rustls::ClientConfig>,
    pub(in crate::cli) options: TcpOptions,
}

impl Linking {
    pub(in crate::cli) fn link(&self, plan: &LinkPlan) -> Result<Link, DialError> {
        let (bind, tls, options) = (&plan.bind, self.tls.clone(), self.options.clone());
        let dialer = TlsDialer::new(&*self.place, bind.source.clone(), tls, options)?;
        let (tier, rate_max) = (plan.tier, plan.rate_max);
        let express = plan.express.unwrap_or(true);
        Ok(Link::new(Arc::new(dialer), bind.lanes)
            .with_tier(tier)
            .with_express(express)
            .with_rate_max(rate_max))
    }
}

/// The links of a client that runs.
pub(in crate::cli) struct ClientLinks {
    linking: Linking,
    there: Vec<(LinkPlan, LinkId)>,
    /// The same, for whoever follows their networks.
    pub(in crate::cli) followed: watch::Sender<Sources>,
}

impl ClientLinks {
    /// Those it was started with.
    pub(in crate::cli) fn new(linking: Linking, binds: &[LinkPlan]) -> Self {
        let there: Vec<_> = binds.iter().cloned().zip((0..).map(LinkId::new)).collect();
        let followed = watch::Sender::new(sources(&there));
        Self { linking, there, followed }
    }

    /// From now on keeps up the links of these binds. The old ones carry on until a new one is up,
    /// or for a while.
    pub(in crate::cli) fn change(&mut self, client: &Arc<Client>, binds: &[LinkPlan]) {
        if self.there.iter().map(|(plan, _)| plan).eq(binds) {
            return;
        }
        let (mut there, mut gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.there).into_iter().partition(|(plan, _)| binds.contains(plan));
        let lanes = |plan: &LinkPlan| usize::from(plan.bind.lanes);
        let both = binds.iter().chain(gone.iter().map(|(plan, _)| plan)).map(lanes).sum::<usize>();
        if both > usize::from(Link::LANES_MAX) {
            // There is no room for both.
            for (_, link) in gone.drain(..) {
                client.remove_link(link);
            }
        }
        let is_new = |plan: &&LinkPlan| !there.iter().any(|(known, _)| known == *plan);
        let mut new = self.add(client, binds.iter().filter(is_new));
        let added = new.iter().map(|(plan, _)| plan.bind.source.clone()).collect();
        tokio::spawn(routes::check(added, self.linking.place.clone()));
        if !gone.is_empty() {
            let ids = |links: &[(LinkPlan, LinkId)]| links.iter().map(|(_, id)| *id).collect();
            tokio::spawn(replace(client.clone(), ids(&gone), ids(&new)));
        }
        there.append(&mut new);
        self.followed.send_replace(sources(&there));
        self.there = there;
    }

    /// Adds links; says of those that cannot be.
    fn add<'a>(
        &self,
        client: &Client,
        plans: impl Iterator<Item = &'a LinkPlan>,
    ) -> Vec<(LinkPlan, LinkId)> {
        let add = |plan: &LinkPlan| {
            let link = self.linking.link(plan).map_err(|error| error.to_string())?;
            client.add_link(&link).map_err(|error| error.to_string())
        };
        let added = plans.filter_map(|plan| match add(plan) {
            Ok(link) => Some((plan.clone(), link)),
            Err(error) => {
                tracing::error!(bind = %plan, error, "there is no such link");
                None
            }
        });
        added.collect()
    }
}

/// Removes the links `gone` once one of `new` is up, or a while later.
async fn replace(client: Arc<Client>, gone: Vec<LinkId>, new: Vec<LinkId>) {
    let _ = tokio::time::timeout(LINK_PATIENCE, one_is_up(&client, &new)).await;
    for link in gone {
        client.remove_link(link);
    }
}

fn sources(links: &[(LinkPlan, LinkId)]) -> Sources {
    links.iter().map(|(plan, link)| (*link, plan.bind.source.clone())).collect()
}

/// Waits until a lane of one of these links is up, if there are any.
async fn one_is_up(client: &Client, links: &[LinkId]) {
    let is_up = || {
        let lanes = client.stats().map(|it| it.lanes).unwrap_or_default();
        lanes.iter().any(|lane| links.contains(&lane.link))
    };
    while !links.is_empty() && !is_up() {
        tokio::time::sleep(LINK_LOOK_EVERY).await;
    }
}

/// How often to look whether a new link is up.
const LINK_LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long links that are wanted no more stay while none of the new ones is up.
const LINK_PATIENCE: Duration = Duration::from_secs(10);
