//! The control socket of a process that runs by a file, for all it is: has it read the file again.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::protocol::{REQUEST_BYTES_MAX, Reply, Request};
use super::{Control, PATIENCE, REQUESTS_MAX, is_own, read_line, say};

/// Is told what has changed, or why nothing has.
pub(in crate::cli) type Reloaded = oneshot::Sender<Result<String, String>>;

/// Most bytes of what is said about a reload: an answer is a line, and there is more in it.
const SAID_MAX: usize = REQUEST_BYTES_MAX - 256;

/// Answers for ever, one process after the other.
pub(in crate::cli) async fn serve_reloads(
    control: Control,
    file: String,
    ask: mpsc::Sender<Reloaded>,
) {
    loop {
        match control.0.accept().await {
            Ok(socket) if is_own(&socket) => {
                if let Err(error) = attend(socket, &file, &ask).await {
                    tracing::debug!(%error, "a control connection has ended");
                }
            }
            Ok(_) => tracing::warn!(
                "another user has connected to the control socket; it is not answered"
            ),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn attend(
    mut socket: UnixStream,
    file: &str,
    ask: &mpsc::Sender<Reloaded>,
) -> io::Result<()> {
    let mut heard = BytesMut::new();
    for _ in 0..REQUESTS_MAX {
        let line = tokio::time::timeout(PATIENCE, read_line(&mut socket, &mut heard)).await;
        let Some(line) = line.map_err(|_| io::ErrorKind::TimedOut)?? else { return Ok(()) };
        let reply = match Request::parse(&line) {
            Ok(Request::About) => {
                Reply::About { role: "run".to_owned(), place: file.to_owned(), key: None }
            }
            Ok(Request::Reload) => reload(ask).await,
            Ok(_) => Reply::refused("this is for a client or a server alone"),
            Err(why) => return say(&mut socket, &Reply::refused(why)).await,
        };
        say(&mut socket, &reply).await?;
    }
    Ok(())
}

async fn reload(ask: &mpsc::Sender<Reloaded>) -> Reply {
    let (told, done) = oneshot::channel();
    // Whoever reads the file says something about it, unless the process ends.
    let said = match ask.send(told).await {
        Ok(()) => done.await.ok(),
        Err(_) => None,
    };
    match said {
        Some(Ok(said)) => Reply::Changed { said: bounded(&said) },
        Some(Err(why)) => Reply::Refused { why: bounded(&why) },
        None => Reply::refused("it is about to end"),
    }
}

/// What fits into an answer's line, where JSON writes some characters with more.
fn bounded(said: &str) -> String {
    let mut room = SAID_MAX;
    let fits = said.chars().take_while(|c| {
        let bytes = if c.is_control() || matches!(c, '"' | '\\') { 6 } else { c.len_utf8() };
        let left = room.checked_sub(bytes);
        room = left.unwrap_or_default();
        left.is_some()
    });
    fits.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_said_about_a_file_fits_into_a_line() {
        for said in ["short\n", &"\u{1}\n\"\\é".repeat(5_000), &"x".repeat(10_000)] {
            let reply = Reply::Refused { why: bounded(said) };
            assert!(reply.line().len() <= REQUEST_BYTES_MAX);
            assert!(said.starts_with(&bounded(said)) && !bounded(said).is_empty());
        }
        assert_eq!(bounded("short\n"), "short\n");
    }
}
