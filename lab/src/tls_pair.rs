//! TLS pairs, the choice on one path without imux: haproxy or stunnel at both ends.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::error::LabError;
use super::proc::{Place, Process, find_program, wait_listening};
use super::scratch::Scratch;

const READY_LIMIT: Duration = Duration::from_secs(15);

/// The program at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsPair {
    Haproxy,
    Stunnel,
}

/// Where the ends run, and their addresses.
#[derive(Debug)]
pub struct Ends<'a> {
    /// The client's end.
    pub client: &'a Place,
    /// The server's end.
    pub server: &'a Place,
    /// Where the client takes plaintext connections.
    pub entry: SocketAddr,
    /// Where the server takes TLS connections.
    pub middle: SocketAddr,
    /// Where the server dials.
    pub sink: SocketAddr,
    /// The address the client dials from.
    pub source: Option<IpAddr>,
}

impl fmt::Display for TlsPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for TlsPair {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "haproxy" => Ok(Self::Haproxy),
            "stunnel" => Ok(Self::Stunnel),
            _ => Err(()),
        }
    }
}

impl TlsPair {
    /// The program's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Stunnel => "stunnel",
        }
    }

    /// The program, if it is installed.
    #[must_use]
    pub fn program(self) -> Option<PathBuf> {
        find_program(self.name())
    }

    /// Starts both ends and waits until they listen: the server, then the client.
    pub fn start(
        self,
        program: &Path,
        ends: &Ends<'_>,
        scratch: &Scratch,
    ) -> Result<Vec<Process>, LabError> {
        let cert = scratch.certificate()?;
        let start = |end: &str, place: &Place, config: &str, listens: SocketAddr| {
            let file = scratch.write(&format!("{self}-{end}.conf"), config)?;
            let file = file.display().to_string();
            let args = match self {
                Self::Haproxy => vec!["-db".to_owned(), "-f".to_owned(), file],
                Self::Stunnel => vec![file],
            };
            let log = scratch.file(&format!("{end}.log"));
            let name = format!("{self} {end}");
            let mut process = Process::start(&name, place, program, &args, &[], Some(&log))?;
            wait_listening(&mut process, listens, READY_LIMIT)?;
            Ok::<_, LabError>(process)
        };
        let server = start("server", ends.server, &self.server_config(ends, &cert), ends.middle)?;
        let client = start("client", ends.client, &self.client_config(ends), ends.entry)?;
        Ok(vec![server, client])
    }

    fn server_config(self, ends: &Ends<'_>, cert: &Path) -> String {
        let (middle, sink, cert) = (ends.middle, ends.sink, cert.display());
        match self {
            Self::Haproxy => haproxy_config(&format!("{middle} ssl crt {cert}"), &sink.to_string()),
            Self::Stunnel => stunnel_config(false, middle, sink, &format!("cert = {cert}")),
        }
    }

    fn client_config(self, ends: &Ends<'_>) -> String {
        let (entry, middle) = (ends.entry, ends.middle);
        match self {
            Self::Haproxy => {
                let source = ends.source.map(|ip| format!(" source {ip}")).unwrap_or_default();
                haproxy_config(&entry.to_string(), &format!("{middle} ssl verify none{source}"))
            }
            Self::Stunnel => {
                let local = ends.source.map(|ip| format!("\nlocal = {ip}")).unwrap_or_default();
                stunnel_config(true, entry, middle, &format!("verifyChain = no{local}"))
            }
        }
    }
}

fn haproxy_config(bind: &str, server: &str) -> String {
    format!(
        "global\n  maxconn 1000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 120s\n  timeout server 120s\n\
         listen lab\n  bind {bind}\n  server s {server}\n"
    )
}

fn stunnel_config(client: bool, accept: SocketAddr, connect: SocketAddr, more: &str) -> String {
    let client = if client { "yes" } else { "no" };
    format!(
        "foreground = yes\npid =\ndebug = err\n[lab]\nclient = {client}\naccept = {accept}\n\
         connect = {connect}\n{more}\n"
    )
}
