//! `imux run`: the servers and clients of a file, in one process.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::FileConfig;
use super::connect::run_client;
use super::exit::{Exit, Failure};
use super::serve::run_server;
use super::stopping::Stopping;

/// How long the others have, once one has failed, to tell their peers.
const PATIENCE: Duration = Duration::from_secs(2);

/// Runs all of them until a signal, or until one of them ends: then the others end as well, so that
/// whoever starts the process sees it.
pub(super) async fn run_all(config: FileConfig, mut stopping: Stopping) -> Result<Exit, Failure> {
    let FileConfig { file, servers, clients } = config;
    let share = servers.len() + clients.len();
    tracing::info!(file = %file.display(), servers = servers.len(), clients = clients.len(), "file read");
    let (stop, stops) = watch::channel(None);
    let mut tasks = JoinSet::new();
    for config in servers {
        tasks.spawn(run_server(config, share, Stopping(stops.clone())));
    }
    for config in clients {
        tasks.spawn(run_client(config, share, Stopping(stops.clone())));
    }
    let first = tokio::select! {
        ended = tasks.join_next() => ended,
        patience = stopping.wait() => {
            stop.send_replace(Some(patience));
            let mut last = None;
            while let Some(ended) = tasks.join_next().await {
                last = last.or(Some(ended).filter(|ended| !matches!(ended, Ok(Ok(_)))));
            }
            last
        }
    };
    stop.send_replace(Some(Duration::ZERO));
    let others = async { while tasks.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(PATIENCE, others).await;
    match first {
        None => Ok(Exit::Ok),
        Some(Ok(ended)) => ended,
        Some(Err(error)) => Err(Failure::new(Exit::Internal, error)),
    }
}
