//! The load's near end: a plan comes in as one line of JSON, the results go out as another.
//!
//! One thread per connection and direction, with blocking sockets: simple, and its cost is not
//! counted among the contenders'. Work unfinished at the plan's deadline is reported as far as it
//! got.

use std::io::{self, BufRead, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use super::clock::{NS_PER_MS, now_ns};
use super::flow::Flow;
use super::sink::{locked, receive, send};
use super::stream::{Pattern, mix};
use super::wire::{Kind, RECEIPT_LEN, Receipt, Request};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From load to sink.
    Up,
    /// From sink to load.
    Down,
}

/// One part of a plan. Times are milliseconds from the plan's start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "job")]
pub enum Job {
    /// As much as possible, for a time.
    Bulk {
        /// Which way.
        direction: Direction,
        /// Parallel connections.
        streams: u32,
        /// When to connect.
        at_ms: u64,
        /// How long to send.
        duration_ms: u64,
        /// How long to wait for the rest to arrive; 0 aborts.
        drain_ms: u64,
    },
    /// Fixed sizes, one after the other, each on a new connection.
    Transfer {
        /// Which way.
        direction: Direction,
        /// Size in bytes.
        bytes: u64,
        /// How many in a row.
        count: u32,
        /// How many rows in parallel.
        parallel: u32,
        /// When to begin.
        at_ms: u64,
        /// Rest between two.
        pause_ms: u64,
    },
    /// Small messages at fixed times on one connection, sent back by the sink.
    Echo {
        /// Size of a message in bytes.
        bytes: usize,
        /// Time from one message to the next, whether or not it has come back.
        interval_ms: u64,
        /// When to connect.
        at_ms: u64,
        /// How long to go on.
        duration_ms: u64,
    },
    /// New connections one after another, each until one byte is answered.
    Setup {
        /// How many.
        count: u32,
        /// When to begin.
        at_ms: u64,
        /// Rest between two.
        pause_ms: u64,
    },
}

/// What the load is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Where to connect.
    pub target: SocketAddr,
    /// `target` is a SOCKS5 proxy, and this is where it should lead.
    pub by_proxy_to: Option<SocketAddr>,
    /// Local address to connect from.
    pub source: Option<IpAddr>,
    /// Ask for MPTCP sockets.
    pub mptcp: bool,
    /// Start time on the machine's monotonic clock.
    pub start_ns: u64,
    /// The source of all bytes.
    pub seed: u64,
    /// Milliseconds from the start after which results are reported as they are.
    pub deadline_ms: u64,
    /// What to do.
    pub jobs: Vec<Job>,
}

/// What came of a plan; `jobs` in the plan's order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// One per job.
    pub jobs: Vec<JobReport>,
}

/// What came of a job.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct JobReport {
    /// Bulk and transfers: streams as their receiver (Down) or sender (Up) saw them.
    pub flows: Vec<Flow>,
    /// Bulk Up: what the sink had received at the end of each stream, if its receipt came back.
    pub receipts: Vec<u64>,
    /// Milliseconds of each transfer, set-up or echo.
    pub times_ms: Vec<f64>,
    /// Echo: messages sent. Transfers, set-ups: begun.
    pub begun: u64,
    /// What went wrong.
    pub faults: Vec<String>,
}

/// A job's report while it is being written.
#[derive(Debug, Default)]
struct Live {
    report: JobReport,
    // Shared with the threads that fill them, so that a stuck thread still shows how far it got.
    flows: Vec<Arc<Mutex<Flow>>>,
}

impl Live {
    fn snapshot(&self) -> JobReport {
        let flows = self.flows.iter().map(|f| locked(f).clone()).collect();
        JobReport { flows, ..self.report.clone() }
    }
}

type Shared = Arc<Mutex<Live>>;

/// Reads a plan from standard input, runs it, prints the report. Ends at once if the input ends.
pub fn run() -> io::Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let plan: Plan = serde_json::from_str(&line).map_err(io::Error::other)?;
    std::thread::spawn(|| {
        // The runner holds the other end: when it ends, so do we.
        let _ = io::stdin().lock().read_line(&mut String::new());
        std::process::exit(0);
    });
    let report = execute(&plan);
    writeln!(io::stdout(), "{}", serde_json::to_string(&report).map_err(io::Error::other)?)?;
    // Keep connections and figures in `/proc` until the runner has read them.
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

fn execute(plan: &Plan) -> LoadReport {
    let plan = Arc::new(plan.clone());
    let mut reports = Vec::new();
    let mut threads = Vec::new();
    for (number, job) in plan.jobs.iter().enumerate() {
        let report = Shared::default();
        threads.extend(start_job(&plan, number as u64, job, &report));
        reports.push(report);
    }
    let deadline = plan.start_ns.saturating_add(plan.deadline_ms * NS_PER_MS);
    while threads.iter().any(|t| !t.is_finished()) && now_ns() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
    let late = threads.iter().filter(|t| !t.is_finished()).count();
    let mut jobs: Vec<JobReport> = reports.iter().map(|r| locked(r).snapshot()).collect();
    if let (1.., Some(first)) = (late, jobs.first_mut()) {
        first.faults.push(format!("{late} connections were not done at the deadline"));
    }
    LoadReport { jobs }
}

fn start_job(plan: &Arc<Plan>, number: u64, job: &Job, report: &Shared) -> Vec<JoinHandle<()>> {
    let spawn = |lane: u64, at_ms: u64, body: fn(&Task) -> io::Result<()>| {
        let task = Task {
            plan: Arc::clone(plan),
            job: job.clone(),
            begin_ns: plan.start_ns + at_ms * NS_PER_MS,
            tag: (number << 32) | (lane << 16),
            report: Arc::clone(report),
        };
        std::thread::spawn(move || {
            wait_until(task.begin_ns);
            if let Err(e) = body(&task) {
                task.fault(&e);
            }
        })
    };
    match *job {
        Job::Bulk { direction: Direction::Up, streams, at_ms, .. } => {
            (0..streams).map(|i| spawn(i.into(), at_ms, Task::bulk_up)).collect()
        }
        Job::Bulk { direction: Direction::Down, streams, at_ms, .. } => {
            (0..streams).map(|i| spawn(i.into(), at_ms, Task::bulk_down)).collect()
        }
        Job::Transfer { parallel, at_ms, .. } => {
            (0..parallel).map(|i| spawn(i.into(), at_ms, Task::transfers)).collect()
        }
        Job::Echo { at_ms, .. } => vec![spawn(0, at_ms, Task::echo)],
        Job::Setup { at_ms, .. } => vec![spawn(0, at_ms, Task::setups)],
    }
}

fn wait_until(deadline_ns: u64) {
    let left = deadline_ns.saturating_sub(now_ns());
    std::thread::sleep(Duration::from_nanos(left));
}

/// Opens a connection as the plan says.
fn connect(plan: &Plan) -> io::Result<TcpStream> {
    let protocol = if plan.mptcp { Protocol::MPTCP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(plan.target), Type::STREAM, Some(protocol))?;
    if let Some(source) = plan.source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&plan.target.into(), CONNECT_LIMIT)?;
    let mut socket: TcpStream = socket.into();
    if let Some(to) = plan.by_proxy_to {
        ask_proxy(&mut socket, to)?;
    }
    Ok(socket)
}

/// SOCKS5 without a user (RFC 1928), in one flight.
fn ask_proxy(socket: &mut TcpStream, to: SocketAddr) -> io::Result<()> {
    let SocketAddr::V4(to) = to else { return Err(io::ErrorKind::Unsupported.into()) };
    let request = [&[5, 1, 0, 5, 1, 0, 1], &to.ip().octets()[..], &to.port().to_be_bytes()];
    socket.write_all(&request.concat())?;
    let mut answer = [0; 12];
    socket.read_exact(&mut answer)?;
    match answer {
        [5, 0, 5, 0, ..] => Ok(()),
        _ => Err(io::Error::other("the proxy does not lead there")),
    }
}

/// One thread's part of a job.
struct Task {
    plan: Arc<Plan>,
    job: Job,
    begin_ns: u64,
    tag: u64,
    report: Shared,
}

impl Task {
    fn fault(&self, error: &dyn std::fmt::Display) {
        locked(&self.report).report.faults.push(error.to_string());
    }

    /// A flow that the report shows in its current state at any time.
    fn flow(&self, tag: u64, begin_ns: u64) -> Arc<Mutex<Flow>> {
        let flow = Arc::new(Mutex::new(Flow::new(tag, begin_ns)));
        locked(&self.report).flows.push(Arc::clone(&flow));
        flow
    }

    fn request(&self, kind: Kind, round: u64) -> Request {
        let tag = self.tag | round;
        let seed = mix(self.plan.seed ^ mix(tag));
        Request { kind, tag, seed, limit: u64::MAX, duration_ms: u64::MAX }
    }

    fn bulk_up(&self) -> io::Result<()> {
        let Job::Bulk { duration_ms, drain_ms, .. } = self.job else { return Ok(()) };
        let request = self.request(Kind::Up, 0);
        let mut conn = connect(&self.plan)?;
        request.write(&mut conn)?;
        let end_ns = self.begin_ns + duration_ms * NS_PER_MS;
        let flow = self.flow(request.tag, now_ns());
        // So that a path that swallows everything cannot block the writer forever.
        conn.set_write_timeout(Some(Duration::from_millis(duration_ms + drain_ms)))?;
        if drain_ms == 0 {
            let breaker = conn.try_clone()?;
            std::thread::spawn(move || {
                wait_until(end_ns);
                let _ = breaker.shutdown(Shutdown::Both);
            });
        }
        send(&mut conn, &request, end_ns, &flow);
        if now_ns() >= end_ns && drain_ms == 0 {
            // Aborted on purpose.
            locked(&flow).fault = None;
        }
        if drain_ms > 0 {
            conn.set_read_timeout(Some(Duration::from_millis(drain_ms)))?;
            let mut bytes = [0; RECEIPT_LEN];
            conn.read_exact(&mut bytes).map_err(|e| {
                io::Error::new(e.kind(), format!("no word of the sink on {:#x}: {e}", request.tag))
            })?;
            locked(&self.report).report.receipts.push(Receipt::decode(&bytes).bytes);
        }
        Ok(())
    }

    fn bulk_down(&self) -> io::Result<()> {
        let Job::Bulk { duration_ms, drain_ms, .. } = self.job else { return Ok(()) };
        let mut request = self.request(Kind::Down, 0);
        request.duration_ms = duration_ms;
        let mut conn = connect(&self.plan)?;
        request.write(&mut conn)?;
        let flow = self.flow(request.tag, self.begin_ns);
        let end_ns = self.begin_ns + (duration_ms + drain_ms) * NS_PER_MS;
        let breaker = conn.try_clone()?;
        std::thread::spawn(move || {
            wait_until(end_ns);
            let _ = breaker.shutdown(Shutdown::Both);
        });
        receive(&mut conn, &request, &flow);
        Ok(())
    }

    fn transfers(&self) -> io::Result<()> {
        let Job::Transfer { count, pause_ms, .. } = self.job else { return Ok(()) };
        for round in 0..count {
            locked(&self.report).report.begun += 1;
            match self.transfer(u64::from(round)) {
                Ok(ms) => locked(&self.report).report.times_ms.push(ms),
                Err(e) => self.fault(&e),
            }
            std::thread::sleep(Duration::from_millis(pause_ms));
        }
        Ok(())
    }

    /// Time from before the connect until the receiver has the last byte, in milliseconds.
    fn transfer(&self, round: u64) -> io::Result<f64> {
        let Job::Transfer { direction, bytes, .. } = self.job else { return Ok(0.0) };
        let begin = now_ns();
        let mut conn = connect(&self.plan)?;
        let kind = if direction == Direction::Up { Kind::Up } else { Kind::Down };
        let request = Request { limit: bytes, ..self.request(kind, round) };
        request.write(&mut conn)?;
        let flow = Mutex::new(Flow::new(request.tag, begin));
        let failed = |what: &str| io::Error::other(format!("transfer {round}: {what}"));
        let done_ns = match direction {
            Direction::Down => {
                let intact = receive(&mut conn, &request, &flow);
                let flow = locked(&flow);
                if !intact || flow.bytes != bytes {
                    return Err(failed(flow.fault.as_deref().unwrap_or("ended early")));
                }
                flow.last_ns
            }
            Direction::Up => {
                let pattern = Pattern::new(request.seed);
                let mut buffer = vec![0; super::sink::BUFFER];
                let mut offset = 0;
                while offset < bytes {
                    let n = (bytes - offset).min(buffer.len() as u64) as usize;
                    pattern.fill(offset, &mut buffer[..n]);
                    conn.write_all(&buffer[..n])?;
                    offset += n as u64;
                }
                let mut answer = [0; RECEIPT_LEN];
                conn.read_exact(&mut answer)?;
                let receipt = Receipt::decode(&answer);
                if !receipt.intact || receipt.bytes != bytes {
                    return Err(failed("the sink got other bytes"));
                }
                receipt.done_ns
            }
        };
        Ok(ms_between(begin, done_ns))
    }

    fn setups(&self) -> io::Result<()> {
        let Job::Setup { count, pause_ms, .. } = self.job else { return Ok(()) };
        for round in 0..count {
            locked(&self.report).report.begun += 1;
            let begin = now_ns();
            let once = || -> io::Result<()> {
                let mut conn = connect(&self.plan)?;
                conn.set_read_timeout(Some(CONNECT_LIMIT))?;
                self.request(Kind::Ping, u64::from(round)).write(&mut conn)?;
                conn.read_exact(&mut [0; 1])
            };
            match once() {
                Ok(()) => locked(&self.report).report.times_ms.push(ms_between(begin, now_ns())),
                Err(e) => self.fault(&e),
            }
            std::thread::sleep(Duration::from_millis(pause_ms));
        }
        Ok(())
    }

    /// Open loop: a late answer does not delay the next question, so nothing hides a stall. An
    /// unmeasured first message makes sure that the connection works end to end.
    fn echo(&self) -> io::Result<()> {
        let Job::Echo { bytes, interval_ms, duration_ms, .. } = self.job else { return Ok(()) };
        let request = self.request(Kind::Echo, 0);
        let mut conn = connect(&self.plan)?;
        conn.set_read_timeout(Some(Duration::from_millis(duration_ms + 2000)))?;
        request.write(&mut conn)?;
        let mut message = vec![0; bytes];
        conn.write_all(&message)?;
        conn.read_exact(&mut message)?;
        let pattern = Pattern::new(request.seed);
        let (tell, sent) = mpsc::channel();
        let mut reader = conn.try_clone()?;
        let report = Arc::clone(&self.report);
        let receiver = std::thread::spawn(move || -> io::Result<()> {
            for (i, sent_ns) in sent.iter().enumerate() {
                reader.read_exact(&mut message)?;
                let now = now_ns();
                pattern
                    .verify((i * bytes) as u64, &message)
                    .map_err(|_| io::Error::other("echo: wrong bytes"))?;
                locked(&report).report.times_ms.push(ms_between(sent_ns, now));
            }
            Ok(())
        });
        self.ask(&mut conn, pattern, duration_ms / interval_ms.max(1), &tell)?;
        drop(tell);
        receiver.join().unwrap_or_else(|_| Err(io::Error::other("echo: the reader failed")))
    }

    /// Sends `count` messages, each at its time, and reports from when its answer is awaited.
    fn ask(
        &self,
        conn: &mut TcpStream,
        pattern: Pattern,
        count: u64,
        tell: &Sender<u64>,
    ) -> io::Result<()> {
        let Job::Echo { bytes, interval_ms, .. } = self.job else { return Ok(()) };
        let begin_ns = now_ns() + 5 * NS_PER_MS;
        let mut message = vec![0; bytes];
        for i in 0..count {
            pattern.fill(i * bytes as u64, &mut message);
            let due_ns = begin_ns + NS_PER_MS * i * interval_ms;
            // If the socket held it up, it is late from its due time on. If this thread woke late,
            // that is not the contender's fault.
            let held_up = now_ns() > due_ns;
            wait_until(due_ns);
            let _ = tell.send(if held_up { due_ns } else { now_ns() });
            conn.write_all(&message)?;
            locked(&self.report).report.begun += 1;
        }
        Ok(())
    }
}

fn ms_between(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / NS_PER_MS as f64
}
