//! `imux-lab datagrams`: what carrying datagrams over lanes costs and gains, beside plain UDP.

mod carriers;
mod helpers;
mod iperf;
mod run;

use std::path::PathBuf;
use std::time::Duration;

use super::args::DatagramArgs;
use super::clock::{self, NS_PER_MS, now_ns};
use super::emu::Change;
use super::error::LabError;
use super::load::{Direction, Plan};
use super::peers::SINK_PORT;
use super::proc::{Helper, Place, find_program};
use super::scratch::Scratch;
use super::stream::mix;
use super::topology::{PathSpec, Topology};
use super::workload::bulk;
use carriers::{Carrier, Carrying};
use helpers::{Echoed, HELPER_LIMIT, Stream, words};
pub use helpers::{echo, load};
use run::{Row, Run, show};

/// A voice: a small datagram every 20 ms.
const VOICE: (usize, u64) = (200, 20_000);

/// A tunnel of packets at 20 Mbit/s each way.
const TUNNEL: (usize, u64) = (1_420, 568);

/// How much sooner than the datagrams the bulk beside them starts.
const BULK_LEAD_MS: u64 = 3_000;

/// What is done to the paths, and beside the datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// The path of least delay falls silent half way.
    Silence,
    /// As many bytes as fit go the same way.
    Bulk,
}

/// Runs the cases that were asked for.
pub fn run(args: &DatagramArgs) -> Result<(), LabError> {
    clock::catch_signals()?;
    let imux = |redundant| Carrier::Imux { redundant };
    for case in &args.cases {
        match case.as_str() {
            "lossy" => {
                let carriers = [Carrier::Plain(0), Carrier::Plain(1), imux(false), imux(true)]
                    .map(|it| (it, Beside::Silence));
                echoes(
                    args,
                    "1 % of loss, 20 and 40 ms; the first falls silent half way",
                    &carriers,
                )?;
            }
            "bulk" => {
                let carriers = [Carrier::Plain(0), imux(false)]
                    .into_iter()
                    .flat_map(|it| [(it.clone(), Beside::Nothing), (it, Beside::Bulk)]);
                echoes(
                    args,
                    "1 % of loss, 20 and 40 ms; alone, and beside a full path",
                    &carriers.collect::<Vec<_>>(),
                )?;
            }
            "iperf" => iperf(args)?,
            "cpu" => cpu(args)?,
            other => {
                return Err(LabError::Usage(format!(
                    "no case `{other}`; there are lossy, bulk, iperf and cpu"
                )));
            }
        }
    }
    Ok(())
}

fn lossy_paths() -> [PathSpec; 2] {
    [PathSpec::new(20.0, 20.0), PathSpec::new(20.0, 40.0)].map(|path| path.with_loss(1.0))
}

/// A voice that is sent back, by each carrier in turn.
fn echoes(
    args: &DatagramArgs,
    about: &str,
    carriers: &[(Carrier, Beside)],
) -> Result<(), LabError> {
    let name = |(carrier, beside): &(Carrier, Beside)| match beside {
        Beside::Bulk => format!("{carrier} beside bulk"),
        _ => carrier.to_string(),
    };
    let rows = rounds(args, carriers, name, |(carrier, beside), seed| {
        voice(args, carrier, *beside, seed)
    })?;
    let about = format!("{about}: {} bytes every {} ms, round trips", VOICE.0, VOICE.1 / 1_000);
    show(
        &about,
        &rows,
        &[
            ("lost %", |row| row.middle(|run| run.lost_percent)),
            ("worst", |row| row.worst(|run| run.lost_percent)),
            ("p50 ms", |row| row.middle(|run| run.p50_ms)),
            ("p99 ms", |row| row.middle(|run| run.p99_ms)),
            ("worst", |row| row.worst(|run| run.p99_ms)),
            ("latest ms", |row| row.worst(|run| run.max_ms)),
            ("longest gap ms", |row| row.worst(|run| run.gap_ms)),
        ],
    );
    Ok(())
}

/// All carriers in turns, so that a slow phase of the machine hits all of them.
fn rounds<C>(
    args: &DatagramArgs,
    carriers: &[C],
    name: impl Fn(&C) -> String,
    run: impl Fn(&C, u64) -> Result<Run, LabError>,
) -> Result<Vec<Row>, LabError> {
    let row = |carrier| Row { carrier: name(carrier), runs: Vec::new(), failed: 0 };
    let mut rows: Vec<Row> = carriers.iter().map(row).collect();
    for round in 1..=args.runs {
        for (carrier, row) in carriers.iter().zip(&mut rows) {
            eprintln!("run {round}/{}: {}", args.runs, row.carrier);
            match run(carrier, mix(args.seed ^ mix(round.into()))) {
                Ok(run) => row.runs.push(run),
                Err(error @ LabError::Run(_)) => {
                    eprintln!("  failed: {error}");
                    row.failed += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(rows)
}

fn voice(
    args: &DatagramArgs,
    carrier: &Carrier,
    beside: Beside,
    seed: u64,
) -> Result<Run, LabError> {
    let scratch = Scratch::new("datagrams")?;
    let topology = Topology::new(&lossy_paths(), &args.congestion, seed)?;
    let _echo = carriers::start_echo(&topology.server())?;
    let mut sink = Helper::start(
        "sink",
        &topology.server(),
        &words(&["sink", "--listen", &format!("0.0.0.0:{SINK_PORT}")]),
    )?;
    sink.hear(HELPER_LIMIT)?;
    let carrying = carrier.start(&topology, args.imux.as_deref(), &scratch)?;
    let _bulk = match beside {
        Beside::Bulk => Some(start_bulk(&carrying, args.seconds, seed, &topology)?),
        _ => None,
    };
    let load = start_load(&topology.client(), &carrying, VOICE, args.seconds)?;
    if beside == Beside::Silence {
        clock::sleep(Duration::from_millis(args.seconds * 500))?;
        topology.emulator().change(0, Change::Silent(true))?;
    }
    let echoed = echoed(load, args.seconds)?;
    Ok(Run::of(&echoed, 0.0, VOICE.0))
}

fn start_load(
    place: &Place,
    carrying: &Carrying,
    (bytes, interval_us): (usize, u64),
    seconds: u64,
) -> Result<Helper, LabError> {
    let mut load = Helper::start("load", place, &words(&["datagram-load"]))?;
    let (target, source) = (carrying.datagrams, carrying.source);
    let count = seconds * 1_000_000 / interval_us;
    let stream = Stream { target, source, bytes, interval_us, count };
    let text = serde_json::to_string(&stream).map_err(|e| LabError::setup("write the plan", e))?;
    load.tell(&text)?;
    Ok(load)
}

fn echoed(mut load: Helper, seconds: u64) -> Result<Echoed, LabError> {
    load.hear_json(Duration::from_secs(seconds) + HELPER_LIMIT)
}

/// As many bytes as fit, up, from before the datagrams to their end.
fn start_bulk(
    carrying: &Carrying,
    seconds: u64,
    seed: u64,
    topology: &Topology,
) -> Result<Helper, LabError> {
    let mut load = Helper::start("bulk", &topology.client(), &words(&["load"]))?;
    let duration_ms = BULK_LEAD_MS + seconds * 1_000 + 500;
    let plan = Plan {
        target: carrying.bulk,
        by_proxy_to: None,
        source: carrying.source,
        mptcp: false,
        start_ns: now_ns() + 50 * NS_PER_MS,
        seed,
        deadline_ms: duration_ms + 1_000,
        jobs: vec![bulk(Direction::Up, 1, duration_ms, 0)],
    };
    load.tell(&serde_json::to_string(&plan).map_err(|e| LabError::setup("write the plan", e))?)?;
    clock::sleep(Duration::from_millis(BULK_LEAD_MS))?;
    Ok(load)
}

/// What iperf3 says of loss and jitter, at a rate that the better path has room for.
fn iperf(args: &DatagramArgs) -> Result<(), LabError> {
    let Some(program) = find_program("iperf3") else {
        eprintln!("imux-lab: `iperf3` was not found: left out");
        return Ok(());
    };
    let carriers =
        [Carrier::Plain(0), Carrier::Imux { redundant: false }, Carrier::Imux { redundant: true }];
    let rows = rounds(args, &carriers, ToString::to_string, |carrier, seed| {
        let scratch = Scratch::new("iperf")?;
        let topology = Topology::new(&lossy_paths(), &args.congestion, seed)?;
        let carrying = carrier.start(&topology, args.imux.as_deref(), &scratch)?;
        iperf::run(&program, &topology, &carrying, args.seconds)
    })?;
    show(
        &format!("1 % of loss, 20 and 40 ms: iperf3 -u -b {}, up", iperf::RATE),
        &rows,
        &[
            ("lost %", |row| row.middle(|run| run.lost_percent)),
            ("worst", |row| row.worst(|run| run.lost_percent)),
            ("jitter ms", |row| row.middle(|run| run.jitter_ms)),
            ("worst", |row| row.worst(|run| run.jitter_ms)),
        ],
    );
    Ok(())
}

/// What carrying costs on loopback.
fn cpu(args: &DatagramArgs) -> Result<(), LabError> {
    let socat = find_program("socat");
    if socat.is_none() {
        eprintln!("imux-lab: `socat` was not found: left out");
    }
    let carriers: Vec<_> = socat.iter().map(Some).chain([None]).collect();
    let name =
        |socat: &Option<&PathBuf>| if socat.is_some() { "socat, two relays" } else { "imux" };
    let rows = rounds(
        args,
        &carriers,
        |it| name(it).to_owned(),
        |socat, _| {
            let scratch = Scratch::new("datagrams")?;
            let _echo = carriers::start_echo(&Place::Host)?;
            let carrying = match socat {
                Some(program) => carriers::start_socat(program)?,
                None => carriers::start_on_loopback(args.imux.as_deref(), &scratch)?,
            };
            let used = || carrying.processes.iter().map(|it| it.usage().cpu_s).sum::<f64>();
            let before = used();
            let load = start_load(&Place::Host, &carrying, TUNNEL, args.seconds)?;
            let echoed = echoed(load, args.seconds)?;
            Ok(Run::of(&echoed, used() - before, TUNNEL.0))
        },
    )?;
    show(
        &format!("loopback: {} bytes every {} us, sent back", TUNNEL.0, TUNNEL.1),
        &rows,
        &[
            ("cpu-s/GB", |row| row.middle(|run| run.cpu_s_per_gb)),
            ("worst", |row| row.worst(|run| run.cpu_s_per_gb)),
            ("lost %", |row| row.middle(|run| run.lost_percent)),
            ("p50 ms", |row| row.middle(|run| run.p50_ms)),
            ("p99 ms", |row| row.middle(|run| run.p99_ms)),
        ],
    );
    Ok(())
}
