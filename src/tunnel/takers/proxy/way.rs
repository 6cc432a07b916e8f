//! From one program to wherever it wants to go: what the protocols have in common.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::credentials::Credentials;
use super::program::Program;
use crate::driver::{Client, Code, OpenError, OpenOptions, Stream, StreamError, StreamKind, Wants};
use crate::trust::Destination;
use crate::tunnel::connections::Connections;
use crate::tunnel::copy::{self, Ends};

/// How long a program may take to say where it wants to go.
pub(super) const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server may take to say whether the destination has accepted the connection: its own
/// attempt ends in ten seconds, a session that has lost its lanes may come back.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// How a port for all destinations treats programs.
#[derive(Clone, Debug, Default)]
pub struct ProxyOptions {
    /// Who may use it; anyone if not set.
    pub credentials: Option<Arc<Credentials>>,
    /// Success is reported before the destination has answered, and a failure is a reset: saves a
    /// round trip for programs that wait for it before they speak.
    pub fast: bool,
    /// See [`OpenOptions::redundant`].
    pub redundant: bool,
    /// Destinations are told who connects, as the server sees it: see [`Wants::SOURCE`].
    pub tell_source: bool,
}

/// A program did not say what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unheard {
    #[error("nothing was said within ten seconds")]
    Late,
    #[error("neither SOCKS nor HTTP")]
    OtherProtocol,
    #[error("SOCKS5: {0}")]
    Socks5(#[from] fast_socks5::server::SocksServerError),
    #[error("user and password are not right")]
    Credentials,
    #[error("SOCKS4: {0}")]
    Socks4(&'static str),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Socket(#[from] io::Error),
}

/// From one program to wherever it wants to go.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) client: Arc<Client>,
    pub(super) options: ProxyOptions,
    pub(super) bound: Connections,
    pub(super) from: String,
    pub(super) at: Arc<str>,
}

impl Way {
    /// Opens a stream to a host written as a name, or as an address without brackets.
    pub(super) async fn open(&self, host: &str, port: u16) -> Result<Opened, Refusal> {
        let to = destination(host, port)?;
        let ends = Ends { from: self.from.clone(), to: format!("{to} by {}", self.at) };
        let mut wants = if self.options.fast { Wants::default() } else { Wants::ANSWER };
        if self.options.tell_source {
            wants = wants.and(Wants::SOURCE);
        }
        let kind = StreamKind::Named(to.to_string());
        let (redundant, source) = (self.options.redundant, self.from.parse().ok());
        let options = OpenOptions { kind, redundant, wants, source };
        match self.client.open(options).await {
            Ok(stream) => Ok(Opened { stream, ends }),
            Err(error) => {
                let Ends { from, to } = ends;
                tracing::warn!(%from, %to, %error, "connection refused");
                Err(Refusal::of_opening(&error))
            }
        }
    }

    /// The same, then waits until the destination has accepted the connection.
    pub(super) async fn connect(&self, host: &str, port: u16) -> Result<Opened, Refusal> {
        let mut opened = self.open(host, port).await?;
        match timeout(ANSWER_TIMEOUT, opened.stream.connected()).await {
            Ok(Ok(())) => Ok(opened),
            Ok(Err(error)) => {
                copy::tell(&error, &opened.ends);
                Err(Refusal::of_stream(&error))
            }
            Err(_) => Err(Refusal::TimedOut),
        }
    }

    /// `first` is what was already read of the program's data for the destination.
    pub(super) async fn carry(
        &self,
        program: Program,
        first: Bytes,
        Opened { stream, ends }: Opened,
    ) {
        copy::copy(program.into_socket(), first, stream, self.bound.sockets(), &ends).await;
    }

    /// Whether it may use the port.
    pub(super) fn admits(&self, user: &[u8], password: &[u8]) -> bool {
        self.options.credentials.as_ref().is_none_or(|known| known.has(user, password))
    }
}

/// A stream, and the ends it connects.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) ends: Ends,
}

/// As the list of clients writes it.
pub(super) fn destination(host: &str, port: u16) -> Result<Destination, Refusal> {
    let bracketed = host.contains(':');
    let text = if bracketed { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    text.parse().map_err(|_| Refusal::Name)
}

/// Why there is no connection, as far as programs are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Refused,
    Unreachable,
    TimedOut,
    /// It does not resolve, or is not a name.
    Name,
    NotAllowed,
    /// Too many connections, or no session.
    Busy,
    Broken,
}

impl Refusal {
    pub(super) const fn of(code: Code) -> Self {
        match code {
            Code::DIAL_REFUSED => Self::Refused,
            Code::DIAL_UNREACHABLE => Self::Unreachable,
            Code::DIAL_TIMEOUT => Self::TimedOut,
            Code::DIAL_NAME => Self::Name,
            Code::DIAL_FORBIDDEN | Code::UNAUTHORIZED => Self::NotAllowed,
            Code::DIAL_RESOURCES | Code::EXCESSIVE_LOAD | Code::SHUTDOWN => Self::Busy,
            _ => Self::Broken,
        }
    }

    pub(super) fn of_stream(error: &StreamError) -> Self {
        match error {
            StreamError::Reset(code) => Self::of(*code),
            _ => Self::Broken,
        }
    }

    pub(super) fn of_opening(error: &OpenError) -> Self {
        match error {
            OpenError::SourceNotTold => Self::NotAllowed,
            _ => Self::Busy,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "the destination refused the connection",
            Self::Unreachable => "the destination cannot be reached from the server",
            Self::TimedOut => "the destination did not answer in time",
            Self::Name => "the destination's name does not resolve",
            Self::NotAllowed => "the server does not let this client go there",
            Self::Busy => "there is no room for the connection now, or no session with the server",
            Self::Broken => "the connection was broken off",
        })
    }
}
