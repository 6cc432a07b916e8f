//! Exit codes, and the errors that carry one.

use std::fmt;
use std::process::ExitCode;

/// How the program ends. The numbers are an interface: scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Everything asked for was done.
    Ok = 0,
    /// Wrong options or values; nothing was started.
    Usage = 2,
    /// A file or setting cannot be used: unreadable key, loose permissions, no home directory.
    Config = 3,
    /// Cannot listen where asked: port in use, no permission, not an address of this machine.
    Listen = 4,
    /// The server's name does not resolve, or none of its addresses answers.
    Unreachable = 5,
    /// The server's key is not known and nobody confirmed it.
    HostKeyUnknown = 6,
    /// The server's key differs from the known or pinned one.
    HostKeyChanged = 7,
    /// The server turned this client away: version, load, shutting down.
    Refused = 8,
    /// A bug in imux.
    Internal = 9,
    /// The server does not authorise this client's key, or its invitation.
    Unauthorized = 10,
    /// The gateway's rules cannot be set, shown or removed.
    Gateway = 11,
    /// Ended by SIGHUP, where there is nothing to reload.
    HungUp = 129,
    /// Ended by SIGINT (Ctrl-C).
    Interrupted = 130,
    /// Ended by SIGQUIT (Ctrl-\\).
    Quit = 131,
    /// Ended by SIGTERM.
    Terminated = 143,
}

/// Shown at the end of every `--help`. A test holds it to [`Exit::ALL`].
pub const HELP: &str = "\
Exit codes:
    0  done
    2  wrong options; nothing was started
    3  a file or setting cannot be used (unreadable key, loose permissions)
    4  cannot listen there (port in use, no permission, no such address)
    5  the server's name does not resolve, or no address of it answers
    6  the server's key is not known and was not confirmed
    7  the server's key has changed, or is not the pinned one
    8  the server refused this client
    9  internal error
   10  the server does not authorise this client's key, or its invitation
   11  the gateway's rules cannot be set or removed (no rights, no nftables, no client)
  129  hung up (SIGHUP; a server or client goes on)
  130  interrupted (SIGINT)
  131  quit (SIGQUIT)
  143  terminated (SIGTERM)";

impl Exit {
    #[cfg(test)]
    pub const ALL: [Exit; 15] = [
        Exit::Ok,
        Exit::Usage,
        Exit::Config,
        Exit::Listen,
        Exit::Unreachable,
        Exit::HostKeyUnknown,
        Exit::HostKeyChanged,
        Exit::Refused,
        Exit::Internal,
        Exit::Unauthorized,
        Exit::Gateway,
        Exit::HungUp,
        Exit::Interrupted,
        Exit::Quit,
        Exit::Terminated,
    ];

    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

/// An error that ends the program: what happened, where, what it means and what to do about it,
/// with the exit code that tells a script.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub error: anyhow::Error,
}

impl Failure {
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }

    pub fn message(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, error: anyhow::Error::msg(message.to_string()) }
    }
}

impl fmt::Display for Failure {
    /// The whole chain of causes on one line, so that a log keeps it together.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_all_documented() {
        let mut seen = std::collections::BTreeSet::new();
        for exit in Exit::ALL {
            assert!(seen.insert(exit.code()), "{exit:?} shares its code");
        }
        let documented: Vec<u8> = HELP
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(documented, seen.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_failure_shows_its_causes_on_one_line() {
        let cause = std::io::Error::other("address in use");
        let error = anyhow::Error::new(cause).context("cannot listen on 0.0.0.0:443");
        let failure = Failure::new(Exit::Listen, error);
        assert_eq!(failure.to_string(), "cannot listen on 0.0.0.0:443: address in use");
        assert_eq!(failure.exit.code(), 4);
        assert_eq!(Failure::message(Exit::Internal, "oops").to_string(), "oops");
    }
}
