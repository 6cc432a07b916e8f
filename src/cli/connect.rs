//! `imux client`: accepts local connections and carries them to the server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use imux::lane::TcpOptions;
use imux::trust::{Destination, Fingerprint, KnownHosts, PeerIdentity, Verdict, with_host_trust};
use imux::tunnel::proxy::{Credentials, ProxyOptions};
use imux::tunnel::{self, RemoteForwardError};
use imux::{Client, Code, SessionStats};
use tokio::sync::{mpsc, watch};

use super::bind::LinkPlan;
use super::config::{ClientConfig, Trust};
use super::control::{self, Control, Elsewhere};
use super::descriptors;
use super::exit::{Exit, Failure};
use super::forward::Leads;
use super::gateway::{self, Gateway};
use super::links::{self, ClientLinks, Linking};
use super::own_key::OwnKey;
use super::part::{ClientChange, Part};
use super::signals::{Asked, ServiceSignals};
use super::status::source::Source;
use super::stopping::tell_draining;
use super::taking::{Sockets, Takers, Wanted};
use super::text::read_private;
use super::trust::{client_tls, connect_failure, dial_failure, host_trust};
use super::web::Web;
use super::{routes, stdio};

/// Accepts connections where `config.forwards` says and carries them to the server at
/// `config.dial`, until a signal.
pub(super) async fn run_client(config: ClientConfig, mut part: Part) -> Result<Exit, Failure> {
    let signals = ServiceSignals::listen()?;
    if let Some(to) = &config.stdio {
        let elsewhere = tokio::select! {
            elsewhere = open_elsewhere(&config, to) => elsewhere?,
            _ = part.stopping.wait() => return Ok(Exit::Ok),
        };
        if let Some(elsewhere) = elsewhere {
            return stdio::run_elsewhere(elsewhere, to, part.stopping).await;
        }
    }
    run_connected(config, part, signals).await
}

/// The same, over a session of its own.
async fn run_connected(
    mut config: ClientConfig,
    part: Part,
    mut signals: ServiceSignals,
) -> Result<Exit, Failure> {
    let Part { share, mut stopping, by_file, mut changes, sockets, .. } = part;
    // Before anything is dialled: a port that is taken should not cost a prompt.
    let mut wanted = wanted_at_start(&config, &sockets).await?;
    let web = Web::bind_if(config.web.as_ref()).await?;
    let gateway = prepare_gateway(&mut wanted, &config);
    let mut networks = links::watch().await;
    let mut binds = links::chosen(&config.binds, &networks.borrow_and_update());
    let (client, linking) = loop {
        let first = tokio::select! {
            first = connect(&config, &binds, gateway.lane_mark()) => Ok(first?),
            change = next_change(&mut signals, by_file, &mut changes) => Err(Some(change)),
            () = others_lead_out(&config, &binds, &mut networks) => Err(None),
            // There is nothing yet that could finish.
            _ = stopping.wait() => return Ok(Exit::Ok),
        };
        match first {
            Ok((client, linking)) => break (Arc::new(client), linking),
            // Whatever the links were that led nowhere: it tries those of now.
            Err(None) => {}
            Err(Some(change)) => {
                wanted = change.wanted.after(wanted);
                config.binds = change.binds;
                let _ = change.done.send(());
            }
        }
        binds = links::chosen(&config.binds, &networks.borrow());
    };
    if let Some(to) = &config.stdio {
        return stdio::run(&client, to, stopping).await;
    }
    let mut bound = ClientLinks::new(linking, &binds);
    let mut takers = start_takers(&config, share, &client, wanted, &gateway);
    start_followers(&mut takers, &client, &gateway, &networks, &bound);
    if let Some(web) = web {
        takers.tasks.spawn(serve_web(web, config.dial.as_written(), &client));
    }
    let patience = loop {
        tokio::select! {
            // Else what it took connections for was changed, and they have ended.
            Some(ended) = takers.tasks.join_next() => match ended {
                Ok(taken) => taken?,
                Err(_) => return Err(Failure::message(Exit::Internal, "a listener has ended")),
            },
            asked = signals.next() => tell(asked, by_file, client.stats()),
            Some(change) = changes.recv() => {
                takers.change(change.wanted);
                config.binds = change.binds;
                bound.change(&client, &links::chosen(&config.binds, &networks.borrow()));
                let _ = change.done.send(());
            }
            Ok(()) = networks.changed() => {
                let binds = links::chosen(&config.binds, &networks.borrow_and_update());
                bound.change(&client, &binds);
            }
            patience = stopping.wait() => break patience,
        }
    };
    finish(&client, takers, patience).await;
    Ok(Exit::Ok)
}

/// Waits, while there is no session yet, until `--bind auto` means other links than `binds`; only a
/// client that keeps trying does so.
async fn others_lead_out(
    config: &ClientConfig,
    binds: &[LinkPlan],
    networks: &mut watch::Receiver<links::Network>,
) {
    while config.keep_trying && networks.changed().await.is_ok() {
        if links::chosen(&config.binds, &networks.borrow_and_update()) != binds {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// Waits for a change, and answers signals meanwhile.
async fn next_change(
    signals: &mut ServiceSignals,
    by_file: bool,
    changes: &mut mpsc::Receiver<ClientChange>,
) -> ClientChange {
    loop {
        tokio::select! {
            asked = signals.next() => tell(asked, by_file, None),
            Some(change) = changes.recv() => return change,
        }
    }
}

/// Shows what the client does, as long as it runs.
fn serve_web(
    web: Web,
    server: &str,
    client: &Arc<Client>,
) -> impl Future<Output = Result<(), Failure>> + use<> {
    let (shown, client) = (Source::client(server, client.clone()), client.clone());
    async move {
        web.serve(shown, client.stopping()).await;
        Ok(())
    }
}

/// The places that a client takes connections at, with their sockets.
async fn wanted_at_start(config: &ClientConfig, sockets: &Sockets) -> Result<Wanted, Failure> {
    let mut forwards = Vec::new();
    for forward in &config.forwards {
        forwards.push((forward.clone(), Some(sockets.listen(&forward.listen).await?)));
    }
    let (reverse, redundant) = (config.reverse.clone(), config.redundant);
    Ok(Wanted { forwards, reverse, redundant, proxy: proxy_options(config)? })
}

/// Starts all that take connections, here and at the server; none ends but by failing, by a change,
/// or with the client.
fn start_takers(
    config: &ClientConfig,
    share: usize,
    client: &Arc<Client>,
    wanted: Wanted,
    gateway: &Arc<Gateway>,
) -> Takers {
    let connections =
        descriptors::for_client(config.binds.lanes(), share).with_sockets(config.session.sockets);
    let server = config.dial.as_written();
    if wanted.forwards.is_empty() {
        tracing::info!(server, "client ready");
    }
    let mut takers = Takers::new(client.clone(), connections.clone(), server);
    takers.change(wanted);
    if let Some(control) = Control::bind(config.home.as_deref(), "client") {
        let session = Some((client.clone(), connections.clone()));
        let source = Source::client(server, client.clone());
        let host = control::Host { source, session, gateway: Some(gateway.clone()) };
        let client = client.clone();
        takers.tasks.spawn(async move {
            control.serve(host, client.stopping()).await;
            Ok(())
        });
    }
    let reverse = takers.reverse();
    takers.tasks.spawn({
        let (client, insists) = (client.clone(), config.keep_trying);
        async move {
            let taken = tunnel::forward_from_server_as(client, reverse, &connections, insists);
            taken.await.map_err(|error| remote_failure(&error))
        }
    });
    takers
}

/// Starts what follows this machine's networks.
fn start_followers(
    takers: &mut Takers,
    client: &Arc<Client>,
    gateway: &Arc<Gateway>,
    networks: &watch::Receiver<links::Network>,
    bound: &ClientLinks,
) {
    let follows = links::follow(client.clone(), networks.clone(), bound.followed.subscribe());
    takers.tasks.spawn(async move {
        follows.await;
        Ok(())
    });
    let (client, gateway, networks) = (client.clone(), gateway.clone(), networks.clone());
    takers.tasks.spawn(async move {
        gateway.keep(networks, client.stopping()).await;
        Ok(())
    });
}

/// Lets open connections finish within `patience`, then closes.
async fn finish(client: &Client, takers: Takers, patience: Duration) {
    let mut takers = takers.stopped();
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

/// What it means that `--bind auto` has found nothing.
const NOTHING_LEADS_OUT: &str = "no interface leads out: `--bind auto` takes those that are up and have an address and a \
                                 default route (`ip address`, `ip route`), but not bridges, tunnels and what belongs to \
                                 containers; nothing was started; name one, as in --bind dev:eth0 or --bind auto,only=tun0, \
                                 or wait for one with --keep-trying";

/// A client of the server at `config.dial`, once there is a session.
async fn connect(
    config: &ClientConfig,
    binds: &[LinkPlan],
    mark: Option<u32>,
) -> Result<(Client, Linking), Failure> {
    let server = config.dial.as_written();
    if binds.is_empty() {
        if !config.keep_trying {
            return Err(Failure::message(Exit::Unreachable, NOTHING_LEADS_OUT));
        }
        tracing::warn!("no interface leads out; waiting for one");
        return std::future::pending().await;
    }
    let trust = host_trust(config.trust.clone(), server, config.home.as_deref())?;
    let own = OwnKey::of_client(config.home.as_deref())?;
    let tls = with_host_trust(client_tls(&own.identity, config.key_exchange)?, trust.clone());
    let options = TcpOptions::default()
        .with_dial_timeout(config.connect_timeout)
        .with_congestion(config.session.congestion.clone())
        .with_mark(mark);
    let linking = Linking { place: config.dial.for_resolver(), tls, options };
    let sources = binds.iter().map(|plan| plan.bind.source.clone()).collect();
    tokio::spawn(routes::check(sources, linking.place.clone()));
    let links = binds.iter().map(|plan| linking.link(plan)).collect::<Result<Vec<_>, _>>();
    let links = links.map_err(|error| dial_failure(server, &error))?;
    config.session.limit_memory();
    let settings = imux::ClientConfig::new(trust).with_session(config.session.for_library());
    let connected = if config.keep_trying {
        Client::keep_connecting(links, settings).await
    } else {
        Client::connect(links, settings).await
    };
    let connected = connected.map_err(|error| connect_failure(server, own.lasting(), &error))?;
    Ok((connected, linking))
}

/// What this client can do for the machine's traffic. Where it may, it takes datagrams as well at
/// the ports for what the kernel hands over.
fn prepare_gateway(wanted: &mut Wanted, config: &ClientConfig) -> Arc<Gateway> {
    let transparent =
        wanted.forwards.iter_mut().filter(|(forward, _)| forward.to == Leads::WhereMeant);
    for listeners in transparent.filter_map(|(_, all)| all.as_mut()) {
        let ports = listeners.iter().filter_map(|listener| gateway::allow_tproxy(listener));
        let ports: Vec<_> = ports.map(Arc::new).collect();
        listeners.extend(ports);
    }
    let listeners = wanted.listeners().filter(|(forward, _)| forward.to == Leads::WhereMeant);
    let listeners: Vec<_> = listeners.map(|(_, listener)| listener).collect();
    Arc::new(Gateway::new(&listeners, config.dial.for_resolver()))
}

/// What all ports for all destinations have in common.
pub(super) fn proxy_options(config: &ClientConfig) -> Result<ProxyOptions, Failure> {
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
    let text = read_private(file).map_err(failure)?;
    Credentials::parse(&text).map_err(|error| {
        failure(match error.line {
            0 => "there is no line USER:PASSWORD in it".to_owned(),
            _ => error.to_string(),
        })
    })
}

/// What a client does when a signal asks for it.
fn tell(asked: Asked, by_file: bool, stats: Option<SessionStats>) {
    match asked {
        Asked::Reload if by_file => {}
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
