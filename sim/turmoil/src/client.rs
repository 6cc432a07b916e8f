//! The client's host: keeps a session, opens its streams of the plan, and again those that were cut
//! off.

use std::sync::Arc;
use std::time::Duration;

use imux::trust::{PinnedKeys, client_config};
use imux::{Client, ClientConfig, Code, Link, OpenError, OpenOptions, Session, Stream, StreamKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::book::Book;
use crate::keys;
use crate::pipe::SimDialer;
use crate::plan::Plan;
use crate::server::{FLOOD, HELLO, trial_of};
use crate::user::User;

/// Between a look and the next.
const PAUSE: Duration = Duration::from_millis(5);

/// A server hears of the end of its session within this time, where there are lanes.
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Runs until everything is delivered, every lane is back, and the session was closed and is over.
///
/// # Errors
/// Where the run cannot even be set up.
pub async fn run(plan: Arc<Plan>, book: Arc<Book>) -> turmoil::Result {
    let client = Arc::new(connect(&plan, &book).await?);
    tokio::spawn(follow_sessions(client.clone(), plan.clone(), book.clone()));
    for (stream, opening) in plan.streams.iter().enumerate() {
        if !opening.from_server {
            tokio::spawn(open(client.clone(), plan.clone(), book.clone(), stream));
        }
    }
    book.settled().await;
    sleep(until((plan.faults_end_ms + plan.doubt_ms()) as f64)).await;
    lanes_back(&client, &plan).await;
    note_stats(&client, &book);
    let flood = if plan.close_amid_data { Some(flooded(&client, &plan).await?) } else { None };
    book.close();
    let _ = client.close(Code::NONE, Duration::ZERO).await;
    let all_over = async {
        while book.server_sessions() > 0 {
            book.changed().await;
        }
    };
    if timeout(TOLD_WITHIN, all_over).await.is_err() {
        book.fail(format!(
            "the server was not told within {TOLD_WITHIN:?} that the session is closed"
        ));
    }
    drop(flood);
    Ok(())
}

/// A stream on which the server sends all it can, and the client what the slowest path takes a
/// while to carry.
async fn flooded(client: &Client, plan: &Plan) -> turmoil::Result<Stream> {
    let slowest = plan.paths.iter().map(|path| path.mbit).fold(f64::INFINITY, f64::min);
    let upload = vec![0; (slowest * 1e6 / 8.0 * 0.2) as usize];
    let mut stream = client.open(StreamKind::Named(FLOOD.to_owned())).await?;
    stream.read_exact(&mut [0; 10_000]).await?;
    // However much of it there is credit for, and lanes take now.
    let _ = timeout(PAUSE, stream.write_all(&upload)).await;
    sleep(PAUSE).await;
    Ok(stream)
}

/// How long it is until `at_ms` of the run.
#[must_use]
pub fn until(at_ms: f64) -> Duration {
    let now = turmoil::sim_elapsed().unwrap_or_default();
    Duration::from_secs_f64(at_ms / 1e3).saturating_sub(now)
}

/// As a person would: again, as long as it fails.
async fn connect(plan: &Plan, book: &Book) -> turmoil::Result<Client> {
    let config = client_config(&keys::CLIENT)?;
    let trust = Arc::new(PinnedKeys::new([keys::SERVER.fingerprint()]));
    loop {
        let links = plan.paths.iter().enumerate().map(|(path, of)| {
            let dialer = SimDialer {
                relay: format!("relay-{path}"),
                config: config.clone(),
                segment_bytes: of.segment_bytes,
            };
            Link::new(Arc::new(dialer), of.lanes)
        });
        let session = plan.sessions[0].config();
        let client_config = ClientConfig::new(trust.clone()).with_session(session);
        match Client::connect(links.collect(), client_config).await {
            Ok(client) => return Ok(client),
            Err(imux::ConnectError::Trust(error)) => {
                book.fail(format!("the server's own key is not trusted: {error}"));
                return Err(error.into());
            }
            Err(_) => book.note("connect failed", "client", 0, 0, 0),
        }
        sleep(Duration::from_millis(500)).await;
    }
}

/// Opens one stream of the plan when its time has come, until it was not cut off.
async fn open(client: Arc<Client>, plan: Arc<Plan>, book: Arc<Book>, stream: usize) {
    sleep(until(plan.streams[stream].at_ms)).await;
    loop {
        let trial = book.begin(stream);
        let kind = StreamKind::Named(trial.to_string());
        let redundant = plan.streams[stream].redundant;
        match client.open(OpenOptions { redundant, ..kind.into() }).await {
            Ok(opened) => {
                let user = User { plan: plan.clone(), book: book.clone(), trial, server: false };
                if user.run(opened).await {
                    return;
                }
            }
            Err(OpenError::NoLane) => book.note("open failed", "client", stream as u64, 0, 0),
            Err(error) => book.fail(format!("{trial} could not be opened: {error}")),
        }
        if book.failure().is_some() {
            return;
        }
    }
}

/// Greets the server on every session there is, and takes the streams it opens.
async fn follow_sessions(client: Arc<Client>, plan: Arc<Plan>, book: Arc<Book>) {
    loop {
        if let Some(session) = client.session()
            && greet(&session).await
        {
            let watching = tokio::spawn(watch_lanes(session.clone(), book.clone()));
            let why = loop {
                match session.accept().await {
                    Ok(incoming) => match trial_of(&incoming.kind, &plan) {
                        Some(trial) => {
                            let (plan, book) = (plan.clone(), book.clone());
                            let user = User { plan, book, trial, server: false };
                            tokio::spawn(user.run(incoming.stream));
                        }
                        None => book.fail(format!("the client was sent {:?}", incoming.kind)),
                    },
                    Err(why) => break why,
                }
            };
            watching.abort();
            book.session_over(false, &why, true);
        }
        sleep(PAUSE).await;
    }
}

async fn greet(session: &Session) -> bool {
    let Ok(hello) = session.open(StreamKind::Named(HELLO.to_owned())).await else { return false };
    let (read, mut write) = hello.into_split();
    // Where that fails the session is over, and that is told otherwise.
    let _ = write.finish();
    read.stop(Code::NONE);
    true
}

/// Counts how often the session was without lanes, and had some again.
async fn watch_lanes(session: Session, book: Arc<Book>) {
    let mut without = false;
    loop {
        let lanes = session.stats().lanes.len();
        if lanes == 0 && !without {
            book.note("no lanes", "client", 0, 0, 0);
        }
        if lanes > 0 && without {
            book.note("resumed from no lanes", "client", lanes as u64, 0, 0);
        }
        without = lanes == 0;
        sleep(PAUSE).await;
    }
}

/// A path that is well again has its lanes again.
async fn lanes_back(client: &Client, plan: &Plan) {
    while client.stats().is_none_or(|stats| stats.lanes.len() < plan.lanes()) {
        sleep(PAUSE).await;
    }
}

fn note_stats(client: &Client, book: &Book) {
    let Some(stats) = client.stats() else { return };
    book.count("resent", u64::from(stats.resent_bytes > 0));
    book.count("duplicate received", u64::from(stats.duplicate_bytes > 0));
    book.count("reordered", u64::from(stats.reorder_bytes_max > 0));
    book.note("client's", "client", stats.sent_bytes, stats.received_bytes, stats.lanes_lost);
}
