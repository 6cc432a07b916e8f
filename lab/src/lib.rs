//! The lab: imux and its peers, measured side by side on real kernels.
//!
//! ```text
//!   client namespace          runner process           server namespace
//!   load ── peer ── tun p0 ──┐              ┌── tun p0 ── peer ── sink
//!                   tun p1 ──┤   emulator   ├── tun p1
//!                   tun p2 ──┘              └── tun p2
//! ```
//!
//! Linux only, and all but the CPU bench need root. Every namespace is named by the runner's pid;
//! every process is ended by its own id.

use std::fmt::Display;
use std::io::{self, Write};

pub mod args;
pub mod cli;
pub mod error;
pub mod stats;
pub mod stream;

#[cfg(target_os = "linux")]
pub mod accuracy;
#[cfg(target_os = "linux")]
pub mod calm;
#[cfg(target_os = "linux")]
pub mod cell;
#[cfg(target_os = "linux")]
pub mod clock;
#[cfg(target_os = "linux")]
pub mod cpu;
#[cfg(target_os = "linux")]
pub mod design;
#[cfg(target_os = "linux")]
pub mod emu;
#[cfg(target_os = "linux")]
pub mod flow;
#[cfg(target_os = "linux")]
pub mod load;
#[cfg(target_os = "linux")]
pub mod matrix;
#[cfg(target_os = "linux")]
pub mod measure;
#[cfg(target_os = "linux")]
pub mod peers;
#[cfg(target_os = "linux")]
pub mod proc;
#[cfg(target_os = "linux")]
pub mod radio;
#[cfg(target_os = "linux")]
pub mod report;
#[cfg(target_os = "linux")]
pub mod result;
#[cfg(target_os = "linux")]
pub mod runner;
#[cfg(target_os = "linux")]
pub mod scenarios;
#[cfg(target_os = "linux")]
pub mod scratch;
#[cfg(target_os = "linux")]
pub mod simulated;
#[cfg(target_os = "linux")]
pub mod sink;
#[cfg(target_os = "linux")]
pub mod slow;
#[cfg(target_os = "linux")]
pub mod svg;
#[cfg(target_os = "linux")]
pub mod tls_pair;
#[cfg(target_os = "linux")]
pub mod topology;
#[cfg(target_os = "linux")]
pub mod wire;
#[cfg(target_os = "linux")]
pub mod workload;

/// Prints a line for whoever still listens: a closed standard output ends no measurement.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}
