//! The text of a file, and places in it.

use std::ops::Range;

use crate::cli::text::escape;

/// A file's name and text.
#[derive(Debug)]
pub(in crate::cli::args) struct Source {
    pub(super) name: String,
    pub(super) text: String,
}

/// What is wrong, and where.
#[derive(Debug)]
pub(in crate::cli::args) struct Problem {
    pub(in crate::cli::args) at: Range<usize>,
    pub(in crate::cli::args) what: String,
}

impl Problem {
    pub(super) fn new(at: Range<usize>, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }
}

/// Problems that are shown; the rest would scroll the first ones away.
const SHOWN_MAX: usize = 20;

/// Of a line that is shown, in characters.
const LINE_MAX: usize = 100;

impl Source {
    /// `FILE:LINE:COLUMN: what`, with the line and a mark below it.
    pub(in crate::cli::args) fn tell(&self, problem: &Problem) -> String {
        let at = problem.at.start.min(self.text.len());
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let begin = before.rfind('\n').map_or(0, |end| end + 1);
        let column = before[begin..].chars().count() + 1;
        let whole = self.text[begin..].lines().next().unwrap_or_default();
        let length = self.text.get(problem.at.clone()).unwrap_or_default();
        let length = length.lines().next().unwrap_or_default().chars().count().max(1);
        let place = format!("{}:{line}:{column}", escape(&self.name));
        let told = format!("{place}: {}", escape_each(&problem.what));
        if whole.trim().is_empty() || column > LINE_MAX {
            return told;
        }
        // A tab is shown as one space: the mark stands below what it marks.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        let shown: String = whole.chars().take(LINE_MAX).map(plain).collect();
        let mark = "^".repeat(length.min(LINE_MAX + 1 - column));
        format!("{told}\n    {shown}\n    {}{mark}", " ".repeat(column - 1))
    }

    /// All of them, in the order of the file.
    pub(in crate::cli::args) fn tell_all(&self, mut problems: Vec<Problem>) -> String {
        problems.sort_by_key(|problem| problem.at.start);
        let mut told: Vec<_> = problems.iter().take(SHOWN_MAX).map(|it| self.tell(it)).collect();
        if problems.len() > SHOWN_MAX {
            told.push(format!("and {} more", problems.len() - SHOWN_MAX));
        }
        told.join("\n")
    }
}

/// Nothing in a file draws on the terminal of whoever has it checked.
fn escape_each(text: &str) -> String {
    text.split(' ').map(escape).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_by_line_and_column_with_a_mark_below_it() {
        let text = "a = 1\n\tköln = \"x\"\n".to_owned();
        let at = text.find("\"x\"").unwrap();
        let source = Source { name: "f.toml".to_owned(), text };
        let told = source.tell(&Problem::new(at..at + 3, "no \x1b"));
        assert_eq!(told, "f.toml:2:9: no \\u{1b}\n     köln = \"x\"\n            ^^^");
        let end = source.tell(&Problem::new(999..1000, "ends"));
        assert_eq!(end, "f.toml:3:1: ends");
        let many = (0..25).map(|at| Problem::new(at..at, "wrong")).collect();
        assert!(source.tell_all(many).ends_with("and 5 more"));
    }
}
