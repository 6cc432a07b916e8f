//! Asks another process of this user.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use imux::trust::{Destination, Fingerprint};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::protocol::{GatewayRequest, Reply, Request};
use super::{Change, folder, is_own, read_line};
use crate::cli::status::snapshot::Process;
use crate::cli::text::escape;

/// How long another process may take to say who it is. A stopped process says nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a client may take to say whether it is a gateway: it may be setting rules for another.
const GATEWAY_PATIENCE: Duration = Duration::from_secs(30);

/// How long a process may take to show what it does, ten thousand streams on a busy machine
/// included.
const STATUS_PATIENCE: Duration = Duration::from_secs(5);

/// Longest snapshot that is read: some hundred bytes for each of the streams of many sessions.
const STATUS_BYTES_MAX: u64 = 1 << 30;

/// How many sockets are tried.
const LOOKED_AT_MAX: usize = 64;

/// A connection over another process's session.
#[derive(Debug)]
pub struct Elsewhere {
    /// Reads and writes here are what it carries.
    pub socket: UnixStream,
    /// What was already read from it.
    pub first: Bytes,
    path: PathBuf,
    number: u64,
}

/// Has another client of this user, connected to the same server, connect to `to`; `None` if there
/// is none. `trusts` says whether its server's key would do for a session of our own.
///
/// # Errors
/// There is one, but its server does not connect there, and why.
pub async fn open_elsewhere(
    home: &Path,
    server: &str,
    trusts: impl Fn(Fingerprint) -> bool,
    to: &Destination,
) -> Result<Option<Elsewhere>, String> {
    for path in clients(home).into_iter().flatten() {
        let greeted = tokio::time::timeout(PATIENCE, greet(&path)).await;
        let Ok(Ok((mut socket, Reply::About { role, place, key }))) = greeted else { continue };
        if role != "client" || place != server || !key.is_some_and(&trusts) {
            continue;
        }
        let mut first = BytesMut::new();
        let open = Request::Open { to: to.to_string() };
        match ask(&mut socket, &open, &mut first).await {
            Ok(Reply::Done { number }) => {
                let first = first.freeze();
                return Ok(Some(Elsewhere { socket, first, path, number }));
            }
            Ok(Reply::Refused { why }) => return Err(why),
            // It is gone by now.
            Ok(_) | Err(_) => {}
        }
    }
    Ok(None)
}

/// The sockets of this home's clients.
fn clients(home: &Path) -> io::Result<impl Iterator<Item = PathBuf> + use<>> {
    let is_client = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("client-"))
    };
    Ok(sockets(home)?.filter(is_client).take(LOOKED_AT_MAX))
}

/// The sockets of this home's processes.
fn sockets(home: &Path) -> io::Result<impl Iterator<Item = PathBuf> + use<>> {
    let entries = folder(home, false).and_then(std::fs::read_dir)?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| path.extension().is_some_and(|ending| ending == "sock")))
}

/// Whether it is for the file that a process runs by, not for one of what the process is.
fn is_run(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("run-"))
}

/// Has all processes of this home that run by a file read it again; what each says, by its file and
/// number.
///
/// # Errors
/// As [`ask_clients`].
pub async fn reload_all(home: &Path) -> io::Result<Vec<(String, Result<String, String>)>> {
    let mut answers = Vec::new();
    let processes = match sockets(home) {
        Ok(sockets) => sockets.filter(|path| is_run(path)).take(LOOKED_AT_MAX),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(answers),
        Err(error) => return Err(error),
    };
    for path in processes {
        let greeted = tokio::time::timeout(PATIENCE, greet(&path)).await;
        let Ok(Ok((mut socket, Reply::About { place, .. }))) = greeted else { continue };
        let mut heard = BytesMut::new();
        let asked = ask(&mut socket, &Request::Reload, &mut heard);
        let said = match tokio::time::timeout(GATEWAY_PATIENCE, asked).await {
            Ok(Ok(Reply::Changed { said })) => Ok(said),
            Ok(Ok(Reply::Refused { why })) => Err(why),
            Ok(Ok(_)) => Err("that is no answer about a file".to_owned()),
            Ok(Err(error)) => Err(format!("it does not answer: {error}")),
            Err(_) => Err("it does not answer".to_owned()),
        };
        let process = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let number = process.rsplit('-').next().unwrap_or_default();
        answers.push((format!("{} (process {number})", escape(&place)), said));
    }
    Ok(answers)
}

/// Those of one process, or of all, in order; none if no process has ever run.
fn sockets_of(home: &Path, process: Option<u32>) -> io::Result<Vec<PathBuf>> {
    let sockets = match sockets(home) {
        Ok(sockets) => sockets,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let is_it = |path: &PathBuf| {
        process.is_none_or(|number| {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
            name.rsplit_once('-').is_some_and(|(_, it)| it == number.to_string())
        })
    };
    let sockets = sockets.filter(|path| is_it(path) && !is_run(path));
    let mut sockets: Vec<_> = sockets.take(LOOKED_AT_MAX).collect();
    sockets.sort();
    Ok(sockets)
}

/// What this home's processes do now. Those that do not answer count as not there.
///
/// # Errors
/// Their folder is not one that only its user gets into, or cannot be read.
pub async fn ask_status(home: &Path, process: Option<u32>) -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for path in sockets_of(home, process)? {
        let asked = tokio::time::timeout(STATUS_PATIENCE, status_of(&path)).await;
        processes.extend(asked.into_iter().flatten());
    }
    Ok(processes)
}

async fn status_of(path: &Path) -> io::Result<Process> {
    let mut socket = own(path).await?;
    let mut heard = BytesMut::new();
    let Reply::Status { bytes } = ask(&mut socket, &Request::Status, &mut heard).await? else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let rest = bytes.checked_sub(heard.len() as u64).filter(|_| bytes <= STATUS_BYTES_MAX);
    let rest = rest.ok_or(io::ErrorKind::InvalidData)?;
    let mut shown = heard.to_vec();
    if socket.take(rest).read_to_end(&mut shown).await? as u64 != rest {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&shown).map_err(io::Error::from)
}

/// Asks this home's processes, or one of them, for a change. Those that do not answer count as not
/// there.
///
/// # Errors
/// As of [`ask_status`].
pub async fn ask_change(
    home: &Path,
    process: Option<u32>,
    change: &Change,
) -> io::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for path in sockets_of(home, process)? {
        let asked = async {
            let mut socket = own(&path).await?;
            ask(&mut socket, &Request::Change(change.clone()), &mut BytesMut::new()).await
        };
        let said = match tokio::time::timeout(STATUS_PATIENCE, asked).await {
            Ok(Ok(Reply::Changed { said })) => Ok(said),
            Ok(Ok(Reply::Refused { why })) => Err(why),
            _ => continue,
        };
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        answers.push(Answer { name, said, path });
    }
    Ok(answers)
}

/// What one of this home's clients says about the gateway.
#[derive(Debug)]
pub struct Answer {
    /// Which one it is, for people.
    pub name: String,
    /// What it says, or why it does not do what is asked.
    pub said: Result<String, String>,
    path: PathBuf,
}

impl Answer {
    /// Asks the same client again.
    pub async fn ask(&self, request: &GatewayRequest) -> Result<String, String> {
        let asked = async {
            let (mut socket, _) = greet(&self.path).await?;
            ask(&mut socket, &Request::Gateway(request.clone()), &mut BytesMut::new()).await
        };
        said(asked.await)
    }
}

/// Asks all clients of this home. Those that do not answer count as not there.
///
/// # Errors
/// Their folder is not one that only its user gets into, or cannot be read.
pub async fn ask_clients(home: &Path, request: &GatewayRequest) -> io::Result<Vec<Answer>> {
    let mut answers = Vec::new();
    let clients = match clients(home) {
        Ok(clients) => clients,
        // No client has ever run.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(answers),
        Err(error) => return Err(error),
    };
    for path in clients {
        let greeted = tokio::time::timeout(PATIENCE, greet(&path)).await;
        let Ok(Ok((mut socket, Reply::About { role, place, .. }))) = greeted else { continue };
        if role != "client" {
            continue;
        }
        let request = Request::Gateway(request.clone());
        let mut heard = BytesMut::new();
        let asked = ask(&mut socket, &request, &mut heard);
        let Ok(answer) = tokio::time::timeout(GATEWAY_PATIENCE, asked).await else { continue };
        let process = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let name = format!("{process} ({})", escape(&place));
        answers.push(Answer { name, said: said(answer), path });
    }
    Ok(answers)
}

fn said(answer: io::Result<Reply>) -> Result<String, String> {
    match answer {
        Ok(Reply::Gateway { said }) => Ok(said),
        Ok(Reply::Refused { why }) => Err(why),
        Ok(_) => Err("that is no answer about a gateway".to_owned()),
        Err(error) => Err(format!("the client does not answer: {error}")),
    }
}

impl Elsewhere {
    /// Resolves to how it ended. Call before it has.
    pub async fn outcome(&self) -> io::Result<impl Future<Output = Result<(), String>> + use<>> {
        let mut socket = UnixStream::connect(&self.path).await?;
        let number = self.number;
        Ok(async move {
            match ask(&mut socket, &Request::Wait { number }, &mut BytesMut::new()).await {
                Ok(Reply::Done { .. }) => Ok(()),
                Ok(Reply::Refused { why }) => Err(why),
                Ok(_) => Err("it is not known how it has ended".to_owned()),
                Err(error) => Err(format!("the client that carried it has gone: {error}")),
            }
        })
    }
}

async fn own(path: &Path) -> io::Result<UnixStream> {
    let socket = UnixStream::connect(path).await?;
    if is_own(&socket) { Ok(socket) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

async fn greet(path: &Path) -> io::Result<(UnixStream, Reply)> {
    let mut socket = own(path).await?;
    let about = ask(&mut socket, &Request::About, &mut BytesMut::new()).await?;
    Ok((socket, about))
}

/// The answer; what follows it is left in `heard`.
async fn ask(
    socket: &mut UnixStream,
    request: &Request,
    heard: &mut BytesMut,
) -> io::Result<Reply> {
    socket.write_all(request.line().as_bytes()).await?;
    let line = read_line(socket, heard).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Reply::parse(&line).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
}
