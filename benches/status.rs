//! What it costs to look at ten thousand connections: `cargo bench --bench status [-- STREAMS]`.
//!
//! First `imux status --json` of a server that has them, in two sessions, as a user runs it; then
//! the library's look at one session alone, and how long others wait for the session's lock
//! meanwhile.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use imux::lane::{BindSource, TcpOptions, TlsDialer, memory};
use imux::trust::{Fingerprint, Identity, PeerIdentity, PinnedKeys, client_config};
use imux::{Client, ClientConfig, Link, Server, ServerConfig, Stream, StreamKind};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::Instant;

type Failed = Box<dyn Error + Send + Sync>;

const ROUNDS: usize = 20;

/// How long opened streams may take to be there.
const ARRIVE_WITHIN: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let count = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(10_000);
    program(count).await?;
    library(count).await
}

/// Ended when dropped.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `imux status --json`, from its start to its end.
async fn program(count: usize) -> Result<(), Failed> {
    let home = tempfile::tempdir()?;
    let destination = TcpListener::bind("127.0.0.1:0").await?;
    let to = destination.local_addr()?.to_string();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((socket, _)) = destination.accept().await {
            kept.push(socket);
        }
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_imux"));
    command.args(["server", "--listen=127.0.0.1:0", "--allow-anyone", "--dial", &to]);
    let mut server = Program(command.env("IMUX_HOME", home.path()).stderr(Stdio::piped()).spawn()?);
    let log = BufReader::new(server.0.stderr.take().ok_or("no log")?);
    let ready = log.lines().map_while(Result::ok).find(|line| line.contains("server ready"));
    let ready = ready.ok_or("the server does not start")?;
    let word = |name: &str| {
        let found = ready.split_whitespace().find_map(|word| word.strip_prefix(name));
        found.map(str::to_owned).ok_or("not in the log")
    };
    let (at, key): (SocketAddr, Fingerprint) = (word("address=")?.parse()?, word("key=")?.parse()?);
    let mut kept = Vec::new();
    for part in [count / 2, count - count / 2] {
        let tls = client_config(&Identity::generate()?)?;
        let dialer = TlsDialer::new(at.to_string(), BindSource::Any, tls, TcpOptions::default())?;
        let config = ClientConfig::new(Arc::new(PinnedKeys::new([key])));
        let client = Client::connect(vec![Link::new(Arc::new(dialer), 4)], config).await?;
        let streams = open(&client, part).await?;
        kept.push((client, streams));
    }
    let look = || -> Result<(usize, usize), Failed> {
        let mut status = Command::new(env!("CARGO_BIN_EXE_imux"));
        let shown = status.args(["status", "--json"]).env("IMUX_HOME", home.path()).output()?;
        let streams = String::from_utf8_lossy(&shown.stdout).matches("\"waits_for\"").count();
        Ok((streams, shown.stdout.len()))
    };
    // Until the last of them have arrived.
    let deadline = Instant::now() + ARRIVE_WITHIN;
    while look()?.0 < count && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let (streams, length) = look()?;
        times.push(begun.elapsed());
        bytes = length;
        if streams != count {
            let hint = "the server takes no more than its limit of open files allows (ulimit -n)";
            return Err(format!("{streams} of {count} streams are shown: {hint}").into());
        }
    }
    tell(&format!("imux status --json, {count} streams, {} KiB", bytes / 1024), times);
    Ok(())
}

async fn open(client: &Client, count: usize) -> Result<Vec<Stream>, Failed> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = client.open(StreamKind::Default).await?;
        stream.write_all(b"x").await?;
        streams.push(stream);
    }
    // The last of them have arrived.
    if let Some(last) = streams.last_mut() {
        last.acknowledged().await?;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    Ok(streams)
}

/// The library's look at one session, while somebody else asks for its lock all the time.
async fn library(count: usize) -> Result<(), Failed> {
    let key = Fingerprint::from_bytes([7; 32]);
    let peer = PeerIdentity { fingerprint: key, certificate_signature: None };
    let (dialer, listener) = memory::network(memory::DEFAULT_CAPACITY);
    let mut server = Server::start(listener, ServerConfig::default());
    let config = ClientConfig::new(Arc::new(PinnedKeys::new([key])));
    let link = Link::new(Arc::new(dialer.with_peer(peer)), 2);
    let client = Client::connect(vec![link], config).await?;
    let (theirs, _) = server.accept().await.ok_or("no session")?;
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(incoming) = theirs.accept().await {
            kept.push(incoming);
        }
    });
    let streams = open(&client, count).await?;
    let view = client.session().ok_or("no session")?.view();
    let over = Arc::new(AtomicBool::new(false));
    let asking = std::thread::spawn({
        let (view, over) = (view.clone(), over.clone());
        move || {
            let mut waits = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let _ = view.stats();
                waits.push(begun.elapsed());
            }
            waits
        }
    });
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let seen = view.streams().len();
        times.push(begun.elapsed());
        if seen != streams.len() {
            return Err(format!("{seen} of {} streams are seen", streams.len()).into());
        }
    }
    over.store(true, Ordering::Relaxed);
    tell(&format!("SessionView::streams, {count} streams"), times);
    let waits = asking.join().map_err(|_| "the other has failed")?;
    tell("waits of others for the session's lock", waits);
    Ok(())
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "{what}: median {:.3} ms, 99 % {:.3} ms, most {:.3} ms of {}",
        at(0.5),
        at(0.99),
        at(1.0),
        times.len()
    );
}
