//! What the demo shows: progress while it runs, and the result as a table or as JSON.
//!
//! Everything here is a function of its arguments; the caller brings the clock, the terminal and
//! the figures.

mod progress;
pub mod table;

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::text::escape;
use super::units;

pub use progress::{Progress, Style};
use table::{Align, Table};

/// The same between two machines.
pub const FOR_REAL: &str = "\
For real, near the destination (port 443 is for root), and then near you:
  imux server --listen 0.0.0.0:443 --dial localhost:22
  imux client --listen localhost:2222 --dial server.example:443 \\
      --bind dev:eth0 --bind dev:wwan0";

/// The demo's result.
#[derive(Debug, Clone)]
pub struct Report {
    /// From the client to the destination.
    pub up: Transfer,
    /// From the destination to the client.
    pub down: Transfer,
    pub lanes: Vec<Lane>,
}

/// One direction of the transfer.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    /// Bytes that arrived.
    pub bytes: u64,
    pub elapsed: Duration,
    /// Every byte was compared with the one sent and was the same.
    pub intact: bool,
    /// The time the fastest lane alone would have needed.
    pub fastest_lane_alone: Duration,
}

/// What one lane did.
#[derive(Debug, Clone)]
pub struct Lane {
    pub name: String,
    /// What the lane can carry each way, in bytes a second.
    pub capacity: f64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// Round-trip time of its path, if known.
    pub rtt: Option<Duration>,
    /// What happened to it, such as "killed at 50 %"; empty if nothing did.
    pub note: String,
}

impl Report {
    /// Whether everything arrived as sent.
    pub fn intact(&self) -> bool {
        self.up.intact && self.down.intact
    }

    /// Prints the result to `output`, as text or as one JSON object on a line.
    pub fn write_to(&self, output: &mut impl Write, as_json: bool) -> io::Result<()> {
        if as_json {
            writeln!(output, "{}", self.to_json())
        } else {
            write!(output, "{}", self.to_text())
        }
    }

    /// The report for people.
    pub fn to_text(&self) -> String {
        let mut lanes = Table::new(&[
            ("lane", Align::Left),
            ("each way", Align::Right),
            ("sent", Align::Right),
            ("received", Align::Right),
            ("share", Align::Right),
            ("round trip", Align::Right),
        ]);
        let mut notes = String::new();
        for lane in &self.lanes {
            lanes.row([
                escape(&lane.name),
                units::rate(lane.capacity),
                units::bytes(lane.sent_bytes),
                units::bytes(lane.received_bytes),
                format!("{:.0} %", 100.0 * self.share(lane)),
                lane.rtt.map_or_else(|| "-".to_owned(), rtt),
            ]);
            if !lane.note.is_empty() {
                notes += &format!("{}: {}\n", escape(&lane.name), escape(&lane.note));
            }
        }
        let mut transfers = Table::new(&[
            ("", Align::Left),
            ("bytes", Align::Right),
            ("time", Align::Right),
            ("rate one way", Align::Right),
            ("", Align::Left),
        ]);
        for (name, transfer) in [("up", &self.up), ("down", &self.down)] {
            transfers.row([
                name.to_owned(),
                units::bytes(transfer.bytes),
                units::duration(transfer.elapsed),
                units::rate(transfer.bytes_per_second()),
                transfer.verdict().to_owned(),
            ]);
        }
        if !self.intact() {
            let verdict = "BYTES ARE MISSING OR WRONG: this is a defect of imux.";
            return format!("{lanes}{notes}\n{transfers}\n{verdict}\n");
        }
        let (up, down) = (self.up.speedup(), self.down.speedup());
        let alone = units::duration(self.up.fastest_lane_alone.max(self.down.fastest_lane_alone));
        format!(
            "{lanes}{notes}\n{transfers}\n\
             Every byte arrived as it was sent. The fastest lane alone would have needed\n\
             {alone} for each direction: all together were {up:.1} times as fast up, {down:.1} down.\n\n\
             {FOR_REAL}\n"
        )
    }

    /// The report for machines: plain numbers, units in the names.
    pub fn to_json(&self) -> Value {
        let lanes = self.lanes.iter().map(|lane| {
            json!({
                "name": lane.name,
                "capacity_bytes_per_second": lane.capacity,
                "sent_bytes": lane.sent_bytes,
                "received_bytes": lane.received_bytes,
                "share": self.share(lane),
                "rtt_ms": lane.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
                "note": lane.note,
            })
        });
        json!({
            "intact": self.intact(),
            "up": self.up.to_json(),
            "down": self.down.to_json(),
            "lanes": lanes.collect::<Vec<_>>(),
        })
    }

    /// The lane's share of what all lanes carried, from 0 to 1.
    fn share(&self, lane: &Lane) -> f64 {
        let carried = |lane: &Lane| lane.sent_bytes as f64 + lane.received_bytes as f64;
        let all: f64 = self.lanes.iter().map(carried).sum();
        if all > 0.0 { carried(lane) / all } else { 0.0 }
    }
}

impl Transfer {
    fn bytes_per_second(&self) -> f64 {
        units::per_second(self.bytes, self.elapsed)
    }

    /// How many times faster than the fastest lane alone; 0 if no time was measured.
    fn speedup(&self) -> f64 {
        if self.elapsed.is_zero() {
            return 0.0;
        }
        self.fastest_lane_alone.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    fn verdict(&self) -> &'static str {
        if self.intact { "" } else { "DAMAGED" }
    }

    fn to_json(self) -> Value {
        json!({
            "bytes": self.bytes,
            "elapsed_ms": self.elapsed.as_secs_f64() * 1e3,
            "bytes_per_second": self.bytes_per_second(),
            "fastest_lane_alone_ms": self.fastest_lane_alone.as_secs_f64() * 1e3,
            "speedup": self.speedup(),
            "intact": self.intact,
        })
    }
}

/// Round-trip times are short: milliseconds with one decimal.
fn rtt(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let transfer = Transfer {
            bytes: 32 << 20,
            elapsed: Duration::from_millis(2_000),
            intact: true,
            fastest_lane_alone: Duration::from_millis(4_000),
        };
        let lane = |name: &str, sent_bytes, note: &str| Lane {
            name: name.to_owned(),
            capacity: 10e6,
            sent_bytes,
            received_bytes: sent_bytes,
            rtt: Some(Duration::from_micros(20_340)),
            note: note.to_owned(),
        };
        let mut dead = lane("lane 2", 8 << 20, "killed at 50 %");
        dead.rtt = None;
        Report { up: transfer, down: transfer, lanes: vec![lane("lane 1", 24 << 20, ""), dead] }
    }

    #[test]
    fn text() {
        let expected = "\
lane       each way      sent  received  share  round trip
lane 1  80.0 Mbit/s  24.0 MiB  24.0 MiB   75 %     20.3 ms
lane 2  80.0 Mbit/s   8.0 MiB   8.0 MiB   25 %           -
lane 2: killed at 50 %

         bytes   time  rate one way
up    32.0 MiB  2.0 s  134.2 Mbit/s
down  32.0 MiB  2.0 s  134.2 Mbit/s

Every byte arrived as it was sent. The fastest lane alone would have needed
4.0 s for each direction: all together were 2.0 times as fast up, 2.0 down.

";
        let text = report().to_text();
        assert_eq!(text, format!("{expected}{FOR_REAL}\n"));
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn damage_cannot_be_overlooked() {
        let mut report = report();
        report.down.intact = false;
        assert!(!report.intact());
        let text = report.to_text();
        assert!(text.contains("DAMAGED") && text.contains("BYTES ARE MISSING"), "{text}");
        assert_eq!(report.to_json()["intact"], false);
    }

    #[test]
    fn json() {
        let mut line = Vec::new();
        report().write_to(&mut line, true).unwrap();
        assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
        let json: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(json["intact"], true);
        assert_eq!(json["up"]["bytes"], 32 << 20);
        assert_eq!(json["up"]["elapsed_ms"], 2000.0);
        assert_eq!(json["up"]["speedup"], 2.0);
        assert_eq!(json["lanes"][0]["share"], 0.75);
        assert_eq!(json["lanes"][1]["rtt_ms"], Value::Null);
        assert_eq!(json["lanes"][1]["note"], "killed at 50 %");
    }

    #[test]
    fn nothing_at_all_is_no_division_by_zero() {
        let nothing = Transfer {
            bytes: 0,
            elapsed: Duration::ZERO,
            intact: true,
            fastest_lane_alone: Duration::ZERO,
        };
        let mut report = Report { up: nothing, down: nothing, lanes: Vec::new() };
        assert!(report.to_text().contains("0 bit/s"));
        report.lanes = self::report().lanes;
        report.lanes.iter_mut().for_each(|lane| (lane.sent_bytes, lane.received_bytes) = (0, 0));
        assert_eq!(report.to_json()["lanes"][0]["share"], 0.0);
        assert!(!report.to_text().contains("NaN"));
    }
}
