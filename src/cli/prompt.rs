//! The question about a server's key, put to the person at the terminal.
//!
//! For an unknown server it uses the original imux's words and letters, and accepts ssh's answers
//! too. While a question is open, nothing else is written to the terminal. A changed key is more
//! often an attack than not, and nobody types part of the new key by habit.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use async_trait::async_trait;
use imux::trust::{Answer, KnownKey, PeerIdentity, Prompter};
use zeroize::Zeroizing;

use super::logging;
use super::text::escape;

/// What to ask about. Fingerprints are shown as given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The server is unknown.
    Unknown { host: String, presented: String },
    /// The server is known by another key.
    Changed { host: String, known: String, presented: String },
}

/// How many characters of a new key, after `SHA256:`, a person must type to accept it in place of
/// another.
const TYPED_CHARS: usize = 8;

impl Question {
    fn write_to(&self, output: &mut impl Write) -> io::Result<()> {
        match self {
            Question::Unknown { host, presented } => {
                writeln!(output, "{} presents key with fingerprint:", escape(host))?;
                writeln!(output, "{}", escape(presented))?;
                writeln!(output, "This key is not known here yet. {COMPARE}")?;
                writeln!(output, "[A]bort, [C]ontinue without saving, [S]ave and continue?")?;
                writeln!(output, "(`no` aborts, `yes` or the key itself saves.)")
            }
            Question::Changed { host, known, presented } => {
                writeln!(output, "WARNING: Remote key has changed!!")?;
                writeln!(output, "{} is known by another key than it presents:", escape(host))?;
                writeln!(output, "old: {}", escape(known))?;
                writeln!(output, "new: {}", escape(presented))?;
                writeln!(output, "{MEANING}\n{COMPARE}")?;
                writeln!(output, "[A]bort, [C]ontinue without updating, [U]pdate and continue?")?;
                writeln!(output, "{PROOF}")
            }
        }
    }

    /// The meaning of a line; None if it has none and the question stays open.
    fn answer(&self, line: &str) -> Option<Answer> {
        match self {
            Question::Unknown { presented, .. } => {
                match line.trim().to_ascii_uppercase().as_str() {
                    "A" | "N" | "NO" => Some(Answer::Abort),
                    "C" => Some(Answer::Continue),
                    "S" | "YES" => Some(Answer::Save),
                    // As with ssh: the key, wherever the person got it from.
                    _ => (line.trim() == presented).then_some(Answer::Save),
                }
            }
            Question::Changed { presented, .. } => answer_to_changed(presented, line),
        }
    }
}

/// Where to get the right key. No line is wider than a terminal.
const COMPARE: &str = "Compare it with the server's:
`imux identity --of-server` shows it there, and so does the server's log, as
key=SHA256:... in the line \"server ready\".";

/// What a changed key means.
const MEANING: &str = "\
Either the server was given a new key, or somebody else answers in its place,
who would read and change all that is sent. Ask who runs the server first.";

/// What C and U also need.
const PROOF: &str = "\
To continue or to update, type C or U, and behind it the eight characters
after SHA256: of the new key, such as: U ........";

/// A letter and the beginning of the new key; the key alone means update.
fn answer_to_changed(presented: &str, line: &str) -> Option<Answer> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    let letter = words.first().filter(|word| word.len() == 1).map(|word| word.to_ascii_uppercase());
    if letter.is_some() {
        words.remove(0);
    }
    let hash = presented.strip_prefix("SHA256:")?;
    let typed = match words.as_slice() {
        [] => None,
        [word] => Some(word.strip_prefix("SHA256:").unwrap_or(word)),
        _ => return None,
    };
    // Exactly these, or the whole key; base64 is case-sensitive.
    let proven = typed.is_some_and(|typed| {
        hash.get(..TYPED_CHARS).is_some_and(|start| typed == start) || typed == hash
    });
    match letter.as_deref() {
        Some("A") if typed.is_none() => Some(Answer::Abort),
        Some("C") if proven => Some(Answer::Continue),
        Some("U") | None if proven => Some(Answer::Save),
        _ => None,
    }
}

/// Longest line read at once; anything longer is no answer.
const LINE_BYTES_MAX: u64 = 1024;

/// Asks until there is an answer. The end of input counts as one: abort.
pub fn ask(
    question: &Question,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> io::Result<Answer> {
    question.write_to(output)?;
    let mut letter = String::new();
    loop {
        write!(output, "> ")?;
        output.flush()?;
        let mut line = Vec::new();
        if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            writeln!(output)?;
            return Ok(Answer::Abort);
        }
        let line = String::from_utf8_lossy(&line);
        // What the previous line said need not be repeated.
        let whole = format!("{letter} {line}");
        if let Some(answer) = question.answer(&whole).or_else(|| question.answer(&line)) {
            return Ok(answer);
        }
        letter = match (question, line.trim()) {
            (Question::Changed { .. }, said @ ("c" | "C" | "u" | "U")) => {
                writeln!(output, "The eight characters after SHA256: of the new key:")?;
                said.to_owned()
            }
            _ => String::new(),
        };
    }
}

/// A line as it was typed, without its end; `None` is the end of input. It may be a secret.
fn line(
    words: &str,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> io::Result<Option<Zeroizing<String>>> {
    write!(output, "{words}")?;
    output.flush()?;
    // At its greatest length from the beginning, so that growing leaves no copy behind.
    let mut line = Zeroizing::new(Vec::with_capacity(LINE_BYTES_MAX as usize));
    if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
        writeln!(output)?;
        return Ok(None);
    }
    let text = std::str::from_utf8(&line).unwrap_or_default().trim_end();
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// Asks on the process's own terminal.
#[derive(Debug, Clone, Copy)]
pub struct Terminal(());

impl Terminal {
    /// None unless both standard input and standard error are terminals: without a person there is
    /// nobody to ask, and a pipe cannot decide.
    pub fn of_process() -> Option<Self> {
        (io::stdin().is_terminal() && io::stderr().is_terminal()).then_some(Self(()))
    }

    async fn ask(self, question: Question) -> io::Result<Answer> {
        self.talk(move |input, output| ask(&question, input, output)).await
    }

    /// Shows some words and waits for a line; `None` is the end of input.
    pub async fn line(self, words: String) -> io::Result<Option<Zeroizing<String>>> {
        self.talk(move |input, output| line(&words, input, output)).await
    }

    /// Talks to the person without blocking the runtime.
    ///
    /// On a separate thread, not the runtime's blocking pool: nothing can wake a thread from
    /// reading a terminal, and on an interrupt the runtime would wait for its own threads.
    async fn talk<T: Send + 'static>(
        self,
        talk: impl FnOnce(&mut io::StdinLock<'_>, &mut io::Stderr) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let asking = move || {
            // Nothing comes between the question and its answer; logging does not wait for a
            // person.
            let hold = logging::stderr().map(|log| log.hold());
            let answer = talk(&mut io::stdin().lock(), &mut io::stderr());
            drop(hold);
            // Nobody is listening any more if the program is about to end.
            let _ = tell.send(answer);
        };
        std::thread::Builder::new().name("prompt".into()).spawn(asking)?;
        told.await.unwrap_or_else(|_| Err(io::Error::other("the question was not answered")))
    }
}

#[async_trait]
impl Prompter for Terminal {
    async fn unknown_host(&self, host: &str, peer: &PeerIdentity) -> io::Result<Answer> {
        let presented = peer.fingerprint.to_string();
        self.ask(Question::Unknown { host: host.to_owned(), presented }).await
    }

    async fn changed_host(
        &self,
        host: &str,
        old: &KnownKey,
        peer: &PeerIdentity,
    ) -> io::Result<Answer> {
        let (host, known) = (host.to_owned(), old.to_string());
        let presented = peer.fingerprint.to_string();
        self.ask(Question::Changed { host, known, presented }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown() -> Question {
        Question::Unknown { host: "server:443".to_owned(), presented: "SHA256:abc".to_owned() }
    }

    fn changed() -> Question {
        Question::Changed {
            host: "server:443".to_owned(),
            known: "SHA256:old".to_owned(),
            presented: "SHA256:uNiVztks/sDhcc0u".to_owned(),
        }
    }

    fn typed(question: &Question, mut input: &[u8]) -> (Answer, String) {
        let mut output = Vec::new();
        let answer = ask(question, &mut input, &mut output).unwrap();
        (answer, String::from_utf8(output).unwrap())
    }

    #[test]
    fn the_originals_words_about_a_key() {
        let (_, shown) = typed(&unknown(), b"A\n");
        assert!(shown.starts_with("server:443 presents key with fingerprint:\nSHA256:abc\n"));
        for words in [
            "\n[A]bort, [C]ontinue without saving, [S]ave and continue?\n",
            "`imux identity --of-server`",
            "\"server ready\"",
            "`yes`",
        ] {
            assert!(shown.contains(words), "{shown}");
        }
        let (_, shown) = typed(&changed(), b"A\n");
        assert!(shown.starts_with("WARNING: Remote key has changed!!\nserver:443 "), "{shown}");
        for words in [
            "\nold: SHA256:old\nnew: SHA256:uNiVztks/sDhcc0u\n",
            "\n[A]bort, [C]ontinue without updating, [U]pdate and continue?\n",
            "somebody else answers in its place",
            "`imux identity --of-server`",
        ] {
            assert!(shown.contains(words), "{shown}");
        }
        for question in [unknown(), changed()] {
            let (_, shown) = typed(&question, b"A\n");
            assert!(shown.lines().all(|line| line.len() <= 80), "{shown}");
            assert!(!shown.contains("certificate") && shown.ends_with("\n> "), "{shown}");
        }
    }

    #[test]
    fn answers_in_either_case() {
        for (question, input, expected) in [
            (unknown(), "A\n", Answer::Abort),
            (unknown(), "a\n", Answer::Abort),
            (unknown(), "C\n", Answer::Continue),
            (unknown(), " c \r\n", Answer::Continue),
            (unknown(), "S\n", Answer::Save),
            (unknown(), "s", Answer::Save),
            (unknown(), "yes\n", Answer::Save),
            (unknown(), "Yes\n", Answer::Save),
            (unknown(), "no\n", Answer::Abort),
            (unknown(), "SHA256:abc\n", Answer::Save),
            (changed(), "a\n", Answer::Abort),
        ] {
            assert_eq!(typed(&question, input.as_bytes()).0, expected, "{input:?}");
        }
    }

    #[test]
    fn a_changed_key_is_accepted_only_by_whoever_types_a_piece_of_it() {
        for (input, expected) in [
            ("uNiVztks\n", Answer::Save),
            ("U uNiVztks\n", Answer::Save),
            ("u\nuNiVztks\n", Answer::Save),
            ("U SHA256:uNiVztks/sDhcc0u\n", Answer::Save),
            ("C uNiVztks\n", Answer::Continue),
            ("c\n  uNiVztks \n", Answer::Continue),
            ("C\nU uNiVztks\n", Answer::Save),
            // Wrong, too short, wrong case, the old key's beginning, habit.
            ("U uNiVztkS\nA\n", Answer::Abort),
            ("U\nunivztks\nA\n", Answer::Abort),
            ("U uNiVztk\nC uNiVztks/\nA\n", Answer::Abort),
            ("U\nU\nC\nyes\nS\nold\nSHA256:old\n", Answer::Abort),
            ("C\n\nuNiV ztks\nA\n", Answer::Abort),
            ("S uNiVztks\nA uNiVztks\n", Answer::Abort),
        ] {
            assert_eq!(typed(&changed(), input.as_bytes()).0, expected, "{input:?}");
        }
        // A letter followed by something else no longer counts.
        assert_eq!(typed(&changed(), b"C\nmaybe\nuNiVztks\n").0, Answer::Save);
    }

    #[test]
    fn what_is_no_answer_is_asked_again() {
        let (answer, shown) = typed(&unknown(), b"\nye\nU\nsave\n\xff\xfe\nS\n");
        assert_eq!(answer, Answer::Save);
        assert_eq!(shown.matches("> ").count(), 6);
        // S means nothing if the key has changed.
        assert_eq!(typed(&changed(), b"S\nA\n").0, Answer::Abort);
    }

    #[test]
    fn the_end_of_input_is_an_abort() {
        for input in [&b""[..], b"\n\n", b"maybe"] {
            let (answer, shown) = typed(&unknown(), input);
            assert_eq!(answer, Answer::Abort, "{input:?}");
            assert!(shown.ends_with("> \n"), "{shown:?}");
        }
    }

    #[test]
    fn an_endless_line_takes_no_memory_and_is_no_answer() {
        let mut input = io::BufReader::new(io::repeat(b's').take(100 * LINE_BYTES_MAX));
        let mut output = Vec::new();
        assert_eq!(ask(&unknown(), &mut input, &mut output).unwrap(), Answer::Abort);
    }

    #[test]
    fn a_failing_input_is_an_error_and_no_answer() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let mut input = io::BufReader::new(Failing);
        assert!(ask(&unknown(), &mut input, &mut Vec::new()).is_err());
    }

    #[test]
    fn nothing_shown_can_draw_on_the_terminal() {
        let question = Question::Unknown {
            host: "evil\x1b[2J\rgood.example".to_owned(),
            presented: "a\nSHA256:trusted".to_owned(),
        };
        let (_, shown) = typed(&question, b"A\n");
        assert!(shown.starts_with("evil\\u{1b}[2J\\u{d}good.example presents"), "{shown}");
        assert!(shown.contains("a\\u{a}SHA256:trusted\n"), "{shown}");
    }
}
