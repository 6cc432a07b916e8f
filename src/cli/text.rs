//! Text from elsewhere, made safe for a terminal or a log line; and text for standard output.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

/// Longest escaped text, in characters: a host name has at most 253, and a reason needs no more.
const SHOWN_CHARS_MAX: usize = 256;

/// Escapes control characters and characters that reorder or hide text, and bounds the length, so
/// that nothing a peer sends can draw on the terminal, forge a second line or flood the log.
pub fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(SHOWN_CHARS_MAX));
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN_CHARS_MAX {
            shown.push('…');
            break;
        }
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// ` (did you mean …?)`, if `text` is one of `words` but for a typo.
pub fn meant(text: &str, words: &[&str]) -> String {
    let near = words.iter().map(|word| (slips(text, word), word)).min();
    match near {
        // Two typos in a short word make a different word.
        Some((slips, word)) if slips <= 2 && slips * 2 < word.len() => {
            format!(" (did you mean `{word}`?)")
        }
        _ => String::new(),
    }
}

/// How many letters must be changed, removed, added or swapped with their neighbour.
fn slips(text: &str, word: &str) -> usize {
    // No word is that long: the rest would only cost time.
    let beginning: String = text.chars().take(32).collect();
    strsim::osa_distance(&beginning, word)
}

/// Format characters: bidirectional overrides, zero-width characters, line separators, the BOM.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// What a file holds that nobody else can read: a secret. Or why it cannot be used.
pub fn read_private(file: &Path) -> Result<Zeroizing<String>, String> {
    let read = || {
        let mut file = File::open(file)?;
        let mode = file.metadata()?.permissions().mode();
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map(|_| (mode, text))
    };
    let (mode, text) = read().map_err(|error: io::Error| error.to_string())?;
    if mode & 0o077 != 0 {
        return Err(format!("others can read it; say `chmod 600 {}`", file.display()));
    }
    Ok(text)
}

/// Prints to standard output. A separate thread, not the runtime's, waits for the reader.
pub async fn print(text: impl AsRef<[u8]> + Send + 'static) -> io::Result<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let printing = move || {
        let mut output = io::stdout().lock();
        // Nobody is listening any more if the program is about to end.
        let _ = tell.send(output.write_all(text.as_ref()).and_then(|()| output.flush()));
    };
    std::thread::Builder::new().name("print".to_owned()).spawn(printing)?;
    told.await.unwrap_or_else(|_| Err(io::Error::other("it was not printed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_left_alone() {
        for text in ["", "server.example:443", "SHA256:abc+/", "größe", "日本"] {
            assert_eq!(escape(text), text);
        }
    }

    #[test]
    fn a_slip_of_the_finger_is_told_from_another_word() {
        let words = ["lanes", "tier", "express", "rate"];
        for (text, expected) in [
            ("tire", "tier"),
            ("teir", "tier"),
            ("lane", "lanes"),
            ("lnaes", "lanes"),
            ("Tier", "tier"),
            ("expres", "express"),
            ("raet", "rate"),
        ] {
            assert_eq!(meant(text, &words), format!(" (did you mean `{expected}`?)"), "{text}");
        }
        for text in ["", "speed", "colour", "x", &"tier".repeat(100_000)] {
            assert_eq!(meant(text, &words), "", "{text}");
        }
        assert_eq!((slips("abc", "abc"), slips("abc", "acb"), slips("", "abc")), (0, 1, 3));
    }

    #[test]
    fn nothing_can_draw_on_the_terminal() {
        assert_eq!(escape("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(escape("a\r\nb"), "a\\u{d}\\u{a}b");
        assert_eq!(escape("a\u{9b}b"), "a\\u{9b}b");
        assert_eq!(escape("abc\u{202e}fed"), "abc\\u{202e}fed");
        assert_eq!(escape("a\u{200b}b"), "a\\u{200b}b");
    }

    #[test]
    fn length_is_bounded() {
        let shown = escape(&"x".repeat(1_000_000));
        assert_eq!(shown.chars().count(), SHOWN_CHARS_MAX + 1);
        assert!(shown.ends_with('…'));
    }
}
