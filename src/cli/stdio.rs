//! `imux client -W`: standard input and output in place of a connection.

use std::fmt::Display;
use std::time::Duration;

use imux::trust::Destination;
use imux::{Client, Code, OpenOptions, StreamKind, Wants, tunnel};

use super::control::Elsewhere;
use super::exit::{Exit, Failure};
use super::stopping::Stopping;

/// How long written bytes may take to arrive once standard output has ended.
const DELIVERY: Duration = Duration::from_secs(30);

/// Carries standard input to `to` and what comes back to standard output, until both have ended.
pub(super) async fn run(
    client: &Client,
    to: &Destination,
    mut stopping: Stopping,
) -> Result<Exit, Failure> {
    let kind = StreamKind::Named(to.to_string());
    let options = OpenOptions { wants: Wants::ANSWER, ..kind.into() };
    let carried = async {
        let stream = client.open(options).await.map_err(std::io::Error::other)?;
        tracing::debug!(%to, "standard input and output are connected");
        // What was typed before goes out at once; if nobody takes it, the exit code shows that.
        tunnel::carry_stdio(stream, &to.to_string()).await
    };
    let carried = tokio::select! {
        carried = carried => carried,
        _ = stopping.wait() => {
            let _ = client.close(Code::SHUTDOWN, Duration::ZERO).await;
            return Ok(Exit::Ok);
        }
    };
    let _ = client.close(Code::NONE, DELIVERY).await;
    carried.map(|()| Exit::Ok).map_err(|error| failure(to, &error))
}

/// The same over the session of an already running client.
pub(super) async fn run_elsewhere(
    elsewhere: Elsewhere,
    to: &Destination,
    mut stopping: Stopping,
) -> Result<Exit, Failure> {
    let outcome = elsewhere.outcome().await.map_err(|error| failure(to, &error))?;
    let Elsewhere { socket, first, .. } = elsewhere;
    let all_written = tunnel::attach_stdio(socket, first).map_err(|error| failure(to, &error))?;
    tokio::select! {
        outcome = outcome => {
            all_written.await;
            outcome.map(|()| Exit::Ok).map_err(|why| failure(to, &why))
        }
        _ = stopping.wait() => Ok(Exit::Ok),
    }
}

/// Why there is no connection, or no longer one.
pub(super) fn failure(to: &Destination, why: &dyn Display) -> Failure {
    Failure::message(Exit::Refused, format!("{to}: {why}; nothing more will come"))
}
