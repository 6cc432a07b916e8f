//! What load and sink exchange at the start and end of a connection.

use std::io::{self, Read, Write};

const MAGIC: &[u8; 8] = b"imuxlab1";
const REQUEST_LEN: usize = 48;

/// Length of a [`Receipt`] in bytes.
pub const RECEIPT_LEN: usize = 24;

/// What the client wants from a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Client sends; the sink checks and answers with a [`Receipt`] at the limit or the end.
    Up,
    /// Sink sends until the limit or the time is reached, then ends its side.
    Down,
    /// Sink returns every byte.
    Echo,
    /// Sink answers one byte at once.
    Ping,
}

/// First bytes of every connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub kind: Kind,
    /// Names the connection in the sink's report.
    pub tag: u64,
    /// Seed of the bytes sent.
    pub seed: u64,
    /// Bytes to send at most.
    pub limit: u64,
    /// Milliseconds to send at most (Down only).
    pub duration_ms: u64,
}

impl Request {
    /// Writes the request in one piece.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut bytes = [0; REQUEST_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8] = self.kind as u8;
        for (i, field) in [self.tag, self.seed, self.limit, self.duration_ms].iter().enumerate() {
            bytes[16 + i * 8..24 + i * 8].copy_from_slice(&field.to_le_bytes());
        }
        out.write_all(&bytes)
    }

    /// Reads a request, or says that something else arrived.
    pub fn read(input: &mut impl Read) -> io::Result<Self> {
        let mut bytes = [0; REQUEST_LEN];
        input.read_exact(&mut bytes)?;
        let kind = match (bytes[..8] == *MAGIC, bytes[8]) {
            (true, 0) => Kind::Up,
            (true, 1) => Kind::Down,
            (true, 2) => Kind::Echo,
            (true, 3) => Kind::Ping,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a lab request")),
        };
        let field = |i: usize| le_u64(&bytes, 16 + i * 8);
        Ok(Self { kind, tag: field(0), seed: field(1), limit: field(2), duration_ms: field(3) })
    }
}

/// The sink's receipt for an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Bytes that arrived, all checked.
    pub bytes: u64,
    /// Monotonic time in nanoseconds when the last one arrived.
    pub done_ns: u64,
    /// Whether every byte was correct.
    pub intact: bool,
}

impl Receipt {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECEIPT_LEN] {
        let mut bytes = [0; RECEIPT_LEN];
        bytes[..8].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.done_ns.to_le_bytes());
        bytes[16] = u8::from(self.intact);
        bytes
    }

    /// From bytes.
    #[must_use]
    pub fn decode(bytes: &[u8; RECEIPT_LEN]) -> Self {
        Self { bytes: le_u64(bytes, 0), done_ns: le_u64(bytes, 8), intact: bytes[16] == 1 }
    }
}

fn le_u64(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for kind in [Kind::Up, Kind::Down, Kind::Echo, Kind::Ping] {
            let request = Request { kind, tag: 1, seed: u64::MAX, limit: 3, duration_ms: 4 };
            let mut bytes = Vec::new();
            request.write(&mut bytes).unwrap();
            assert_eq!(Request::read(&mut bytes.as_slice()).unwrap(), request);
        }
        assert!(Request::read(&mut [0; REQUEST_LEN].as_slice()).is_err());
        let receipt = Receipt { bytes: 5, done_ns: 6, intact: true };
        assert_eq!(Receipt::decode(&receipt.encode()), receipt);
    }
}
