//! The commands for keys and for who may connect: `identity`, `authorize`, `revoke`, `invite`,
//! `accept`.
//!
//! Each prints its result on standard output, as a line for people or as one JSON object; further
//! notes go to standard error.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use imux::lane::{BindSource, TcpOptions, TlsDialer};
use imux::trust::{
    AuthorizedClient, AuthorizedClients, Destination, Fingerprint, Grant, Identity, Invitation,
    KnownHosts, KnownKey, PinnedKeys, TrustError, Verdict, with_host_trust,
};
use imux::{Client, Code, ConnectError};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::address::HostPort;
use super::config::{KeyExchange, KeysCommand, KeysConfig, ServerKey, require_home};
use super::date::now;
use super::exit::{Exit, Failure};
use super::identity::server_name;
use super::own_key::CLIENT;
use super::text::print;
use super::trust::{client_tls, connect_failure, dial_failure, trust_failure};

/// A command's result, for people and for machines.
struct Said {
    text: Zeroizing<String>,
    json: Value,
}

/// Runs one command to completion.
pub(super) async fn run_keys(config: KeysConfig) -> Result<Exit, Failure> {
    let home = || require_home(config.home.as_deref());
    let list = |file: Option<PathBuf>| -> Result<AuthorizedClients, Failure> {
        Ok(AuthorizedClients::new(match file {
            Some(file) => file,
            None => authorized_clients(home()?),
        }))
    };
    let said = match config.command {
        KeysCommand::Identity { server } => identity(home()?, server.as_ref()),
        KeysCommand::RotateKey { server, switch } => rotate_key(home()?, &server, switch),
        KeysCommand::Authorize { file, client } => authorize(&list(file)?, &client),
        KeysCommand::Revoke { file, client } => revoke(&list(file)?, client),
        KeysCommand::Invite { file, server, key, grant, expires, comment } => {
            let (_, key) = server_key(home()?, &key)?;
            invite(&list(file)?, &server, key, grant, expires, &comment)
        }
        KeysCommand::Accept { invitation, bind, connect_timeout, key_exchange } => {
            let invitation = invitation.map_or_else(read_invitation, Ok)?;
            accept(home()?, &invitation, bind, connect_timeout, key_exchange).await
        }
    }?;
    let text = if config.json { said.json.to_string() } else { said.text.to_string() };
    let text = Zeroizing::new(format!("{}\n", Zeroizing::new(text).as_str()));
    print(text).await.map_err(|error| {
        Failure::message(Exit::Config, format!("cannot print the result: {error}"))
    })?;
    Ok(Exit::Ok)
}

/// The list of authorised clients, unless an option names another.
pub(super) fn authorized_clients(home: &Path) -> PathBuf {
    home.join("authorized_clients")
}

fn identity(home: &Path, server: Option<&ServerKey>) -> Result<Said, Failure> {
    let key = match server {
        Some(server) => server_key(home, server)?.1,
        None => {
            let identity = Identity::load_or_create(home, CLIENT);
            identity.map_err(|error| trust_failure(&error))?.fingerprint()
        }
    };
    let text = Zeroizing::new(key.to_string());
    Ok(Said { json: json!({ "key": *text }), text })
}

/// A server's name and key. Never creates one: no server would use it.
fn server_key(home: &Path, server: &ServerKey) -> Result<(String, Fingerprint), Failure> {
    let name = server_name(home, server.identity.as_deref(), server.listen.as_ref())?;
    let identity = Identity::load(home, &name).map_err(|error| trust_failure(&error))?;
    let none = || {
        Failure::message(
            Exit::Config,
            format!(
                "there is no key of the server `{name}` in {}; start the server first, or give the \
                 --identity or --listen it was started with",
                home.display()
            ),
        )
    };
    let key = identity.ok_or_else(none)?.fingerprint();
    Ok((name, key))
}

fn rotate_key(home: &Path, server: &ServerKey, switch: bool) -> Result<Said, Failure> {
    let (name, old) = server_key(home, server)?;
    let name = name.as_str();
    let (key, text) = if switch {
        let changed = Identity::change_to_next(home, name).map_err(|e| trust_failure(&e))?;
        let Some(new) = changed else {
            return Err(Failure::message(
                Exit::Config,
                format!(
                    "there is no next key for {name}; nothing was changed; make one with \
                     `imux rotate-key` and let the server announce it first"
                ),
            ));
        };
        let key = new.fingerprint();
        tracing::warn!("a server that runs goes on with it at SIGHUP: kill -HUP its process");
        (key, format!("{key} is the server's key now"))
    } else {
        let next = Identity::prepare_next(home, name).map_err(|error| trust_failure(&error))?;
        let key = next.fingerprint();
        tracing::warn!("a server that runs announces it at SIGHUP: kill -HUP its process");
        (key, format!("{key} is the server's next key; its clients learn of it while connected"))
    };
    let json = json!({ "old": old.to_string(), "key": key.to_string(), "switched": switch });
    Ok(Said { text: Zeroizing::new(text), json })
}

fn authorize(list: &AuthorizedClients, client: &AuthorizedClient) -> Result<Said, Failure> {
    let replaced = changed(list, || list.authorize(client))?;
    let (key, file) = (client.key, list.path().display());
    let text = Zeroizing::new(format!("{key} may connect, by {file}"));
    let json = json!({ "key": key.to_string(), "replaced": replaced, "file": file.to_string() });
    Ok(Said { text, json })
}

fn revoke(list: &AuthorizedClients, client: Fingerprint) -> Result<Said, Failure> {
    let file = list.path().display();
    if !list.revoke(client).map_err(|error| trust_failure(&error))? {
        return Err(Failure::message(
            Exit::Config,
            format!(
                "{client} is not listed in {file}; nothing was changed; the keys that are listed stand there, a client \
                 a line"
            ),
        ));
    }
    let text = Zeroizing::new(format!("{client} may connect no more, by {file}"));
    Ok(Said { text, json: json!({ "key": client.to_string(), "file": file.to_string() }) })
}

fn invite(
    list: &AuthorizedClients,
    server: &HostPort,
    key: Fingerprint,
    grant: Grant,
    expires: Duration,
    comment: &str,
) -> Result<Said, Failure> {
    let link = invitation(list, server, key, grant, expires, comment)?;
    let json = json!({
        "invitation": *link,
        "server": server.as_written(),
        "key": key.to_string(),
        "expires_in_seconds": expires.as_secs(),
    });
    // Through standard input, because arguments show in the process list. Quoted, because brackets
    // mean something to a shell.
    Ok(Said { text: Zeroizing::new(format!("echo '{}' | imux accept", *link)), json })
}

/// Invites one client to the server that is reached at `server`: what it is to accept, `imux://…`.
pub(super) fn invitation(
    list: &AuthorizedClients,
    server: &HostPort,
    key: Fingerprint,
    grant: Grant,
    expires: Duration,
    comment: &str,
) -> Result<Zeroizing<String>, Failure> {
    // Checked before writing an invitation that would lead nowhere.
    if let Err(error) = server.as_written().parse::<Destination>() {
        let advice = "write the server as the other person reaches it";
        return Err(Failure::message(Exit::Usage, format!("{error}; {advice}")));
    }
    let far = || Failure::message(Exit::Usage, "--expires is too far away");
    let until = now().checked_add(expires).ok_or_else(far)?;
    let secret = changed(list, || list.invite(grant, until, comment))?;
    let invitation = Invitation::new(server.as_written(), key, secret);
    invitation.map(|it| it.to_text()).map_err(|error| trust_failure(&error))
}

/// Changes the list, and says if that closes the servers to everybody else.
fn changed<T>(
    list: &AuthorizedClients,
    change: impl FnOnce() -> Result<T, TrustError>,
) -> Result<T, Failure> {
    let is_new = !list.path().exists();
    let done = change().map_err(|error| trust_failure(&error))?;
    if is_new {
        tracing::warn!(
            "{} is new: from now on servers that use it let in nobody who is not listed there",
            list.path().display()
        );
    }
    Ok(done)
}

/// Longest invitation: a host name, two hashes and the separators.
const INVITATION_BYTES_MAX: u64 = 1024;

/// Reads it from standard input.
pub(super) fn read_invitation() -> Result<Invitation, Failure> {
    // Allocated at its maximum length, so that growing leaves no copy behind.
    let mut text = Zeroizing::new(String::with_capacity(INVITATION_BYTES_MAX as usize + 1));
    let stdin = io::stdin();
    let mut input = stdin.lock().take(INVITATION_BYTES_MAX);
    let read = if stdin.is_terminal() {
        tracing::warn!("paste the invitation, and press Enter");
        input.read_line(&mut text)
    } else {
        input.read_to_string(&mut text)
    };
    read.map_err(|error| {
        Failure::message(Exit::Usage, format!("cannot read the invitation: {error}"))
    })?;
    parse_invitation(&text).map_err(|error| Failure::message(Exit::Usage, error))
}

/// An invitation, or the command that accepts it.
pub(super) fn parse_invitation(text: &str) -> Result<Invitation, TrustError> {
    // People pass on the whole command, that of earlier versions too.
    let words = text.trim();
    let words = words.strip_prefix("imux accept ").unwrap_or(words);
    let words = words.strip_prefix("echo ").unwrap_or(words);
    let words = words.split_once("| imux ").map_or(words, |(echoed, _)| echoed);
    words.trim().trim_matches('\'').parse()
}

async fn accept(
    home: &Path,
    invitation: &Invitation,
    bind: Option<BindSource>,
    dial_timeout: Duration,
    key_exchange: KeyExchange,
) -> Result<Said, Failure> {
    let key = accept_invitation(home, invitation, bind, dial_timeout, key_exchange).await?;
    let (server, server_key) = (invitation.server(), invitation.key());
    let text = format!(
        "{server} knows this client now; to use it: imux client --dial {server} --listen HOST:PORT"
    );
    let json = json!({
        "server": server,
        "server_key": server_key.to_string(),
        "key": key.to_string(),
    });
    Ok(Said { text: Zeroizing::new(text), json })
}

/// Has the server know this client's key, and the client the server's. Returns the client's.
pub(super) async fn accept_invitation(
    home: &Path,
    invitation: &Invitation,
    bind: Option<BindSource>,
    dial_timeout: Duration,
    key_exchange: KeyExchange,
) -> Result<Fingerprint, Failure> {
    let (server, server_key) = (invitation.server(), invitation.key());
    let hosts = KnownHosts::new(home.join("known_hosts"));
    let known = check_known(&hosts, server, server_key)?;
    let identity = Identity::load_or_create(home, CLIENT).map_err(|e| trust_failure(&e))?;
    let pinned = PinnedKeys::new([server_key]);
    let tls = with_host_trust(client_tls(&identity, key_exchange)?, Arc::new(pinned.clone()));
    let bind = bind.unwrap_or(BindSource::Any);
    let options = TcpOptions::default().with_dial_timeout(dial_timeout);
    let dialer = TlsDialer::new(server, bind, tls, options);
    let dialer = dialer.map_err(|error| dial_failure(server, &error))?;
    let key = identity.fingerprint();
    Client::accept_invitation(&dialer, &pinned, invitation.secret()).await.map_err(|error| {
        match error {
            ConnectError::Refused { code: Code::UNAUTHORIZED, .. } => Failure::message(
                Exit::Unauthorized,
                format!(
                    "{server} does not accept the invitation: it was accepted before, its time is \
                 over, or it was never made there; ask for another one"
                ),
            ),
            error => connect_failure(server, Some(key), &error),
        }
    })?;
    hosts.record_over(server, known, server_key).map_err(|error| trust_failure(&error))?;
    Ok(key)
}

/// An invitation makes an unknown server known; it never replaces a known key. Returns what is
/// known of the server.
fn check_known(
    hosts: &KnownHosts,
    server: &str,
    key: Fingerprint,
) -> Result<Option<KnownKey>, Failure> {
    let invited = imux::trust::PeerIdentity { fingerprint: key, certificate_signature: None };
    let verdict = hosts.check(server, &invited).map_err(|error| trust_failure(&error))?;
    match verdict {
        Verdict::Known
        | Verdict::KnownAsNext
        | Verdict::KnownByLegacySignature
        | Verdict::Unknown => hosts.lookup(server).map_err(|error| trust_failure(&error)),
        Verdict::Changed { old } => Err(trust_failure(&TrustError::Changed {
            host: server.to_owned(),
            known: old,
            presented: key,
        })),
    }
}
