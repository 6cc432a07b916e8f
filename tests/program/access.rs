//! Who may connect, and where to: listed, invited and revoked keys, and chosen destinations; what
//! each command prints, and what each refusal says.

mod audit;
mod destinations;
mod invitations;
mod keys;
mod lists;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::process::{Imux, field};
use crate::support::{eventually, process};

/// A server, and where its keys are.
struct Server {
    imux: Imux,
    home: TempDir,
    at: String,
    key: String,
}

impl Server {
    fn start(dial: &str) -> Self {
        Self::with_clients(dial, None)
    }

    /// With this list of clients.
    fn with_clients(dial: &str, clients: Option<&str>) -> Self {
        let home = tempfile::tempdir().unwrap();
        if let Some(clients) = clients {
            write_clients(home.path(), clients);
        }
        let imux = Imux::start(home.path(), &["server", "--listen", "127.0.0.1:0", "--dial", dial]);
        let line = imux.line("server ready");
        let (at, key) = (field(&line, "address").to_owned(), field(&line, "key").to_owned());
        Self { imux, home, at, key }
    }

    /// Writes the list and waits until the server has read it.
    async fn reload(&self, clients: &str) {
        write_clients(self.home.path(), clients);
        self.hang_up("authorised clients read").await;
    }

    async fn hang_up(&self, expected: &str) {
        let before = self.imux.count(expected);
        self.imux.signal(Signal::SIGHUP);
        eventually(10, expected, || self.imux.count(expected) > before).await;
    }

    fn clients(&self) -> String {
        fs::read_to_string(self.home.path().join("authorized_clients")).unwrap()
    }
}

fn write_clients(home: &Path, clients: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = home.join("authorized_clients");
    fs::write(&path, clients).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Somebody with a key of their own.
struct Person {
    home: TempDir,
    key: String,
}

impl Person {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let key = prints(home.path(), &["identity"]);
        Self { home, key }
    }

    fn args<'a>(server: &'a Server, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec!["client", "--dial", &server.at, "--pin", &server.key];
        args.extend(["--bind", "127.0.0.1=2"]);
        if !more.iter().any(|arg| *arg == "-L" || *arg == "--listen") {
            args.extend(["--listen", "127.0.0.1:0"]);
        }
        args.extend(more);
        args
    }

    fn connect(&self, server: &Server, more: &[&str]) -> Imux {
        let client = Imux::start(self.home.path(), &Self::args(server, more));
        client.ready();
        client
    }

    #[track_caller]
    fn is_refused(&self, server: &Server) {
        fails(self.home.path(), &Self::args(server, &[]), 10, &[&self.key, "imux authorize"]);
    }
}

/// Runs a command that prints one line, and returns it.
#[track_caller]
fn prints(home: &Path, args: &[&str]) -> String {
    let (code, out, told) = process::run(home, args);
    assert_eq!(code, 0, "{args:?}: {told}");
    assert_eq!(out.lines().count(), 1, "{args:?}: {out}");
    out.trim_end().to_owned()
}

#[track_caller]
fn json(home: &Path, args: &[&str]) -> serde_json::Value {
    let mut all = args.to_vec();
    all.push("--json");
    serde_json::from_str(&prints(home, &all)).unwrap()
}

#[track_caller]
fn fails(home: &Path, args: &[&str], code: i32, words: &[&str]) -> String {
    let (exit, out, told) = process::run(home, args);
    assert_eq!((exit, out.as_str()), (code, ""), "{args:?}: {told}");
    for word in words {
        assert!(told.contains(word), "{args:?} lacks {word:?}: {told}");
    }
    told
}

async fn echoes(at: SocketAddr) -> bool {
    // A connection that is reset at once may be reset before it is seen to exist.
    match TcpStream::connect(at).await {
        Ok(mut socket) => answers(&mut socket).await,
        Err(_) => false,
    }
}

async fn answers(socket: &mut TcpStream) -> bool {
    if socket.write_all(b"x").await.is_err() {
        return false;
    }
    matches!(socket.read_u8().await, Ok(b'x'))
}

/// The address of the `number`th place where the client listens.
fn listens(client: &Imux, number: usize) -> SocketAddr {
    field(&client.nth_line(" ready ", number), "address").parse().unwrap()
}
