//! How a task is told to stop, and what it logs about it.

use std::time::Duration;

use tokio::sync::watch;

use super::units;

/// Tells a task that a signal asks it to end.
#[derive(Clone, Debug)]
pub(super) struct Stopping(pub(super) watch::Receiver<Option<Duration>>);

impl Stopping {
    /// Waits for the signal; returns how long open connections may take to finish.
    pub(super) async fn wait(&mut self) -> Duration {
        // The sender lives as long as the runtime: this cannot fail.
        let stopping = self.0.wait_for(Option::is_some).await;
        stopping.ok().and_then(|patience| *patience).unwrap_or_default()
    }
}

/// Says what the program waits for, and how to skip the wait.
pub(super) fn tell_draining(connections: usize, patience: Duration) {
    if connections > 0 {
        let patience = units::duration(patience);
        tracing::info!(
            connections,
            "stopping: open connections have {patience} to finish; a second signal ends them"
        );
    }
}
