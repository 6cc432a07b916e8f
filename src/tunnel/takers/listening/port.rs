//! A place where the server listens for a client, and whether it may.

use std::sync::Arc;

use crate::driver::Session;
use crate::trust::{Destination, Destinations, ListenAt, Permit};
use crate::tunnel::connections::Client;

/// A place where the server listens for a client.
pub(super) struct Port {
    pub(super) number: u64,
    pub(super) place: String,
    /// The client has left the port's choice to this end.
    pub(super) leaves_port: bool,
    /// As the client wants the streams of its connections.
    pub(super) redundant: bool,
    pub(super) session: Session,
    pub(super) client: Arc<Client>,
}

impl Port {
    /// Whether the client may still have it.
    pub(super) fn is_allowed(&self) -> bool {
        let permit = self.session.permit();
        let place = self.place.parse::<Destination>().ok();
        permit.zip(place).is_some_and(|(it, place)| allowed(&place, &it, &self.client).is_some())
    }
}

/// The rules about where the server may listen for a client.
fn rules<'a>(permit: &'a Permit, client: &'a Client) -> Option<&'a Destinations> {
    if permit.is_listed() { permit.listen() } else { client.listen_for_strangers() }
}

/// Where to listen: at those addresses of the place that are allowed.
pub(super) fn allowed<'a>(
    place: &'a Destination,
    permit: &Permit,
    client: &Client,
) -> Option<ListenAt<'a>> {
    let rules = rules(permit, client)?;
    match place.listen_at()? {
        ListenAt::Unix(path) => rules.may_listen_unix(path).then_some(ListenAt::Unix(path)),
        ListenAt::Addresses(mut all) => {
            all.retain(|at| match place.is_udp() {
                true => rules.may_listen_udp(*at),
                false => rules.may_listen(*at),
            });
            (!all.is_empty()).then_some(ListenAt::Addresses(all))
        }
    }
}

/// Why a client may not have it, and what to do if it should.
pub(super) fn not_listed(place: &Destination, permit: &Permit) -> String {
    let rule = place.rule_to_listen();
    match permit.is_listed() {
        true => format!(
            "this client may not have connections taken there; if it shall, add listen=\"{rule}\" to its line"
        ),
        false => format!(
            "no client is listed, and strangers may not have connections taken there; if they shall, start the server with \
             --allow-listen {rule}"
        ),
    }
}
