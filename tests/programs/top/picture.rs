//! What a terminal shows, as a picture: text as text, bars as rectangles.

use std::fmt::Write;

/// Of one character, in pixels.
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 18.0;

/// Around all of them.
const MARGIN: f64 = 12.0;

/// Bars, by how many eighths of a line are filled.
const BARS: &str = " ▁▂▃▄▅▆▇█";

const BACK: &str = "#12161c";
const TEXT: &str = "#e6eaf0";

/// How characters look.
#[derive(Clone, Copy, PartialEq)]
struct Look {
    colour: &'static str,
    bold: bool,
    reversed: bool,
}

const PLAIN: Look = Look { colour: TEXT, bold: false, reversed: false };

impl Look {
    /// After one of the terminal's codes.
    fn after(self, code: &str) -> Self {
        let coloured = |colour| Self { colour, ..self };
        match code {
            "" | "0" => PLAIN,
            "1" => Self { bold: true, ..self },
            "7" => Self { reversed: true, ..self },
            "31" => coloured("#ff8a80"),
            "32" => coloured("#6fcf8f"),
            "33" => coloured("#f0c35a"),
            "36" => coloured("#6cabf5"),
            "39" => coloured(TEXT),
            "49" => self,
            other => panic!("top does not use {other}"),
        }
    }
}

/// From what tmux captures with its codes.
pub(super) fn svg(captured: &str, columns: u16, about: &str) -> String {
    let lines: Vec<_> = captured.trim_end().lines().collect();
    let width = 2.0 * MARGIN + f64::from(columns) * WIDTH;
    let height = 2.0 * MARGIN + lines.len() as f64 * HEIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         role=\"img\">\n<title>{about}</title>\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACK}\"/>\n\
         <g font-family=\"ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace\" font-size=\"14\">\n"
    );
    let mut look = PLAIN;
    for (row, line) in lines.into_iter().enumerate() {
        let y = MARGIN + row as f64 * HEIGHT;
        let mut column = 0;
        let last = line.split('\x1b').count() - 1;
        for (at, piece) in line.split('\x1b').enumerate() {
            // Behind each escape stands a code, between `[` and `m`.
            let text = if at == 0 {
                piece
            } else {
                let (codes, text) = piece.strip_prefix('[').unwrap().split_once('m').unwrap();
                // Colours of the palette of 256 begin with the plain ones.
                let codes = codes.replace("38;5;", "3").replace("48;5;", "4");
                look = codes.split(';').fold(look, Look::after);
                text
            };
            let x = MARGIN + column as f64 * WIDTH;
            // What is reversed to its end is so to the terminal's.
            let count = text.chars().count();
            let fill = if at == last { usize::from(columns) - column } else { count };
            draw(&mut svg, (x, y), text, fill, look);
            column += count;
        }
    }
    svg + "</g>\n</svg>\n"
}

/// Characters that look the same, `fill` wide.
fn draw(svg: &mut String, (x, y): (f64, f64), text: &str, fill: usize, look: Look) {
    let Look { colour, bold, reversed } = look;
    let (front, back) = if reversed { (BACK, Some(colour)) } else { (colour, None) };
    if let Some(back) = back {
        let width = fill as f64 * WIDTH;
        writeln!(svg, "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{HEIGHT}\" fill=\"{back}\"/>").unwrap();
    }
    let mut words = String::new();
    for (at, char) in text.chars().enumerate() {
        let bar = BARS.chars().position(|bar| bar == char).filter(|eighths| *eighths > 0);
        if let Some(eighths) = bar {
            let high = HEIGHT * eighths as f64 / 8.0;
            let (left, top) = (x + at as f64 * WIDTH, y + HEIGHT - high);
            writeln!(
                svg,
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{WIDTH}\" height=\"{high:.1}\" fill=\"{front}\"/>"
            )
            .unwrap();
        }
        words.push(if bar.is_some() { ' ' } else { char });
    }
    // A run of spaces may divide words that are far apart: each has a place of its own.
    let mut at = 0;
    for word in words.split("  ") {
        let length = word.chars().count();
        let shown = word.trim();
        if !shown.is_empty() {
            let blank = length - word.trim_start().chars().count();
            let (left, wide) =
                (x + (at + blank) as f64 * WIDTH, shown.chars().count() as f64 * WIDTH);
            let weight = if bold { " font-weight=\"bold\"" } else { "" };
            let shown = shown.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            writeln!(
                svg,
                "<text x=\"{left:.1}\" y=\"{:.1}\" textLength=\"{wide:.1}\" fill=\"{front}\"{weight}>{shown}</text>",
                y + HEIGHT * 0.75
            )
            .unwrap();
        }
        at += length + 2;
    }
}
