//! All that takes connections for a client, here and at the server; it may change while it runs.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use imux::tunnel::proxy::{self, ProxyOptions};
use imux::tunnel::{self, Connections, Listener, RemoteForward};
use imux::{Client, FlowOptions, OpenOptions, StreamKind, Wants};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::address::Endpoint;
use super::exit::Failure;
use super::forward::{Forward, ForwardOptions, Leads};
use super::listening::listen_locally;
use super::reverse::Reverse;

/// The sockets of all clients of a process: a place that one gives up goes to another with them, so
/// that nobody finds it closed.
#[derive(Debug, Clone, Default)]
pub(super) struct Sockets(Arc<Mutex<Vec<At>>>);

/// The sockets of one place, as long as somebody has them.
type At = (Endpoint, Vec<Weak<Listener>>);

impl Sockets {
    /// Listens at a place.
    pub(super) async fn listen(&self, at: &Endpoint) -> Result<Vec<Arc<Listener>>, Failure> {
        let all: Vec<_> = listen_locally(at).await?.into_iter().map(Arc::new).collect();
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|(_, sockets)| sockets.iter().any(|it| it.strong_count() > 0));
        places.push((at.clone(), all.iter().map(Arc::downgrade).collect()));
        Ok(all)
    }

    /// Those of a place where one of the clients listens already.
    pub(super) fn there(&self, at: &Endpoint) -> Option<Vec<Arc<Listener>>> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = |(place, sockets): &At| {
            let sockets: Option<Vec<_>> = sockets.iter().map(Weak::upgrade).collect();
            sockets.filter(|_| place == at)
        };
        places.iter().find_map(there)
    }
}

/// What is to be taken.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Where there are no listeners, those that listen there already go on.
    pub(super) forwards: Vec<(Forward, Option<Vec<Arc<Listener>>>)>,
    pub(super) reverse: Vec<Reverse>,
    /// Every byte goes on two lanes.
    pub(super) redundant: bool,
    pub(super) proxy: ProxyOptions,
}

impl Wanted {
    /// All sockets.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (&Forward, &Listener)> {
        let each = self.forwards.iter().map(|(forward, all)| (forward, all.iter().flatten()));
        each.flat_map(|(forward, all)| all.map(move |listener| (forward, &**listener)))
    }

    /// The same where nothing is taken yet, and `before` was to be: its sockets go on.
    #[must_use]
    pub(super) fn after(mut self, mut before: Self) -> Self {
        for (forward, listeners) in self.forwards.iter_mut().filter(|(_, all)| all.is_none()) {
            let same = |(other, _): &&mut (Forward, _)| other.listen == forward.listen;
            *listeners = before.forwards.iter_mut().find(same).and_then(|(_, all)| all.take());
        }
        self
    }
}

/// What takes connections, and the tasks that do so. None ends but by failing, by a change, or with
/// the client.
#[derive(Debug)]
pub(super) struct Takers {
    pub(super) client: Arc<Client>,
    pub(super) connections: Connections,
    /// The server, as it is dialled.
    server: String,
    pub(super) tasks: JoinSet<Result<(), Failure>>,
    places: Vec<Place>,
    reverse: watch::Sender<Vec<RemoteForward>>,
}

/// A place where connections are taken.
#[derive(Debug)]
struct Place {
    forward: Forward,
    listeners: Vec<Arc<Listener>>,
    redundant: bool,
    /// Has no more connections taken as this forward says; those that are open go on.
    end: watch::Sender<bool>,
}

impl Takers {
    /// Nothing is taken yet.
    pub(super) fn new(client: Arc<Client>, connections: Connections, server: &str) -> Self {
        Self {
            client,
            connections,
            server: server.to_owned(),
            tasks: JoinSet::new(),
            places: Vec::new(),
            reverse: watch::Sender::default(),
        }
    }

    /// Where the server is to take connections; whoever asks it subscribes.
    pub(super) fn reverse(&self) -> watch::Receiver<Vec<RemoteForward>> {
        self.reverse.subscribe()
    }

    /// Takes no more; what is left are the connections that are open.
    pub(super) fn stopped(self) -> JoinSet<Result<(), Failure>> {
        // With the places their ports are closed.
        self.tasks
    }

    /// From now on takes what is `wanted`. What has not changed goes on undisturbed, and so does
    /// every connection that is open.
    pub(super) fn change(&mut self, wanted: Wanted) {
        let Wanted { forwards, reverse, redundant, proxy } = wanted;
        let mut before = std::mem::take(&mut self.places);
        for (forward, listeners) in forwards {
            let there = before.iter().position(|place| place.forward.listen == forward.listen);
            let there = there.map(|at| before.swap_remove(at));
            let place = match (listeners, there) {
                (None, Some(there)) => {
                    let same = there.forward == forward && there.redundant == redundant;
                    // Credentials may be others.
                    if same && forward.to != Leads::Anywhere {
                        self.places.push(there);
                        continue;
                    }
                    self.take(forward, there.listeners.clone(), redundant, &proxy)
                    // Only now the old one ends: nobody finds the port closed.
                }
                (Some(new), _) => {
                    self.tell_ready(&new, &forward.to);
                    self.take(forward, new, redundant, &proxy)
                }
                (None, None) => continue,
            };
            self.places.push(place);
        }
        let reverse: Vec<_> = reverse.iter().map(|it| remote_forward(it, redundant)).collect();
        self.reverse.send_if_modified(|there| {
            let changes = *there != reverse;
            *there = reverse;
            changes
        });
    }

    fn take(
        &mut self,
        forward: Forward,
        listeners: Vec<Arc<Listener>>,
        redundant: bool,
        proxy: &ProxyOptions,
    ) -> Place {
        let (end, ended) = watch::channel(false);
        for listener in &listeners {
            let Forward { to, options, .. } = forward.clone();
            let options = ForwardOptions { redundant: options.redundant || redundant, ..options };
            let connections = self.connections.clone().until(ended.clone());
            let listener = Listener::Shared(listener.clone());
            let taken =
                take(listener, to, options, proxy.clone(), self.client.clone(), connections);
            self.tasks.spawn(async move {
                taken.await;
                Ok(())
            });
        }
        Place { forward, listeners, redundant, end }
    }

    fn tell_ready(&self, listeners: &[Arc<Listener>], to: &Leads) {
        let to = match to {
            Leads::ServersDestination => None,
            Leads::To(to) => Some(to.to_string()),
            Leads::Anywhere => Some("wherever SOCKS or HTTP says".to_owned()),
            Leads::WhereMeant => Some("wherever it was meant to go".to_owned()),
        };
        for address in listeners {
            let to = to.as_ref().map(tracing::field::display);
            tracing::info!(%address, server = self.server, to, "client ready");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end.send_replace(true);
    }
}

fn remote_forward(reverse: &Reverse, all_redundant: bool) -> RemoteForward {
    let Reverse { listen, to, redundant, tell_source } = reverse;
    let (listen, to) = (listen.clone(), to.for_library().into());
    let redundant = *redundant || all_redundant;
    RemoteForward { listen, to, redundant, tell_source: *tell_source }
}

/// Accepts connections as long as the client does.
async fn take(
    listener: Listener,
    to: Leads,
    options: ForwardOptions,
    proxy: ProxyOptions,
    client: Arc<Client>,
    connections: Connections,
) {
    let ForwardOptions { redundant, proxy_protocol: tell_source, fast, deadline } = options;
    let as_meant = to == Leads::WhereMeant;
    let kind = match to {
        // For what was meant to go elsewhere, its destination takes the place of this.
        Leads::ServersDestination | Leads::WhereMeant => StreamKind::Default,
        Leads::To(to) => StreamKind::Named(to.name()),
        Leads::Anywhere => {
            let options = ProxyOptions { fast, redundant, tell_source, ..proxy };
            return proxy::serve_within(listener, client, options, &connections).await;
        }
    };
    if let Some(port) = listener.udp().filter(|_| !as_meant) {
        let flows = FlowOptions { redundant, ..kind.into() };
        let flows = FlowOptions { deadline: deadline.unwrap_or(flows.deadline), ..flows };
        return tunnel::forward_udp_within(port.clone(), client, flows, &connections).await;
    }
    let wants = if tell_source { Wants::SOURCE } else { Wants::default() };
    let options = OpenOptions { redundant, wants, ..kind.into() };
    if as_meant {
        tunnel::serve_transparent_within(listener, client, options, &connections).await;
    } else {
        tunnel::forward_within(listener, client, options, &connections).await;
    }
}
