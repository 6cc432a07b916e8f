//! Who may use a port for all destinations.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

/// The longest user or password, in bytes: SOCKS5 has no room for more (RFC 1929).
const LENGTH_MAX: usize = 255;

/// Users and their passwords. Only hashes are kept.
#[derive(Clone)]
pub struct Credentials(Vec<[u8; 32]>);

/// A line that is not a user and a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not USER:PASSWORD, each of 1 to 255 bytes")]
pub struct InvalidCredentials {
    /// Counted from 1; 0 if there is no line at all.
    pub line: usize,
}

impl Credentials {
    /// Reads lines `USER:PASSWORD`; empty ones and those that begin with `#` are ignored.
    ///
    /// # Errors
    /// A line is something else, or there is none.
    pub fn parse(text: &str) -> Result<Self, InvalidCredentials> {
        let mut hashes = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let fits = |part: &str| (1..=LENGTH_MAX).contains(&part.len());
            let (user, password) = text
                .split_once(':')
                .filter(|(user, password)| fits(user) && fits(password))
                .ok_or(InvalidCredentials { line })?;
            hashes.push(hash(user.as_bytes(), password.as_bytes()));
        }
        if hashes.is_empty() { Err(InvalidCredentials { line: 0 }) } else { Ok(Self(hashes)) }
    }

    /// Whether this is one of them. The time it takes reveals nothing about those that are.
    pub(super) fn has(&self, user: &[u8], password: &[u8]) -> bool {
        let shown = hash(user, password);
        let same = |known: &[u8; 32]| verify_slices_are_equal(known, &shown).is_ok();
        self.0.iter().filter(|known| same(known)).count() > 0
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.0.len())
    }
}

/// The length keeps one pair from being read as another.
fn hash(user: &[u8], password: &[u8]) -> [u8; 32] {
    let mut text = (user.len() as u64).to_be_bytes().to_vec();
    text.extend_from_slice(user);
    text.extend_from_slice(password);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, &text).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_user_with_its_own_password_is_let_in() {
        let known = Credentials::parse("# who\n\nanna:a:b\nbert:x y\n").unwrap();
        assert!(known.has(b"anna", b"a:b") && known.has(b"bert", b"x y"));
        for (user, password) in
            [("anna", "x y"), ("anna:a", "b"), ("ann", "aa:b"), ("", ""), ("anna", ""), ("#", "")]
        {
            assert!(!known.has(user.as_bytes(), password.as_bytes()), "{user} {password}");
        }
        assert!(!format!("{known:?}").contains("anna"));
        let long = format!("u:{}", "p".repeat(256));
        for (text, line) in
            [("", 0), ("# none", 0), ("a:b\nc", 2), (":b", 1), ("a:", 1), (&long, 1)]
        {
            assert_eq!(Credentials::parse(text).unwrap_err(), InvalidCredentials { line });
        }
    }
}
