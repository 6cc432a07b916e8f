//! From what is known to what is drawn: nothing else decides it but the terminal's size and kind.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;
use ratatui::widgets::{RenderDirection, Sparkline};

use super::state::{Busy, Mode, Row, Top, Trace, View};
use super::words;
use crate::cli::status::snapshot::Link;
use crate::cli::status::text::{amount, brief, lanes_of, rate, waits_for};
use crate::cli::text::escape;

/// What the terminal shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    pub colour: bool,
    /// Whether it has characters beyond ASCII.
    pub unicode: bool,
}

/// From this height on, there are empty lines.
const AIRY_FROM: u16 = 16;

/// The narrowest graph that says something.
const GRAPH_MIN: u16 = 6;

/// Bars of plain characters.
const ASCII: bar::Set = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "=",
    five_eighths: "=",
    half: "-",
    three_eighths: "-",
    one_quarter: ".",
    one_eighth: ".",
    empty: " ",
};

/// What stands in one column of a line.
enum Cell<'a> {
    Left(String),
    Right(String),
    Graph { trace: &'a Trace, most: u64, colour: Color },
}

/// The columns that fit.
struct Columns {
    name: u16,
    tier: bool,
    totals: bool,
    graph: u16,
}

impl Columns {
    fn of(width: u16) -> Self {
        let (tier, totals) = (width >= 60, width >= 120);
        let name = if totals { 24 } else { 14 };
        let fixed = 2 + name + 9 * u16::from(tier) + 8 + 2 * 9 + 4 * 8 * u16::from(totals);
        let graph = width.saturating_sub(fixed) / 2;
        Self { name, tier, totals, graph: if graph > GRAPH_MIN { graph - 1 } else { 0 } }
    }

    /// These cells with their widths, without those that do not fit.
    fn line<'a>(&self, texts: [String; 9], graphs: [Option<Cell<'a>>; 2]) -> Vec<(u16, Cell<'a>)> {
        let [name, tier, lanes, up_now, down_now, up, down, resent, lost] = texts;
        let [up_graph, down_graph] = graphs.map(|it| it.unwrap_or(Cell::Left(String::new())));
        let mut line = vec![(self.name, Cell::Left(name))];
        if self.tier {
            line.push((8, Cell::Left(tier)));
        }
        line.push((7, Cell::Right(lanes)));
        for (now, graph) in [(up_now, up_graph), (down_now, down_graph)] {
            line.push((8, Cell::Right(now)));
            if self.graph > 0 {
                line.push((self.graph, graph));
            }
        }
        if self.totals {
            line.extend([up, down, resent, lost].map(|it| (7, Cell::Right(it))));
        }
        line
    }
}

/// Draws all of it.
pub fn draw(frame: &mut Frame<'_>, top: &Top, kind: Kind) {
    let area = frame.area();
    let Some((view, number, count)) = top.view() else { return };
    let mut pen = Pen { frame, kind };
    let events = view.events();
    let room = area.height.saturating_sub(5);
    let links = (view.links.len() as u16).min((room / 2).max(1));
    let shown = (events.len() as u16).min(room / 4);
    let air = u16::from(area.height >= AIRY_FROM);
    let heights = [1, 1, air, 1, links, 1, air].map(Constraint::Length);
    let below = [Constraint::Min(0), Constraint::Length(shown), Constraint::Length(1)];
    let areas = Layout::vertical(heights.into_iter().chain(below)).split(area);
    let [title, about, _, head, list, sum, _, body, events_area, last] = areas[..] else { return };
    pen.title(title, view, number, count);
    pen.text(about, &words::sessions(view), Style::new());
    pen.links(head, list, sum, view);
    match top.mode {
        Mode::Help => pen.lines(body, words::HELP.lines()),
        _ => pen.streams(body, view),
    }
    pen.lines(events_area, events.iter().map(String::as_str));
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    match words::question(top) {
        Some(question) => pen.text(last, &question, reversed),
        None => pen.text(last, &words::last_line(top), Style::new()),
    }
}

struct Pen<'a, 'b> {
    frame: &'a mut Frame<'b>,
    kind: Kind,
}

impl Pen<'_, '_> {
    fn colour(&self, colour: Color) -> Style {
        if self.kind.colour { Style::new().fg(colour) } else { Style::new() }
    }

    /// As much of it as fits, with a sign where something is missing.
    fn text(&mut self, area: Rect, text: &str, style: Style) {
        if area.is_empty() {
            return;
        }
        let buffer = self.frame.buffer_mut();
        buffer.set_style(area, style);
        let width = usize::from(area.width);
        let (end, _) = buffer.set_stringn(area.x, area.y, text, width, style);
        let shown = ratatui::text::Span::raw(text).width();
        if shown > width {
            let more = if self.kind.unicode { "…" } else { "~" };
            buffer.set_stringn(end.max(area.x + 1) - 1, area.y, more, 1, style);
        }
    }

    fn lines<'a>(&mut self, area: Rect, lines: impl Iterator<Item = &'a str>) {
        for (line, row) in lines.zip(area.rows()) {
            self.text(row, line, Style::new());
        }
    }

    /// A line of these, a space apart; what is too far to the right is cut off.
    fn cells(&mut self, line: Rect, cells: Vec<(u16, Cell<'_>)>, style: Style) {
        let mut x = line.x;
        for (width, cell) in cells {
            let area = Rect { x, width, ..line }.intersection(line);
            x = x.saturating_add(width + 1);
            match cell {
                Cell::Left(text) => self.text(area, &text, style),
                Cell::Right(text) => {
                    let blank = area.width.saturating_sub(text.chars().count() as u16);
                    let area = Rect { x: area.x + blank, width: area.width - blank, ..area };
                    self.text(area, &text, style);
                }
                Cell::Graph { trace, most, colour } => {
                    let bars = if self.kind.unicode { bar::NINE_LEVELS } else { ASCII };
                    let graph = Sparkline::default()
                        .direction(RenderDirection::RightToLeft)
                        .data(trace.latest(area.width.into()).collect::<Vec<_>>())
                        .max(most.max(1))
                        .bar_set(bars)
                        .style(self.colour(colour));
                    self.frame.render_widget(graph, area);
                }
            }
        }
    }

    fn title(&mut self, area: Rect, view: &View, number: usize, count: usize) {
        let reversed = Style::new().add_modifier(Modifier::REVERSED | Modifier::BOLD);
        let place = if count > 1 { format!(" {number} of {count}") } else { String::new() };
        let width = (place.len() as u16).min(area.width);
        let [name, right] =
            Layout::horizontal([Constraint::Min(0), Constraint::Length(width)]).areas(area);
        self.text(name, &words::title(view), reversed);
        self.text(right, &place, reversed);
    }

    fn links(&mut self, head: Rect, list: Rect, sum: Rect, view: &View) {
        let columns = Columns::of(head.width);
        let indented = |area: Rect| Rect {
            x: area.x + area.width.min(2),
            width: area.width.saturating_sub(2),
            ..area
        };
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let titles =
            ["link", "tier", "lanes", "up now", "down now", "up", "down", "resent", "lost"];
        let titles = columns.line(titles.map(str::to_owned), [None, None]);
        self.cells(indented(head), titles, bold);
        // All links on one scale: they can be compared.
        let width = usize::from(columns.graph);
        let traces = view.links.iter().flat_map(|row| [&row.up, &row.down]);
        let most = traces.flat_map(|trace| trace.latest(width)).max().unwrap_or_default();
        // The selected one is always among them.
        let height = usize::from(list.height);
        let first = (view.selected + 1).saturating_sub(height);
        let rows = view.links.iter().enumerate().skip(first);
        for ((at, row), area) in rows.zip(list.rows()) {
            let selected = at == view.selected;
            if selected {
                self.text(area, ">", bold);
            }
            let style = match &row.of {
                link if link.paused => self.colour(Color::Yellow),
                link if link.lanes_up == 0 => self.colour(Color::Red),
                _ => Style::new(),
            };
            let style = if selected { style.add_modifier(Modifier::BOLD) } else { style };
            let line = columns.line(link(&row.of, row), graphs(row, most));
            self.cells(indented(area), line, style);
        }
        let of_sum = |trace: &Trace| trace.latest(width).max().unwrap_or_default();
        let most = of_sum(&view.sum.up).max(of_sum(&view.sum.down));
        let line = columns.line(words::sum(view), graphs(&view.sum, most));
        self.cells(indented(sum), line, bold);
    }

    fn streams(&mut self, area: Rect, view: &View) {
        let wide = area.width >= 100;
        let age = if wide { 5 } else { 0 };
        let fixed = 2 + 2 * 9 + 2 * 7 + age + 11;
        let ends = (area.width.saturating_sub(fixed) / 2).clamp(10, 48);
        let line = |texts: [String; 8]| {
            let [from, to, up_now, down_now, up, down, old, waits] = texts;
            let mut line = vec![(ends, Cell::Left(from)), (ends, Cell::Left(to))];
            line.extend([(8, Cell::Right(up_now)), (8, Cell::Right(down_now))]);
            line.extend([(6, Cell::Right(up)), (6, Cell::Right(down))]);
            if wide {
                line.push((age, Cell::Right(old)));
            }
            line.push((11, Cell::Left(waits)));
            line
        };
        let from = words::connections(view);
        let titles = [from.as_str(), "to", "up now", "down now", "up", "down", "age", "waits for"];
        let mut rows = area.rows();
        let Some(head) = rows.next() else { return };
        let bold = Style::new().add_modifier(Modifier::BOLD);
        self.cells(head, line(titles.map(str::to_owned)), bold);
        for (busy, row) in view.streams.iter().zip(rows) {
            self.cells(row, line(stream(busy)), Style::new());
        }
    }
}

fn graphs<T>(row: &Row<T>, most: u64) -> [Option<Cell<'_>>; 2] {
    let graph = |trace, colour| Some(Cell::Graph { trace, most, colour });
    [graph(&row.up, Color::Cyan), graph(&row.down, Color::Green)]
}

fn link<T>(link: &Link, row: &Row<T>) -> [String; 9] {
    [
        escape(&link.name),
        escape(&link.tier),
        lanes_of(link),
        rate(row.up.now()),
        rate(row.down.now()),
        amount(link.sent_bytes),
        amount(link.received_bytes),
        amount(link.resent_bytes),
        link.lanes_lost.to_string(),
    ]
}

fn stream(busy: &Busy) -> [String; 8] {
    let stream = &busy.stream;
    [
        escape(&stream.from),
        escape(&stream.to),
        rate(busy.up),
        rate(busy.down),
        amount(stream.written_bytes),
        amount(stream.received_bytes),
        stream.age_seconds.map_or_else(|| "-".to_owned(), brief),
        waits_for(stream),
    ]
}
