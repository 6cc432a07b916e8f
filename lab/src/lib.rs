//! The lab: imux and its peers, measured side by side on real kernels.
//!
//! ```text
//!   client namespace          runner process           server namespace
//!   load ── peer ── tun p0 ──┐              ┌── tun p0 ── peer ── sink
//!                   tun p1 ──┤   emulator   ├── tun p1
//!                   tun p2 ──┘              └── tun p2
//! ```
//!
//! Linux only; everything but the CPU bench needs root. Every namespace is named after the runner's
//! pid; every process is ended by its own id.

#![cfg(target_os = "linux")]

use std::fmt::Display;
use std::io::{self, Write};

pub mod accuracy;
pub mod args;
pub mod calm;
pub mod cell;
pub mod cli;
pub mod clock;
pub mod cpu;
pub mod datagrams;
pub mod design;
pub mod emu;
pub mod error;
pub mod flow;
pub mod handed;
pub mod load;
pub mod matrix;
pub mod measure;
pub mod peers;
pub mod proc;
pub mod radio;
pub mod report;
pub mod result;
pub mod runner;
pub mod scenarios;
pub mod scratch;
pub mod simulated;
pub mod sink;
pub mod slow;
pub mod stats;
pub mod stream;
pub mod svg;
pub mod tls_pair;
pub mod topology;
pub mod wire;
pub mod workload;

/// Prints a line if anybody still listens: a closed standard output must not end a measurement.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}
