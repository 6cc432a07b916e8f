//! Invitations: a server lets in a key it does not know yet, once, in exchange for a secret it gave
//! out.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{constant_time, rand};
use zeroize::Zeroizing;

use super::fingerprint::{base64_decode, base64_encode, sha256};
use super::host_name::ascii_host_name;
use super::{Destination, Fingerprint, Target, TrustError};

/// The secret that accepts an invitation: 256 random bits. Wiped from memory on drop; the server
/// keeps only its hash.
#[derive(Clone)]
pub struct InvitationSecret(Zeroizing<[u8; Self::LEN]>);

impl InvitationSecret {
    /// Its length in bytes.
    pub const LEN: usize = 32;

    /// A new one.
    ///
    /// # Errors
    /// [`TrustError::NoRandomness`] if the system has none to give.
    pub fn generate() -> Result<Self, TrustError> {
        let mut bytes = Zeroizing::new([0; Self::LEN]);
        rand::fill(&mut *bytes).map_err(|_| TrustError::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// The secret with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, to send to the server that gave it out and to nobody else.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    pub(super) fn hash(&self) -> InvitationHash {
        InvitationHash(sha256(&*self.0))
    }
}

impl fmt::Debug for InvitationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationSecret(..)")
    }
}

/// What the server keeps of a secret. It is not secret itself: it cannot be inverted.
#[derive(Debug, Clone, Copy)]
pub(super) struct InvitationHash([u8; 32]);

impl InvitationHash {
    /// Whether it is `secret`'s; takes the same time either way.
    pub(super) fn is_of(&self, secret: &InvitationSecret) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &secret.hash().0).is_ok()
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        base64_decode(text).map(Self)
    }
}

impl fmt::Display for InvitationHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base64_encode(&self.0))
    }
}

/// What the invited person receives: where the server is, its key, and the secret.
///
/// Written as `imux://HOST:PORT/KEY/SECRET`, both in URL-safe base64. Whoever reads it before it is
/// accepted can accept it instead: send it over a private channel.
#[derive(Debug, Clone)]
pub struct Invitation {
    server: String,
    key: Fingerprint,
    secret: InvitationSecret,
}

const SCHEME: &str = "imux://";

impl Invitation {
    /// An invitation to `server` (`host:port`, as the client will dial it), whose key is `key`.
    /// Non-ASCII letters of a name become punycode: the text gets copied through programs that
    /// would change them.
    ///
    /// # Errors
    /// [`TrustError::InvalidInvitation`] if `server` is no such place.
    pub fn new(
        server: &str,
        key: Fingerprint,
        secret: InvitationSecret,
    ) -> Result<Self, TrustError> {
        let invalid = || TrustError::InvalidInvitation("the server's HOST:PORT is not one");
        let place = server.parse::<Destination>().map_err(|_| invalid())?;
        if !matches!(place.target(), Target::Host(..)) {
            return Err(invalid());
        }
        let Some((host, port)) = server.rsplit_once(':') else { return Err(invalid()) };
        let Some(host) = ascii_host_name(host) else { return Err(invalid()) };
        Ok(Self { server: format!("{host}:{port}"), key, secret })
    }

    /// `host:port` of the server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The server's key.
    #[must_use]
    pub fn key(&self) -> Fingerprint {
        self.key
    }

    /// The secret the server wants to see.
    #[must_use]
    pub fn secret(&self) -> &InvitationSecret {
        &self.secret
    }

    /// The text to hand over. It holds the secret: show it once, and keep it out of logs.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let key = base64_encode(self.key.as_bytes());
        let secret = Zeroizing::new(base64_encode(self.secret.as_bytes()));
        // Full size from the start: growing it would leave copies behind.
        let length = SCHEME.len() + self.server.len() + key.len() + secret.len() + 2;
        let mut text = Zeroizing::new(String::with_capacity(length));
        text.extend([SCHEME, &self.server, "/"]);
        push_url_safe(&mut text, &key);
        text.push('/');
        push_url_safe(&mut text, &secret);
        text
    }
}

fn push_url_safe(text: &mut String, base64: &str) {
    text.extend(base64.chars().map(|digit| match digit {
        '+' => '-',
        '/' => '_',
        digit => digit,
    }));
}

impl FromStr for Invitation {
    type Err = TrustError;

    /// The error says what is wrong and never repeats the text, which may hold a secret.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = TrustError::InvalidInvitation;
        let rest = text
            .trim()
            .strip_prefix(SCHEME)
            .ok_or(invalid("it begins with imux://, as `imux invite` prints it"))?;
        let mut parts = rest.split('/');
        let parts = (parts.next(), parts.next(), parts.next(), parts.next());
        let (Some(server), Some(key), Some(secret), None) = parts else {
            return Err(invalid("it has three parts, imux://HOST:PORT/KEY/SECRET"));
        };
        let key = base64_decode(key).ok_or(invalid("its key is not 43 characters of base64"))?;
        let secret = base64_decode(secret).map(InvitationSecret::from_bytes);
        let secret = secret.ok_or(invalid("its secret is not 43 characters of base64"))?;
        Self::new(server, Fingerprint::from_bytes(key), secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_read_as_it_is_written() {
        for (server, byte) in [("server.example:443", 0xff), ("[2001:db8::1]:4433", 0x3e)] {
            let key = Fingerprint::from_bytes([byte; 32]);
            let secret = InvitationSecret::from_bytes([byte ^ 1; 32]);
            let text = Invitation::new(server, key, secret).unwrap().to_text();
            assert!(text.bytes().all(|b| b.is_ascii_graphic()), "{}", *text);
            let read: Invitation = format!(" {}\n", *text).parse().unwrap();
            assert_eq!((read.server(), read.key()), (server, key));
            assert_eq!(read.secret().as_bytes(), &[byte ^ 1; 32]);
        }
    }

    #[test]
    fn a_name_with_other_letters_travels_as_punycode() {
        let secret = || InvitationSecret::from_bytes([3; 32]);
        let key = Fingerprint::from_bytes([7; 32]);
        let invitation = Invitation::new("bücher.example:443", key, secret()).unwrap();
        assert_eq!(invitation.server(), "xn--bcher-kva.example:443");
        assert!(Invitation::new("\u{300}a.example:443", key, secret()).is_err());
    }

    #[test]
    fn what_is_no_invitation_is_not_repeated() {
        let secret = "A".repeat(43);
        for text in [
            String::new(),
            secret.clone(),
            format!("imux://{secret}"),
            format!("imux://server:443/{secret}"),
            format!("imux://server:443/{secret}/{secret}/"),
            format!("imux://server/{secret}/{secret}"),
            format!("imux://:443/{secret}/{secret}"),
            format!("imux://server:443/{secret}A/{secret}"),
            format!("imux://server:443/{secret}/{secret}A"),
            format!("https://server:443/{secret}/{secret}"),
        ] {
            let error = text.parse::<Invitation>().unwrap_err().to_string();
            assert!(!error.contains(&secret), "{error}");
        }
    }

    #[test]
    fn a_hash_is_of_its_secret_only_and_no_secret_is_shown() {
        let secret = InvitationSecret::generate().unwrap();
        assert_ne!(secret.as_bytes(), InvitationSecret::generate().unwrap().as_bytes());
        let kept = InvitationHash::parse(&secret.hash().to_string()).unwrap();
        assert!(kept.is_of(&secret));
        let mut other = *secret.as_bytes();
        other[31] ^= 1;
        assert!(!kept.is_of(&InvitationSecret::from_bytes(other)));

        let shown = "QUFB"; // of "AAA" in base64
        let secret = InvitationSecret::from_bytes([b'A'; 32]);
        assert_eq!(format!("{secret:?}"), "InvitationSecret(..)");
        let key = Fingerprint::from_bytes([0; 32]);
        let invitation = Invitation::new("server:1", key, secret.clone()).unwrap();
        let debug = format!("{invitation:?}");
        assert!(!debug.contains(shown) && !debug.contains("65, 65"), "{debug}");
        assert!(!secret.hash().to_string().contains(shown));
        assert!(invitation.to_text().contains(shown));
    }
}
