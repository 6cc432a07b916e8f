//! The record layer after the handshake (RFC 8446, section 5): framing, sequence numbers, and what is not data.
//!
//! rustls shakes hands and makes the keys, and its ciphers encrypt and decrypt here (nonce, additional data, padding are
//! theirs). Its own record layer would cost as much again as the ciphers themselves: it copies each record twice on its way
//! in. Here a record is decrypted where the socket put it, and handed out from there.
//!
//! There are no key updates, as with QUIC (RFC 9001, section 6): a lane whose keys are used up ends, and another one is
//! dialled.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::crypto::cipher::{
    InboundOpaqueMessage, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
    Tls13CipherSuite,
};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Largest payload of one TLS record (RFC 8446, section 5.1). What does not straddle two records is decoded without being
/// pieced together, so writers keep their units within it.
pub const TLS_RECORD_MAX: usize = 1 << 14;

/// Type, version, length.
const HEADER: usize = 5;

/// Largest record on the wire, without its header (RFC 8446, section 5.2).
const CIPHERTEXT_MAX: usize = TLS_RECORD_MAX + 256;

/// What one read may take from the socket. Sixteen records: with 64 KiB, moving the half record at the end and the
/// system calls cost a tenth more. An idle lane touches only its first pages.
const READ_MAX: usize = 256 * 1024;

/// How many records may come in a row that carry nothing (RFC 8446 allows empty ones), before the peer is taken to keep us
/// busy for nothing.
const FRUITLESS_MAX: u32 = 32;

pub(super) fn bad_record(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Ciphers for both directions, from the secrets that rustls hands over.
pub(super) fn ciphers(
    suite: SupportedCipherSuite,
    secrets: rustls::ExtractedSecrets,
) -> io::Result<(Sealer, Opener)> {
    let suite = suite.tls13().ok_or_else(|| bad_record("not TLS 1.3"))?;
    let (next_out, out) = secrets.tx;
    let (next_in, into) = secrets.rx;
    Ok((Sealer::new(suite, next_out, out)?, Opener::new(suite, next_in, into)?))
}

/// Encrypts records.
pub(super) struct Sealer {
    cipher: Box<dyn MessageEncrypter>,
    /// Sequence number of the next record.
    next: u64,
    /// How many records the key is good for.
    limit: u64,
}

impl Sealer {
    fn new(
        suite: &Tls13CipherSuite,
        next: u64,
        secrets: ConnectionTrafficSecrets,
    ) -> io::Result<Self> {
        let (key, iv) = key_and_iv(secrets)?;
        let limit = suite.common.confidentiality_limit;
        Ok(Self { cipher: suite.aead_alg.encrypter(key, iv), next, limit })
    }

    /// Whether more data may be encrypted. One record is kept back for the closing alert.
    pub(super) fn is_spent(&self) -> bool {
        self.next >= self.limit - 1
    }

    /// Encrypts one record of data, at most [`TLS_RECORD_MAX`] bytes.
    pub(super) fn seal(&mut self, payload: OutboundChunks<'_>) -> io::Result<Vec<u8>> {
        debug_assert!(payload.len() <= TLS_RECORD_MAX && !self.is_spent());
        self.encrypt(ContentType::ApplicationData, payload)
    }

    /// Encrypts an alert.
    pub(super) fn seal_alert(&mut self, alert: AlertDescription) -> io::Result<Vec<u8>> {
        // RFC 8446, section 6: the level matters no more, but close_notify is a warning and errors are fatal.
        let level = if alert == AlertDescription::CloseNotify { 1 } else { 2 };
        self.encrypt(ContentType::Alert, OutboundChunks::Single(&[level, alert.into()]))
    }

    fn encrypt(&mut self, typ: ContentType, payload: OutboundChunks<'_>) -> io::Result<Vec<u8>> {
        if self.next >= self.limit {
            return Err(io::Error::other("the lane's keys are used up"));
        }
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.cipher.encrypt(message, self.next).map_err(io::Error::other)?;
        self.next += 1;
        Ok(record.encode())
    }

    #[cfg(test)]
    pub(super) fn spend(&mut self, left: u64) {
        self.limit = self.next + left;
    }
}

/// Decrypts records.
pub(super) struct Opener {
    cipher: Box<dyn MessageDecrypter>,
    next: u64,
    fruitless: u32,
}

/// What a record was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// Data, at this place of the record.
    Data(Range<usize>),
    /// Nothing that matters.
    Nothing,
    /// The peer sends no more.
    Closed,
}

impl Opener {
    fn new(
        suite: &Tls13CipherSuite,
        next: u64,
        secrets: ConnectionTrafficSecrets,
    ) -> io::Result<Self> {
        let (key, iv) = key_and_iv(secrets)?;
        Ok(Self { cipher: suite.aead_alg.decrypter(key, iv), next, fruitless: 0 })
    }

    /// Decrypts a whole record, header and all, in place.
    pub(super) fn open(&mut self, record: &mut [u8]) -> io::Result<Opened> {
        let start = record.as_ptr().addr();
        let Some((header, body)) = record.split_at_mut_checked(HEADER) else {
            return Err(bad_record("a record without a header"));
        };
        if header[0] != u8::from(ContentType::ApplicationData) {
            return Err(bad_record("an unencrypted record after the handshake"));
        }
        let typ = ContentType::ApplicationData;
        let message = InboundOpaqueMessage::new(typ, ProtocolVersion::TLSv1_2, body);
        let opened = self
            .cipher
            .decrypt(message, self.next)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        // 2^64 records take longer than anything lasts.
        self.next = self.next.checked_add(1).ok_or_else(|| bad_record("too many records"))?;
        let payload = opened.payload;
        if opened.typ == ContentType::ApplicationData && !payload.is_empty() {
            self.fruitless = 0;
            let from = payload.as_ptr().addr() - start;
            return Ok(Opened::Data(from..from + payload.len()));
        }
        self.fruitless += 1;
        if self.fruitless > FRUITLESS_MAX {
            return Err(bad_record("too many records without data"));
        }
        not_data(opened.typ, payload)
    }
}

/// A record that carries no data.
fn not_data(typ: ContentType, payload: &[u8]) -> io::Result<Opened> {
    /// `new_session_ticket` (RFC 8446, section 4.6.1): offered to us by servers of other makes, and never used.
    const NEW_SESSION_TICKET: u8 = 4;
    match (typ, payload) {
        (ContentType::ApplicationData, []) => Ok(Opened::Nothing),
        (ContentType::Alert, &[_level, alert]) => match AlertDescription::from(alert) {
            AlertDescription::CloseNotify => Ok(Opened::Closed),
            // A close_notify follows (RFC 8446, section 6.1).
            AlertDescription::UserCanceled => Ok(Opened::Nothing),
            alert => {
                let what = format!("the peer gave the lane up: {alert:?}");
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, what))
            }
        },
        (ContentType::Handshake, [NEW_SESSION_TICKET, ..]) => Ok(Opened::Nothing),
        (ContentType::Handshake, _) => Err(bad_record("a handshake message after the handshake")),
        _ => Err(bad_record("a record of unknown type")),
    }
}

fn key_and_iv(
    secrets: ConnectionTrafficSecrets,
) -> io::Result<(rustls::crypto::cipher::AeadKey, rustls::crypto::cipher::Iv)> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((key, iv)),
        _ => Err(bad_record("a cipher that is not ours")),
    }
}

/// Bytes from the socket, cut into records.
pub(super) struct RecordBuffer {
    buffer: Box<[u8]>,
    // Not yet consumed; 0 <= start <= end <= buffer.len()
    start: usize,
    end: usize,
}

impl RecordBuffer {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; READ_MAX].into(), start: 0, end: 0 }
    }

    /// Takes the next record, if all of it is here.
    pub(super) fn next_record(&mut self) -> io::Result<Option<Range<usize>>> {
        let filled = &self.buffer[self.start..self.end];
        let &[typ, _, _, high, low, ..] = filled else { return Ok(None) };
        // Change_cipher_spec to application_data (RFC 8446, section 5.1): else it is no TLS, and its length means nothing.
        if !(20..=23).contains(&typ) {
            return Err(bad_record("this is not TLS"));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > CIPHERTEXT_MAX {
            return Err(bad_record("a record longer than TLS allows"));
        }
        let record = self.start..self.start + HEADER + length;
        if record.end > self.end {
            return Ok(None);
        }
        self.start = record.end;
        Ok(Some(record))
    }

    /// Bytes that [`next_record`](Self::next_record) has pointed out: good until the next [`poll_fill`](Self::poll_fill).
    pub(super) fn get(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    pub(super) fn get_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.buffer[range]
    }

    /// Reads once from the socket; 0 is its end.
    pub(super) fn poll_fill(
        &mut self,
        socket: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let mut into = ReadBuf::new(&mut self.buffer[self.end..]);
        ready!(Pin::new(socket).poll_read(cx, &mut into))?;
        let read = into.filled().len();
        self.end += read;
        Poll::Ready(Ok(read))
    }

    /// Moves the part of a record at the end to the front, when the record would not fit behind.
    fn make_room(&mut self) {
        let waiting = self.end - self.start;
        if waiting == 0 || self.buffer.len() - self.start < HEADER + CIPHERTEXT_MAX {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, waiting);
        }
    }
}
