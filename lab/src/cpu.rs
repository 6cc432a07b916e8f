//! What a gigabyte costs on loopback at both ends of a tunnel together, side by side.
//!
//! It counts the contender's own processes (user and system time, from `/proc`); the load's are
//! also measured and shown. Contenders take turns, so that a slow phase of the machine hits all of
//! them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::args::CpuArgs;
use super::clock::{self, NS_PER_MS, now_ns};
use super::error::LabError;
use super::handed::{self, Redirect, authorize};
use super::load::{Direction, Job, LoadReport, Plan};
use super::proc::{Helper, Place, Process, established_to, find_imux, usage, wait_listening};
use super::say;
use super::scratch::Scratch;
use super::stats::median;
use super::tls_pair::{Ends, TlsPair};

const READY_LIMIT: Duration = Duration::from_secs(15);
/// A run that moves less than 25 MB/s is broken, not slow.
const MEGABYTES_PER_S_MIN: u64 = 25;

/// One contender in one case and direction.
#[derive(Debug, Clone, Serialize)]
struct Row {
    peer: String,
    streams: u32,
    lanes: u16,
    direction: Direction,
    samples: Vec<Sample>,
    /// Runs that failed, and why.
    failures: Vec<String>,
}

/// One run.
#[derive(Debug, Clone, Copy, Serialize)]
struct Sample {
    /// CPU seconds of both ends per 10^9 bytes.
    cpu_s_per_gb: f64,
    /// CPU seconds of load and sink per 10^9 bytes, for comparison.
    load_cpu_s_per_gb: f64,
    /// 10^9 bytes per second.
    gb_per_s: f64,
    /// Peak resident memory of the larger end in megabytes.
    rss_peak_mb: f64,
}

/// `imux-lab cpu`
pub fn run(args: &CpuArgs) -> Result<(), LabError> {
    clock::catch_signals()?;
    let cases = args.cases.iter().map(|c| parse_case(c)).collect::<Result<Vec<_>, _>>()?;
    let directions = match args.direction.as_str() {
        "up" => vec![Direction::Up],
        "down" => vec![Direction::Down],
        "both" => vec![Direction::Up, Direction::Down],
        other => {
            return Err(LabError::Usage(format!("--direction is up, down or both, not `{other}`")));
        }
    };
    let contenders = contenders(args)?;
    if contenders.iter().any(|contender| matches!(contender, Contender::ImuxTransparent(_))) {
        // All of them in the same one.
        handed::enter_own_network()?;
    }
    let mut rows = Vec::new();
    for &(streams, lanes) in &cases {
        for &direction in &directions {
            for contender in &contenders {
                let peer = contender.name().to_owned();
                rows.push(Row {
                    peer,
                    streams,
                    lanes,
                    direction,
                    samples: Vec::new(),
                    failures: Vec::new(),
                });
            }
        }
    }
    for round in 1..=args.runs {
        for (number, row) in rows.iter_mut().enumerate() {
            let contender = &contenders[number % contenders.len()];
            eprintln!(
                "run {round}/{}: {} {}x{} {:?}",
                args.runs, row.peer, row.streams, row.lanes, row.direction
            );
            match measure(contender, row, args.megabytes) {
                Ok(sample) => row.samples.push(sample),
                Err(e @ LabError::Run(_)) => {
                    eprintln!("  failed: {e}");
                    row.failures.push(e.to_string());
                }
                Err(e) => return Err(e),
            }
        }
    }
    say(table(&rows));
    if let Some(path) = &args.json {
        let text =
            serde_json::to_string_pretty(&rows).map_err(|e| LabError::setup("write JSON", e))?;
        std::fs::write(path, text)
            .map_err(|e| LabError::setup(format!("write {}", path.display()), e))?;
    }
    Ok(())
}

fn parse_case(text: &str) -> Result<(u32, u16), LabError> {
    let parsed = text.split_once('x').and_then(|(s, l)| Some((s.parse().ok()?, l.parse().ok()?)));
    match parsed {
        Some((streams @ 1..=64, lanes @ 1..)) => Ok((streams, lanes)),
        _ => Err(LabError::Usage(format!(
            "`{text}` is not a case; write STREAMSxLANES, as 8x8, with at most 64 streams"
        ))),
    }
}

/// Who takes part, and where its program is.
#[derive(Debug)]
enum Contender {
    Direct,
    TlsPair(TlsPair, PathBuf),
    Imux(PathBuf),
    /// Through its SOCKS5 port.
    ImuxProxy(PathBuf),
    /// Handed over by the kernel.
    ImuxTransparent(PathBuf),
}

/// The contenders that can take part; names and skips those not installed.
fn contenders(args: &CpuArgs) -> Result<Vec<Contender>, LabError> {
    let mut found = Vec::new();
    for name in &args.peers {
        let contender = match name.as_str() {
            "direct" => Some(Contender::Direct),
            "imux" => find_imux(args.imux.as_deref()).map(Contender::Imux),
            "imux-proxy" => find_imux(args.imux.as_deref()).map(Contender::ImuxProxy),
            "imux-transparent" => find_imux(args.imux.as_deref()).map(Contender::ImuxTransparent),
            other => {
                let pair: TlsPair = other.parse().map_err(|()| {
                    LabError::Usage(format!(
                        "no contender `{other}`; there are direct, haproxy, stunnel, imux, imux-proxy and \
                         imux-transparent"
                    ))
                })?;
                pair.program().map(|program| Contender::TlsPair(pair, program))
            }
        };
        match contender {
            Some(contender) => found.push(contender),
            None => eprintln!("imux-lab: `{name}` was not found: left out"),
        }
    }
    if found.is_empty() {
        return Err(LabError::Usage("no contender is left to measure".to_owned()));
    }
    Ok(found)
}

impl Contender {
    fn name(&self) -> &'static str {
        match self {
            Self::Direct => "direct TCP",
            Self::TlsPair(TlsPair::Haproxy, _) => "haproxy TLS pair",
            Self::TlsPair(TlsPair::Stunnel, _) => "stunnel pair",
            Self::Imux(_) => "imux",
            Self::ImuxProxy(_) => "imux -D",
            Self::ImuxTransparent(_) => "imux --transparent",
        }
    }

    /// Starts both ends towards `sink`; returns where to connect.
    fn start(&self, lanes: u16, sink: SocketAddr, scratch: &Scratch) -> Result<Started, LabError> {
        let (middle, entry) = (free_addr()?, free_addr()?);
        let mut started = Started { target: (entry, None), processes: Vec::new(), redirect: None };
        started.processes = match self {
            Self::Direct => return Ok(Started { target: (sink, None), ..started }),
            Self::TlsPair(pair, program) => {
                let (client, server) = (&Place::Host, &Place::Host);
                let ends = Ends { client, server, entry, middle, sink, source: None };
                pair.start(program, &ends, scratch)?
            }
            Self::Imux(program) => {
                let taking = ["--listen".to_owned(), entry.to_string()];
                start_imux(program, lanes, (sink, middle, entry), &taking, scratch)?
            }
            Self::ImuxTransparent(program) => {
                authorize(program, &[&sink.to_string()], scratch)?;
                started.target = (sink, None);
                started.redirect = Some(Redirect::new(Place::Host, sink, entry)?);
                let taking = ["--transparent".to_owned(), entry.to_string()];
                start_imux(program, lanes, (sink, middle, entry), &taking, scratch)?
            }
            Self::ImuxProxy(program) => {
                authorize(program, &[&sink.to_string()], scratch)?;
                let taking = ["-D".to_owned(), entry.to_string()];
                started.target = (entry, Some(sink));
                start_imux(program, lanes, (sink, middle, entry), &taking, scratch)?
            }
        };
        Ok(started)
    }
}

/// Both ends of a contender, towards the sink.
#[derive(Debug)]
struct Started {
    target: Target,
    processes: Vec<Process>,
    redirect: Option<Redirect>,
}

fn start(
    program: &Path,
    end: &str,
    args: &[String],
    env: &[(String, String)],
    scratch: &Scratch,
) -> Result<Process, LabError> {
    let name = format!("{} {end}", program.file_name().unwrap_or_default().display());
    let log = scratch.file(&format!("{end}.log"));
    Process::start(&name, &Place::Host, program, args, env, Some(&log))
}

fn start_imux(
    program: &Path,
    lanes: u16,
    (sink, middle, entry): (SocketAddr, SocketAddr, SocketAddr),
    taking: &[String],
    scratch: &Scratch,
) -> Result<Vec<Process>, LabError> {
    let home = |end: &str| [("IMUX_HOME".to_owned(), scratch.file(end).display().to_string())];
    let (at, to, from) = (middle.to_string(), sink.to_string(), handed::SERVERS.to_string());
    let server_args =
        ["server", "--listen", &at, "--dial", &to, "--from", &from].map(str::to_owned);
    let mut server = start(program, "server", &server_args, &home("home-server"), scratch)?;
    wait_listening(&mut server, middle, READY_LIMIT)?;
    let bind = format!("127.0.0.1={lanes}");
    let client_args =
        ["client", "--dial", &middle.to_string(), "--bind", &bind, "--host-key", "accept-new"]
            .map(str::to_owned);
    let client_args = [&client_args[..], taking].concat();
    let mut client = start(program, "client", &client_args, &home("home-client"), scratch)?;
    wait_listening(&mut client, entry, READY_LIMIT)?;
    wait_lanes(&mut client, middle.port(), usize::from(lanes))?;
    Ok(vec![server, client])
}

fn wait_lanes(client: &mut Process, port: u16, lanes: usize) -> Result<(), LabError> {
    let deadline = now_ns() + READY_LIMIT.as_nanos() as u64;
    // Both ends of a loopback connection are in the same table; one has the port as remote.
    while established_to(client.pid(), port) < lanes {
        client.check_alive()?;
        if now_ns() > deadline {
            return Err(LabError::Run(format!(
                "imux did not bring up {lanes} lanes; its last words:\n{}",
                client.log_tail()
            )));
        }
        clock::sleep(Duration::from_millis(10))?;
    }
    // The handshakes of the last lanes.
    clock::sleep(Duration::from_millis(300))
}

/// A port that is free right now. If another program takes it first, the start fails and says so.
fn free_addr() -> Result<SocketAddr, LabError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|l| l.local_addr())
        .map_err(|e| LabError::setup("find a free port", e))
}

fn measure(contender: &Contender, row: &Row, megabytes: u64) -> Result<Sample, LabError> {
    let scratch = Scratch::new("cpu")?;
    let sink_args = ["sink", "--listen", "127.0.0.1:0"].map(str::to_owned);
    let mut sink = Helper::start("sink", &Place::Host, &sink_args)?;
    let ready = sink.hear(READY_LIMIT)?;
    let port = ready.strip_prefix("ready ").and_then(|p| p.parse().ok());
    let port = port.ok_or_else(|| LabError::Run(format!("the sink said `{ready}`")))?;
    let sink_addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let started = contender.start(row.lanes, sink_addr, &scratch)?;
    let (entry, peers) = (started.target, &started.processes);
    let cpu = || peers.iter().map(|p| p.usage().cpu_s).sum::<f64>();

    let bytes = megabytes * 1_000_000 / u64::from(row.streams);
    let (direction, parallel) = (row.direction, row.streams);
    // A connection that only warms up, so that first-use costs are not counted.
    let warm_up =
        Job::Transfer { direction, bytes: 1_000_000, count: 1, parallel: 1, at_ms: 0, pause_ms: 0 };
    transfer(entry, warm_up, 10)?;
    let job = Job::Transfer { direction, bytes, count: 1, parallel, at_ms: 0, pause_ms: 0 };
    let (before, sink_before) = (cpu(), usage(sink.pid()).cpu_s);
    let moved = transfer(entry, job, 30 + megabytes / MEGABYTES_PER_S_MIN);
    let (elapsed_ms, load_cpu) = moved.map_err(|e| {
        let said = peers.iter().map(|p| format!("\n{} said last:\n{}", p.name, p.log_tail()));
        LabError::Run(format!("{e}{}", said.collect::<String>()))
    })?;
    let (after, sink_after) = (cpu(), usage(sink.pid()).cpu_s);

    let gb = bytes as f64 * f64::from(parallel) / 1e9;
    let rss = peers.iter().map(|p| p.usage().rss_peak_kb).max().unwrap_or(0);
    Ok(Sample {
        cpu_s_per_gb: (after - before) / gb,
        load_cpu_s_per_gb: (load_cpu + sink_after - sink_before) / gb,
        gb_per_s: gb / (elapsed_ms / 1e3),
        rss_peak_mb: rss as f64 / 1024.0,
    })
}

/// Where to connect and, if that is a proxy, where to from there.
type Target = (SocketAddr, Option<SocketAddr>);

/// Runs one transfer job; returns its slowest row's time in milliseconds, and the load's CPU
/// seconds.
fn transfer(target: Target, job: Job, limit_s: u64) -> Result<(f64, f64), LabError> {
    let rows = if let Job::Transfer { parallel, .. } = job { parallel as usize } else { 1 };
    let mut load = Helper::start("load", &Place::Host, &["load".to_owned()])?;
    let plan = Plan {
        target: target.0,
        by_proxy_to: target.1,
        source: None,
        mptcp: false,
        start_ns: now_ns() + 50 * NS_PER_MS,
        seed: 1,
        deadline_ms: limit_s * 1000,
        jobs: vec![job],
    };
    let text = serde_json::to_string(&plan).map_err(|e| LabError::setup("write the plan", e))?;
    load.tell(&text)?;
    let report: LoadReport = load.hear_json(Duration::from_secs(limit_s + 5))?;
    let cpu_s = usage(load.pid()).cpu_s;
    let job =
        report.jobs.first().ok_or_else(|| LabError::Run("the load did nothing".to_owned()))?;
    if !job.faults.is_empty() || job.times_ms.len() != rows {
        return Err(LabError::Run(format!("the transfer failed: {}", job.faults.join("; "))));
    }
    Ok((job.times_ms.iter().copied().fold(0.0, f64::max), cpu_s))
}

/// The figures as a markdown table, with each contender's ratio to haproxy in the same case.
fn table(rows: &[Row]) -> String {
    let middle = |row: &Row, field: fn(&Sample) -> f64| {
        median(&row.samples.iter().map(field).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    let cost = |row: &Row| middle(row, |s| s.cpu_s_per_gb);
    let mut out = String::from(
        "| streams x lanes | direction | contender | cpu-s/GB median | worst | / haproxy | GB/s median | worst \
         | peak RSS MB | load cpu-s/GB | failed |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let same =
            |r: &&Row| (r.streams, r.lanes, r.direction) == (row.streams, row.lanes, row.direction);
        let haproxy = rows.iter().filter(same).find(|r| r.peer.starts_with("haproxy")).map(cost);
        let ratio = match haproxy {
            Some(base) if row.peer != "direct TCP" => format!("{:.2}", cost(row) / base),
            _ => "-".to_owned(),
        };
        let worst = |field: fn(&Sample) -> f64, pick: fn(f64, f64) -> f64| {
            row.samples.iter().map(field).reduce(pick).unwrap_or(f64::NAN)
        };
        out += &format!(
            "| {}x{} | {:?} | {} | {:.2} | {:.2} | {ratio} | {:.2} | {:.2} | {:.0} | {:.2} | {} |\n",
            row.streams,
            row.lanes,
            row.direction,
            row.peer,
            cost(row),
            worst(|s| s.cpu_s_per_gb, f64::max),
            middle(row, |s| s.gb_per_s),
            worst(|s| s.gb_per_s, f64::min),
            worst(|s| s.rss_peak_mb, f64::max),
            middle(row, |s| s.load_cpu_s_per_gb),
            row.failures.len(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_checked() {
        assert_eq!(parse_case("8x20").unwrap(), (8, 20));
        for bad in ["", "8", "0x1", "1x0", "65x1", "ax1"] {
            assert_eq!(parse_case(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
