//! The server: accepts lanes, creates sessions on them, and adds further lanes to theirs.

mod acceptor;
mod config;
mod reception;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use acceptor::Acceptor;
use reception::{Reception, announce_to};

use super::carried::{Carried, TierTotals};
use super::clock;
use super::session::{self, Session};
use super::shared::Shared;
use super::table::{Known, Table};
use super::view::SessionView;
use crate::lane::Listener;
use crate::proto::{Code, Tier, Undelivered};
use crate::trust::NextKey;

pub use config::ServerConfig;

/// How often existing sessions are checked for clients that are no longer authorised.
const RECHECK_EVERY: Duration = Duration::from_secs(2);

/// Accepts sessions on a listener. Dropping it stops accepting lanes; accepted sessions go on with
/// the lanes they have.
///
/// ```
/// use std::sync::Arc;
///
/// use imux::lane::{TcpOptions, TlsListener};
/// use imux::trust::{Identity, server_config};
/// use imux::{Server, ServerConfig};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // `Identity::load_or_create` keeps the key that clients know.
/// let tls = server_config(&Identity::generate()?)?;
/// let listener = TlsListener::bind("127.0.0.1:0".parse()?, tls, TcpOptions::default())?;
/// let mut server = Server::start(listener, ServerConfig::default());
/// assert_ne!(server.local_addr()?.port(), 0);
///
/// tokio::spawn(async move {
///     while let Some((session, _from)) = server.accept().await {
///         tokio::spawn(imux::tunnel::serve(session, Arc::from("localhost:22")));
///     }
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    sessions: mpsc::Receiver<(Session, Option<SocketAddr>)>,
    address: io::Result<SocketAddr>,
    task: AbortHandle,
    reception: Arc<Reception>,
}

impl Server {
    /// Starts accepting lanes.
    ///
    /// # Panics
    /// Outside a tokio runtime, and if the settings of its sessions make no sense
    /// ([`Config::check`](crate::Config::check)).
    pub fn start(listener: impl Listener, config: ServerConfig) -> Self {
        if let Err(error) = config.session.check() {
            panic!("{error}");
        }
        let (accepted, sessions) = mpsc::channel(16);
        let address = listener.local_addr();
        let reception = Arc::new(Reception::new(config, accepted));
        let taking = Acceptor::new(reception.clone()).take_lanes(listener);
        let checking = keep_checking(reception.clone());
        let task = tokio::spawn(futures::future::join(taking, checking)).abort_handle();
        Self { sessions, address, task, reception }
    }

    /// The address it accepts lanes at.
    ///
    /// # Errors
    /// What the listener answered.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// A look at its sessions that holds nothing open.
    pub fn view(&self) -> ServerView {
        let Reception { table, totals, .. } = &*self.reception;
        ServerView { table: table.clone(), totals: totals.clone() }
    }

    /// Ends the sessions of clients that are no longer authorised, telling them UNAUTHORIZED. This
    /// happens by itself every few seconds; call it for what must not wait.
    pub fn recheck(&self) {
        self.reception.recheck();
    }

    /// Announces the server's next key to all clients, present and future, so that they know it
    /// when it comes.
    pub fn announce(&self, next: NextKey) {
        let next = Arc::new(next);
        *self.reception.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(next.clone());
        let living = |known: &Known| Some((known.shared.upgrade()?, known.agreed.secret.clone()));
        let living: Vec<_> = self.reception.table.lock().values().filter_map(living).collect();
        for (shared, secret) in living {
            announce_to(&shared, &next, &secret);
        }
    }

    /// Creates no more sessions and allows no new streams; open streams go on, and their sessions'
    /// lanes may come and go. Returns how many streams are open.
    pub fn drain(&self) -> usize {
        self.reception.draining.store(true, Ordering::Relaxed);
        self.reception.table.living().iter().map(|shared| session::drain(shared)).sum()
    }

    /// Waits until no session has an open stream. Cancel safe.
    pub async fn drained(&self) {
        let idle = |shared: Arc<Shared>| async move { session::drained(&shared).await };
        futures::future::join_all(self.reception.table.living().into_iter().map(idle)).await;
    }

    /// Creates no more sessions; waits, for `patience` at most, until everything written to the
    /// streams of existing sessions has arrived, ends included; then ends the sessions, telling
    /// their clients `code`, and accepts no more lanes. A patience of zero cuts them off. Returns
    /// when the clients have been told, or a second after.
    ///
    /// Not cancel safe: if it is dropped, the sessions may go on. Call it again.
    ///
    /// # Errors
    /// Not everything is known to have arrived.
    pub async fn close(&self, code: Code, patience: Duration) -> Result<(), Undelivered> {
        self.reception.draining.store(true, Ordering::Relaxed);
        if patience.is_zero() {
            self.task.abort();
        }
        let ends = self.reception.table.living().into_iter().map(|shared| async move {
            let closed = session::close_within(&shared, code, patience).await;
            closed.err().unwrap_or_default()
        });
        let lost = futures::future::join_all(ends).await;
        self.task.abort();
        lost.into_iter().fold(Undelivered::default(), Undelivered::and).into_result()
    }

    /// The next session a client creates, and where its first lane comes from. `None` after the
    /// listener has failed for good. Cancel safe: none is lost.
    pub async fn accept(&mut self) -> Option<(Session, Option<SocketAddr>)> {
        self.sessions.recv().await
    }
}

/// A server's sessions, to look at.
#[derive(Clone, Debug)]
pub struct ServerView {
    table: Arc<Table>,
    totals: Arc<TierTotals>,
}

impl ServerView {
    /// Its sessions, in no particular order.
    pub fn sessions(&self) -> Vec<SessionView> {
        self.table.living().into_iter().map(SessionView::new).collect()
    }

    /// What the lanes of each tier have carried in all sessions.
    pub fn carried(&self) -> Vec<(Tier, Carried)> {
        Tier::ALL.into_iter().map(|tier| (tier, self.totals.of(tier).read())).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends the sessions of clients whose time is up, or who are no longer authorised.
async fn keep_checking(reception: Arc<Reception>) {
    loop {
        tokio::time::sleep(RECHECK_EVERY).await;
        reception.clients.notice_changes().await;
        reception.recheck();
        reception.trail.tell_counts(clock::now());
    }
}
