//! What a source file names: paths, words, macros and methods, each with its line, its module and
//! whether it is test code.

use super::lexer::{Kind, Token, tokens};

/// Something that a file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mention {
    pub(crate) what: What,
    pub(crate) line: usize,
    /// Modules within the file that it stands in.
    pub(crate) inside: Vec<String>,
    /// It stands in `#[cfg(test)]` or `#[test]` code.
    pub(crate) in_test: bool,
    /// It is what a `pub use` hands on, under this name; `*` for all there is.
    pub(crate) exported: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// `a::b::c`, in a `use` or anywhere else.
    Path(Vec<String>),
    /// An identifier or keyword by itself.
    Word(String),
    /// `name!`
    Macro(String),
    /// `.name(`
    Method(String),
    /// `mod name;` or `mod name {`
    Module(String),
}

pub(crate) fn mentions(source: &str) -> Vec<Mention> {
    let tokens = tokens(source);
    let in_test = mark_tests(&tokens);
    let mut reader = Reader { tokens: &tokens, in_test, inside: Vec::new(), depth: 0, out: vec![] };
    let mut at = 0;
    while at < tokens.len() {
        at = reader.read(at);
    }
    reader.out
}

struct Reader<'a> {
    tokens: &'a [Token],
    in_test: Vec<bool>,
    /// Modules within the file, each with the depth of braces of its inside.
    inside: Vec<(String, usize)>,
    depth: usize,
    out: Vec<Mention>,
}

impl Reader<'_> {
    /// Reads what starts at `at` and returns where the next thing starts.
    fn read(&mut self, at: usize) -> usize {
        let token = &self.tokens[at];
        match &token.kind {
            Kind::Sign('{') => self.depth += 1,
            Kind::Sign('}') => {
                self.inside.retain(|(_, depth)| *depth < self.depth);
                self.depth = self.depth.saturating_sub(1);
            }
            Kind::Word(word) => return self.read_word(at, word),
            _ => {}
        }
        at + 1
    }

    fn read_word(&mut self, at: usize, word: &str) -> usize {
        let next_is = |sign| self.tokens.get(at + 1).is_some_and(|t| t.is(sign));
        match word {
            // Who may see something is no import: pub(in crate::proto).
            "pub" if next_is('(') => return self.closing(at + 1) + 1,
            // `impl Trait + use<'a>` captures and imports nothing.
            "use" if !next_is('<') => return self.read_use(at),
            "mod" => {
                if let Some(name) = self.tokens.get(at + 1).and_then(Token::word) {
                    self.push(at, What::Module(name.to_owned()));
                    if self.tokens.get(at + 2).is_some_and(|t| t.is('{')) {
                        self.inside.push((name.to_owned(), self.depth + 1));
                    }
                    return at + 2;
                }
            }
            _ => {}
        }
        let (path, end) = self.path_at(at);
        for (i, segment) in path.iter().enumerate() {
            self.push(at + 2 * i, What::Word(segment.clone()));
        }
        if path.len() > 1 {
            self.push(at, What::Path(path.clone()));
        }
        let last = path.last().cloned().unwrap_or_default();
        if self.tokens.get(end).is_some_and(|t| t.is('!')) {
            self.push(end - 1, What::Macro(last));
        } else if at > 0 && self.tokens[at - 1].is('.') && path.len() == 1 {
            self.push(at, What::Method(last));
        }
        end
    }

    /// The path of words from `at` on, and the index after it.
    fn path_at(&self, at: usize) -> (Vec<String>, usize) {
        let mut path = Vec::new();
        let mut at = at;
        while let Some(word) = self.tokens.get(at).and_then(Token::word) {
            path.push(word.to_owned());
            let goes_on = self.tokens.get(at + 1).is_some_and(|t| t.kind == Kind::PathSep)
                && self.tokens.get(at + 2).is_some_and(|t| t.word().is_some());
            if !goes_on {
                return (path, at + 1);
            }
            at += 2;
        }
        (path, at)
    }

    fn read_use(&mut self, at: usize) -> usize {
        let end = (at..self.tokens.len()).find(|&i| self.tokens[i].is(';'));
        let end = end.unwrap_or(self.tokens.len());
        // `pub use`, or `pub(…) use`.
        let before = at.checked_sub(1).map(|before| &self.tokens[before]);
        let exports = before.is_some_and(|token| token.is_word("pub") || token.is(')'));
        let begin = self.out.len();
        self.read_use_tree(at + 1, end, &[]);
        if !exports {
            self.out[begin..].iter_mut().for_each(|mention| mention.exported = None);
        }
        end
    }

    /// Reads one tree (up to a comma, a closing brace or `end`); returns where it ended.
    fn read_use_tree(&mut self, mut at: usize, end: usize, prefix: &[String]) -> usize {
        let start = at;
        let mut path = prefix.to_vec();
        let mut name = prefix.last().cloned().unwrap_or_default();
        while at < end {
            let token = &self.tokens[at];
            match &token.kind {
                Kind::Sign('{') => {
                    at += 1;
                    while at < end && !self.tokens[at].is('}') {
                        at = self.read_use_tree(at, end, &path);
                        if self.tokens[at].is(',') {
                            at += 1;
                        }
                    }
                    return at + 1;
                }
                Kind::Sign(',' | '}') => break,
                Kind::Word(word) if word == "as" => {
                    at += 1;
                    name = self.tokens[at].word().unwrap_or_default().to_owned();
                }
                Kind::Word(word) if word == "self" && !path.is_empty() => {}
                Kind::Word(word) => {
                    self.push(at, What::Word(word.clone()));
                    path.push(word.clone());
                    name.clone_from(word);
                }
                Kind::Sign('*') => "*".clone_into(&mut name),
                _ => {}
            }
            at += 1;
        }
        self.push(start, What::Path(path));
        if let Some(mention) = self.out.last_mut() {
            mention.exported = Some(name);
        }
        at
    }

    fn closing(&self, open: usize) -> usize {
        closing(self.tokens, open)
    }

    fn push(&mut self, at: usize, what: What) {
        let inside = self.inside.iter().map(|(name, _)| name.clone()).collect();
        let (line, in_test) = (self.tokens[at].line, self.in_test[at]);
        self.out.push(Mention { what, line, inside, in_test, exported: None });
    }
}

/// The index of the sign that closes what opens at `open`.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Sign('(' | '[' | '{') => depth += 1,
            Kind::Sign(')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// For each token, whether it belongs to an item that only tests compile.
fn mark_tests(tokens: &[Token]) -> Vec<bool> {
    let mut marked = vec![false; tokens.len()];
    let mut at = 0;
    while at < tokens.len() {
        let inner = tokens[at].is('#') && tokens.get(at + 1).is_some_and(|t| t.is('!'));
        let open = if inner { at + 2 } else { at + 1 };
        if !tokens[at].is('#') || !tokens.get(open).is_some_and(|t| t.is('[')) {
            at += 1;
            continue;
        }
        let close = closing(tokens, open);
        if is_test_attribute(&tokens[open + 1..close.min(tokens.len())]) {
            if inner {
                return vec![true; tokens.len()];
            }
            let end = item_end(tokens, close + 1);
            marked[(close + 1).min(end)..end].fill(true);
        }
        at = close + 1;
    }
    marked
}

/// `test`, `tokio::test`, `cfg(test)`, `cfg(all(test, …))`; not `cfg(not(test))`, not
/// `cfg(any(test, …))`, not `cfg_attr(test, …)`.
fn is_test_attribute(inside: &[Token]) -> bool {
    let words: Vec<_> = inside.iter().filter_map(Token::word).collect();
    match words.as_slice() {
        [.., "test"] if inside.last().is_some_and(|t| t.is_word("test")) => true,
        // Fuzz targets and what they share with tests: no ordinary build can reach them.
        ["cfg", "any", "test", "fuzzing"] | ["cfg", "all", "fuzzing", "feature"] => true,
        ["cfg", conditions @ ..] => {
            conditions.contains(&"test") && !conditions.iter().any(|w| matches!(*w, "not" | "any"))
        }
        _ => false,
    }
}

/// The index after the item (or field, or match arm) that starts at `at`, attributes first.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|t| t.is('#')) {
        at = closing(tokens, at + 1) + 1;
    }
    const ITEMS: [&str; 14] = [
        "pub", "fn", "mod", "use", "struct", "enum", "impl", "const", "static", "type", "trait",
        "async", "let", "extern",
    ];
    let is_item = tokens.get(at).and_then(Token::word).is_some_and(|word| ITEMS.contains(&word));
    while at < tokens.len() {
        match tokens[at].kind {
            Kind::Sign(';') => return at + 1,
            Kind::Sign(',') if !is_item => return at + 1,
            Kind::Sign('{') => return (closing(tokens, at) + 1).min(tokens.len()),
            Kind::Sign('(' | '[') => at = closing(tokens, at),
            Kind::Sign(')' | ']' | '}') => return at,
            _ => {}
        }
        at += 1;
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str) -> Vec<String> {
        let paths = mentions(source).into_iter().filter_map(|mention| match mention.what {
            What::Path(path) => Some(path.join("::")),
            _ => None,
        });
        paths.collect()
    }

    fn tested(source: &str) -> Vec<String> {
        let words = mentions(source).into_iter().filter(|mention| mention.in_test);
        let words = words.filter_map(|mention| match mention.what {
            What::Word(word) => Some(word),
            _ => None,
        });
        words.collect()
    }

    #[test]
    fn use_trees() {
        let source = "use a::{b::{self, c as d}, e::*, f}; pub(crate) use ::g::h; use i;";
        assert_eq!(paths(source), ["a::b", "a::b::c", "a::e", "a::f", "g::h", "i"]);
    }

    #[test]
    fn what_is_handed_on_has_its_name() {
        let source = "
            pub use a::{b::{self, C as D}, e::*}; pub(crate) use f::g; use h::i; fn j() { k::l() }";
        let names = mentions(source).into_iter().filter_map(|mention| match mention.what {
            What::Path(path) => Some((path.join("::"), mention.exported.unwrap_or_default())),
            _ => None,
        });
        let expected = [
            ("a::b", "b"),
            ("a::b::C", "D"),
            ("a::e", "*"),
            ("f::g", "g"),
            ("h::i", ""),
            ("k::l", ""),
        ];
        assert_eq!(
            names.collect::<Vec<_>>(),
            expected.map(|(path, name)| (path.to_owned(), name.to_owned()))
        );
    }

    #[test]
    fn paths_in_code() {
        let source = "
            pub(in crate::proto) fn f(x: &crate::a::B) -> <C as d::E>::F { g::h::<i::J>(k.l::m()); }
            fn n() -> impl Iterator + use<> { o::p!(q::R) }";
        let expected = ["crate::a::B", "d::E", "g::h", "i::J", "l::m", "o::p", "q::R"];
        assert_eq!(paths(source), expected);
    }

    #[test]
    fn macros_and_methods() {
        let found = mentions("println!(); std::dbg!(x); a.elapsed(); elapsed; b != c;");
        let has = |what: What| found.iter().any(|mention| mention.what == what);
        assert!(has(What::Macro("println".into())) && has(What::Macro("dbg".into())));
        assert!(has(What::Method("elapsed".into())));
        assert_eq!(found.iter().filter(|m| matches!(m.what, What::Method(_))).count(), 1);
    }

    #[test]
    fn test_code_is_known() {
        assert_eq!(tested("#[cfg(test)] use a; fn b() {}"), ["a"]);
        assert_eq!(tested("#[cfg(test)] mod t { fn c() {} } fn d() {}").join(" "), "fn c");
        assert_eq!(tested("#[test] fn a() { b } fn c() {}"), ["fn", "a", "b"]);
        assert_eq!(tested("#[tokio::test] async fn a() {} fn c() {}").join(" "), "async fn a");
        assert_eq!(tested("struct S { #[cfg(test)] a: B, c: D }"), ["a", "B"]);
        assert_eq!(tested("#[cfg(not(test))] use a; #[cfg(any(test, b))] use c;"), [""; 0]);
        assert_eq!(tested("#[cfg(any(test, fuzzing))] use a; use b;"), ["a"]);
        assert_eq!(tested("#[cfg_attr(test, allow(a))] fn b() {}"), [""; 0]);
        assert_eq!(
            tested("#[cfg(all(test, unix))] fn a<B, C>() where B: D<E, F> {} fn g() {}").len(),
            9
        );
        assert_eq!(tested("#![cfg(test)] a"), ["cfg", "test", "a"]);
    }

    #[test]
    fn modules_within_the_file() {
        let found = mentions("mod a { mod b { use c::d; } use e::f; } use g::h;");
        let inside = |path: &[&str]| {
            let path = What::Path(path.iter().map(|&s| s.to_owned()).collect());
            found.iter().find(|m| m.what == path).unwrap().inside.join("::")
        };
        assert_eq!(inside(&["c", "d"]), "a::b");
        assert_eq!(inside(&["e", "f"]), "a");
        assert_eq!(inside(&["g", "h"]), "");
    }
}
