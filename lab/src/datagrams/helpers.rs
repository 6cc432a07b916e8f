//! The two helper processes: one sends datagrams at fixed times, the other sends them back.

use std::io::{self, BufRead};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::{NS_PER_MS, now_ns};
use crate::say;

/// How long a helper may take to say something.
pub(super) const HELPER_LIMIT: Duration = Duration::from_secs(10);

/// How long the last ones may be on their way.
const DRAIN_NS: u64 = 2_000 * NS_PER_MS;
/// A datagram begins with its number and when it was sent.
const HEAD: usize = 16;

/// What is sent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Stream {
    /// Where to.
    pub(super) target: SocketAddr,
    /// From which address, if that matters.
    pub(super) source: Option<IpAddr>,
    /// Of each datagram.
    pub(super) bytes: usize,
    /// From one to the next.
    pub(super) interval_us: u64,
    /// How many.
    pub(super) count: u64,
}

/// What came back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Echoed {
    /// Those that were sent.
    pub(super) sent: u64,
    /// Of each that came back, in milliseconds, in the order they came.
    pub(super) round_trips_ms: Vec<f64>,
    /// The longest time in which none came back, from the first sent on.
    pub(super) gap_ms: f64,
}

/// `imux-lab datagram-echo`: sends each datagram back to where it came from.
pub fn echo(listen: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(listen)?;
    say(format_args!("ready {}", socket.local_addr()?.port()));
    let mut space = vec![0; 65_536];
    loop {
        // Nobody may listen any more for what was sent back before.
        if let Ok((len, from)) = socket.recv_from(&mut space) {
            let _ = socket.send_to(&space[..len], from);
        }
    }
}

/// `imux-lab datagram-load`: one line of JSON in, one out.
pub fn load() -> io::Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let stream: Stream = serde_json::from_str(&line)?;
    let any: IpAddr = if stream.target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind(SocketAddr::new(stream.source.unwrap_or(any), 0))?;
    socket.connect(stream.target)?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let begin_ns = now_ns() + 5 * NS_PER_MS;
    let end_ns = begin_ns + stream.count * stream.interval_us * 1_000 + DRAIN_NS;
    let hearing = socket.try_clone()?;
    let hearing = std::thread::spawn(move || hear(&hearing, &stream, begin_ns, end_ns));
    let mut datagram = vec![0; stream.bytes.max(HEAD)];
    for number in 0..stream.count {
        let due_ns = begin_ns + number * stream.interval_us * 1_000;
        std::thread::sleep(Duration::from_nanos(due_ns.saturating_sub(now_ns())));
        datagram[..8].copy_from_slice(&number.to_be_bytes());
        datagram[8..HEAD].copy_from_slice(&now_ns().to_be_bytes());
        // A full queue, or a path that is down, is a loss like any other.
        let _ = socket.send(&datagram);
    }
    let echoed = hearing.join().map_err(|_| io::Error::other("the receiver failed"))?;
    say(serde_json::to_string(&echoed)?);
    Ok(())
}

fn hear(socket: &UdpSocket, stream: &Stream, begin_ns: u64, end_ns: u64) -> Echoed {
    let mut echoed = Echoed { sent: stream.count, ..Echoed::default() };
    let mut seen = vec![false; stream.count as usize];
    let mut space = vec![0; 65_536];
    let mut last_ns = begin_ns;
    let last_sent_ns = end_ns - DRAIN_NS;
    while echoed.round_trips_ms.len() < seen.len() && now_ns() < end_ns {
        let Ok(len) = socket.recv(&mut space) else { continue };
        let now = now_ns();
        let word =
            |at: usize| Some(u64::from_be_bytes(space[..len].get(at..at + 8)?.try_into().ok()?));
        let (Some(number), Some(sent_ns)) = (word(0), word(8)) else { continue };
        let Some(seen) = seen.get_mut(number as usize) else { continue };
        if std::mem::replace(seen, true) {
            continue;
        }
        let ms = |from: u64, to: u64| to.saturating_sub(from) as f64 / NS_PER_MS as f64;
        echoed.round_trips_ms.push(ms(sent_ns, now));
        echoed.gap_ms = echoed.gap_ms.max(ms(last_ns, now));
        last_ns = now;
    }
    let unheard = last_sent_ns.saturating_sub(last_ns) as f64 / NS_PER_MS as f64;
    echoed.gap_ms = echoed.gap_ms.max(unheard);
    echoed
}

/// As the arguments of a program.
pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}
