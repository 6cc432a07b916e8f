//! The README's figures: those of docs/FIGURES.md, drawn as they stand in the table.
//!
//! `IMUX_WRITE_CHART=1 cargo test --test documents chart` draws the chart anew.

use std::fmt::Write;
use std::fs;

use crate::markdown::{FIGURES, README, root, table};

const CONTENDERS: &str = "| | TCP, best path | MPTCP | aggligator | imux |";
const NAMES: [&str; 4] = ["TCP", "MPTCP", "aggligator", "imux"];

/// A row of the README's table: what it asks, and each contender's cell.
fn rows() -> Vec<(String, [String; 4])> {
    let rows = table(README, CONTENDERS);
    assert_eq!(rows.len(), 6);
    let plain = |cell: &String| cell.trim_matches('*').to_owned();
    rows.iter().map(|row| (row[0].clone(), [1, 2, 3, 4].map(|at| plain(&row[at])))).collect()
}

fn number(cell: &str) -> Option<f64> {
    cell.replace(',', "").parse().ok()
}

/// What of a cell `27.5 (34.7), 40.6 (45.9)` is the median, of its first figure or of its second.
fn median(cell: &str, figure: usize) -> String {
    let figures: Vec<_> = cell.trim_matches('*').split("), ").collect();
    figures[figure].split(" (").next().unwrap().to_owned()
}

#[test]
fn the_figures_of_the_readme_are_those_of_the_document() {
    // Each row of the README: cell of the lab, its first figure or its second, decimals.
    let sources = [
        ("equal-down", 0, 2),
        ("rate10-down", 0, 2),
        ("loss1-down", 0, 2),
        ("death", 0, 0),
        ("echo-down", 1, 0),
    ];
    let heading = "| cell | figure | target | TCP";
    let text = crate::markdown::read(FIGURES);
    let of = |name: &str| {
        let begins = format!("| `{name}`");
        let line = text.lines().find(|line| line.starts_with(&begins)).unwrap();
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
    };
    assert!(text.contains(heading));
    for ((asked, cells), (name, figure, decimals)) in rows().iter().zip(sources) {
        // TCP, MPTCP, aggligator; of imux what one gets by leaving the number of lanes out.
        let row = of(name);
        for (cell, column) in cells.iter().zip([3, 4, 5, 7]) {
            let measured = median(&row[column], figure);
            let same = match (number(cell), number(&measured)) {
                (Some(said), Some(found)) => {
                    format!("{said:.decimals$}") == format!("{found:.decimals$}")
                }
                _ => *cell == measured,
            };
            assert!(same, "{asked}: {cell}, but {measured} in {FIGURES}, {name}");
        }
    }
    let (_, cells) = &rows()[5];
    assert!(cells[..3].iter().all(|cell| cell == "not measured"), "{cells:?}");
    // One connection over eight lanes: the second row of imux's.
    let table = crate::markdown::table(FIGURES, "| | streams x lanes | cpu-s/GB | / haproxy |");
    let imux = table.iter().position(|row| row[0] == "imux").unwrap();
    let row = &table[imux + 1];
    assert_eq!((&row[1], &row[3]), (&"1 x 8".to_owned(), &cells[3]));
}

struct Colours {
    file: &'static str,
    text: &'static str,
    muted: &'static str,
    other: &'static str,
    own: &'static str,
}

const THEMES: [Colours; 2] = [
    Colours {
        file: "docs/comparison-light.svg",
        text: "#1f2328",
        muted: "#59636e",
        other: "#afb8c1",
        own: "#0969da",
    },
    Colours {
        file: "docs/comparison-dark.svg",
        text: "#f0f6fc",
        muted: "#9198a1",
        other: "#565e67",
        own: "#4493f8",
    },
];

const WIDTH: usize = 900;
const PANEL_WIDTH: usize = 300;
const PANEL_HEIGHT: usize = 158;
/// Where bars begin, and how long the longest is.
const BAR_LEFT: usize = 78;
const BAR_WIDTH: f64 = 140.0;
/// A bar that fades out.
const ENDLESS: &str = "never ends";

fn chart(colours: &Colours) -> String {
    let rows = rows();
    let height = PANEL_HEIGHT * rows.len().div_ceil(3);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         font-family=\"system-ui, 'Segoe UI', Helvetica, Arial, sans-serif\" font-size=\"12\">\n\
         <title>imux beside TCP, MPTCP and aggligator</title>\n\
         <linearGradient id=\"endless\"><stop offset=\"0.6\" stop-color=\"{0}\"/>\
         <stop offset=\"1\" stop-color=\"{0}\" stop-opacity=\"0\"/></linearGradient>\n",
        colours.other
    );
    for (index, (asked, cells)) in rows.iter().enumerate() {
        let (left, top) = (index % 3 * PANEL_WIDTH, index / 3 * PANEL_HEIGHT);
        writeln!(out, "<g transform=\"translate({left} {top})\">").unwrap();
        panel(&mut out, asked, cells, colours);
        out.push_str("</g>\n");
    }
    out + "</svg>\n"
}

fn panel(out: &mut String, asked: &str, cells: &[String; 4], colours: &Colours) {
    let (subject, measure) = match asked.split_once(": ") {
        Some(parts) => parts,
        None => asked.split_once(", ").unwrap(),
    };
    let better =
        if measure.starts_with("share") { "longer is better" } else { "shorter is better" };
    let (text, muted) = (colours.text, colours.muted);
    write!(
        out,
        "<text x=\"4\" y=\"18\" fill=\"{text}\" font-size=\"14\" font-weight=\"600\">{subject}</text>\n\
         <text x=\"4\" y=\"36\" fill=\"{muted}\" font-size=\"11\">{measure}; {better}</text>\n"
    )
    .unwrap();
    // Shares against the whole; times against the longest, which leaves room for one without end.
    let endless = cells.iter().any(|cell| cell == ENDLESS);
    let longest = cells.iter().filter_map(|cell| number(cell)).fold(1.0, f64::max);
    let longest = if endless { longest * 1.4 } else { longest };
    for (row, (name, cell)) in NAMES.iter().zip(cells).enumerate() {
        let y = 48 + row * 24;
        let own = *name == "imux";
        let (fill, weight) = if own { (colours.own, "600") } else { (colours.other, "400") };
        let fill = if cell == ENDLESS { "url(#endless)" } else { fill };
        let width = match number(cell) {
            Some(value) => (value / longest * BAR_WIDTH).max(2.0),
            None if cell == ENDLESS => BAR_WIDTH,
            None => 0.0,
        };
        let label = if own { text } else { muted };
        let base = y + 12;
        write!(
            out,
            "<text x=\"{}\" y=\"{base}\" fill=\"{label}\" font-weight=\"{weight}\" text-anchor=\"end\">{name}</text>\n\
             <rect x=\"{BAR_LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"16\" rx=\"2\" fill=\"{fill}\"/>\n\
             <text x=\"{:.1}\" y=\"{base}\" fill=\"{label}\" font-weight=\"{weight}\">{cell}</text>\n",
            BAR_LEFT - 6,
            BAR_LEFT as f64 + width + if width > 0.0 { 6.0 } else { 0.0 },
        )
        .unwrap();
    }
}

#[test]
fn the_chart_shows_what_the_table_says() {
    for colours in &THEMES {
        let path = root().join(colours.file);
        let drawn = chart(colours);
        if std::env::var_os("IMUX_WRITE_CHART").is_some() {
            fs::write(&path, &drawn).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == drawn, "{} is of another table; see this file's first lines", colours.file);
    }
}
