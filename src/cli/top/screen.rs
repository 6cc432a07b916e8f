//! The terminal while `top` has it.

use std::io::{self, IsTerminal, Stdout, Write};

use nix::sys::signal::{Signal, raise};
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};
use ratatui::layout::{Rect, Size};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

use super::draw::Kind;
use crate::cli::logging::{self, Hold};

/// Of a terminal that does not know its own size, such as a serial line.
const SIZE: Rect = Rect::new(0, 0, 80, 24);

/// What keys and drawing go through; the terminal is as it was when this is dropped.
pub struct Screen {
    // In this order: what was logged meanwhile is to be seen afterwards.
    terminal: Terminal<CrosstermBackend<Stdout>>,
    taken: Taken<Stdout>,
    _hold: Option<Hold>,
}

impl Screen {
    pub fn open() -> io::Result<Self> {
        let hold = logging::stderr().ok().map(|log| log.hold());
        let taken = Taken::take(io::stdout())?;
        let backend = CrosstermBackend::new(io::stdout());
        let viewport = match backend.size() {
            Ok(Size { width: 1.., height: 1.. }) => Viewport::Fullscreen,
            Ok(_) | Err(_) => Viewport::Fixed(SIZE),
        };
        let terminal = Terminal::with_options(backend, TerminalOptions { viewport })?;
        Ok(Self { terminal, taken, _hold: hold })
    }

    pub fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(picture).map(drop)
    }

    /// Forgets what stands there, so that all of it is drawn.
    pub fn clear(&mut self) -> io::Result<()> {
        self.terminal.clear()
    }

    /// Gives the terminal back and stops, until the shell has this process go on.
    pub fn suspend(&mut self) -> io::Result<()> {
        self.taken.give_back();
        raise(Signal::SIGTSTP)?;
        self.taken.enter()?;
        self.clear()
    }
}

/// A terminal without echo, lines and cursor, and with another screen than the shell's. Dropped, on
/// a panic as well, it is what it was.
struct Taken<W: Write>(W);

impl<W: Write> Taken<W> {
    fn take(output: W) -> io::Result<Self> {
        let mut taken = Self(output);
        taken.enter()?;
        Ok(taken)
    }

    fn enter(&mut self) -> io::Result<()> {
        enable_raw_mode()?;
        execute!(self.0, EnterAlternateScreen, cursor::Hide)
    }

    fn give_back(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = execute!(self.0, LeaveAlternateScreen, cursor::Show);
        let _ = disable_raw_mode();
    }
}

impl<W: Write> Drop for Taken<W> {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// What the terminal can show, or why nothing can be drawn.
pub fn kind() -> Result<Kind, &'static str> {
    let word = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err("standard input and output are not both a terminal");
    }
    if word("TERM").is_none_or(|term| term == "dumb" || term == "unknown") {
        return Err("this terminal (TERM) cannot be drawn on");
    }
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(word).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    Ok(Kind {
        colour: word("NO_COLOR").is_none(),
        unicode: locale.contains("utf-8") || locale.contains("utf8"),
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_panic_gives_the_terminal_back() {
        let mut drawn = Vec::new();
        let panics = AssertUnwindSafe(|| {
            let _taken = Taken(&mut drawn);
            panic!("on purpose");
        });
        assert!(catch_unwind(panics).is_err());
        let drawn = String::from_utf8(drawn).unwrap();
        assert!(drawn.contains("\x1b[?1049l") && drawn.contains("\x1b[?25h"), "{drawn:?}");
    }
}
