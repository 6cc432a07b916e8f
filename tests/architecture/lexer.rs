//! Just enough of a Rust lexer: words and signs with their lines, no comments, no text.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Identifier or keyword.
    Word(String),
    /// `::`
    PathSep,
    /// Any other sign.
    Sign(char),
    /// String, character, number or lifetime: of no interest, but something stood there.
    Literal,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: usize,
}

impl Token {
    pub(crate) fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(word) => Some(word),
            _ => None,
        }
    }

    pub(crate) fn is(&self, sign: char) -> bool {
        self.kind == Kind::Sign(sign)
    }

    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.word() == Some(word)
    }
}

pub(crate) fn tokens(source: &str) -> Vec<Token> {
    Lexer { rest: source, line: 1, out: Vec::new() }.run()
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    out: Vec<Token>,
}

impl Lexer<'_> {
    fn run(mut self) -> Vec<Token> {
        while let Some(c) = self.rest.chars().next() {
            if self.rest.starts_with("//") {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                self.skip(block_comment_len(self.rest));
            } else if c.is_whitespace() {
                self.skip(c.len_utf8());
            } else if let Some(len) = text_len(self.rest) {
                self.take(len, Kind::Literal);
            } else if let Some(raw) = self.rest.strip_prefix("r#").filter(|rest| word_len(rest) > 0)
            {
                let len = word_len(raw);
                self.take(2 + len, Kind::Word(raw[..len].to_owned()));
            } else if c == '\'' {
                self.take(quote_len(self.rest), Kind::Literal);
            } else if c.is_ascii_digit() {
                self.take(word_len(self.rest).max(1), Kind::Literal);
            } else if word_len(self.rest) > 0 {
                let len = word_len(self.rest);
                self.take(len, Kind::Word(self.rest[..len].to_owned()));
            } else if self.rest.starts_with("::") {
                self.take(2, Kind::PathSep);
            } else {
                self.take(c.len_utf8(), Kind::Sign(c));
            }
        }
        self.out
    }

    fn take(&mut self, len: usize, kind: Kind) {
        self.out.push(Token { kind, line: self.line });
        self.skip(len);
    }

    fn skip(&mut self, len: usize) {
        self.line += self.rest[..len].matches('\n').count();
        self.rest = &self.rest[len..];
    }
}

fn word_len(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Block comments nest.
fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a string of any kind at the start of `text`.
fn text_len(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""]
        .into_iter()
        .find(|p| text.strip_prefix(p).is_some_and(|rest| rest.starts_with(['"', '#'])))?;
    let rest = &text[prefix.len()..];
    if !prefix.ends_with('r') {
        return rest.starts_with('"').then(|| prefix.len() + escaped_len(rest, '"'));
    }
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let len = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(prefix.len() + hashes + 1 + len)
}

/// The length up to and with the closing `quote`, the first character being the opening one.
fn escaped_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character in quotes, or a lifetime.
fn quote_len(text: &str) -> usize {
    let mut chars = text.chars().skip(1);
    let (first, second) = (chars.next(), chars.next());
    if first == Some('\\') || second == Some('\'') {
        return escaped_len(text, '\'');
    }
    1 + word_len(&text[1..])
}

#[test]
fn words_and_signs_only() {
    let source = r####"
        // use a::b;
        /* use a::b; /* nested */ still */
        /// use a::b;
        use c::d; // tail
        let s = "use \" e::f"; let t = r#"use " g::h"#; let u = b"i::j";
        let c = '"'; let d = '\''; let e = 'x'; fn life<'a>(x: &'a str) {}
        r#async; 1_000u64; 1.5;
    "####;
    let words: Vec<_> = tokens(source).iter().filter_map(|t| t.word().map(str::to_owned)).collect();
    let expected = "use c d let s let t let u let c let d let e fn life x str async";
    assert_eq!(words.join(" "), expected);
}

#[test]
fn lines_are_counted_through_comments_and_text() {
    let tokens = tokens("/*\n\n*/ \"\n\" a\n  b");
    let lines: Vec<_> =
        tokens.iter().filter_map(|t| t.word().map(|w| (w.to_owned(), t.line))).collect();
    assert_eq!(lines, [("a".to_owned(), 4), ("b".to_owned(), 5)]);
}
