//! What happened, as records for a file and a picture, and as one number for comparing runs.

use std::io::{self, Write};

use serde::Serialize;

use crate::net::Time;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Nanoseconds since the run began.
    pub t: Time,
    pub what: &'static str,
    /// "client", "server", or "net".
    pub end: &'static str,
    /// A lane or stream number, depending on `what`.
    pub id: u64,
    pub a: u64,
    pub b: u64,
}

/// The trace of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    records: Option<Vec<Record>>,
}

impl Trace {
    /// `keep`: keeps the records too, not only the hash.
    pub fn new(keep: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, records: keep.then(Vec::new) }
    }

    pub fn note(&mut self, record: Record) {
        let what = record.what.bytes().fold(0u64, |sum, byte| sum.rotate_left(5) ^ u64::from(byte));
        let end = u64::from(record.end.as_bytes()[0]);
        for word in [record.t, what ^ end, record.id, record.a, record.b] {
            self.hash = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        if let Some(records) = &mut self.records {
            records.push(record);
        }
    }

    /// Equal for equal runs and, barring chance, only for those.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn records(&self) -> &[Record] {
        self.records.as_deref().unwrap_or_default()
    }

    /// JSON lines.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        for record in self.records() {
            serde_json::to_writer(&mut *out, record)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}
