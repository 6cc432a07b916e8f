//! `imux client`: takes local connections and carries them to the server.

use std::sync::Arc;
use std::time::Duration;

use imux::lane::{TcpOptions, TlsDialer};
use imux::trust::with_host_trust;
use imux::{Client, Code, Link, OpenOptions, SessionStats, StreamKind, tunnel};
use tokio::task::JoinSet;

use super::bind::LinkPlan;
use super::config::{ClientConfig, Forward};
use super::descriptors;
use super::exit::{Exit, Failure};
use super::listening::listen_locally;
use super::own_key::OwnKey;
use super::routes;
use super::signals::{Asked, ServiceSignals};
use super::stopping::{Stopping, tell_draining};
use super::trust::{client_tls, connect_failure, dial_failure, host_trust};

/// Takes connections where `config.forwards` says and carries them to the server at `config.dial`,
/// until a signal.
pub(super) async fn run_client(
    config: ClientConfig,
    mut stopping: Stopping,
) -> Result<Exit, Failure> {
    let mut signals = ServiceSignals::listen()?;
    // Before anything is dialled: a port that is taken should not cost a prompt.
    let mut listeners = Vec::new();
    for Forward { listen, to } in &config.forwards {
        for listener in listen_locally(listen).await? {
            listeners.push((listener, to.as_ref()));
        }
    }
    let server = config.dial.as_written();
    let trust = host_trust(config.trust, server, config.home.as_deref())?;
    let own = OwnKey::of_client(config.home.as_deref())?;
    let tls = with_host_trust(client_tls(&own.identity, config.key_exchange)?, trust.clone());
    let options = TcpOptions::default()
        .with_dial_timeout(config.connect_timeout)
        .with_congestion(config.session.congestion.clone());
    let place = config.dial.for_resolver();
    let link = |plan: &LinkPlan| {
        let bind = &plan.bind;
        let dialer = TlsDialer::new(&*place, bind.source.clone(), tls.clone(), options.clone())?;
        let (tier, rate_max) = (plan.tier, plan.rate_max);
        let express = plan.express.unwrap_or(true);
        Ok(Link::new(Arc::new(dialer), bind.lanes)
            .with_tier(tier)
            .with_express(express)
            .with_rate_max(rate_max))
    };
    let sources = config.binds.iter().map(|plan| plan.bind.source.clone()).collect();
    tokio::spawn(routes::check(sources, place.clone()));
    let links = config.binds.iter().map(link).collect::<Result<Vec<_>, _>>();
    let links = links.map_err(|error| dial_failure(server, &error))?;
    config.session.limit_memory();
    let settings = imux::ClientConfig::new(trust).with_session(config.session.for_library());
    let keep_trying = config.keep_trying;
    let connecting = async move {
        if keep_trying {
            Client::keep_connecting(links, settings).await
        } else {
            Client::connect(links, settings).await
        }
    };
    tokio::pin!(connecting);
    let client = loop {
        tokio::select! {
            client = &mut connecting => break client,
            asked = signals.next() => tell(asked, None),
            // There is nothing yet that could finish.
            _ = stopping.wait() => return Ok(Exit::Ok),
        }
    };
    let client = client.map_err(|error| connect_failure(server, own.lasting(), &error))?;
    let client = Arc::new(client);
    // Each bind may get an express lane besides.
    let lanes = config.binds.iter().map(|plan| usize::from(plan.bind.lanes) + 1).sum();
    let connections = descriptors::for_client(lanes).with_sockets(config.session.sockets);
    let mut forwards = JoinSet::new();
    for (listener, to) in listeners {
        tracing::info!(
            address = %listener,
            %server,
            to = to.map(tracing::field::display),
            "client ready"
        );
        let kind = to.map_or(StreamKind::Default, |to| StreamKind::Named(to.to_string()));
        let options = OpenOptions { kind, redundant: config.redundant };
        let (client, connections) = (client.clone(), connections.clone());
        forwards.spawn(async move {
            tunnel::forward_within(listener, client, options, &connections).await;
        });
    }
    let patience = loop {
        tokio::select! {
            _ = forwards.join_next() => {
                return Err(Failure::message(Exit::Internal, "a listener has ended"));
            }
            asked = signals.next() => tell(asked, client.stats()),
            patience = stopping.wait() => break patience,
        }
    };
    let mut code = Code::SHUTDOWN;
    if !patience.is_zero() {
        tell_draining(client.drain(), patience);
        let ended = async {
            while forwards.join_next().await.is_some() {}
            if let Some(session) = client.session() {
                session.drained().await;
            }
        };
        if tokio::time::timeout(patience, ended).await.is_ok() {
            // An end in order: what has arrived at the server can still be read there.
            code = Code::NONE;
        }
    }
    // What has not arrived by now had the time there was.
    let _ = client.close(code, Duration::ZERO).await;
    Ok(Exit::Ok)
}

/// What a client does when a signal asks for it.
fn tell(asked: Asked, stats: Option<SessionStats>) {
    match asked {
        Asked::Reload => tracing::info!(
            "SIGHUP: known servers and names are looked up whenever they are needed; what options say, and this client's \
             key, are for a new start"
        ),
        Asked::Status => {
            let (lanes, connections) = stats.map_or((0, 0), |it| (it.lanes.len(), it.streams));
            tracing::info!(lanes, connections, "status");
        }
    }
}
