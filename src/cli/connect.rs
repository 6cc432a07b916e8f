//! `imux client`: accepts local connections and carries them to the server.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use imux::lane::{TcpOptions, TlsDialer};
use imux::trust::{Destination, Fingerprint, KnownHosts, PeerIdentity, Verdict, with_host_trust};
use imux::tunnel::proxy::{self, Credentials, ProxyOptions};
use imux::tunnel::{self, Connections, Listener, RemoteForward, RemoteForwardError};
use imux::{Client, Code, Link, OpenOptions, SessionStats, StreamKind, Wants};
use tokio::task::JoinSet;

use super::bind::LinkPlan;
use super::config::{ClientConfig, Trust};
use super::control::{self, Control, Elsewhere};
use super::descriptors;
use super::exit::{Exit, Failure};
use super::forward::{Forward, ForwardOptions, Leads};
use super::gateway::Gateway;
use super::links;
use super::listening::listen_locally;
use super::own_key::OwnKey;
use super::reverse::Reverse;
use super::signals::{Asked, ServiceSignals};
use super::status::source::Source;
use super::stopping::{Stopping, tell_draining};
use super::trust::{client_tls, connect_failure, dial_failure, host_trust};
use super::web::Web;
use super::{routes, stdio};

/// Accepts connections where `config.forwards` says and carries them to the server at
/// `config.dial`, until a signal. It may have one of `share` parts of the process's descriptors.
pub(super) async fn run_client(
    config: ClientConfig,
    share: usize,
    mut stopping: Stopping,
) -> Result<Exit, Failure> {
    let mut signals = ServiceSignals::listen()?;
    if let Some(to) = &config.stdio {
        let elsewhere = tokio::select! {
            elsewhere = open_elsewhere(&config, to) => elsewhere?,
            _ = stopping.wait() => return Ok(Exit::Ok),
        };
        if let Some(elsewhere) = elsewhere {
            return stdio::run_elsewhere(elsewhere, to, stopping).await;
        }
    }
    // Before anything is dialled: a port that is taken should not cost a prompt.
    let mut listeners = Vec::new();
    for forward in &config.forwards {
        let all = listen_locally(&forward.listen).await?;
        listeners.extend(all.into_iter().map(|listener| (listener, forward.clone())));
    }
    let web = Web::bind_if(config.web.as_ref()).await?;
    let proxy = proxy_options(&config)?;
    let gateway = gateway(&listeners, &config);
    let client = {
        let client = connect(&config, gateway.lane_mark());
        tokio::pin!(client);
        loop {
            tokio::select! {
                client = &mut client => break Arc::new(client?),
                asked = signals.next() => tell(asked, None),
                // There is nothing yet that could finish.
                _ = stopping.wait() => return Ok(Exit::Ok),
            }
        }
    };
    if let Some(to) = &config.stdio {
        return stdio::run(&client, to, stopping).await;
    }
    let mut takers = start_takers(&config, share, &client, listeners, &proxy, &gateway);
    if let Some(web) = web {
        let (shown, client) =
            (Source::client(config.dial.as_written(), client.clone()), client.clone());
        takers.spawn(async move {
            web.serve(shown, client.stopping()).await;
            Ok(())
        });
    }
    let patience = loop {
        tokio::select! {
            ended = takers.join_next() => {
                let why = ended.and_then(Result::ok).and_then(Result::err);
                return Err(why.unwrap_or_else(|| {
                    Failure::message(Exit::Internal, "a listener has ended")
                }));
            }
            asked = signals.next() => tell(asked, client.stats()),
            patience = stopping.wait() => break patience,
        }
    };
    finish(&client, &mut takers, patience).await;
    Ok(Exit::Ok)
}

/// Starts all that take connections, here and at the server; none ends but by failing, or with the
/// client.
fn start_takers(
    config: &ClientConfig,
    share: usize,
    client: &Arc<Client>,
    listeners: Vec<(Listener, Forward)>,
    proxy: &ProxyOptions,
    gateway: &Arc<Gateway>,
) -> JoinSet<Result<(), Failure>> {
    // Each bind may get an express lane besides.
    let lanes = config.binds.iter().map(|plan| usize::from(plan.bind.lanes) + 1).sum();
    let connections = descriptors::for_client(lanes, share).with_sockets(config.session.sockets);
    if listeners.is_empty() {
        tracing::info!(server = config.dial.as_written(), "client ready");
    }
    let mut takers = JoinSet::new();
    for (listener, Forward { to, options, .. }) in listeners {
        tell_ready(&listener, config.dial.as_written(), &to);
        let options =
            ForwardOptions { redundant: options.redundant || config.redundant, ..options };
        let (client, connections, proxy) = (client.clone(), connections.clone(), proxy.clone());
        takers.spawn(async move {
            take(listener, to, options, proxy, client, connections).await;
            Ok(())
        });
    }
    if let Some(control) = Control::bind(config.home.as_deref(), "client") {
        let session = Some((client.clone(), connections.clone()));
        let source = Source::client(config.dial.as_written(), client.clone());
        let host = control::Host { source, session, gateway: Some(gateway.clone()) };
        let client = client.clone();
        takers.spawn(async move {
            control.serve(host, client.stopping()).await;
            Ok(())
        });
    }
    takers.spawn({
        let (client, gateway) = (client.clone(), gateway.clone());
        async move {
            gateway.keep(client.stopping()).await;
            Ok(())
        }
    });
    takers.spawn({
        let sources = config.binds.iter().map(|plan| plan.bind.source.clone()).collect();
        let follows = links::follow(client.clone(), sources);
        async move {
            follows.await;
            Ok(())
        }
    });
    let redundant = config.redundant;
    let reverse = config.reverse.iter().map(|it| remote_forward(it, redundant)).collect();
    takers.spawn({
        let (client, insists) = (client.clone(), config.keep_trying);
        async move {
            let taken = tunnel::forward_from_server(client, reverse, &connections, insists);
            taken.await.map_err(|error| remote_failure(&error))
        }
    });
    takers
}

/// Lets open connections finish within `patience`, then closes.
async fn finish(client: &Client, takers: &mut JoinSet<Result<(), Failure>>, patience: Duration) {
    let mut code = Code::SHUTDOWN;
    if !patience.is_zero() {
        tell_draining(client.drain(), patience);
        let ended = async {
            while takers.join_next().await.is_some() {}
            if let Some(session) = client.session() {
                session.drained().await;
            }
        };
        if tokio::time::timeout(patience, ended).await.is_ok() {
            // An end in order: what has arrived at the server can still be read there.
            code = Code::NONE;
        }
    }
    // What has not arrived by now has had its time.
    let _ = client.close(code, Duration::ZERO).await;
}

/// Has this user's running client take us there, if it is connected to the same server, with a key
/// that would do for us.
async fn open_elsewhere(
    config: &ClientConfig,
    to: &Destination,
) -> Result<Option<Elsewhere>, Failure> {
    let Some(home) = config.home.as_deref() else { return Ok(None) };
    let server = config.dial.as_written();
    let trusts = |key: Fingerprint| match &config.trust {
        Trust::Pinned(keys) => keys.contains(&key),
        Trust::KnownHosts(_) => {
            let shown = PeerIdentity { fingerprint: key, certificate_signature: None };
            let verdict = KnownHosts::new(home.join("known_hosts")).check(server, &shown);
            matches!(verdict, Ok(Verdict::Known | Verdict::KnownAsNext))
        }
    };
    let opened = control::open_elsewhere(home, server, trusts, to).await;
    opened.map_err(|why| stdio::failure(to, &why))
}

fn remote_forward(reverse: &Reverse, all_redundant: bool) -> RemoteForward {
    let Reverse { listen, to, redundant, tell_source } = reverse;
    let (listen, to) = (listen.clone(), to.for_library().into());
    let redundant = *redundant || all_redundant;
    RemoteForward { listen, to, redundant, tell_source: *tell_source }
}

/// What it means that the server does not listen for this client.
fn remote_failure(error: &RemoteForwardError) -> Failure {
    let advice = match error {
        RemoteForwardError::NotAllowed { place, code: Code::LISTEN_FORBIDDEN } => {
            let rule = place.rule_to_listen();
            format!("; its owner allows it with listen=\"{rule}\" in this client's line")
        }
        RemoteForwardError::NotAllowed { code: Code::LISTEN_FAILED, .. } => {
            "; it has to be an address of the server's, and a port below 1024 needs rights there"
                .to_owned()
        }
        _ => String::new(),
    };
    Failure::message(
        Exit::Refused,
        format!("{error}{advice}; this client ends; with --keep-trying it goes on asking"),
    )
}

/// A client of the server at `config.dial`, once there is a session.
async fn connect(config: &ClientConfig, mark: Option<u32>) -> Result<Client, Failure> {
    let server = config.dial.as_written();
    let trust = host_trust(config.trust.clone(), server, config.home.as_deref())?;
    let own = OwnKey::of_client(config.home.as_deref())?;
    let tls = with_host_trust(client_tls(&own.identity, config.key_exchange)?, trust.clone());
    let options = TcpOptions::default()
        .with_dial_timeout(config.connect_timeout)
        .with_congestion(config.session.congestion.clone())
        .with_mark(mark);
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
    let connected = if config.keep_trying {
        Client::keep_connecting(links, settings).await
    } else {
        Client::connect(links, settings).await
    };
    connected.map_err(|error| connect_failure(server, own.lasting(), &error))
}

/// What this client can do for the machine's traffic.
fn gateway(listeners: &[(Listener, Forward)], config: &ClientConfig) -> Arc<Gateway> {
    let transparent = listeners.iter().filter(|(_, forward)| forward.to == Leads::WhereMeant);
    let transparent = transparent.map(|(listener, _)| listener);
    for listener in transparent.clone() {
        if let Err(error) = tunnel::allow_tproxy(listener) {
            tracing::info!(
                at = %listener, %error,
                "connections are taken from REDIRECT alone: for TPROXY and `imux gateway` the client needs CAP_NET_ADMIN"
            );
        }
    }
    Arc::new(Gateway::new(transparent, config.dial.for_resolver()))
}

/// What all ports for all destinations have in common.
fn proxy_options(config: &ClientConfig) -> Result<ProxyOptions, Failure> {
    let credentials = match &config.proxy_auth {
        Some(file) => Some(Arc::new(read_credentials(file)?)),
        None => None,
    };
    Ok(ProxyOptions { credentials, ..ProxyOptions::default() })
}

fn read_credentials(file: &Path) -> Result<Credentials, Failure> {
    let failure = |why: String| {
        let shown = file.display();
        Failure::message(Exit::Config, format!("cannot use {shown}: {why}; nothing was started"))
    };
    let read = || {
        let mode = std::fs::metadata(file)?.permissions().mode();
        std::fs::read_to_string(file).map(|text| (mode, text))
    };
    let (mode, text) = read().map_err(|error| failure(error.to_string()))?;
    if mode & 0o077 != 0 {
        return Err(failure(format!("others can read it; say `chmod 600 {}`", file.display())));
    }
    Credentials::parse(&text).map_err(|error| {
        failure(match error.line {
            0 => "there is no line USER:PASSWORD in it".to_owned(),
            _ => error.to_string(),
        })
    })
}

fn tell_ready(address: &Listener, server: &str, to: &Leads) {
    let to = match to {
        Leads::ServersDestination => None,
        Leads::To(to) => Some(to.to_string()),
        Leads::Anywhere => Some("wherever SOCKS or HTTP says".to_owned()),
        Leads::WhereMeant => Some("wherever it was meant to go".to_owned()),
    };
    tracing::info!(%address, server, to = to.map(tracing::field::display), "client ready");
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
    let ForwardOptions { redundant, proxy_protocol: tell_source, fast } = options;
    let as_meant = to == Leads::WhereMeant;
    let kind = match to {
        // For what was meant to go elsewhere, its destination takes the place of this.
        Leads::ServersDestination | Leads::WhereMeant => StreamKind::Default,
        Leads::To(to) => StreamKind::Named(to.to_string()),
        Leads::Anywhere => {
            let options = ProxyOptions { fast, redundant, tell_source, ..proxy };
            return proxy::serve_within(listener, client, options, &connections).await;
        }
    };
    let wants = if tell_source { Wants::SOURCE } else { Wants::default() };
    let options = OpenOptions { redundant, wants, ..kind.into() };
    if as_meant {
        tunnel::serve_transparent_within(listener, client, options, &connections).await;
    } else {
        tunnel::forward_within(listener, client, options, &connections).await;
    }
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
