//! The server's host: takes sessions, uses the streams of the plan, and opens its own.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use imux::trust::server_config;
use imux::{OpenOptions, Server, ServerConfig, Session, Stream, StreamKind};
use tokio::time::sleep;

use crate::book::{Book, Trial};
use crate::client::until;
use crate::keys;
use crate::pipe::SimListener;
use crate::plan::Plan;
use crate::user::User;

/// The stream by which a client says that a session is in use: of some it never hears.
pub const HELLO: &str = "hello";

/// The stream on which the server sends all it can.
pub const FLOOD: &str = "flood";

/// What a socket of the server takes at once.
const SEGMENT_BYTES: usize = 32 * 1024;

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.stream, self.attempt)
    }
}

/// Which stream of the plan an opening means.
#[must_use]
pub fn trial_of(kind: &StreamKind, plan: &Plan) -> Option<Trial> {
    let StreamKind::Named(name) = kind else { return None };
    let (stream, attempt) = name.split_once(':')?;
    let trial = Trial { stream: stream.parse().ok()?, attempt: attempt.parse().ok()? };
    (trial.stream < plan.streams.len()).then_some(trial)
}

/// Serves until the host dies.
///
/// # Errors
/// Where the server cannot be started.
pub async fn run(plan: Arc<Plan>, book: Arc<Book>) -> turmoil::Result {
    let listener = SimListener::bind(server_config(&keys::SERVER)?, SEGMENT_BYTES).await?;
    #[allow(clippy::needless_update, reason = "what else can be set is left as it is")]
    let config = ServerConfig::default().with_session(plan.sessions[1].config());
    let mut server = Server::start(listener, config);
    while let Some((session, _)) = server.accept().await {
        book.note("session", "server", 0, 0, 0);
        tokio::spawn(serve(session, plan.clone(), book.clone()));
    }
    Err("the server takes no more sessions".into())
}

async fn serve(session: Session, plan: Arc<Plan>, book: Arc<Book>) {
    let mut greeted = false;
    let why = loop {
        match session.accept().await {
            Ok(incoming) => match trial_of(&incoming.kind, &plan) {
                Some(trial) => {
                    let (plan, book) = (plan.clone(), book.clone());
                    tokio::spawn(User { plan, book, trial, server: true }.run(incoming.stream));
                }
                None if incoming.kind == StreamKind::Named(HELLO.to_owned()) && !greeted => {
                    greeted = true;
                    book.server_session();
                    open_own(&session, &plan, &book);
                }
                None if incoming.kind == StreamKind::Named(FLOOD.to_owned()) => {
                    tokio::spawn(flood(incoming.stream));
                }
                None => book.fail(format!("the server was sent {:?}", incoming.kind)),
            },
            Err(why) => break why,
        }
    };
    book.session_over(true, &why, greeted);
}

/// Sends until there is nobody to send to.
async fn flood(stream: Stream) {
    let (_read, mut write) = stream.into_split();
    while write.write_all(Bytes::from_static(&[0; 16 * 1024])).await.is_ok() {}
}

/// Opens the server's streams of the plan, but those that are through.
fn open_own(session: &Session, plan: &Arc<Plan>, book: &Arc<Book>) {
    for (stream, opening) in plan.streams.iter().enumerate() {
        if opening.from_server && !book.is_settled(stream) {
            let (session, plan, book) = (session.clone(), plan.clone(), book.clone());
            tokio::spawn(async move {
                sleep(until(plan.streams[stream].at_ms)).await;
                let trial = book.begin(stream);
                // Where it cannot be opened the session is over, and that is told otherwise.
                let kind = StreamKind::Named(trial.to_string());
                let redundant = plan.streams[stream].redundant;
                if let Ok(opened) = session.open(OpenOptions { redundant, ..kind.into() }).await {
                    User { plan, book, trial, server: true }.run(opened).await;
                }
            });
        }
    }
}
