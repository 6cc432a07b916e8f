//! iperf3 over a carrier.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::carriers::{Carrying, IPERF_PORT};
use super::helpers::{HELPER_LIMIT, words};
use super::run::Run;
use crate::clock;
use crate::error::LabError;
use crate::proc::{Process, command, wait_listening};
use crate::topology::Topology;

/// A quarter of a path's rate.
pub(super) const RATE: &str = "5M";

/// Loss and jitter of one run.
pub(super) fn run(
    program: &Path,
    topology: &Topology,
    carrying: &Carrying,
    seconds: u64,
) -> Result<Run, LabError> {
    let port = IPERF_PORT.to_string();
    let args = words(&["-s", "-p", &port]);
    let mut server = Process::start("iperf3", &topology.server(), program, &args, &[], None)?;
    wait_listening(&mut server, ([0, 0, 0, 0], IPERF_PORT).into(), HELPER_LIMIT)?;
    clock::sleep(Duration::from_millis(200))?;
    let (host, port) = (carrying.iperf.ip().to_string(), carrying.iperf.port().to_string());
    let time = seconds.to_string();
    let mut args =
        words(&["-c", &host, "-p", &port, "-u", "-b", RATE, "-l", "1200", "-t", &time, "-J"]);
    if let Some(source) = carrying.source {
        args.extend(words(&["-B", &source.to_string()]));
    }
    let done = command(&topology.client(), program, &args).output();
    let done = done.map_err(|e| LabError::setup("run iperf3", e))?;
    let said: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    let sum = &said["end"]["sum"];
    match (sum["lost_percent"].as_f64(), sum["jitter_ms"].as_f64()) {
        (Some(lost_percent), Some(jitter_ms)) => {
            Ok(Run { lost_percent, jitter_ms, ..Run::default() })
        }
        _ => Err(LabError::Run(format!("iperf3: {}", said["error"]))),
    }
}
