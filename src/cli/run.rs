//! Runs the requested task until it is done or a signal ends it.
//!
//! The tasks themselves are in `serve`, `connect`, `demo` and `keys`; this file handles what
//! surrounds them (log, runtime, signals, exit codes).

use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::sync::watch;

use super::config::{Invocation, Task};
use super::connect::run_client;
use super::demo::run_demo;
use super::descriptors;
use super::exit::{Exit, Failure};
use super::gateway::command::run_gateway;
use super::gateway::delivery;
use super::init::run_init;
use super::keys::run_keys;
use super::logging;
use super::part::Part;
use super::reload::run_reload;
use super::serve::run_server;
use super::several::run_all;
use super::signals::Signals;
use super::status::run_status;
use super::stopping::Stopping;
use super::text::print;
use super::top::run_top;

/// Runs to the end and returns how it went. Errors are already reported then.
pub fn run(invocation: Invocation) -> Exit {
    let json = invocation.logging.json;
    let exit = match try_run(invocation) {
        Ok(exit) => exit,
        Err(failure) => {
            logging::report_failure(&failure, json);
            failure.exit
        }
    };
    logging::flush_for_the_end();
    exit
}

fn try_run(invocation: Invocation) -> Result<Exit, Failure> {
    logging::install(&invocation.logging)?;
    logging::log_panics();
    descriptors::raise_limit();
    for notice in &invocation.notices {
        tracing::info!("{notice}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .map_err(|error| Failure::new(Exit::Internal, error))?;
    let drain = invocation.task.drain_timeout();
    let reloads = invocation.task.reloads();
    // Before anything starts that a signal could interrupt.
    let mut signals = runtime.block_on(async { Signals::listen(reloads) })?;
    let (stop, stopping) = watch::channel(None);
    // A separate task: a panic ends only it and becomes an exit code, instead of tearing down the
    // process.
    let mut task = runtime.spawn(run_task(invocation.task, Stopping(stopping)));
    let outcome = runtime.block_on(async {
        tokio::select! {
            joined = &mut task => joined.unwrap_or_else(|error| {
                Err(Failure::new(Exit::Internal, anyhow!(error).context("imux has failed")))
            }),
            signal = signals.next() => {
                tell_end(signal);
                // A service manager lets it finish its work; a person at the terminal wants it
                // gone.
                let graceful = signal == Exit::Terminated;
                let patience = if graceful { drain } else { Duration::ZERO };
                stop.send_replace(Some(patience));
                // Tell the peers. A second signal skips the wait.
                tokio::select! {
                    _ = tokio::time::timeout(patience + STOP_PATIENCE, task) => {}
                    _ = signals.next() => {}
                }
                Ok(signal)
            }
        }
    });
    // Let a thread finish a handshake in progress: its code must not run while the exiting process
    // tears down the libraries under it. A thread that waits for the terminal or a name server must
    // not hold up the end.
    runtime.shutdown_timeout(THREADS_PATIENCE);
    outcome
}

/// Unexpected signals must not end the program silently.
fn tell_end(signal: Exit) {
    match signal {
        Exit::Quit => tracing::warn!("SIGQUIT: ending at once"),
        Exit::HungUp => tracing::warn!("SIGHUP: ending at once"),
        _ => {}
    }
}

/// Keeps keys out of core files and hidden from the same user's other programs.
fn hide_memory() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(%error, "the memory of this process can be looked at by others of its user");
    }
}

async fn run_task(task: Task, stopping: Stopping) -> Result<Exit, Failure> {
    if !matches!(task, Task::Demo(_)) {
        hide_memory();
    }
    match task {
        Task::Server(config) => run_server(config, Part::whole(stopping)).await,
        Task::Client(config) => run_client(config, Part::whole(stopping)).await,
        Task::File(config) => run_all(config, stopping).await,
        Task::Reload(home) => run_reload(home.as_deref()).await,
        Task::Print(text) => print_text(text).await,
        Task::Demo(config) => run_demo(config).await,
        Task::Keys(config) => run_keys(config).await,
        Task::Gateway(config) => run_gateway(config.request, config.home.as_deref()).await,
        Task::HoldDelivery => delivery::hold(stopping).await,
        Task::Status(config) => run_status(config).await,
        Task::Top(config) => run_top(config, stopping).await,
        Task::Init(config) => run_init(config).await,
    }
}

async fn print_text(text: String) -> Result<Exit, Failure> {
    let printed = print(text).await;
    let printed = printed.map(|()| Exit::Ok).context("cannot print it");
    printed.map_err(|error| Failure::new(Exit::Config, error))
}

/// How long threads have to finish what they are doing.
const THREADS_PATIENCE: Duration = Duration::from_millis(500);

/// How long it may take to tell the peers that this end is stopping.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
