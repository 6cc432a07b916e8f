//! The signals, each with what it conventionally does, or nothing: none of them is a silent end.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Exit, Failure};

/// Signals that would end the process by default, and mean nothing to it. A write beyond the limit
/// of a file's size (SIGXFSZ) is the write's error then; of SIGPIPE the runtime of Rust has taken
/// care.
const IGNORED: [i32; 6] =
    [libc::SIGUSR2, libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF, libc::SIGIO, libc::SIGXFSZ];

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind)
        .context("cannot listen for signals")
        .map_err(|error| Failure::new(Exit::Internal, error))
}

/// The signals that end the program.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hangup: Signal,
    /// SIGHUP is not an end but what [`ServiceSignals`] makes of it.
    reloads: bool,
}

impl Signals {
    /// All at once and for good: a signal between two listenings would be lost. Inside a runtime.
    pub(super) fn listen(reloads: bool) -> Result<Self, Failure> {
        for number in IGNORED {
            // Whoever listens once has taken the default away.
            drop(listen(SignalKind::from_raw(number))?);
        }
        drop(listen(SignalKind::user_defined1())?);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            quit: listen(SignalKind::quit())?,
            hangup: listen(SignalKind::hangup())?,
            reloads,
        })
    }

    /// Waits for the next one, and says which exit code it stands for. Cancel safe.
    pub(super) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
            _ = self.quit.recv() => Exit::Quit,
            _ = self.hangup.recv(), if !self.reloads => Exit::HungUp,
        }
    }
}

/// What a signal asks a service for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGHUP: read again what can be read again.
    Reload,
    /// SIGUSR1: say how things are.
    Status,
}

/// The signals that a server and a client answer and go on.
#[derive(Debug)]
pub(super) struct ServiceSignals {
    hangup: Signal,
    status: Signal,
}

impl ServiceSignals {
    pub(super) fn listen() -> Result<Self, Failure> {
        let status = listen(SignalKind::user_defined1())?;
        Ok(Self { hangup: listen(SignalKind::hangup())?, status })
    }

    /// Waits for the next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Asked {
        // The streams of signals have no end.
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.status.recv() => Asked::Status,
        }
    }
}
