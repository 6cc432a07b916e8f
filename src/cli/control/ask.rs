//! Asks another process of this user.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use imux::trust::{Destination, Fingerprint};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::protocol::{Reply, Request};
use super::{folder, is_own, read_line};

/// How long another process may take to say who it is. A stopped process says nothing.
const PATIENCE: Duration = Duration::from_secs(1);

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
    let entries = folder(home, false).and_then(std::fs::read_dir);
    let Ok(entries) = entries else { return Ok(None) };
    let is_client = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("client-") && name.ends_with(".sock"))
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_client);
    for path in paths.take(LOOKED_AT_MAX) {
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

impl Elsewhere {
    /// Resolves to how it ended. Call before it has.
    pub async fn outcome(&self) -> io::Result<impl Future<Output = Result<(), String>> + use<>> {
        let mut socket = UnixStream::connect(&self.path).await?;
        let number = self.number;
        Ok(async move {
            match ask(&mut socket, &Request::Wait { number }, &mut BytesMut::new()).await {
                Ok(Reply::Done { .. }) => Ok(()),
                Ok(Reply::Refused { why }) => Err(why),
                Ok(Reply::About { .. }) => Err("it is not known how it has ended".to_owned()),
                Err(error) => Err(format!("the client that carried it has gone: {error}")),
            }
        })
    }
}

async fn greet(path: &Path) -> io::Result<(UnixStream, Reply)> {
    let mut socket = UnixStream::connect(path).await?;
    if !is_own(&socket) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
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
