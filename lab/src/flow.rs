//! What a receiver notes about one stream: how much arrived when, and how long nothing did.

use serde::{Deserialize, Serialize};

use super::clock::NS_PER_MS;

/// Width of the bins of the timeline.
pub const BIN_NS: u64 = 10 * NS_PER_MS;
/// Pauses shorter than this are not recorded.
const PAUSE_MIN_NS: u64 = 5 * NS_PER_MS;
/// Ten minutes; later bytes are counted, but not binned.
const BINS_MAX: usize = 60_000;
const PAUSES_MAX: usize = 20_000;

/// One stream as its receiver saw it. Times are on the machine's monotonic clock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// The connection's name, the same at both ends.
    pub tag: u64,
    /// When the receiver began to wait for bytes.
    pub begin_ns: u64,
    /// When the latest byte arrived; 0 before the first.
    pub last_ns: u64,
    /// Bytes that arrived and were correct.
    pub bytes: u64,
    /// Bytes the sender handed to its socket, if the sender is the one reporting.
    pub sent: u64,
    /// The stream's end arrived after its last byte.
    pub ended: bool,
    /// What went wrong, if anything did.
    pub fault: Option<String>,
    /// Bytes in each [`BIN_NS`] since `begin_ns`.
    pub bins: Vec<u32>,
    /// Times without a byte: start and length.
    pub pauses: Vec<(u64, u64)>,
}

impl Flow {
    /// A stream that begins now.
    #[must_use]
    pub fn new(tag: u64, begin_ns: u64) -> Self {
        Self { tag, begin_ns, ..Self::default() }
    }

    /// Notes bytes that arrived.
    pub fn arrived(&mut self, now_ns: u64, bytes: usize) {
        let since = if self.last_ns == 0 { self.begin_ns } else { self.last_ns };
        let pause = now_ns.saturating_sub(since);
        if pause >= PAUSE_MIN_NS && self.pauses.len() < PAUSES_MAX {
            self.pauses.push((since, pause));
        }
        self.last_ns = now_ns;
        self.bytes += bytes as u64;
        let bin = (now_ns.saturating_sub(self.begin_ns) / BIN_NS) as usize;
        if bin < BINS_MAX {
            if self.bins.len() <= bin {
                self.bins.resize(bin + 1, 0);
            }
            self.bins[bin] =
                self.bins[bin].saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// Bytes that arrived in `from_ns..to_ns`, to the width of a bin.
    #[must_use]
    pub fn bytes_between(&self, from_ns: u64, to_ns: u64) -> u64 {
        let index = |ns: u64| (ns.saturating_sub(self.begin_ns) / BIN_NS) as usize;
        let to = index(to_ns).min(self.bins.len());
        let from = index(from_ns).min(to);
        self.bins[from..to].iter().map(|b| u64::from(*b)).sum()
    }

    /// The longest time within `from_ns..to_ns` in which nothing arrived.
    #[must_use]
    pub fn longest_pause(&self, from_ns: u64, to_ns: u64) -> u64 {
        let since = if self.last_ns == 0 { self.begin_ns } else { self.last_ns };
        let last = (since, to_ns.saturating_sub(since));
        let within = |(start, length): (u64, u64)| {
            let end = (start + length).min(to_ns);
            end.saturating_sub(start.max(from_ns))
        };
        self.pauses.iter().copied().chain([last]).map(within).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_and_pauses() {
        let ms = NS_PER_MS;
        let mut flow = Flow::new(1, 1000 * ms);
        for at in [1001, 1002, 1015, 1300, 1301] {
            flow.arrived(at * ms, 10);
        }
        assert_eq!(flow.bytes, 50);
        assert_eq!(flow.bytes_between(1000 * ms, 1020 * ms), 30);
        assert_eq!(flow.bytes_between(1300 * ms, 2000 * ms), 20);
        assert_eq!(flow.longest_pause(1000 * ms, 1301 * ms), 285 * ms);
        assert_eq!(flow.longest_pause(1200 * ms, 1301 * ms), 100 * ms, "only its part inside");
        assert_eq!(
            flow.longest_pause(1000 * ms, 2301 * ms),
            1000 * ms,
            "silence to the end counts"
        );
        assert_eq!(Flow::new(1, 0).longest_pause(0, 7), 7, "nothing ever came");
    }
}
