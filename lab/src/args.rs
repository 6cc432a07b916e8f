//! The options of `imux-lab`, as clap knows them.

// The comments on options are help texts, in which brackets mean what may be left out.
#![allow(rustdoc::broken_intra_doc_links)]

use clap::{Args, Parser, Subcommand};

/// Measures on real kernels: emulated paths, real TCP and MPTCP, other programs side by side
#[derive(Parser, Debug)]
#[command(name = "imux-lab", version, about)]
pub struct Lab {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// CPU and memory per gigabyte on loopback: imux beside TLS pairs of haproxy and stunnel
    Cpu(CpuArgs),
    /// List the cells of the matrix
    Cells,
    /// Run one cell: emulated paths, load, figures beside their targets
    Cell(CellArgs),
    /// Run many cells and random settings; write tables, plots and all figures into a directory
    Matrix(MatrixArgs),
    /// Check the link emulator itself on this machine: rates and delays as measured against those
    /// set
    Accuracy {
        /// Emulated paths
        #[arg(long, default_value_t = 3)]
        paths: usize,
        /// Megabits per second of each
        #[arg(long, default_value_t = 100.0)]
        mbit: f64,
        /// Round-trip time of each in milliseconds
        #[arg(long, default_value_t = 20.0)]
        rtt: f64,
        /// System default congestion control
        #[arg(long, default_value = "bbr")]
        congestion: String,
    },
    /// Datagrams: loss, delay and cost, beside plain UDP and socat
    Datagrams(DatagramArgs),
    /// Remove namespaces and processes that a crashed run has left behind
    Sweep,
    /// Helper process: sends and measures; reads its plan from standard input
    #[command(hide = true)]
    Load,
    /// Helper process: receives, checks and answers
    #[command(hide = true)]
    Sink {
        /// Address to listen on; port 0 takes a free one
        #[arg(long)]
        listen: std::net::SocketAddr,
        /// Accept MPTCP
        #[arg(long)]
        mptcp: bool,
    },
    /// Helper process: sends datagrams at fixed times; reads its plan from standard input
    #[command(hide = true)]
    DatagramLoad,
    /// Helper process: sends datagrams back
    #[command(hide = true)]
    DatagramEcho {
        /// Address to listen on
        #[arg(long)]
        listen: std::net::SocketAddr,
    },
}

/// Arguments of `imux-lab datagrams`.
#[derive(Args, Debug, Clone)]
pub struct DatagramArgs {
    /// Cases, comma-separated: lossy (two lossy paths, one dies), bulk (beside a full path), iperf
    /// (what iperf3 says), cpu (on loopback, beside socat)
    #[arg(long, value_delimiter = ',', default_value = "lossy,bulk,iperf,cpu")]
    pub cases: Vec<String>,
    /// Runs of each carrier; carriers take turns
    #[arg(long, default_value_t = 3)]
    pub runs: u32,
    /// How long each run sends
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// System default congestion control of both ends
    #[arg(long, default_value = "bbr")]
    pub congestion: String,
    /// Losses come from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The imux program; by default the one beside this program, then the one on PATH
    #[arg(long)]
    pub imux: Option<std::path::PathBuf>,
}

/// Arguments of `imux-lab cpu`.
#[derive(Args, Debug, Clone)]
pub struct CpuArgs {
    /// Contenders, comma-separated: direct, haproxy, stunnel, imux, imux-proxy (its SOCKS port),
    /// imux-transparent (handed over by the kernel; needs root and nft)
    #[arg(long, value_delimiter = ',', default_value = "direct,haproxy,stunnel,imux")]
    pub peers: Vec<String>,
    /// Streams x lanes of each case, comma-separated
    #[arg(long, value_delimiter = ',', default_value = "1x1,1x8,8x8")]
    pub cases: Vec<String>,
    /// Megabytes moved in each run, all streams together
    #[arg(long, default_value_t = 2000)]
    pub megabytes: u64,
    /// up, down, or both one after the other
    #[arg(long, default_value = "up")]
    pub direction: String,
    /// Runs of each contender and case; contenders take turns
    #[arg(long, default_value_t = 5)]
    pub runs: u32,
    /// The imux program; by default the one beside this program, then the one on PATH
    #[arg(long)]
    pub imux: Option<std::path::PathBuf>,
    /// Where to write the figures as JSON
    #[arg(long)]
    pub json: Option<std::path::PathBuf>,
}

/// What is common to all runs over emulated paths.
#[derive(Args, Debug, Clone)]
pub struct RunArgs {
    /// Contenders, comma-separated: tcp (best path), tcpN (path N), mptcp, agg, haproxy, stunnel,
    /// goimux[:LANES], imux[:LANES][@PROGRAM], imux-transparent (the same, handed over by the
    /// kernel), sim[:LANES] (the simulator's imux: no root, no kernel)
    #[arg(long, value_delimiter = ',', default_value = "tcp,mptcp,agg,imux")]
    pub peers: Vec<String>,
    /// Runs of each contender; contenders take turns
    #[arg(long, default_value_t = 5)]
    pub runs: u32,
    /// System default congestion control of both ends; several, comma-separated, are run one after
    /// another
    #[arg(long, value_delimiter = ',', default_value = "bbr")]
    pub congestion: Vec<String>,
    /// Losses, bytes and random settings come from it
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The imux program; by default the one beside this program, then the one on PATH
    #[arg(long)]
    pub imux: Option<std::path::PathBuf>,
    /// Repeat a run up to so many times if the machine was too busy to emulate links well
    #[arg(long, default_value_t = 2)]
    pub repeats: u32,
    /// The original imux written in Go; by default `imux-go` on PATH
    #[arg(long)]
    pub go_imux: Option<std::path::PathBuf>,
    /// More arguments for every `imux client`, separated by blanks
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub imux_client_args: String,
    /// More arguments for every `imux server`, separated by blanks
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub imux_server_args: String,
}

/// Arguments of `imux-lab cell`.
#[derive(Args, Debug, Clone)]
pub struct CellArgs {
    /// The cell, as `imux-lab cells` lists them, or randomN: the N-th random setting of the seed
    pub name: String,
    #[command(flatten)]
    pub run: RunArgs,
    /// Other paths than the cell's own: MBIT,RTT_MS[,LOSS_PERCENT[,QUEUE_KB[,CONNECTION_MBIT]]];
    /// once per path. Targets stay those of the cell
    #[arg(long = "path")]
    pub paths: Vec<String>,
    /// Directory to write tables, plots and all figures to
    #[arg(long)]
    pub out: Option<std::path::PathBuf>,
}

/// Arguments of `imux-lab matrix`.
#[derive(Args, Debug, Clone)]
pub struct MatrixArgs {
    #[command(flatten)]
    pub run: RunArgs,
    /// Only cells whose name begins with one of these, comma-separated
    #[arg(long, value_delimiter = ',')]
    pub cells: Vec<String>,
    /// Random settings beside the cells; 0 for none
    #[arg(long, default_value_t = 40)]
    pub settings: u32,
    /// Only the random settings
    #[arg(long)]
    pub no_cells: bool,
    /// Directory to write tables, plots and all figures to
    #[arg(long)]
    pub out: std::path::PathBuf,
}
