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

    /// From now on keeps up the links of these binds. What others carried goes over them: so those
    /// go only when one of the new ones is up, or a while later.
    pub(in crate::cli) fn change(&mut self, client: &Arc<Client>, binds: &[LinkPlan]) {
        if self.there.iter().map(|(plan, _)| plan).eq(binds) {
            return;
        }
        let stays = |plan: &LinkPlan| binds.contains(plan);
        let (mut there, mut gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.there).into_iter().partition(|(plan, _)| stays(plan));
        let is_new = |plan: &&LinkPlan| !there.iter().any(|(known, _)| known == *plan);
        let mut new = Vec::new();
        let wanted: Vec<_> = binds.iter().filter(is_new).cloned().collect();
        let lanes = |plans: &mut dyn Iterator<Item = &LinkPlan>| {
            plans.map(|plan| usize::from(plan.bind.lanes)).sum::<usize>()
        };
        let both = lanes(&mut binds.iter().chain(gone.iter().map(|(plan, _)| plan)));
        if both > usize::from(Link::LANES_MAX) {
            // There is no room for both.
            for (_, link) in gone.drain(..) {
                client.remove_link(link);
            }
        }
        for plan in wanted {
            let added = match self.linking.link(&plan) {
                Ok(link) => client.add_link(&link).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match added {
                Ok(link) => new.push((plan, link)),
                Err(error) => tracing::error!(bind = %plan, error, "there is no such link"),
            }
        }
        let added = new.iter().map(|(plan, _)| plan.bind.source.clone()).collect();
        tokio::spawn(routes::check(added, self.linking.place.clone()));
        if !gone.is_empty() {
            let (client, new) = (client.clone(), new.iter().map(|(_, id)| *id).collect::<Vec<_>>());
            tokio::spawn(async move {
                let _ = tokio::time::timeout(LINK_PATIENCE, one_is_up(&client, &new)).await;
                for (_, link) in gone {
                    client.remove_link(link);
                }
            });
        }
        there.append(&mut new);
        self.followed.send_replace(sources(&there));
        self.there = there;
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
