//! Fuzz target of the record layer (see `crate::fuzz`).

use std::collections::VecDeque;

use arbitrary::{Result, Unstructured};
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{CipherSuite, ConnectionTrafficSecrets};

use super::*;

/// Records from a peer that holds the keys and sends what it likes, mixed with a stranger's bytes:
/// data comes out as it went in, nothing else comes out, and nonsense is an error.
pub(crate) fn records(data: &[u8]) {
    let mut u = Unstructured::new(data);
    let Ok(mut peer) = Peer::new() else { panic!("the keys are of the right size") };
    while !u.is_empty() && peer.wire.len() < READ_MAX / 4 && peer.say(&mut u).is_ok() {}
    let Peer { wire, mut expected, mut opener, .. } = peer;

    let mut received = RecordBuffer::new();
    received.buffer = vec![0; READ_MAX].into();
    received.buffer[..wire.len()].copy_from_slice(&wire);
    let mut cuts = data.iter().map(|&cut| 1 + usize::from(cut)).cycle();
    while received.end < wire.len() {
        received.end = (received.end + cuts.next().unwrap_or(wire.len())).min(wire.len());
        loop {
            let record = match received.next_record() {
                Ok(Some(record)) => record,
                Ok(None) => break,
                Err(_) => return assert_eq!(expected.front(), Some(&Said::Nonsense)),
            };
            assert!(record.end <= received.end && record.len() <= HEADER + CIPHERTEXT_MAX);
            let bytes = received.get_mut(record);
            match (opener.open(bytes), expected.pop_front()) {
                (Ok(Opened::Data(place)), Some(Said::Data(said))) => assert_eq!(bytes[place], said),
                (Ok(Opened::Nothing), Some(Said::Nothing))
                | (Ok(Opened::NewKeys { .. }), Some(Said::NewKeys)) => {}
                (Ok(Opened::Closed), Some(Said::End)) | (Err(_), Some(Said::Nonsense)) => return,
                // Thirty-two records without data are too many.
                (Err(_), Some(Said::Nothing | Said::End | Said::NewKeys))
                    if opener.fruitless > FRUITLESS_MAX =>
                {
                    return;
                }
                (Err(_), Some(Said::NewKeys)) if opener.updates > KEY_UPDATES_AHEAD => return,
                (opened, said) => panic!("{opened:?} for {said:?}"),
            }
        }
    }
}

/// What a record must be read as.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Data(Vec<u8>),
    Nothing,
    /// What follows is encrypted with the next keys.
    NewKeys,
    End,
    /// An error; nothing after it counts.
    Nonsense,
}

struct Peer {
    sealer: Sealer,
    opener: Opener,
    wire: Vec<u8>,
    expected: VecDeque<Said>,
}

impl Peer {
    fn new() -> io::Result<Self> {
        let wanted = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        let suite = ALL_CIPHER_SUITES.iter().find(|suite| suite.suite() == wanted);
        let suite = suite.ok_or_else(|| bad_record("no such suite"))?;
        let secrets = || ConnectionTrafficSecrets::Chacha20Poly1305 {
            key: AeadKey::from([3; 32]),
            iv: Iv::from([5; 12]),
        };
        let both = rustls::ExtractedSecrets { tx: (0, secrets()), rx: (0, secrets()) };
        let known = TrafficSecrets::known(&[7; 32]);
        let (sealer, opener) = directions(*suite, &known, both, Side::Client)?;
        Ok(Self { sealer, opener, wire: Vec::new(), expected: VecDeque::new() })
    }

    fn say(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=8)? {
            0..=2 => {
                let len = u.int_in_range(1..=300)?;
                let data = vec![u.arbitrary()?; len];
                self.seal(ContentType::ApplicationData, &data);
                self.expected.push_back(Said::Data(data));
            }
            3 => self.say_something_else(u)?,
            4 => {
                self.seal(ContentType::ApplicationData, &[]);
                self.expected.push_back(Said::Nothing);
            }
            // A record, or its header, is damaged on the way.
            5 => {
                let start = self.wire.len();
                self.seal(ContentType::ApplicationData, b"data");
                let at = u.int_in_range(0..=self.wire.len() - start - 1)?;
                self.wire[start + at] ^= u.int_in_range(1..=255)?;
                // All of the header is authenticated (RFC 8446, section 5.2).
                self.expected.push_back(Said::Nonsense);
            }
            6 => {
                self.seal(ContentType::Handshake, &KEY_UPDATE);
                assert!(self.sealer.keys.update().is_ok());
                self.expected.push_back(Said::NewKeys);
            }
            _ => {
                let len = u.int_in_range(1..=50)?;
                self.wire.extend_from_slice(u.bytes(len)?);
                self.expected.push_back(Said::Nonsense);
            }
        }
        Ok(())
    }

    /// Alerts, handshake messages, and types that do not exist.
    fn say_something_else(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let typ = ContentType::from(u.arbitrary::<u8>()?);
        let len = u.int_in_range(0..=4)?;
        let payload = u.bytes(len)?;
        self.seal(typ, payload);
        // Zeros at the end are padding: the byte before them is the type (RFC 8446, 5.4).
        let inner = [payload, &[typ.into()]].concat();
        let unpadded = inner.iter().rposition(|&byte| byte != 0).map(|end| inner.split_at(end));
        let Some((payload, [typ, ..])) = unpadded else {
            self.expected.push_back(Said::Nonsense);
            return Ok(());
        };
        self.expected.push_back(match (ContentType::from(*typ), payload) {
            (ContentType::ApplicationData, []) // close_notify is 0, user_canceled 90
            | (ContentType::Alert, [_, 90])
            // A ticket of length 0, to a client.
            | (ContentType::Handshake, [4, 0, 0, 0]) => Said::Nothing,
            (ContentType::ApplicationData, data) => Said::Data(data.to_vec()),
            (ContentType::Alert, [_, 0]) => Said::End,
            _ => Said::Nonsense,
        });
        Ok(())
    }

    fn seal(&mut self, typ: ContentType, payload: &[u8]) {
        let sealed = self.sealer.encrypt(typ, &OutboundChunks::Single(payload), &mut self.wire);
        assert!(sealed.is_ok());
    }
}
