//! The keys of one direction, and those that follow them (RFC 8446, sections 5.2, 5.3, 7.2 and
//! 7.3).
//!
//! rustls updates keys within its own record layer, or for an unbuffered connection it hands over
//! (`kernel`), which has no exporter in 0.23. So we take the secrets behind the next keys where
//! rustls offers them for logging, once per handshake, and derive from them with rustls's own HKDF.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce,
    Tag, UnboundKey,
};
use rustls::crypto::cipher::{Iv, Nonce as TlsNonce};
use rustls::crypto::tls13::OkmBlock;
use rustls::{ConnectionTrafficSecrets, KeyLog, Side, Tls13CipherSuite};

use super::error::bad_record;

/// Length of a record's header: type, version, length. It is authenticated with the record.
pub(super) const HEADER: usize = 5;

/// The secrets that later keys derive from, for both directions of one connection.
pub(super) struct TrafficSecrets {
    client: OnceLock<OkmBlock>,
    server: OnceLock<OkmBlock>,
    /// The key log from the configuration, which is still written.
    log: Arc<dyn KeyLog>,
}

impl TrafficSecrets {
    /// Takes the place of `log` as one connection's key log.
    pub(super) fn catcher(log: Arc<dyn KeyLog>) -> Arc<Self> {
        Arc::new(Self { client: OnceLock::new(), server: OnceLock::new(), log })
    }

    /// Fixed secrets, the same for both directions, for tests.
    #[cfg(any(test, fuzzing))]
    pub(super) fn known(secret: &[u8]) -> Self {
        let secret = || OnceLock::from(OkmBlock::new(secret));
        Self { client: secret(), server: secret(), log: Arc::new(rustls::NoKeyLog) }
    }

    /// For what `side` sends.
    fn of(&self, side: Side) -> io::Result<OkmBlock> {
        let secret = match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        };
        secret.get().cloned().ok_or_else(|| io::Error::other("TLS has kept its secrets"))
    }

    fn place(&self, label: &str) -> Option<&OnceLock<OkmBlock>> {
        match label {
            "CLIENT_TRAFFIC_SECRET_0" => Some(&self.client),
            "SERVER_TRAFFIC_SECRET_0" => Some(&self.server),
            _ => None,
        }
    }
}

impl KeyLog for TrafficSecrets {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if let Some(place) = self.place(label) {
            place.get_or_init(|| OkmBlock::new(secret));
        }
        if self.log.will_log(label) {
            self.log.log(label, client_random, secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        self.place(label).is_some() || self.log.will_log(label)
    }
}

impl fmt::Debug for TrafficSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficSecrets").finish_non_exhaustive()
    }
}

/// Keys for what one end sends, and how many records have used them.
pub(super) struct Keys {
    suite: &'static Tls13CipherSuite,
    algorithm: &'static Algorithm,
    /// What the next keys derive from.
    secret: OkmBlock,
    key: LessSafeKey,
    iv: Iv,
    /// Sequence number of the next record.
    next: u64,
}

impl Keys {
    /// The first keys, `given` by rustls, for what `side` sends.
    pub(super) fn new(
        suite: &'static Tls13CipherSuite,
        secrets: &TrafficSecrets,
        side: Side,
        (next, given): (u64, ConnectionTrafficSecrets),
    ) -> io::Result<Self> {
        let (algorithm, key, iv) = match given {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(io::Error::other("a cipher that is not ours")),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(io::Error::other)?;
        let key = LessSafeKey::new(key);
        Ok(Self { suite, algorithm, secret: secrets.of(side)?, key, iv, next })
    }

    /// How many records have used these keys.
    pub(super) fn used(&self) -> u64 {
        self.next
    }

    /// How many bytes a record is longer than its content.
    pub(super) fn tag_len(&self) -> usize {
        self.algorithm.tag_len()
    }

    /// Switches to the next keys (RFC 8446, section 7.2); sequence numbers restart at 0 (section
    /// 5.3).
    pub(super) fn update(&mut self) -> io::Result<()> {
        let hkdf = self.suite.hkdf_provider;
        let now = hkdf.expander_for_okm(&self.secret);
        self.secret = now.expand_block(&[&label("traffic upd", now.hash_len())]);
        let next = hkdf.expander_for_okm(&self.secret);
        let length = self.algorithm.key_len();
        // A block is wiped when dropped; a bare array is not. No key is longer than a block.
        let key = next.expand_block(&[&label("key", length)]);
        let mut iv = [0; NONCE_LEN];
        next.expand_slice(&[&label("iv", NONCE_LEN)], &mut iv)
            .map_err(|_| io::Error::other("no initial vector of this length"))?;
        let key = key.as_ref().get(..length).ok_or_else(|| io::Error::other("too short a key"))?;
        let key = UnboundKey::new(self.algorithm, key).map_err(io::Error::other)?;
        self.key = LessSafeKey::new(key);
        (self.iv, self.next) = (iv.into(), 0);
        Ok(())
    }

    /// Encrypts in place; the caller appends the tag.
    pub(super) fn seal(&mut self, header: [u8; HEADER], inner: &mut [u8]) -> io::Result<Tag> {
        let nonce = self.nonce()?;
        self.key
            .seal_in_place_separate_tag(nonce, Aad::from(header), inner)
            .map_err(io::Error::other)
    }

    /// Decrypts in place, if the record is intact and the next one the peer sent.
    pub(super) fn open<'a>(
        &mut self,
        header: [u8; HEADER],
        body: &'a mut [u8],
    ) -> io::Result<&'a mut [u8]> {
        let nonce = self.nonce()?;
        self.key
            .open_in_place(nonce, Aad::from(header), body)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError))
    }

    /// A sequence number is used only once, even on failure.
    fn nonce(&mut self) -> io::Result<Nonce> {
        let number = self.next;
        self.next = number.checked_add(1).ok_or_else(|| bad_record("too many records"))?;
        Ok(Nonce::assume_unique_for_key(TlsNonce::new(&self.iv, number).0))
    }
}

/// HkdfLabel, without context (RFC 8446, section 7.1).
fn label(text: &str, length: usize) -> Vec<u8> {
    const PREFIX: &[u8] = b"tls13 ";
    // Both are small: a key's length, and the label from above.
    let mut label = (length as u16).to_be_bytes().to_vec();
    label.push((PREFIX.len() + text.len()) as u8);
    label.extend([PREFIX, text.as_bytes(), &[0]].concat());
    label
}
