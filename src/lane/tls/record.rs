//! The record layer after the handshake (RFC 8446, section 5): framing, sequence numbers, and what is not data.
//!
//! rustls shakes hands and makes the keys; nonces, additional data, decryption and padding are its too. But its own record
//! layer costs several times what the ciphers do, in copies and fresh memory for each record. Here a record is encrypted in
//! the buffer that is written, and decrypted in the one that was read, and handed out from there.
//!
//! One lane on loopback, cpu-seconds a GB for the sending + receiving end, the reader copying each chunk once (two cores of an
//! AMD EPYC 9004, AES-128-GCM, a machine busy with other things: figures to compare, each the median of several runs):
//!
//! | | send | receive | both |
//! |---|---|---|---|
//! | plain TCP | 0.25 | 0.31 | 0.56 |
//! | tokio-rustls | 0.39 | 1.11 | 1.51 |
//! | tokio-rustls behind a 64 KiB buffer | 0.43 | 0.97 | 1.40 |
//! | rustls's connection driven directly | 0.35 | 1.21 | 1.56 |
//! | this, encrypting with rustls's encrypter | 0.71 | 0.54 | 1.26 |
//! | this | 0.46 | 0.39 | 0.86 |
//!
//! Reading and writing 128 KiB at a time instead of 256 costs 0.16 more, 64 KiB 0.28.
//!
//! There are no key updates, as with QUIC (RFC 9001, section 6): a lane whose keys are used up ends, and another one is
//! dialled.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, Nonce as TlsNonce, OutboundChunks,
    make_tls13_aad,
};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
    Tls13CipherSuite,
};
use tokio::io::{AsyncRead, ReadBuf};

/// Largest payload of one TLS record (RFC 8446, section 5.1). What does not straddle two records is decoded without being
/// pieced together, so writers keep their units within it.
pub const TLS_RECORD_MAX: usize = 1 << 14;

/// Type, version, length.
const HEADER: usize = 5;

/// Largest record on the wire, without its header (RFC 8446, section 5.2).
const CIPHERTEXT_MAX: usize = TLS_RECORD_MAX + 256;

/// What one read may take from the socket: sixteen records, see the figures above. An idle lane touches only the first pages.
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
    key: LessSafeKey,
    iv: Iv,
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
        let (algorithm, key, iv) = parts(secrets)?;
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(io::Error::other)?;
        let limit = suite.common.confidentiality_limit;
        Ok(Self { key: LessSafeKey::new(key), iv, next, limit })
    }

    /// Whether no more data may be encrypted. One record is kept back for the closing alert.
    pub(super) fn is_spent(&self) -> bool {
        self.next >= self.limit - 1
    }

    /// Appends one record of data, at most [`TLS_RECORD_MAX`] bytes, to `out`.
    pub(super) fn seal(&mut self, data: &OutboundChunks<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        debug_assert!(data.len() <= TLS_RECORD_MAX && !self.is_spent());
        self.encrypt(ContentType::ApplicationData, data, out)
    }

    /// Appends an alert to `out`.
    pub(super) fn seal_alert(
        &mut self,
        alert: AlertDescription,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        // RFC 8446, section 6: the level matters no more, but close_notify is a warning and errors are fatal.
        let level = if alert == AlertDescription::CloseNotify { 1 } else { 2 };
        let alert = [level, alert.into()];
        self.encrypt(ContentType::Alert, &OutboundChunks::Single(&alert), out)
    }

    /// RFC 8446, section 5.2. rustls's own encrypter wants memory anew for every record; this one writes them in a row.
    fn encrypt(
        &mut self,
        typ: ContentType,
        payload: &OutboundChunks<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        if self.next >= self.limit {
            return Err(io::Error::other("the lane's keys are used up"));
        }
        let ciphertext = payload.len() + 1 + self.key.algorithm().tag_len();
        // The additional data is the header itself.
        let header = make_tls13_aad(ciphertext);
        // Whatever becomes of it, a sequence number is used once.
        let nonce = Nonce::assume_unique_for_key(TlsNonce::new(&self.iv, self.next).0);
        self.next += 1;
        let start = out.len();
        out.extend_from_slice(&header);
        payload.copy_to_vec(out);
        out.push(typ.into());
        let inner = &mut out[start + HEADER..];
        match self.key.seal_in_place_separate_tag(nonce, Aad::from(header), inner) {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                Ok(())
            }
            Err(error) => {
                // Not a byte of it may go out.
                out.truncate(start);
                Err(io::Error::other(error))
            }
        }
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
        let (_, key, iv) = parts(secrets)?;
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
        (ContentType::Alert, &[_level, alert]) => match AlertDescription::from(alert) {
            AlertDescription::CloseNotify => Ok(Opened::Closed),
            // A close_notify follows (RFC 8446, section 6.1).
            AlertDescription::UserCanceled => Ok(Opened::Nothing),
            alert => {
                let what = format!("the peer gave the lane up: {alert:?}");
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, what))
            }
        },
        (ContentType::ApplicationData, []) | (ContentType::Handshake, [NEW_SESSION_TICKET, ..]) => {
            Ok(Opened::Nothing)
        }
        (ContentType::Handshake, _) => Err(bad_record("a handshake message after the handshake")),
        _ => Err(bad_record("a record of unknown type")),
    }
}

fn parts(secrets: ConnectionTrafficSecrets) -> io::Result<(&'static Algorithm, AeadKey, Iv)> {
    match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => Ok((&AES_128_GCM, key, iv)),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => Ok((&AES_256_GCM, key, iv)),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok((&CHACHA20_POLY1305, key, iv)),
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
        socket: &mut (impl AsyncRead + Unpin),
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

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
