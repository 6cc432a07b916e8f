//! The question about a server's key, asked of the person at the terminal.
//!
//! The words are those of the original imux. Two of its faults are not kept: it took capitals only,
//! and it asked for ever once its input had ended.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use async_trait::async_trait;
use imux::trust::{Answer, KnownKey, PeerIdentity, Prompter};

use super::text::escape;

/// What is asked about. The fingerprints are shown as they are given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// The server is not known.
    Unknown { host: String, presented: String },
    /// The server is known, by another key.
    Changed { known: String, presented: String },
}

impl Question {
    fn write_to(&self, output: &mut impl Write) -> io::Result<()> {
        match self {
            Question::Unknown { host, presented } => {
                writeln!(output, "{} presents certificate with signature:", escape(host))?;
                writeln!(output, "{}", escape(presented))?;
                writeln!(output, "[A]bort, [C]ontinue without saving, [S]ave and continue?")
            }
            Question::Changed { known, presented } => {
                writeln!(output, "WARNING: Remote certificate has changed!!")?;
                writeln!(output, "old: {}", escape(known))?;
                writeln!(output, "new: {}", escape(presented))?;
                writeln!(output, "[A]bort, [C]ontinue without updating, [U]pdate and continue?")
            }
        }
    }

    /// The meaning of a line; None when it has none and the question stands.
    fn answer(&self, line: &str) -> Option<Answer> {
        match (self, line.trim().to_ascii_uppercase().as_str()) {
            (_, "A") => Some(Answer::Abort),
            (_, "C") => Some(Answer::Continue),
            (Question::Unknown { .. }, "S") | (Question::Changed { .. }, "U") => Some(Answer::Save),
            _ => None,
        }
    }
}

/// Longest line read at once; whoever types more has not answered.
const LINE_BYTES_MAX: u64 = 1024;

/// Asks until there is an answer. The end of the input is one: abort.
pub(crate) fn ask(
    question: &Question,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> io::Result<Answer> {
    question.write_to(output)?;
    loop {
        write!(output, "> ")?;
        output.flush()?;
        let mut line = Vec::new();
        if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            writeln!(output)?;
            return Ok(Answer::Abort);
        }
        if let Some(answer) = question.answer(&String::from_utf8_lossy(&line)) {
            return Ok(answer);
        }
    }
}

/// Asks on the process's own terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal(());

impl Terminal {
    /// None unless both standard input and standard error are terminals: without a person there is
    /// nobody to ask, and what a pipe says is not a decision.
    pub(crate) fn of_process() -> Option<Self> {
        (io::stdin().is_terminal() && io::stderr().is_terminal()).then_some(Self(()))
    }

    /// Asks without blocking the runtime.
    ///
    /// A thread of its own and not the runtime's blocking pool: nothing can wake a thread out of
    /// reading a terminal, and the runtime would wait for its own when the program is interrupted.
    async fn ask(self, question: Question) -> io::Result<Answer> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let asking = move || {
            // Standard error is not locked meanwhile: the log must not wait for a person.
            let answer = ask(&question, &mut io::stdin().lock(), &mut io::stderr());
            // Nobody listens any more when the program is about to end.
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
        _host: &str,
        old: &KnownKey,
        peer: &PeerIdentity,
    ) -> io::Result<Answer> {
        let presented = peer.fingerprint.to_string();
        self.ask(Question::Changed { known: old.to_string(), presented }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown() -> Question {
        Question::Unknown { host: "server:443".to_owned(), presented: "SHA256:abc".to_owned() }
    }

    fn changed() -> Question {
        Question::Changed { known: "SHA256:old".to_owned(), presented: "SHA256:new".to_owned() }
    }

    fn typed(question: &Question, mut input: &[u8]) -> (Answer, String) {
        let mut output = Vec::new();
        let answer = ask(question, &mut input, &mut output).unwrap();
        (answer, String::from_utf8(output).unwrap())
    }

    #[test]
    fn the_originals_words() {
        let (_, shown) = typed(&unknown(), b"A\n");
        assert_eq!(
            shown,
            "server:443 presents certificate with signature:\nSHA256:abc\n\
             [A]bort, [C]ontinue without saving, [S]ave and continue?\n> "
        );
        let (_, shown) = typed(&changed(), b"A\n");
        assert_eq!(
            shown,
            "WARNING: Remote certificate has changed!!\nold: SHA256:old\nnew: SHA256:new\n\
             [A]bort, [C]ontinue without updating, [U]pdate and continue?\n> "
        );
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
            (changed(), "u\n", Answer::Save),
            (changed(), "U\n", Answer::Save),
            (changed(), "c\n", Answer::Continue),
        ] {
            assert_eq!(typed(&question, input.as_bytes()).0, expected, "{input:?}");
        }
    }

    #[test]
    fn what_is_no_answer_is_asked_again() {
        let (answer, shown) = typed(&unknown(), b"\nyes\nU\nsave\n\xff\xfe\nS\n");
        assert_eq!(answer, Answer::Save);
        assert_eq!(shown.matches("> ").count(), 6);
        // S means nothing where the key has changed.
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
