//! What the kernel knows about a TCP connection (`TCP_INFO`).

use std::os::fd::AsFd;
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::socket::GetSockOpt;
use nix::{getsockopt_impl, sockopt_impl};

use super::LaneMetrics;

/// The head of Linux's `struct tcp_info` (include/uapi/linux/tcp.h), up to the last field read here. The kernel copies as
/// much as is asked for, and never moves a field.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct TcpInfoHead {
    state: u8,
    ca_state: u8,
    retransmits: u8,
    probes: u8,
    backoff: u8,
    options: u8,
    window_scales: u8,
    /// Bit field: the first bit is `delivery_rate_app_limited`.
    flags: u8,
    rto: u32,
    ato: u32,
    snd_mss: u32,
    rcv_mss: u32,
    unacked: u32,
    sacked: u32,
    lost: u32,
    retrans: u32,
    fackets: u32,
    last_data_sent: u32,
    last_ack_sent: u32,
    last_data_recv: u32,
    last_ack_recv: u32,
    pmtu: u32,
    rcv_ssthresh: u32,
    rtt: u32,
    rttvar: u32,
    snd_ssthresh: u32,
    snd_cwnd: u32,
    advmss: u32,
    reordering: u32,
    rcv_rtt: u32,
    rcv_space: u32,
    total_retrans: u32,
    pacing_rate: u64,
    max_pacing_rate: u64,
    bytes_acked: u64,
    bytes_received: u64,
    segs_out: u32,
    segs_in: u32,
    notsent_bytes: u32,
    min_rtt: u32,
    data_segs_in: u32,
    data_segs_out: u32,
    delivery_rate: u64,
}

sockopt_impl!(
    /// `TCP_INFO`, read only.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    TcpInfoHead
);
