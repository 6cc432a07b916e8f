//! What the kernel knows about a connection (`TCP_INFO`, `SO_MEMINFO`).

use std::os::fd::AsFd;
use std::sync::LazyLock;
use std::time::Duration;

use nix::sys::socket::sockopt::{GetStruct, SetStruct};
use nix::sys::socket::{GetSockOpt, SetSockOpt};
use nix::{getsockopt_impl, setsockopt_impl};

use super::LaneMetrics;

/// The head of Linux's `struct tcp_info` (include/uapi/linux/tcp.h), up to the last field read
/// here. The kernel copies as much as asked for and never moves a field.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct TcpInfoHead {
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
    busy_time: u64,
    rwnd_limited: u64,
    sndbuf_limited: u64,
    delivered: u32,
    delivered_ce: u32,
}

/// Of the states in include/net/tcp_states.h: TIME_WAIT, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING.
const ENDED: [u8; 5] = [6, 7, 8, 9, 11];

/// `TCP_INFO`, read only.
#[derive(Debug, Clone, Copy)]
struct TcpInfo;

// The getter allocates nothing and accepts only an answer of exactly the requested size: see
// `KERNEL_ANSWERS`.
getsockopt_impl!(TcpInfo, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfoHead, GetStruct<TcpInfoHead>);

/// `SO_MAX_PACING_RATE`, in bytes a second; the largest number means no limit.
#[derive(Debug, Clone, Copy)]
struct MaxPacingRate;

setsockopt_impl!(
    MaxPacingRate,
    libc::SOL_SOCKET,
    libc::SO_MAX_PACING_RATE,
    u32,
    SetStruct<'_, u32>
);

/// Bounds the kernel's sending rate. Only if it paces anyway: otherwise this would switch pacing
/// on.
pub(super) fn set_max_pacing_rate(socket: &impl AsFd, bytes_per_second: u64) {
    let rate = u32::try_from(bytes_per_second).unwrap_or(u32::MAX);
    // A dead socket says so at the next write.
    let _ = MaxPacingRate.set(socket, &rate);
}

/// Whether the kernel fills all of [`TcpInfoHead`]: since Linux 4.18, whose `tcp_info` ends in
/// `delivered_ce`.
static KERNEL_ANSWERS: LazyLock<bool> = LazyLock::new(|| {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .is_ok_and(|release| parse_release(&release).is_some_and(|version| version >= (4, 18)))
});

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Asks the kernel; `None` if it does not know (not TCP, too old).
pub(super) fn tcp_metrics(socket: &impl AsFd) -> Option<LaneMetrics> {
    if !*KERNEL_ANSWERS {
        return None;
    }
    TcpInfo.get(socket).ok().map(|info| LaneMetrics::from(&info))
}

/// How much of what was written to a connection its peer has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// Bytes the peer's kernel has acknowledged so far.
    pub(crate) acked_bytes: u64,
    /// Something written, an end included, is still unacknowledged.
    pub(crate) any_left: bool,
}

/// Asks the kernel; `None` if it does not know (too old).
pub(crate) fn outgoing(socket: &impl AsFd) -> Option<Outgoing> {
    if !*KERNEL_ANSWERS {
        return None;
    }
    TcpInfo.get(socket).ok().map(|info| Outgoing {
        acked_bytes: info.bytes_acked,
        any_left: info.unacked > 0 || info.notsent_bytes > 0,
    })
}

/// `SO_MEMINFO`: what is allocated for a socket (include/uapi/linux/sock_diag.h).
#[derive(Debug, Clone, Copy)]
struct MemInfo;

/// As many numbers as it has had since Linux 4.6; the third is the memory allocated to send.
type MemInfoNumbers = [u32; 9];

getsockopt_impl!(
    MemInfo,
    libc::SOL_SOCKET,
    libc::SO_MEMINFO,
    MemInfoNumbers,
    GetStruct<MemInfoNumbers>
);

/// What the program at a Unix socket's other end has not read yet, in bytes of kernel memory;
/// `None` if the kernel does not tell.
pub(crate) fn unread(socket: &impl AsFd) -> Option<u32> {
    if !*KERNEL_ANSWERS {
        return None;
    }
    MemInfo.get(socket).ok().map(|numbers| numbers[2])
}

impl From<&TcpInfoHead> for LaneMetrics {
    fn from(info: &TcpInfoHead) -> Self {
        let micros = |value: u32| Duration::from_micros(value.into());
        let in_segments = |count: u32| u64::from(count) * u64::from(info.snd_mss);
        let first_bit = if cfg!(target_endian = "little") { 1 } else { 0x80 };
        Self {
            rtt: micros(info.rtt),
            // The kernel starts with the largest possible number.
            rtt_min: (info.min_rtt != u32::MAX && info.rtt != 0).then(|| micros(info.min_rtt)),
            rtt_var: micros(info.rttvar),
            delivery_rate: info.delivery_rate,
            // Without pacing the kernel reports no limit.
            pacing_rate: (info.pacing_rate != u64::MAX).then_some(info.pacing_rate),
            delivery_rate_app_limited: info.flags & first_bit != 0,
            silence: Some(Duration::from_millis(info.last_ack_recv.into())),
            unacked_bytes: in_segments(info.unacked),
            unsent_bytes: info.notsent_bytes.into(),
            cwnd_bytes: in_segments(info.snd_cwnd),
            delivered_bytes: Some(in_segments(info.delivered)),
            mss: info.snd_mss,
            retransmits: info.total_retrans.into(),
            ended: ENDED.contains(&info.state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_is_as_long_as_the_kernels() {
        // offsetof(struct tcp_info, tcpi_bytes_sent), the field after the last one.
        assert_eq!(size_of::<TcpInfoHead>(), 200);
        assert_eq!(std::mem::offset_of!(TcpInfoHead, rtt), 68);
        assert_eq!(std::mem::offset_of!(TcpInfoHead, notsent_bytes), 144);
        assert_eq!(std::mem::offset_of!(TcpInfoHead, delivery_rate), 160);
        assert_eq!(std::mem::offset_of!(TcpInfoHead, delivered), 192);
    }

    #[test]
    fn reads_kernel_releases() {
        assert_eq!(parse_release("6.18.44-fc-v657\n"), Some((6, 18)));
        assert_eq!(parse_release("4.9\n"), Some((4, 9)));
        assert_eq!(parse_release("3.10.0-1160.el7.x86_64"), Some((3, 10)));
        assert_eq!(parse_release("unknown"), None);
        assert_eq!(parse_release(""), None);
    }

    #[test]
    fn a_peer_that_has_gone_is_known_before_its_end_is_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        assert!(!tcp_metrics(&socket).unwrap().ended);
        drop(peer);
        assert!(tcp_metrics(&socket).unwrap().ended);
    }

    #[test]
    fn what_is_not_tcp_has_no_metrics() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(tcp_metrics(&socket), None);
    }
}
