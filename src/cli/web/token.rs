//! The token that whoever asks from elsewhere must show.

use std::fmt;
use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::BASE64;
use hyper::HeaderMap;
use hyper::header;
use zeroize::Zeroizing;

use crate::cli::text::read_private;

/// Fewest characters: 96 bits of the kind that `openssl rand -base64 18` prints.
const CHARS_MIN: usize = 16;

/// A secret in a file.
pub(super) struct Token(Zeroizing<Vec<u8>>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The one word that stands in a file nobody else can read.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        Self::parse(&read_private(file)?)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let word = text.trim();
        if word.len() < CHARS_MIN || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "a token is one word of at least {CHARS_MIN} characters, such as `openssl rand -base64 18` prints"
            ));
        }
        Ok(Self(Zeroizing::new(word.as_bytes().to_vec())))
    }

    /// Whether a request shows it: as a bearer's token, or as the password of any user, which is
    /// what browsers ask for.
    pub(super) fn is_shown(&self, headers: &HeaderMap) -> bool {
        let Some(shown) = headers.get(header::AUTHORIZATION) else { return false };
        let Ok(shown) = shown.to_str() else { return false };
        let Some((scheme, shown)) = shown.split_once(' ') else { return false };
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.is(shown.trim().as_bytes());
        }
        let decoded = BASE64.decode(shown.trim().as_bytes()).map(Zeroizing::new);
        let Ok(decoded) = decoded else { return false };
        let colon = decoded.iter().position(|byte| *byte == b':');
        scheme.eq_ignore_ascii_case("basic")
            && colon.is_some_and(|colon| self.is(&decoded[colon + 1..]))
    }

    fn is(&self, word: &[u8]) -> bool {
        verify_slices_are_equal(&self.0, word).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_by_a_bearer_or_as_a_password_and_by_nothing_else() {
        let token = Token::parse(" 0123456789abcdef\n").unwrap();
        let shown = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            token.is_shown(&headers)
        };
        let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair.as_bytes()));
        assert!(shown("Bearer 0123456789abcdef") && shown("bearer 0123456789abcdef"));
        assert!(shown(&basic("anyone:0123456789abcdef")) && shown(&basic(":0123456789abcdef")));
        for wrong in [
            "Bearer 0123456789abcde".to_owned(),
            "Bearer".to_owned(),
            "0123456789abcdef".to_owned(),
            "Digest 0123456789abcdef".to_owned(),
            basic("0123456789abcdef"),
            basic("a:0123456789abcdefg"),
            "Basic !".to_owned(),
        ] {
            assert!(!shown(&wrong), "{wrong}");
        }
        assert!(!token.is_shown(&HeaderMap::new()));
        for bad in ["", "short", "0123456789 abcdef", "0123456789abcdé…"] {
            assert!(Token::parse(bad).is_err(), "{bad}");
        }
        assert!(!format!("{token:?}").contains("0123"));
    }
}
