//! The record layer after the handshake (RFC 8446, section 5): framing, sequence numbers, and
//! records that are not data.
//!
//! rustls shakes hands and makes the keys; nonces, additional data, decryption and padding are its
//! own too. But its record layer costs several times what the ciphers do, in copies and fresh
//! memory for each record. Here a record is encrypted in the buffer to be written, decrypted in the
//! one that was read, and handed out from there.
//!
//! One lane on loopback, CPU-seconds per GB for the sending and receiving end, the reader copying
//! each chunk once (two cores of an AMD EPYC 9004, AES-128-GCM, on a busy machine: compare the
//! figures only with each other; each is the median of several runs):
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
//! Keys are updated before they reach their limit (RFC 8446, sections 4.6.3 and 5.5), and whenever
//! the peer switches to new ones: a lane lasts as long as its connection.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::crypto::cipher::{OutboundChunks, make_tls13_aad};
use rustls::{AlertDescription, ContentType, ExtractedSecrets, Side, SupportedCipherSuite};
use tokio::io::{AsyncRead, ReadBuf};

use super::error::bad_record;
use super::keys::{HEADER, Keys, TrafficSecrets};

/// Largest payload of one TLS record (RFC 8446, section 5.1). A unit within one record is decoded
/// without being pieced together, so writers keep theirs below this.
pub const TLS_RECORD_MAX: usize = 1 << 14;

/// Largest record on the wire, without its header (RFC 8446, section 5.2).
const CIPHERTEXT_MAX: usize = TLS_RECORD_MAX + 256;

/// The most one read takes from the socket: sixteen records; see the figures above.
const READ_MAX: usize = 256 * 1024;

/// The buffer's first size: one record. A stranger gets no more before the handshake is done, and
/// an idle lane never does.
const READ_MIN: usize = HEADER + CIPHERTEXT_MAX;

/// How many records in a row may carry nothing (RFC 8446 allows empty ones) before we assume that
/// the peer is wasting our time.
const FRUITLESS_MAX: u32 = 32;

/// How many key updates a peer has at first; each thousand records of data earn it one more. An
/// update costs some microseconds, a lot for a record of 26 bytes.
const KEY_UPDATES_AHEAD: u64 = 32;
const RECORDS_PER_KEY_UPDATE: u64 = 1_024;

/// A `KeyUpdate` that requests none in return, and one that does (RFC 8446, section 4.6.3).
pub(super) const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];
const KEY_UPDATE_REQUESTED: [u8; 5] = [24, 0, 0, 1, 1];

fn oversized() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, rustls::Error::PeerSentOversizedRecord)
}

/// Both directions, from the secrets rustls hands over, for the end that is `side`.
pub(super) fn directions(
    suite: SupportedCipherSuite,
    secrets: &TrafficSecrets,
    first: ExtractedSecrets,
    side: Side,
) -> io::Result<(Sealer, Opener)> {
    let suite = suite.tls13().ok_or_else(|| bad_record("not TLS 1.3"))?;
    let peer = match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    };
    let sealer = Sealer {
        keys: Keys::new(suite, secrets, side, first.tx)?,
        limit: suite.common.confidentiality_limit,
        answer_due: false,
    };
    let keys = Keys::new(suite, secrets, peer, first.rx)?;
    let tickets = peer == Side::Server;
    let opener = Opener { keys, tickets, fruitless: 0, updates: 0, data_records: 0 };
    Ok((sealer, opener))
}

/// Encrypts records.
pub(super) struct Sealer {
    keys: Keys,
    /// How many records the keys are good for.
    limit: u64,
    /// The peer has requested new keys: one update before the next data (RFC 8446, section 4.6.3),
    /// however often it asks.
    answer_due: bool,
}

impl Sealer {
    /// Appends one record of data, at most [`TLS_RECORD_MAX`] bytes, to `out`, preceded by a key
    /// update if one is due.
    pub(super) fn seal(&mut self, data: &OutboundChunks<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        debug_assert!(data.len() <= TLS_RECORD_MAX);
        // Two records are held back: for this notice, and for an alert.
        if self.answer_due || self.keys.used() >= self.limit.saturating_sub(2) {
            self.encrypt(ContentType::Handshake, &OutboundChunks::Single(&KEY_UPDATE), out)?;
            self.keys.update()?;
            self.answer_due = false;
        }
        self.encrypt(ContentType::ApplicationData, data, out)
    }

    /// The peer wants this end to switch to new keys.
    pub(super) fn ask_for_update(&mut self) {
        self.answer_due = true;
    }

    /// Appends an alert to `out`.
    pub(super) fn seal_alert(
        &mut self,
        alert: AlertDescription,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        // RFC 8446, section 6: the level no longer matters, but close_notify is a warning and
        // errors are fatal.
        let level = if alert == AlertDescription::CloseNotify { 1 } else { 2 };
        let alert = [level, alert.into()];
        self.encrypt(ContentType::Alert, &OutboundChunks::Single(&alert), out)
    }

    /// RFC 8446, section 5.2. rustls's own encrypter allocates for every record; this one writes
    /// them back to back.
    fn encrypt(
        &mut self,
        typ: ContentType,
        payload: &OutboundChunks<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        if self.keys.used() >= self.limit {
            return Err(io::Error::other("the lane's keys are used up"));
        }
        // The additional data is the header itself.
        let header = make_tls13_aad(payload.len() + 1 + self.keys.tag_len());
        let start = out.len();
        out.extend_from_slice(&header);
        payload.copy_to_vec(out);
        out.push(typ.into());
        match self.keys.seal(header, &mut out[start + HEADER..]) {
            Ok(tag) => {
                out.extend_from_slice(tag.as_ref());
                Ok(())
            }
            Err(error) => {
                // Not a byte of it may be sent.
                out.truncate(start);
                Err(error)
            }
        }
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> u64 {
        self.keys.used()
    }

    #[cfg(test)]
    pub(super) fn update(&mut self) {
        self.keys.update().unwrap();
    }

    #[cfg(test)]
    pub(super) fn limit(&mut self, records: u64) {
        self.limit = records;
    }

    /// Any content as a record, as a peer could send it.
    #[cfg(test)]
    pub(super) fn seal_as(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.encrypt(typ, &OutboundChunks::Single(payload), &mut out).unwrap();
        out
    }
}

/// Decrypts records.
pub(super) struct Opener {
    keys: Keys,
    /// The peer is a server, which may offer session tickets.
    tickets: bool,
    /// Records in a row without data.
    fruitless: u32,
    /// How often the peer has updated its keys, and how many records of data it has sent.
    updates: u64,
    data_records: u64,
}

/// What a record was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// Data, at this place of the record.
    Data(Range<usize>),
    /// Nothing to act on.
    Nothing,
    /// The peer has switched to new keys, and may want us to do the same.
    NewKeys { requested: bool },
    /// The peer is done sending.
    Closed,
}

impl Opener {
    /// Decrypts a whole record, header and all, in place.
    pub(super) fn open(&mut self, record: &mut [u8]) -> io::Result<Opened> {
        let Some((header, body)) = record.split_first_chunk_mut::<HEADER>() else {
            return Err(bad_record("a record without a header"));
        };
        if header[0] != u8::from(ContentType::ApplicationData) {
            return Err(bad_record("an unencrypted record after the handshake"));
        }
        let (typ, payload) = content(self.keys.open(*header, body)?)?;
        if typ == ContentType::ApplicationData && !payload.is_empty() {
            self.fruitless = 0;
            self.data_records = self.data_records.saturating_add(1);
            return Ok(Opened::Data(HEADER..HEADER + payload.len()));
        }
        self.fruitless += 1;
        if self.fruitless > FRUITLESS_MAX {
            return Err(bad_record("too many records without data"));
        }
        let opened = match typ {
            ContentType::Handshake => handshake_messages(payload, self.tickets)?,
            _ => not_data(typ, payload)?,
        };
        if let Opened::NewKeys { .. } = opened {
            self.updates = self.updates.saturating_add(1);
            if self.updates > KEY_UPDATES_AHEAD + self.data_records / RECORDS_PER_KEY_UPDATE {
                return Err(bad_record("too many key updates"));
            }
            self.keys.update()?;
        }
        Ok(opened)
    }
}

/// Type and content of a decrypted record: the type is the last byte that is not padding (RFC 8446,
/// section 5.4).
fn content(plaintext: &[u8]) -> io::Result<(ContentType, &[u8])> {
    // Padding counts: the total is at most a full record's data plus its type.
    if plaintext.len() > TLS_RECORD_MAX + 1 {
        return Err(oversized());
    }
    let end = plaintext.iter().rposition(|&byte| byte != 0);
    let (typ, content) = end
        .and_then(|end| plaintext[..=end].split_last())
        .ok_or_else(|| bad_record("a record of padding alone"))?;
    Ok((ContentType::from(*typ), content))
}

/// A record that carries neither data nor handshake messages.
fn not_data(typ: ContentType, payload: &[u8]) -> io::Result<Opened> {
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
        (ContentType::ApplicationData, []) => Ok(Opened::Nothing),
        _ => Err(bad_record("a record of unknown type")),
    }
}

/// Handshake messages after the handshake, each of them whole.
fn handshake_messages(mut messages: &[u8], tickets: bool) -> io::Result<Opened> {
    /// `new_session_ticket` (RFC 8446, section 4.6.1): other servers send it, and we never use it.
    const NEW_SESSION_TICKET: u8 = 4;
    let refused = || bad_record("a handshake message after the handshake");
    // A record without a message is forbidden (RFC 8446, section 5.1).
    while let &[typ, a, b, c, ref rest @ ..] = messages {
        // It must be the last in its record: anything behind it would be under keys already gone
        // (section 5.1).
        if messages == KEY_UPDATE {
            return Ok(Opened::NewKeys { requested: false });
        }
        if messages == KEY_UPDATE_REQUESTED {
            return Ok(Opened::NewKeys { requested: true });
        }
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let ticket = typ == NEW_SESSION_TICKET && tickets;
        messages = rest.get(length..).filter(|_| ticket).ok_or_else(refused)?;
        if messages.is_empty() {
            return Ok(Opened::Nothing);
        }
    }
    Err(refused())
}

/// Bytes from the socket, cut into records.
pub(super) struct RecordBuffer {
    buffer: Box<[u8]>,
    // Not yet consumed; 0 <= start <= end <= buffer.len()
    start: usize,
    end: usize,
    /// How far it may grow, while reads fill it.
    max: usize,
}

impl RecordBuffer {
    pub(super) fn new() -> Self {
        Self { buffer: vec![0; READ_MIN].into(), start: 0, end: 0, max: READ_MIN }
    }

    /// The peer is no longer a stranger: a read may take much at once.
    pub(super) fn may_grow(&mut self) {
        self.max = READ_MAX;
    }

    /// Takes the next record, if all of it is here.
    pub(super) fn next_record(&mut self) -> io::Result<Option<Range<usize>>> {
        let filled = &self.buffer[self.start..self.end];
        let &[typ, _, _, high, low, ..] = filled else { return Ok(None) };
        // Change_cipher_spec to application_data (RFC 8446, section 5.1): otherwise it is not TLS,
        // and its length means nothing.
        if !(20..=23).contains(&typ) {
            return Err(bad_record("this is not TLS"));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > CIPHERTEXT_MAX {
            return Err(oversized());
        }
        let record = self.start..self.start + HEADER + length;
        if record.end > self.end {
            return Ok(None);
        }
        self.start = record.end;
        Ok(Some(record))
    }

    /// The bytes of a range from [`next_record`](Self::next_record): valid until the next
    /// [`poll_fill`](Self::poll_fill).
    pub(super) fn get(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    pub(super) fn get_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.buffer[range]
    }

    /// Reads once from the socket; 0 means its end.
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

    /// Moves a partial record from the end to the front if the rest would not fit; into a larger
    /// buffer if the last read filled this one.
    fn make_room(&mut self) {
        let waiting = self.end - self.start;
        if self.end == self.buffer.len() && self.buffer.len() < self.max {
            let mut larger = vec![0; (self.buffer.len() * 4).min(self.max)];
            larger[..waiting].copy_from_slice(&self.buffer[self.start..self.end]);
            (self.buffer, self.start, self.end) = (larger.into(), 0, waiting);
            return;
        }
        if waiting == 0 || self.buffer.len() - self.start < HEADER + CIPHERTEXT_MAX {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, waiting);
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.len()
    }

    /// As after a read that filled the buffer and was consumed entirely.
    #[cfg(test)]
    pub(super) fn fill_up(&mut self) {
        (self.start, self.end) = (self.buffer.len(), self.buffer.len());
        self.make_room();
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
