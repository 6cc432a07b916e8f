//! `imux run`: the servers and clients of a file, in one process.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::config::FileConfig;
use super::connect::run_client;
use super::control::{Control, serve_reloads};
use super::exit::{Exit, Failure};
use super::part::Part;
use super::reload::{Changes, Reloads};
use super::serve::run_server;
use super::signals::{Asked, ServiceSignals};
use super::stopping::Stopping;

/// How long the others have, once one has failed, to tell their peers.
const PATIENCE: Duration = Duration::from_secs(2);

/// Requests to reload that wait their turn.
const REQUESTS_MAX: usize = 4;

type Ended = Result<Exit, Failure>;

/// Runs all of them until a signal, or until one of them ends: then the others end as well, so that
/// whoever starts the process sees it.
pub(super) async fn run_all(config: FileConfig, mut stopping: Stopping) -> Ended {
    let mut signals = ServiceSignals::listen()?;
    let (stop, stops) = watch::channel(None);
    let file = config.origin.file.display().to_string();
    let home = config.origin.home.clone();
    tracing::info!(
        file,
        servers = config.servers.len(),
        clients = config.clients.len(),
        "file read"
    );
    let mut changes = Changes::default();
    let mut reloads = Reloads::new(&config);
    let mut tasks = start_all(config, &stops, &mut changes);
    let (ask, mut requests) = mpsc::channel(REQUESTS_MAX);
    let mut asked_by_others = JoinSet::new();
    if let Some(control) = Control::bind(home.as_deref(), "run") {
        asked_by_others.spawn(serve_reloads(control, file, ask.clone()));
    }
    let first = loop {
        tokio::select! {
            ended = tasks.join_next() => break ended,
            asked = signals.next() => if asked == Asked::Reload {
                reloads.reload(&changes).await.unwrap_or_default();
            },
            Some(told) = requests.recv() => {
                let said = reloads.reload(&changes).await;
                // Servers do so by themselves at SIGHUP.
                changes.rereads.send_replace(());
                let _ = told.send(said);
            }
            patience = stopping.wait() => {
                stop.send_replace(Some(patience));
                break all_ended(&mut tasks).await;
            }
        }
    };
    drop(asked_by_others);
    stop.send_replace(Some(Duration::ZERO));
    let _ = tokio::time::timeout(PATIENCE, all_ended(&mut tasks)).await;
    match first {
        None => Ok(Exit::Ok),
        Some(Ok(ended)) => ended,
        Some(Err(error)) => Err(Failure::new(Exit::Internal, error)),
    }
}

fn start_all(
    config: FileConfig,
    stops: &watch::Receiver<Option<Duration>>,
    changes: &mut Changes,
) -> JoinSet<Ended> {
    let share = config.servers.len() + config.clients.len();
    let mut tasks = JoinSet::new();
    let sockets = changes.sockets.clone();
    let part = |changes: mpsc::Receiver<_>, rereads| {
        let (stopping, sockets) = (Stopping(stops.clone()), sockets.clone());
        Part { share, stopping, by_file: true, changes, sockets, rereads }
    };
    for config in config.servers {
        let part = part(mpsc::channel(1).1, changes.rereads.subscribe());
        tasks.spawn(run_server(config, part));
    }
    for config in config.clients {
        let (change, changed) = mpsc::channel(1);
        changes.clients.push(change);
        tasks.spawn(run_client(config, part(changed, changes.rereads.subscribe())));
    }
    tasks
}

/// How the first ended that failed.
async fn all_ended(tasks: &mut JoinSet<Ended>) -> Option<Result<Ended, tokio::task::JoinError>> {
    let mut first = None;
    while let Some(ended) = tasks.join_next().await {
        first = first.or(Some(ended).filter(|ended| !matches!(ended, Ok(Ok(_)))));
    }
    first
}
