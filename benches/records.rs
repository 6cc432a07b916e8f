//! What TLS records cost a lane, both ends together: this package's record layer and rustls's own
//! unbuffered one, over the same sockets and with the same reads and writes, in turns.
//!
//! `cargo bench --bench records -- [LANES] [MEGABYTES] [ROUNDS]`

#![allow(clippy::unwrap_used, reason = "a benchmark ends where it cannot go on")]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;

use imux::lane::{TLS_RECORD_MAX, TlsLane};
use imux::trust::{Identity, client_config, server_config};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

/// What a lane writes and reads at once.
const BATCH: usize = 256 * 1024;
/// A record's header, tag and type, and some.
const RECORD_OVERHEAD: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Contender {
    Plain,
    Imux,
    Unbuffered,
}

#[derive(Clone)]
struct Settings {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

fn main() {
    // Cargo adds `--bench`.
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse().ok());
    let lanes = args.next().unwrap_or(1);
    let bytes = args.next().unwrap_or(2_000) * 1_000_000 / lanes;
    let rounds = args.next().unwrap_or(5);
    let identity = Identity::generate().unwrap();
    let settings = Settings {
        client: client_config(&identity).unwrap(),
        server: server_config(&identity).unwrap(),
    };
    let all = [Contender::Plain, Contender::Imux, Contender::Unbuffered];
    let mut costs = [const { Vec::new() }; 3];
    for _ in 0..rounds {
        for (contender, costs) in all.iter().zip(&mut costs) {
            costs.push(run(*contender, lanes, bytes, &settings));
        }
    }
    println!("{lanes} lanes, cpu-seconds a GB of both ends: median, least, most of {rounds} runs");
    let mut medians = Vec::new();
    for (contender, costs) in all.iter().zip(&mut costs) {
        costs.sort_by(f64::total_cmp);
        let median = costs[costs.len() / 2];
        medians.push(median);
        println!("{contender:?}: {median:.2}, {:.2}, {:.2}", costs[0], costs[costs.len() - 1]);
    }
    println!("Unbuffered / Imux: {:.2}", medians[2] / medians[1]);
}

/// Processor time, in seconds a gigabyte, of both ends.
fn run(contender: Contender, lanes: usize, bytes: usize, settings: &Settings) -> f64 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    // Both ends, and whoever measures: when all lanes are up, and when all is there.
    let phase = Arc::new(Barrier::new(2 * lanes + 1));
    let receiving = thread::spawn({
        let (phase, config) = (phase.clone(), settings.server.clone());
        move || {
            on_runtime(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                let mut tasks = Vec::new();
                for _ in 0..lanes {
                    let socket = listener.accept().await.unwrap().0;
                    let (phase, config) = (phase.clone(), config.clone());
                    tasks.push(tokio::spawn(receive(contender, socket, config, bytes, phase)));
                }
                join(tasks).await;
            });
        }
    });
    let sending = thread::spawn({
        let (phase, config) = (phase.clone(), settings.client.clone());
        move || {
            on_runtime(async move {
                let mut tasks = Vec::new();
                for _ in 0..lanes {
                    let socket = TcpStream::connect(address).await.unwrap();
                    let (phase, config) = (phase.clone(), config.clone());
                    tasks.push(tokio::spawn(send(contender, socket, config, bytes, phase)));
                }
                join(tasks).await;
            });
        }
    });
    let spent = on_runtime(async {
        phase.wait().await;
        let before = cpu_seconds();
        phase.wait().await;
        cpu_seconds() - before
    });
    sending.join().unwrap();
    receiving.join().unwrap();
    spent / (bytes * lanes) as f64 * 1e9
}

fn on_runtime<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

async fn join(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        task.await.unwrap();
    }
}

fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

fn name() -> ServerName<'static> {
    ServerName::try_from("imux.invalid").unwrap()
}

async fn send(
    contender: Contender,
    mut socket: TcpStream,
    config: Arc<ClientConfig>,
    bytes: usize,
    phase: Arc<Barrier>,
) {
    let payload = vec![0x5a; BATCH];
    let batches = bytes.div_ceil(BATCH);
    match contender {
        Contender::Plain => {
            phase.wait().await;
            for _ in 0..batches {
                socket.write_all(&payload).await.unwrap();
            }
        }
        Contender::Imux => {
            let mut lane = TlsLane::dial(socket, name(), config).await.unwrap();
            phase.wait().await;
            for _ in 0..batches {
                lane.write_all(&payload).await.unwrap();
            }
            lane.flush().await.unwrap();
        }
        Contender::Unbuffered => {
            let tls = UnbufferedClientConnection::new(config, name()).unwrap();
            let mut end = Unbuffered::shake_hands(socket, tls).await;
            phase.wait().await;
            for _ in 0..batches {
                end.send(&payload).await;
            }
        }
    }
    phase.wait().await;
}

async fn receive(
    contender: Contender,
    mut socket: TcpStream,
    config: Arc<ServerConfig>,
    bytes: usize,
    phase: Arc<Barrier>,
) {
    let bytes = bytes.div_ceil(BATCH) * BATCH;
    // Each chunk is copied once, as a payload is.
    let mut copy = vec![0; BATCH];
    let mut left = bytes;
    match contender {
        Contender::Plain => {
            let mut buffer = vec![0; BATCH];
            phase.wait().await;
            while left > 0 {
                let read = socket.read(&mut buffer).await.unwrap();
                copy[..read].copy_from_slice(&buffer[..read]);
                left -= read;
            }
        }
        Contender::Imux => {
            let mut lane = TlsLane::accept(socket, config).await.unwrap();
            phase.wait().await;
            while left > 0 {
                let chunk = lane.fill_buf().await.unwrap();
                let read = chunk.len();
                copy[..read].copy_from_slice(chunk);
                lane.consume(read);
                left -= read;
            }
        }
        Contender::Unbuffered => {
            let tls = UnbufferedServerConnection::new(config).unwrap();
            let mut end = Unbuffered::shake_hands(socket, tls).await;
            phase.wait().await;
            while left > 0 {
                left -= end.receive(&mut copy).await;
            }
        }
    }
    phase.wait().await;
    std::hint::black_box(&copy);
}

/// What both of rustls's unbuffered connections have.
trait Process {
    type Data;

    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Process for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }
}

impl Process for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }
}

/// An end of a lane that rustls's unbuffered connection encrypts and decrypts for.
struct Unbuffered<C> {
    socket: TcpStream,
    tls: C,
    received: Vec<u8>,
    start: usize,
    end: usize,
    out: Vec<u8>,
}

enum Next {
    Again,
    Send,
    Read,
    Done,
}

impl<C: Process> Unbuffered<C> {
    async fn shake_hands(socket: TcpStream, tls: C) -> Self {
        let out = Vec::with_capacity(BATCH + BATCH / TLS_RECORD_MAX * RECORD_OVERHEAD);
        let mut end = Self { socket, tls, received: vec![0; BATCH], start: 0, end: 0, out };
        loop {
            let status = end.tls.process(&mut end.received[end.start..end.end]);
            let next = match status.state.unwrap() {
                ConnectionState::EncodeTlsData(mut data) => {
                    let used = end.out.len();
                    end.out.resize(end.out.capacity(), 0);
                    let written = data.encode(&mut end.out[used..]).unwrap();
                    end.out.truncate(used + written);
                    Next::Again
                }
                ConnectionState::TransmitTlsData(data) => {
                    data.done();
                    Next::Send
                }
                ConnectionState::BlockedHandshake => Next::Read,
                ConnectionState::WriteTraffic(_) => Next::Done,
                state => unreachable!("{state:?}"),
            };
            end.start += status.discard;
            match next {
                Next::Again => {}
                Next::Send => {
                    end.socket.write_all(&end.out).await.unwrap();
                    end.out.clear();
                }
                Next::Read => end.read().await,
                Next::Done => {
                    end.out.resize(end.out.capacity(), 0);
                    return end;
                }
            }
        }
    }

    /// Reads once. Part of a record moves to the front only where it would not fit behind.
    async fn read(&mut self) {
        if self.start == self.end || self.received.len() - self.start < 2 * TLS_RECORD_MAX {
            self.received.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let read = self.socket.read(&mut self.received[self.end..]).await.unwrap();
        assert!(read > 0, "the other end is gone");
        self.end += read;
    }

    async fn send(&mut self, payload: &[u8]) {
        let status = self.tls.process(&mut self.received[self.start..self.end]);
        let ConnectionState::WriteTraffic(mut traffic) = status.state.unwrap() else {
            unreachable!("nothing comes from the other end")
        };
        let mut used = 0;
        for record in payload.chunks(TLS_RECORD_MAX) {
            used += traffic.encrypt(record, &mut self.out[used..]).unwrap();
        }
        self.socket.write_all(&self.out[..used]).await.unwrap();
    }

    /// Copies what the next record holds to `copy`; how much it was.
    async fn receive(&mut self, copy: &mut [u8]) -> usize {
        let mut got = 0;
        while got == 0 {
            let status = self.tls.process(&mut self.received[self.start..self.end]);
            let mut discard = status.discard;
            let next = match status.state.unwrap() {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.unwrap();
                        copy[got..got + record.payload.len()].copy_from_slice(record.payload);
                        got += record.payload.len();
                        discard += record.discard;
                    }
                    Next::Again
                }
                ConnectionState::WriteTraffic(_) => Next::Read,
                state => unreachable!("{state:?}"),
            };
            self.start += discard;
            if let Next::Read = next {
                self.read().await;
            }
        }
        got
    }
}
