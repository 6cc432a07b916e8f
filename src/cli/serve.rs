//! `imux server`: accepts lanes and hands their streams to the destination.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use imux::lane::{TcpOptions, TlsListener, TlsSettings};
use imux::trust::{
    AuthorizedClients, AuthorizedClientsTrust, Destinations, Identity, NextKey, server_config,
};
use imux::{Code, Server, tunnel};
use tokio::task::JoinSet;

use super::address::{Endpoint, HostPort};
use super::config::{ServerConfig, SessionConfig, require_home};
use super::control::{self, Control};
use super::descriptors;
use super::exit::{Exit, Failure};
use super::identity::server_name;
use super::keys::authorized_clients;
use super::listening::{listen_addresses, listen_failure};
use super::part::Part;
use super::signals::{Asked, ServiceSignals};
use super::status::source::Source;
use super::stopping::tell_draining;
use super::trust::trust_failure;
use super::web::Web;

/// Accepts lanes at `config.listen` and hands their streams to `config.dial`, until a signal.
pub(super) async fn run_server(config: ServerConfig, part: Part) -> Result<Exit, Failure> {
    let Part { share, mut stopping, mut rereads, .. } = part;
    let mut signals = ServiceSignals::listen()?;
    let web = Web::bind_if(config.web.as_ref()).await?;
    let (mut keys, listener) = open_listener(&config).await?;
    let named = config.authorized_clients.is_some();
    let list = config.authorized_clients.unwrap_or_else(|| authorized_clients(&keys.home));
    let clients = open_clients(&list, named, &keys.home.join(LIST_MARK), config.allow_anyone)?;
    config.session.limit_memory();
    let session = config.session.for_library();
    let settings = imux::ServerConfig::default()
        .with_session(session)
        .with_clients(Arc::new(clients.clone()))
        .with_sessions(config.sessions);
    let mut server = Server::start(listener, settings);
    let connections = descriptors::for_server(share)
        .with_sockets(config.session.sockets)
        .with_dialing(config.dialing)
        .with_listening(Destinations::new(config.listen_for_strangers));
    let address = server.local_addr().map_err(|error| listen_failure(&config.listen, &error))?;
    keys.announce_next(&server)?;
    if clients.is_restricted() || !config.allow_anyone {
        tell_who_may_connect(&clients, &list, &config.dial, address);
    }
    tracing::info!(
        %address,
        key = %keys.identity.fingerprint(),
        destination = %config.dial,
        "server ready"
    );
    let _shown = show(&keys.home, Source::server(address.to_string(), server.view()), web);
    let destination: Arc<str> = config.dial.for_library().into();
    let mut sessions = JoinSet::new();
    let patience = loop {
        tokio::select! {
            accepted = server.accept() => match accepted {
                Some((session, _)) => {
                    let (destination, connections) = (destination.clone(), connections.clone());
                    drop(sessions.spawn(async move {
                        tunnel::serve_within(session, destination, &connections).await
                    }));
                }
                None => return Err(Failure::message(Exit::Internal, "the listener has ended")),
            },
            Some(_) = sessions.join_next() => {}
            asked = signals.next() => match asked {
                Asked::Status => tracing::info!(sessions = sessions.len(), "status"),
                Asked::Reload => reload_all(&clients, &server, &mut keys).await,
            },
            Ok(()) = rereads.changed() => reload_all(&clients, &server, &mut keys).await,
            patience = stopping.wait() => break patience,
        }
    };
    finish(&server, patience).await;
    // What has arrived is on its way to the destinations. The end of the program does not wait for
    // ever.
    while sessions.join_next().await.is_some() {}
    Ok(Exit::Ok)
}

/// What shows the server while it runs: its control socket, and HTTP if that is wanted.
fn show(home: &Path, source: Source, web: Option<Web>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if let Some(web) = web {
        tasks.spawn(web.serve(source.clone(), std::future::pending()));
    }
    if let Some(control) = Control::bind(Some(home), "server") {
        let host = control::Host { source, session: None, gateway: None };
        tasks.spawn(control.serve(host, std::future::pending()));
    }
    tasks
}

/// The server's keys, and the ports where it shows them.
async fn open_listener(config: &ServerConfig) -> Result<(ServerKeys, TlsListener), Failure> {
    let home = require_home(config.home.as_deref())?.to_owned();
    let name = server_name(&home, config.identity.as_deref(), Some(&config.listen))?;
    let identity = Identity::load_or_create(&home, &name);
    let identity = identity.map_err(|error| trust_failure(&error))?;
    let tls = server_config(&identity).map_err(|error| trust_failure(&error))?;
    let options = TcpOptions::default().with_congestion(config.session.congestion.clone());
    let listener =
        listen(&config.listen, |address| TlsListener::bind(address, tls.clone(), options.clone()))
            .await?;
    let keys = ServerKeys { home, name, tls: listener.settings(), identity };
    Ok((keys, listener))
}

/// Reads anew what may have changed: where logs go, who may connect, the server's keys.
async fn reload_all(clients: &AuthorizedClientsTrust, server: &Server, keys: &mut ServerKeys) {
    super::logging::reopen_files();
    reload(clients).await;
    server.recheck();
    if let Err(error) = keys.reload(server) {
        tracing::error!(%error, "the server's keys stay as they were");
    }
}

/// Lets open connections finish within `patience`, then closes.
async fn finish(server: &Server, patience: Duration) {
    let mut code = Code::SHUTDOWN;
    if !patience.is_zero() {
        tell_draining(server.drain(), patience);
        if tokio::time::timeout(patience, server.drained()).await.is_ok() {
            // An end in order: what has arrived at the clients can still be read there.
            code = Code::NONE;
        }
    }
    // What has not arrived by now has had its time.
    let _ = server.close(code, Duration::ZERO).await;
}

/// The file beside the keys which records that their server has had a list of clients.
const LIST_MARK: &str = "authorized_clients.required";

/// Who may connect, by this list. A list that is `named` must exist, and so must one that existed
/// before.
fn open_clients(
    list: &Path,
    named: bool,
    mark: &Path,
    allow_anyone: bool,
) -> Result<AuthorizedClientsTrust, Failure> {
    let anyone = allow_anyone || named;
    let clients = AuthorizedClientsTrust::open_marked(AuthorizedClients::new(list), mark, anyone);
    let clients = clients.map_err(|error| trust_failure(&error))?;
    if named && !clients.is_restricted() {
        // Whoever names a list does not want everybody in.
        return Err(Failure::message(
            Exit::Config,
            format!(
                "there is no {}, which --authorized-clients names; nothing was started; correct \
                 the name, or make an empty file, which lets nobody in",
                list.display()
            ),
        ));
    }
    Ok(clients)
}

/// The key the server shows, and where that and its next one are kept.
struct ServerKeys {
    home: PathBuf,
    name: String,
    tls: TlsSettings,
    identity: Identity,
}

impl ServerKeys {
    /// Reads them again: new lanes are shown the key that is there now.
    fn reload(&mut self, server: &Server) -> Result<(), Failure> {
        let found = Identity::load(&self.home, &self.name);
        let Some(identity) = found.map_err(|error| trust_failure(&error))? else {
            // That is no reason to change identity.
            tracing::error!("the server's key file has gone; it goes on with what was in it");
            return Ok(());
        };
        if identity.fingerprint() != self.identity.fingerprint() {
            let tls = server_config(&identity).map_err(|error| trust_failure(&error))?;
            // Sessions that go on are told before their next lanes show it. Only an Ed25519 key can
            // be announced.
            if let Ok(key) = NextKey::new(&identity) {
                server.announce(key);
            }
            self.tls.replace(tls);
            tracing::info!(key = %identity.fingerprint(), "the server shows another key");
            self.identity = identity;
        }
        self.announce_next(server)
    }

    /// Announces the server's next key to clients, if one was made.
    fn announce_next(&self, server: &Server) -> Result<(), Failure> {
        let next = Identity::load_next(&self.home, &self.name);
        if let Some(next) = next.map_err(|error| trust_failure(&error))? {
            let next = NextKey::new(&next).map_err(|error| trust_failure(&error))?;
            tracing::info!(key = %next.fingerprint(), "announcing the server's next key");
            server.announce(next);
        }
        Ok(())
    }
}

/// Says at the start who may connect, and what to do if that is not what is wanted.
fn tell_who_may_connect(
    clients: &AuthorizedClientsTrust,
    list: &Path,
    destination: &Endpoint,
    address: SocketAddr,
) {
    if clients.is_restricted() {
        tracing::info!("only the clients listed in {} may connect", list.display());
    } else {
        tracing::warn!(
            "any client may use this server, for its one destination {destination}: who reaches \
             {address} reaches that; to let in only clients you know, list the first one with \
             `imux authorize KEY`, where KEY is what `imux identity` says on its machine; if any \
             client is meant, say --allow-anyone"
        );
    }
}

/// Reads the list of authorised clients again.
async fn reload(clients: &AuthorizedClientsTrust) {
    let reading = clients.clone();
    let read = tokio::task::spawn_blocking(move || reading.reload()).await;
    match read {
        Ok(Ok(Some(count))) => tracing::info!(clients = count, "authorised clients read"),
        Ok(Ok(None)) => tracing::warn!("there is no list of clients: any client may connect"),
        Ok(Err(error)) => {
            tracing::error!(%error, "the list of authorised clients is not used; what was read \
                            before goes on to count");
        }
        Err(error) => tracing::error!(%error, "the list of authorised clients was not read"),
    }
}

/// Listens at the first address of `place` that works.
async fn listen<T>(
    place: &HostPort,
    bind: impl Fn(std::net::SocketAddr) -> io::Result<T>,
) -> Result<T, Failure> {
    let mut first_error = None;
    for address in listen_addresses(place).await? {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            // At the next one, half of the clients would be missing.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(listen_failure(place, &error));
            }
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(match first_error {
        Some(error) => listen_failure(place, &error),
        None => Failure::new(Exit::Listen, anyhow!("cannot listen on {place}: no address")),
    })
}

impl SessionConfig {
    /// Before there is any session.
    pub(super) fn limit_memory(&self) {
        if let Some(bytes) = self.memory {
            imux::ProcessMemory::limit(bytes);
        }
    }

    /// In the library's terms.
    pub(super) fn for_library(&self) -> imux::Config {
        let mut config = imux::Config::default();
        if let Some(window_max) = self.window {
            config.stream_window = config.stream_window.min(window_max);
            config.stream_window_max = window_max;
        }
        if let Some(window) = self.session_window {
            config.session_window = window;
        }
        config.grace = self.grace;
        config.scheduler = self.scheduler;
        config
    }
}
