//! `imux client -W`: standard input and output in place of a connection.

use std::time::Duration;

use imux::trust::Destination;
use imux::{Client, Code, OpenOptions, StreamKind, Wants, tunnel};

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
    carried.map(|()| Exit::Ok).map_err(|error| {
        Failure::message(Exit::Refused, format!("{to}: {error}; nothing more will come"))
    })
}
