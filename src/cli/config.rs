//! What is to be run: the validated configuration, free of how it was written.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use imux::SchedulerKind;
use imux::lane::{Bind, BindSource, Congestion};
use imux::trust::{Fingerprint, HostKeyPolicy};

use super::address::HostPort;
use super::bind::{self, BindMap};
use super::exit::{Exit, Failure};
use super::logging;

/// One run of the program.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) task: Task,
    pub(crate) logging: logging::Options,
    /// What the user should know about the options given; logged once, as a notice.
    pub(crate) notices: Vec<String>,
}

#[derive(Debug)]
pub(crate) enum Task {
    Server(ServerConfig),
    Client(ClientConfig),
    Demo(DemoConfig),
}

#[derive(Debug)]
pub(crate) struct ServerConfig {
    pub(crate) listen: HostPort,
    pub(crate) dial: HostPort,
    pub(crate) session: SessionConfig,
    /// Directory of keys; None when neither IMUX_HOME nor a home directory is known.
    pub(crate) home: Option<PathBuf>,
}

#[derive(Debug)]
pub(crate) struct ClientConfig {
    pub(crate) listen: HostPort,
    pub(crate) dial: HostPort,
    /// Not empty; no source twice; at most [`bind::LANES_MAX`] lanes in all.
    pub(crate) binds: Vec<Bind>,
    pub(crate) trust: Trust,
    pub(crate) connect_timeout: Duration,
    pub(crate) session: SessionConfig,
    /// As in [`ServerConfig`].
    pub(crate) home: Option<PathBuf>,
}

/// How a client decides about the server's key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// By known_hosts, and this policy for servers not in it.
    KnownHosts(HostKeyPolicy),
    /// One of these keys and no other; not empty.
    Pinned(Vec<Fingerprint>),
}

/// What client and server decide for themselves about a session.
#[derive(Debug)]
pub(crate) struct SessionConfig {
    pub(crate) grace: Duration,
    pub(crate) congestion: Congestion,
    /// Bytes that may wait for the reader of one stream; None is the library's choice.
    pub(crate) window: Option<u64>,
    /// Bytes that may wait for the readers of all streams; None is the library's choice.
    pub(crate) session_window: Option<u64>,
    pub(crate) scheduler: SchedulerKind,
}

#[derive(Debug)]
pub(crate) struct DemoConfig {
    /// Bytes to send each way.
    pub(crate) bytes: u64,
    pub(crate) json: bool,
    /// No progress, only the result.
    pub(crate) quiet: bool,
}

/// The directory of keys and known servers.
pub(crate) fn home(imux_home: Option<OsString>, user_home: Option<PathBuf>) -> Option<PathBuf> {
    let set = |path: &PathBuf| !path.as_os_str().is_empty();
    let chosen = imux_home.map(PathBuf::from).filter(set);
    chosen.or_else(|| user_home.filter(set).map(|home| home.join(".imux")))
}

/// The directory of keys, or why there is none.
pub(crate) fn require_home(home: Option<PathBuf>) -> Result<PathBuf, Failure> {
    home.ok_or_else(|| {
        Failure::message(
            Exit::Config,
            "there is no place for keys: neither IMUX_HOME nor a home directory is set; \
             nothing was started; set IMUX_HOME to a directory only you can read",
        )
    })
}

/// Refuses a forward that would connect to itself, for ever.
pub(crate) fn check_forward(listen: &HostPort, dial: &HostPort) -> Result<(), String> {
    if listen.is_reached_by(dial) {
        return Err(format!(
            "--listen {listen} and --dial {dial} are the same place: imux would forward to itself\n\n\
             Give --dial the address of something else, or --listen another port."
        ));
    }
    Ok(())
}

/// All binds, those of `--binds` first; the original's default when there are none.
pub(crate) fn binds(map: Option<BindMap>, mut list: Vec<Bind>) -> Result<Vec<Bind>, String> {
    let mut binds = map.map(|map| map.0).unwrap_or_default();
    binds.append(&mut list);
    if binds.is_empty() {
        let anywhere = BindSource::Addr(std::net::Ipv4Addr::UNSPECIFIED.into());
        binds.push(Bind { source: anywhere, lanes: bind::LANES_DEFAULT });
    }
    bind::check_all(&binds)?;
    Ok(binds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_directory() {
        let user = || Some(PathBuf::from("/home/u"));
        assert_eq!(home(None, user()), Some("/home/u/.imux".into()));
        assert_eq!(home(Some("/keys".into()), user()), Some("/keys".into()));
        assert_eq!(home(Some("".into()), user()), Some("/home/u/.imux".into()));
        assert_eq!(home(None, Some("".into())), None);
        assert_eq!(home(None, None), None);
        assert_eq!(require_home(user()).unwrap(), PathBuf::from("/home/u"));
        assert_eq!(require_home(None).unwrap_err().exit, Exit::Config);
    }
}
