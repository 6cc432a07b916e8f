//! The control socket: one per process, in a folder of the home that only its user can enter.
//! Through it, other processes of that user use what this one has.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use imux::tunnel::{self, Connections, UnixSocket};
use imux::{Client, OpenOptions, StreamKind, Wants};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use super::gateway::Gateway;
use super::status::source::{Source, Streams};

mod ask;
mod change;
mod protocol;
mod reloads;

pub(super) use ask::{
    Answer, Elsewhere, ask_change, ask_clients, ask_status, open_elsewhere, reload_all,
};
pub(super) use change::Change;
pub(super) use protocol::GatewayRequest;
#[cfg(any(test, fuzzing))]
pub(super) use protocol::check as check_protocol;
use protocol::{REQUEST_BYTES_MAX, Reply, Request};
pub(super) use reloads::serve_reloads;

/// The folder's name in the home.
const FOLDER: &str = "control";

/// Most simultaneous connections: two for each shell that may run an ssh over this client.
const CONNECTIONS_MAX: usize = 128;

/// Most sockets of one role and process: beyond them, more would not be asked anyway.
const SOCKETS_MAX: usize = 64;

/// Most requests on one connection, one after another.
const REQUESTS_MAX: usize = 16;

/// Most outcomes kept for processes that have not asked yet.
const OUTCOMES_MAX: usize = 2 * CONNECTIONS_MAX;

/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A socket that does not answer yet.
#[derive(Debug)]
pub(super) struct Control(UnixSocket);

/// What a process answers with.
#[derive(Debug)]
pub(super) struct Host {
    /// What it shows of itself.
    pub(super) source: Source,
    /// The session that others' connections may use.
    pub(super) session: Option<(Arc<Client>, Connections)>,
    /// What sets the rules of a machine whose traffic it takes.
    pub(super) gateway: Option<Arc<Gateway>>,
}

impl Control {
    /// Makes this process's socket. The process also runs without one: a home may be read-only or
    /// missing.
    pub(super) fn bind(home: Option<&Path>, role: &str) -> Option<Self> {
        let bound = folder(home?, true).and_then(|folder| {
            sweep(&folder);
            bind_first(&folder, role)
        });
        match bound {
            Ok(socket) => Some(Self(socket)),
            Err(error) => {
                tracing::debug!(%error, "no control socket");
                None
            }
        }
    }

    /// Answers until `stopping`, then waits for opened connections to end.
    pub(super) async fn serve(self, host: Host, stopping: impl Future<Output = ()>) {
        let (host, places) = (Arc::new(host), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        let outcomes = Outcomes::default();
        let mut tasks = JoinSet::new();
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                () = &mut stopping => break,
                Some(_) = tasks.join_next() => {}
                accepted = self.0.accept() => {
                    let Ok(socket) = accepted else {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    };
                    // Others cannot enter the folder. If they do, they get no further.
                    let Ok(place) = places.clone().try_acquire_owned() else { continue };
                    if !is_own(&socket) {
                        tracing::warn!("another user has connected to the control socket; it is not answered");
                        continue;
                    }
                    let (host, outcomes) = (host.clone(), outcomes.clone());
                    tasks.spawn(async move {
                        let _place = place;
                        if let Err(error) = attend(socket, &host, &outcomes).await {
                            tracing::debug!(%error, "a control connection has ended");
                        }
                    });
                }
            }
        }
        drop(self);
        while tasks.join_next().await.is_some() {}
    }
}

/// One process may be several clients and servers: each has a socket of its own.
fn bind_first(folder: &Path, role: &str) -> io::Result<UnixSocket> {
    let process = std::process::id();
    let others = (2..=SOCKETS_MAX).map(|number| format!("{role}-{number}-{process}.sock"));
    let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
    for name in std::iter::once(format!("{role}-{process}.sock")).chain(others) {
        match UnixSocket::bind(&folder.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = error,
            bound => return bound,
        }
    }
    Err(taken)
}

/// The folder, created if `make`. Nobody else may enter it.
fn folder(home: &Path, make: bool) -> io::Result<PathBuf> {
    let folder = home.join(FOLDER);
    if make {
        match DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let there = fs::symlink_metadata(&folder)?;
    if !there.is_dir() || there.uid() != geteuid().as_raw() || there.mode() & 0o077 != 0 {
        let why = format!("{} is not a folder that only its user gets into", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(folder)
}

/// Removes the sockets of killed processes. A process is gone if its id is free and nobody answers.
fn sweep(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_stem().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.rsplit('-').next()?.parse().ok());
        let Some(number) = number else { continue };
        let gone = kill(Pid::from_raw(number), None) == Err(Errno::ESRCH);
        let refuses = || {
            let connected = std::os::unix::net::UnixStream::connect(&path);
            connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        if gone && refuses() {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Whether the other end is a process of this user.
fn is_own(socket: &UnixStream) -> bool {
    socket.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw())
}

/// How connections opened by others have ended, for whoever waits for that.
#[derive(Debug, Clone, Default)]
struct Outcomes(Arc<Mutex<State>>);

type Outcome = Result<(), String>;

#[derive(Debug, Default)]
struct State {
    next: u64,
    open: BTreeMap<u64, oneshot::Receiver<Outcome>>,
}

impl Outcomes {
    fn expect(&self) -> (u64, oneshot::Sender<Outcome>) {
        let (told, outcome) = oneshot::channel();
        let mut state = self.lock();
        state.next += 1;
        let number = state.next;
        // The oldest go first: whoever opens one asks for its outcome at once.
        while state.open.len() >= OUTCOMES_MAX {
            state.open.pop_first();
        }
        state.open.insert(number, outcome);
        (number, told)
    }

    fn take(&self, number: u64) -> Option<oneshot::Receiver<Outcome>> {
        self.lock().open.remove(&number)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers one connection.
async fn attend(mut socket: UnixStream, host: &Host, outcomes: &Outcomes) -> io::Result<()> {
    let mut heard = BytesMut::new();
    for _ in 0..REQUESTS_MAX {
        let line = tokio::time::timeout(PATIENCE, read_line(&mut socket, &mut heard)).await;
        let Some(line) = line.map_err(|_| io::ErrorKind::TimedOut)?? else { return Ok(()) };
        let reply = match Request::parse(&line) {
            Ok(Request::About) => Reply::About {
                role: host.source.role().to_owned(),
                place: host.source.place().to_owned(),
                key: host.session.as_ref().and_then(|(client, _)| client.server_key()),
            },
            Ok(Request::Open { to }) => {
                return open(socket, heard.freeze(), &to, host, outcomes).await;
            }
            Ok(Request::Wait { number }) => match outcomes.take(number) {
                Some(outcome) => match outcome.await {
                    Ok(Ok(())) => Reply::Done { number },
                    Ok(Err(why)) => Reply::Refused { why },
                    Err(_) => Reply::refused("it was cut off"),
                },
                None => Reply::refused("there is no such connection"),
            },
            Ok(Request::Gateway(asked)) => about_gateway(asked, host).await,
            Ok(Request::Status) => {
                show_status(&mut socket, &host.source).await?;
                continue;
            }
            Ok(Request::Change(change)) => {
                let done = match change {
                    Change::CloseSession { id } => host.source.close_session(&id),
                    Change::Link { name, change } => host.source.change_link(&name, change),
                };
                done.map_or_else(|why| Reply::Refused { why }, |said| Reply::Changed { said })
            }
            Ok(Request::Reload) => Reply::refused("this process runs by no file"),
            Err(why) => {
                // After a line it does not understand, it stops listening.
                return say(&mut socket, &Reply::refused(why)).await;
            }
        };
        say(&mut socket, &reply).await?;
    }
    Ok(())
}

/// Says what the process does now: a line, and as many bytes of JSON as it says.
async fn show_status(socket: &mut UnixStream, source: &Source) -> io::Result<()> {
    let source = source.clone();
    // Ten thousand streams are some milliseconds of work.
    let made = tokio::task::spawn_blocking(move || {
        serde_json::to_vec(&source.snapshot(Streams::All)).map_err(io::Error::other)
    });
    let shown = made.await.map_err(io::Error::other)??;
    say(socket, &Reply::Status { bytes: shown.len() as u64 }).await?;
    socket.write_all(&shown).await
}

async fn about_gateway(asked: GatewayRequest, host: &Host) -> Reply {
    let Some(gateway) = &host.gateway else {
        return Reply::refused("this process is no client");
    };
    let said = match asked {
        GatewayRequest::Up(plan) => gateway.up(plan).await,
        GatewayRequest::Down => gateway.down().await,
        GatewayRequest::Show => gateway.show().await,
    };
    said.map_or_else(|why| Reply::Refused { why }, |said| Reply::Gateway { said })
}

/// From here on the connection belongs to a stream; `first` was already read from it.
async fn open(
    mut socket: UnixStream,
    first: Bytes,
    to: &str,
    host: &Host,
    outcomes: &Outcomes,
) -> io::Result<()> {
    let Some((client, bound)) = &host.session else {
        return say(&mut socket, &Reply::refused("this process is no client")).await;
    };
    let options = OpenOptions { wants: Wants::ANSWER, ..StreamKind::Named(to.to_owned()).into() };
    let from = socket.peer_cred().ok().and_then(|peer| peer.pid()).unwrap_or_default();
    let opened = tunnel::connect_within(client, options, bound).await;
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => return say(&mut socket, &Reply::refused(&error.to_string())).await,
    };
    let (number, told) = outcomes.expect();
    let said = say(&mut socket, &Reply::Done { number }).await;
    if said.is_ok() {
        let from = format!("process {from}");
        let broken = opened.carry(socket, first, &from).await;
        let _ = told.send(broken.map_or(Ok(()), |why| Err(why.to_string())));
    }
    said
}

async fn say(socket: &mut UnixStream, reply: &Reply) -> io::Result<()> {
    socket.write_all(reply.line().as_bytes()).await
}

/// The next line, without its end; `None` if there is none.
async fn read_line(socket: &mut UnixStream, heard: &mut BytesMut) -> io::Result<Option<Bytes>> {
    loop {
        if let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            let line = heard.split_to(end).freeze();
            heard.advance(1);
            return Ok(Some(line));
        }
        if heard.len() >= REQUEST_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line that does not end"));
        }
        // Reads at most a line's worth at once: what follows may belong to a stream, and waits.
        let room = REQUEST_BYTES_MAX - heard.len();
        let mut piece = (&mut *socket).take(room as u64);
        if piece.read_buf(heard).await? == 0 {
            return Ok(None);
        }
    }
}
