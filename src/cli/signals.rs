//! Signals: each does what it conventionally does, or nothing. None ends the program silently.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::{Exit, Failure};

/// Signals that would end the process by default but mean nothing to it. With SIGXFSZ ignored, a
/// write beyond the file size limit just fails; Rust's runtime takes care of SIGPIPE.
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
    /// SIGHUP does not end the program: [`ServiceSignals`] handles it.
    reloads: bool,
}

impl Signals {
    /// All at once and for good: a signal that came between two calls would be lost. Inside a
    /// runtime.
    pub(super) fn listen(reloads: bool) -> Result<Self, Failure> {
        for number in IGNORED {
            // Listening once removes the default.
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

    /// Waits for the next one and returns the exit code it stands for. Cancel safe.
    pub(super) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
            _ = self.quit.recv() => Exit::Quit,
            _ = self.hangup.recv(), if !self.reloads => Exit::HungUp,
        }
    }
}

/// What a signal asks of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGHUP: reload what can be reloaded.
    Reload,
    /// SIGUSR1: report the current state.
    Status,
}

/// The signals that a server or client handles without ending.
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
        // Signal streams never end.
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.status.recv() => Asked::Status,
        }
    }
}
