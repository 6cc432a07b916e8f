//! `imux demo`: server, client and destination in one process, real bytes both ways at once over
//! lanes of different speeds, with one lane killed halfway.
//!
//! Everything but the lanes' speed is what the two commands use: TLS over TCP, forwarded sockets,
//! verified keys. [`link`] makes the speeds; without it all lanes on one machine would be equally
//! fast.

mod link;
mod payload;

use std::io::{self, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow};
use imux::lane::{BindSource, Listener, TcpOptions, TlsDialer, TlsListener};
use imux::trust::{Identity, PinnedKeys, client_config, server_config};
use imux::{Client, Code, Link, Server, StreamKind, tunnel};
use terminal_size::terminal_size_of;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::link::{ManyListeners, PacedDialer, Speed, Wire};
use self::payload::{receive, send};
use super::config::DemoConfig;
use super::exit::{Exit, Failure};
use super::logging;
use super::report::{self, Progress, Report, Style, Transfer};
use super::{text, units};

/// The lanes, fastest first: about a cable, a phone and a bad phone. Together 350 Mbit/s each way:
/// slow enough to watch, and any current machine can encrypt, decrypt and check it.
const SPEEDS: [Speed; 3] = [Speed::new(200, 5), Speed::new(100, 15), Speed::new(50, 40)];

/// The lane that is killed, and for how long its link stays dead, as after a lost signal.
const KILLED: usize = 1;
const OUTAGE: Duration = Duration::from_secs(1);

/// How long the session may take to end.
const CLOSING: Duration = Duration::from_secs(2);
/// How often progress is checked.
const TICK: Duration = Duration::from_millis(20);

/// Seeds of the bytes sent up and down.
const SEEDS: (u64, u64) = (1, 2);

pub(super) async fn run_demo(config: DemoConfig) -> Result<Exit, Failure> {
    let report = demo(&config).await.map_err(|error| {
        Failure::new(Exit::Internal, error.context("the demo could not be run to its end"))
    })?;
    let mut result = Vec::new();
    let written = report.write_to(&mut result, config.json);
    written.context("no result").map_err(|error| Failure::new(Exit::Internal, error))?;
    text::print(result).await.map_err(|error| {
        Failure::message(Exit::Internal, format!("cannot print the result: {error}"))
    })?;
    if report.intact() {
        Ok(Exit::Ok)
    } else {
        Err(Failure::message(Exit::Internal, "not every byte arrived as it was sent"))
    }
}

/// The terminal's width: from the environment, as in ncurses, or from the terminal itself.
fn columns_of(output: &io::Stderr) -> Option<usize> {
    let said = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    said.or_else(|| terminal_size_of(output).map(|(width, _)| width.0.into()))
}

async fn demo(config: &DemoConfig) -> anyhow::Result<Report> {
    let columns = columns_of(&io::stderr());
    let style = Style::choose(io::stderr().is_terminal(), config.quiet, columns);
    // Buffered, so that one drawing is queued as one piece.
    let output = io::BufWriter::new(logging::stderr()?);
    let mut progress = Progress::new(output, style, "up + down", config.bytes * 2);
    progress.message(&format!(
        "Sending {} each way over {} lanes; lane {} is killed half way.",
        units::bytes(config.bytes),
        SPEEDS.len(),
        KILLED + 1
    ))?;
    // Dropped at the end of the demo, and all tasks with it.
    let mut tasks = JoinSet::new();
    let wires: Vec<_> = SPEEDS.map(|speed| Arc::new(Wire::new(speed))).into();

    let destination = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (client, entry) = start(&mut tasks, &wires, destination.local_addr()?).await?;
    until_all_lanes_are_up(&client).await;

    let received = Received::default();
    let transfer = Arc::new(Both { bytes: config.bytes, entry, destination, received });
    let limit = patience(config.bytes);
    tokio::select! {
        done = transfer.run(&mut progress, &wires[KILLED]) => {
            let (up, down) = done?;
            // Close cleanly: the last acknowledgements are still in flight.
            let _ = client.close(Code::NONE, CLOSING).await;
            Ok(Report { up, down, lanes: wires.iter().enumerate().map(lane).collect() })
        }
        () = tokio::time::sleep(limit) => Err(anyhow!("not done after {} s", limit.as_secs())),
    }
}

/// Server and client, forwarding from the address that is returned to `destination`.
async fn start(
    tasks: &mut JoinSet<()>,
    wires: &[Arc<Wire>],
    destination: SocketAddr,
) -> anyhow::Result<(Arc<Client>, SocketAddr)> {
    let identity = Identity::generate()?;
    let tls = server_config(&identity)?;
    let listen = |wire: &Arc<Wire>| {
        let place = (Ipv4Addr::LOCALHOST, 0).into();
        let listener = TlsListener::bind(place, tls.clone(), TcpOptions::default())?;
        Ok((listener, wire.speed))
    };
    let listeners = wires.iter().map(listen).collect::<io::Result<Vec<_>>>()?;
    let addresses = listeners.iter().map(|(listener, _)| listener.local_addr());
    let addresses = addresses.collect::<io::Result<Vec<_>>>()?;
    let mut server = Server::start(ManyListeners(listeners), imux::ServerConfig::default());
    tasks.spawn(async move {
        while let Some((session, _)) = server.accept().await {
            tokio::spawn(tunnel::serve(session, destination.to_string().into()));
        }
    });

    let tls = client_config(&Identity::generate()?)?;
    let source = BindSource::Addr(Ipv4Addr::LOCALHOST.into());
    let links = wires.iter().zip(addresses).map(|(wire, address)| {
        let (place, source) = (address.to_string(), source.clone());
        let dialer = TlsDialer::new(place, source, tls.clone(), TcpOptions::default())?;
        Ok(Link::new(Arc::new(PacedDialer { dialer, wire: wire.clone() }), 1))
    });
    let links = links.collect::<anyhow::Result<Vec<_>>>()?;
    let settings = imux::ClientConfig::new(Arc::new(PinnedKeys::new([identity.fingerprint()])));
    let client = Arc::new(Client::connect(links, settings).await?);
    let entry = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = entry.local_addr()?;
    tasks.spawn(tunnel::forward(entry, client.clone(), StreamKind::Default));
    Ok((client, address))
}

/// The figures are for all lanes together, so none may start late. The transfer deals with a lane
/// that never comes up.
async fn until_all_lanes_are_up(client: &Client) {
    let all = async {
        while client.stats().is_none_or(|stats| stats.lanes.len() < SPEEDS.len()) {
            tokio::time::sleep(TICK).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
}

/// Longer than any one lane alone would take, even the slowest.
fn patience(bytes: u64) -> Duration {
    let slowest = SPEEDS.iter().map(|speed| speed.time_for(bytes)).max().unwrap_or_default();
    Duration::from_secs(20) + slowest * 2
}

/// A transfer of `bytes` both ways at once, about to begin.
struct Both {
    bytes: u64,
    entry: SocketAddr,
    destination: TcpListener,
    received: Received,
}

/// Bytes that have arrived and were correct.
#[derive(Debug, Default)]
struct Received {
    up: AtomicU64,
    down: AtomicU64,
}

impl Both {
    async fn run(
        self: &Arc<Self>,
        progress: &mut Progress<impl io::Write>,
        victim: &Wire,
    ) -> anyhow::Result<(Transfer, Transfer)> {
        let begun = Instant::now();
        // In separate tasks: checking bytes must not keep the clock from ticking.
        let (far, near) = (self.clone(), self.clone());
        let up = tokio::spawn(async move { far.transferred(far.far_end(begun)).await });
        let down = tokio::spawn(async move { near.transferred(near.near_end(begun)).await });
        let mut both = std::pin::pin!(async { tokio::try_join!(up, down) });
        let mut killed = false;
        let done = loop {
            tokio::select! {
                done = &mut both => break done?,
                () = tokio::time::sleep(TICK) => {}
            }
            let done = self.done();
            progress.update(begun.elapsed(), done)?;
            if !killed && done >= self.bytes {
                killed = true;
                victim.kill(OUTAGE);
                progress.message(&format!("lane {} is killed", KILLED + 1))?;
            }
        };
        progress.finish(begun.elapsed(), self.done())?;
        Ok((done.0?, done.1?))
    }

    fn done(&self) -> u64 {
        self.received.up.load(Ordering::Relaxed) + self.received.down.load(Ordering::Relaxed)
    }

    /// The program near the client: sends up, receives down.
    async fn near_end(&self, begun: Instant) -> anyhow::Result<(u64, Duration)> {
        let socket = TcpStream::connect(self.entry).await.context("cannot connect")?;
        self.end(socket, SEEDS.0, SEEDS.1, &self.received.down, begun).await
    }

    /// The destination: sends down, receives up.
    async fn far_end(&self, begun: Instant) -> anyhow::Result<(u64, Duration)> {
        let (socket, _) = self.destination.accept().await.context("cannot accept")?;
        self.end(socket, SEEDS.1, SEEDS.0, &self.received.up, begun).await
    }

    /// Sends and receives at once; returns how many received bytes were correct, and when the last
    /// arrived.
    async fn end(
        &self,
        mut socket: TcpStream,
        ours: u64,
        theirs: u64,
        counter: &AtomicU64,
        begun: Instant,
    ) -> anyhow::Result<(u64, Duration)> {
        let (mut read, mut write) = socket.split();
        let sending = async {
            send(&mut write, ours, self.bytes).await?;
            write.shutdown().await
        };
        let receiving = async {
            let got = receive(&mut read, theirs, counter).await?;
            io::Result::Ok((got, begun.elapsed()))
        };
        let (received, ()) = tokio::try_join!(receiving, sending)?;
        Ok(received)
    }

    async fn transferred(
        &self,
        end: impl Future<Output = anyhow::Result<(u64, Duration)>>,
    ) -> anyhow::Result<Transfer> {
        let (right, elapsed) = end.await?;
        Ok(Transfer {
            bytes: right,
            elapsed,
            intact: right == self.bytes,
            fastest_lane_alone: SPEEDS[0].time_for(self.bytes),
        })
    }
}

fn lane((number, wire): (usize, &Arc<Wire>)) -> report::Lane {
    let note = match number {
        KILLED => format!("killed half way, back after {} s", OUTAGE.as_secs()),
        _ => String::new(),
    };
    report::Lane {
        name: format!("lane {}", number + 1),
        capacity: wire.speed.bytes_per_second(),
        sent_bytes: wire.sent(),
        received_bytes: wire.received(),
        rtt: Some(wire.speed.round_trip()),
        note,
    }
}
