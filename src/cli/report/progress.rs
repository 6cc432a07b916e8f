//! Progress of a transfer: one line redrawn on a terminal, occasional lines elsewhere.

use std::io::{self, Write};
use std::time::Duration;

use crate::cli::units;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One line, redrawn, on this many columns.
    Terminal { columns: usize },
    /// Lines for a log file.
    Lines,
    /// Not at all.
    Silent,
}

impl Style {
    /// The style for an output: `quiet` wins; `columns` is the terminal's width, if known.
    pub fn choose(is_terminal: bool, quiet: bool, columns: Option<usize>) -> Self {
        match (quiet, is_terminal) {
            (true, _) => Style::Silent,
            (_, false) => Style::Lines,
            _ => Style::Terminal { columns: columns.filter(|&n| n >= 20).unwrap_or(80) },
        }
    }
}

/// A terminal is redrawn ten times a second: smooth to the eye, and next to nothing for the
/// processor.
const REDRAW_INTERVAL: Duration = Duration::from_millis(100);
/// A log gets a line a second, or sooner once another tenth is done.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
const LINE_STEP: f64 = 0.1;
/// The least time between lines, even on the fastest machine.
const LINE_INTERVAL_MIN: Duration = Duration::from_millis(200);

/// Draws progress on an output. The caller passes in the time since the start.
#[derive(Debug)]
pub struct Progress<W> {
    output: W,
    style: Style,
    label: String,
    total: u64,
    /// When something was drawn last, and how much was done then.
    drawn: Option<(Duration, u64)>,
    /// Length of the line now on the terminal, in characters.
    standing: usize,
}

impl<W: Write> Progress<W> {
    pub fn new(output: W, style: Style, label: &str, total: u64) -> Self {
        Self { output, style, label: label.to_owned(), total, drawn: None, standing: 0 }
    }

    /// Takes how much is done; draws if it is time to.
    pub fn update(&mut self, elapsed: Duration, done: u64) -> io::Result<()> {
        if self.is_due(elapsed, done) { self.draw(elapsed, done) } else { Ok(()) }
    }

    /// Prints a separate line, with the bar below it as before.
    pub fn message(&mut self, text: &str) -> io::Result<()> {
        match self.style {
            Style::Silent => return Ok(()),
            Style::Lines => writeln!(self.output, "{text}")?,
            Style::Terminal { .. } => {
                let clear = " ".repeat(self.standing.saturating_sub(text.chars().count()));
                self.standing = 0;
                self.drawn = None;
                writeln!(self.output, "\r{text}{clear}")?;
            }
        }
        self.output.flush()
    }

    /// Draws the final state and leaves it there.
    pub fn finish(&mut self, elapsed: Duration, done: u64) -> io::Result<()> {
        if self.style == Style::Silent {
            return Ok(());
        }
        if !self.drawn.is_some_and(|(_, drawn)| drawn == done && self.style == Style::Lines) {
            self.draw(elapsed, done)?;
        }
        if matches!(self.style, Style::Terminal { .. }) {
            writeln!(self.output)?;
        }
        self.standing = 0;
        self.output.flush()
    }

    fn is_due(&self, elapsed: Duration, done: u64) -> bool {
        let Some((at, before)) = self.drawn else { return self.style != Style::Silent };
        let since = elapsed.saturating_sub(at);
        match self.style {
            Style::Silent => false,
            Style::Terminal { .. } => since >= REDRAW_INTERVAL,
            Style::Lines => {
                let step = done.saturating_sub(before) as f64 >= LINE_STEP * self.total as f64;
                since >= LINE_INTERVAL || (step && since >= LINE_INTERVAL_MIN)
            }
        }
    }

    fn draw(&mut self, elapsed: Duration, done: u64) -> io::Result<()> {
        self.drawn = Some((elapsed, done));
        match self.style {
            Style::Silent => return Ok(()),
            Style::Lines => {
                writeln!(self.output, "{}", figures(&self.label, elapsed, done, self.total))?;
            }
            Style::Terminal { columns } => {
                // The last column stays free: some terminals wrap when it is filled.
                let line = bar_line(&self.label, elapsed, done, self.total, columns - 1);
                let length = line.chars().count();
                let clear = " ".repeat(self.standing.saturating_sub(length));
                self.standing = length;
                write!(self.output, "\r{line}{clear}")?;
            }
        }
        self.output.flush()
    }
}

/// `up  45 %  14.4 MiB of 32.0 MiB  94.3 Mbit/s  1.2 s left`.
fn figures(label: &str, elapsed: Duration, done: u64, total: u64) -> String {
    let percent = 100.0 * fraction(done, total);
    let rate = units::per_second(done, elapsed);
    let of = format!("{} of {}", units::bytes(done), units::bytes(total));
    let mut line = format!("{label}  {percent:.0} %  {of}  {}", units::rate(rate));
    if done < total && rate > 0.0 {
        // At most a day: a stalled start would predict centuries.
        let left = ((total - done) as f64 / rate).min(86_400.0);
        line += &format!("  {} left", units::duration(Duration::from_secs_f64(left)));
    }
    line
}

/// The figures after a bar, if there is room for one; cut to `columns` in any case.
///
/// The bar's width does not depend on the figures, which grow and shrink while it is redrawn.
fn bar_line(label: &str, elapsed: Duration, done: u64, total: u64, columns: usize) -> String {
    /// Room for the longest usual figures, such as
    /// `  99 %  1000.0 MiB of 1000.0 MiB  100.0 Mbit/s  10 min 00 s left`, and for `[] `.
    const FIGURES: usize = 68;
    const BAR_MIN: usize = 10;
    const BAR_MAX: usize = 40;
    let figures = figures(label, elapsed, done, total);
    let room = columns.saturating_sub(label.chars().count() + FIGURES);
    let line = if room < BAR_MIN {
        figures
    } else {
        let width = room.min(BAR_MAX);
        let full = ((width as f64 * fraction(done, total)) as usize).min(width);
        format!("[{}{}] {figures}", "#".repeat(full), ".".repeat(width - full))
    };
    line.chars().take(columns).collect()
}

fn fraction(done: u64, total: u64) -> f64 {
    if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn progress(style: Style) -> Progress<Vec<u8>> {
        Progress::new(Vec::new(), style, "up", 32 * MIB)
    }

    fn shown(progress: Progress<Vec<u8>>) -> String {
        String::from_utf8(progress.output).unwrap()
    }

    #[test]
    fn style_for_the_output() {
        assert_eq!(Style::choose(true, true, None), Style::Silent);
        assert_eq!(Style::choose(false, false, Some(120)), Style::Lines);
        assert_eq!(Style::choose(true, false, Some(120)), Style::Terminal { columns: 120 });
        for odd in [None, Some(0), Some(19)] {
            assert_eq!(Style::choose(true, false, odd), Style::Terminal { columns: 80 });
        }
    }

    #[test]
    fn lines_come_each_second_or_tenth() {
        let mut progress = progress(Style::Lines);
        for step in 0..=40u64 {
            // 1/64 each 100 ms: the second is over before a tenth is done.
            progress.update(ms(step * 100), step * MIB / 2).unwrap();
        }
        let lines: Vec<_> = shown(progress).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 41 / 7 + 1, "{lines:#?}");
        assert_eq!(lines[0], "up  0 %  0 B of 32.0 MiB  0 bit/s");
        assert_eq!(lines[1], "up  11 %  3.5 MiB of 32.0 MiB  41.9 Mbit/s  5.7 s left");

        let mut slow = self::progress(Style::Lines);
        for step in 0..=30u64 {
            slow.update(ms(step * 100), step).unwrap();
        }
        assert_eq!(shown(slow).lines().count(), 4);

        let mut fast = self::progress(Style::Lines);
        for step in 0..=32u64 {
            fast.update(ms(step), step * MIB).unwrap();
        }
        fast.finish(ms(33), 32 * MIB).unwrap();
        assert_eq!(shown(fast).lines().count(), 2, "the first and the last");
    }

    #[test]
    fn a_finished_log_says_so_once() {
        let mut progress = progress(Style::Lines);
        progress.update(ms(0), 32 * MIB).unwrap();
        progress.finish(ms(1), 32 * MIB).unwrap();
        assert_eq!(shown(progress), "up  100 %  32.0 MiB of 32.0 MiB  0 bit/s\n");
    }

    #[test]
    fn a_terminal_has_one_line_redrawn() {
        let mut progress = progress(Style::Terminal { columns: 91 });
        progress.update(ms(1000), 16 * MIB).unwrap();
        progress.update(ms(1050), 17 * MIB).unwrap();
        progress.finish(ms(2000), 32 * MIB).unwrap();
        let half =
            "[##########..........] up  50 %  16.0 MiB of 32.0 MiB  134.2 Mbit/s  1.0 s left";
        let whole = "[####################] up  100 %  32.0 MiB of 32.0 MiB  134.2 Mbit/s";
        let wipe = " ".repeat(half.len() - whole.len());
        assert_eq!(shown(progress), format!("\r{half}\r{whole}{wipe}\n"));
    }

    #[test]
    fn a_shorter_line_wipes_the_longer_one() {
        let mut progress = progress(Style::Terminal { columns: 40 });
        progress.update(ms(1000), 16 * MIB).unwrap();
        progress.message("lane 2 is gone").unwrap();
        progress.update(ms(1001), 16 * MIB).unwrap();
        let shown = shown(progress);
        let mut frames = shown.split('\r').skip(1);
        assert_eq!(frames.next().unwrap().chars().count(), 39);
        let message = frames.next().unwrap();
        assert!(message.starts_with("lane 2 is gone  ") && message.ends_with(" \n"), "{shown:?}");
        assert_eq!(message.trim_end_matches('\n').chars().count(), 39);
        assert!(frames.next().unwrap().starts_with("up  50 %"));
    }

    #[test]
    fn silence() {
        let mut progress = progress(Style::Silent);
        progress.update(ms(0), 0).unwrap();
        progress.message("lane 2 is gone").unwrap();
        progress.finish(ms(9), 32 * MIB).unwrap();
        assert_eq!(shown(progress), "");
    }

    #[test]
    fn odd_amounts_do_no_harm() {
        for (done, total, elapsed) in
            [(0, 0, 0), (5, 0, 1), (u64::MAX, 1, 1), (1, u64::MAX, 60_000), (0, u64::MAX, 0)]
        {
            for columns in [0, 1, 19, 80, 500] {
                let line = bar_line("x", ms(elapsed), done, total, columns);
                assert!(line.chars().count() <= columns, "{line}");
                assert!(!line.contains("NaN") && !line.contains("inf"), "{line}");
            }
        }
    }
}
