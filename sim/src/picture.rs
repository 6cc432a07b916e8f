//! A run at a glance: one row per path showing what its lanes carried when, marks where lanes died,
//! and a row showing what the reader got and where it waited. One SVG file, no script.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::net::{MS, SECOND, Time};
use crate::options::Options;
use crate::trace::Record;

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 150.0;
const ROW: f64 = 90.0;
const GAP: f64 = 34.0;
const TOP: f64 = 64.0;
const BUCKETS: usize = 400;
/// A reader without a byte for this long counts as waiting.
const WAITING: Time = 30 * MS;
const COLOURS: [&str; 8] =
    ["#2b6cb0", "#2f855a", "#b7791f", "#6b46c1", "#0987a0", "#97266d", "#4a5568", "#9c4221"];

struct Plot {
    until: Time,
    svg: String,
}

impl Plot {
    fn x(&self, time: Time) -> f64 {
        LEFT + WIDTH * time as f64 / self.until.max(1) as f64
    }

    fn text(&mut self, x: f64, y: f64, size: u32, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        let _ =
            writeln!(self.svg, r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}">{text}</text>"#);
    }

    /// An area over time; `values` are in Mbit/s, the row's top is `most`.
    fn area(&mut self, y: f64, values: &[f64], most: f64, colour: &str, opacity: f64) {
        let bottom = y + ROW;
        let mut points = format!("{LEFT:.1},{bottom:.1}");
        for (n, value) in values.iter().enumerate() {
            let height = ROW * (value / most.max(1e-9)).min(1.1);
            let from = LEFT + WIDTH * n as f64 / BUCKETS as f64;
            let to = LEFT + WIDTH * (n + 1) as f64 / BUCKETS as f64;
            let top = bottom - height;
            let _ = write!(points, " {from:.1},{top:.1} {to:.1},{top:.1}");
        }
        let right = LEFT + WIDTH;
        let _ = writeln!(
            self.svg,
            r#"<polygon points="{points} {right:.1},{bottom:.1}" fill="{colour}" opacity="{opacity}"/>"#
        );
    }

    fn mark(&mut self, y: f64, time: Time, colour: &str, title: &str) {
        let x = self.x(time);
        let bottom = y + ROW;
        let _ = writeln!(
            self.svg,
            r#"<line x1="{x:.1}" y1="{y:.1}" x2="{x:.1}" y2="{bottom:.1}" stroke="{colour}" stroke-width="1.5"><title>{title}</title></line>"#
        );
    }

    fn band(&mut self, y: f64, from: Time, to: Time, colour: &str, title: &str) {
        let (x, end) = (self.x(from), self.x(to));
        let width = (end - x).max(1.0);
        let _ = writeln!(
            self.svg,
            r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{ROW}" fill="{colour}" opacity="0.3"><title>{title}</title></rect>"#
        );
    }
}

/// The picture of a run.
pub fn draw(options: &Options, records: &[Record], title: &str) -> String {
    let busy = |record: &&Record| matches!(record.what, "arrive" | "read") && record.a > 64;
    let until = records.iter().filter(busy).map(|r| r.t).max().unwrap_or(SECOND) + SECOND / 20;
    let height = TOP + (ROW + GAP) * (options.paths.len() + 1) as f64 + 30.0;
    let mut plot = Plot { until, svg: String::new() };
    let _ = writeln!(
        plot.svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:.0} {height:.0}" font-family="sans-serif" fill="#222"><rect width="100%" height="100%" fill="white"/>"##,
        LEFT + WIDTH + 20.0
    );
    plot.text(10.0, 22.0, 16, title);
    plot.text(
        10.0,
        42.0,
        11,
        "areas: Mbit/s towards the server by lane; red line: lane lost; green: lane up; orange: lane suspect; grey: path away; pink: the reader waits",
    );
    draw_paths(&mut plot, options, records);
    draw_reader(&mut plot, options, records);
    draw_axis(&mut plot, height);
    plot.svg.push_str("</svg>\n");
    plot.svg
}

fn bucket(until: Time, time: Time) -> usize {
    (time as u128 * BUCKETS as u128 / u128::from(until.max(1))) as usize
}

fn mbit_factor(until: Time) -> f64 {
    8e3 * BUCKETS as f64 / until.max(1) as f64
}

fn draw_paths(plot: &mut Plot, options: &Options, records: &[Record]) {
    let until = plot.until;
    let lane_path: BTreeMap<u64, usize> =
        records.iter().filter(|r| r.what == "lane up").map(|r| (r.id, r.a as usize)).collect();
    let mut lanes: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for r in records.iter().filter(|r| r.what == "arrive" && r.end == "server") {
        let values = lanes.entry(r.id).or_insert_with(|| vec![0.0; BUCKETS]);
        if let Some(value) = values.get_mut(bucket(until, r.t)) {
            *value += r.a as f64 * mbit_factor(until);
        }
    }
    for (n, path) in options.paths.iter().enumerate() {
        let y = TOP + (ROW + GAP) * n as f64;
        let most =
            path.mbit[0].max(options.faults.iter().filter(|f| f.path == n).fold(0.0, |most, f| {
                match f.kind {
                    crate::options::FaultKind::Rate { mbit } => mbit.max(most),
                    _ => most,
                }
            })) * 1.1;
        plot.text(10.0, y + 20.0, 13, &format!("path {n}"));
        plot.text(10.0, y + 38.0, 11, &format!("{} Mbit/s, {} ms", path.mbit[0], path.delay_ms[0]));
        plot.text(10.0, y + 54.0, 11, &format!("{} lane(s)", path.lanes));
        // One path's lanes are stacked.
        let of_path: Vec<u64> =
            lanes.keys().copied().filter(|lane| lane_path.get(lane) == Some(&n)).collect();
        let mut below = vec![0.0; BUCKETS];
        let mut stack: Vec<(u64, Vec<f64>)> = Vec::new();
        for lane in of_path {
            below.iter_mut().zip(&lanes[&lane]).for_each(|(sum, value)| *sum += value);
            stack.push((lane, below.clone()));
        }
        for (lane, values) in stack.iter().rev() {
            plot.area(y, values, most, COLOURS[*lane as usize % COLOURS.len()], 1.0);
        }
        draw_marks(plot, y, n, &lane_path, records);
        plot.area(y, &[0.0; BUCKETS], 1.0, "#222", 1.0);
    }
}

fn draw_marks(
    plot: &mut Plot,
    y: f64,
    path: usize,
    lane_path: &BTreeMap<u64, usize>,
    records: &[Record],
) {
    let mut down_since = None;
    let until = plot.until;
    for r in records.iter().filter(|r| r.t <= until) {
        let on_path = lane_path.get(&r.id) == Some(&path);
        let lane = r.id;
        match r.what {
            "lane lost" | "lane down" if on_path => {
                plot.mark(y, r.t, "#e53e3e", &format!("lane {lane} lost at the {}", r.end));
            }
            "lane up" if on_path => plot.mark(y, r.t, "#38a169", &format!("lane {lane} up")),
            "suspect" if on_path => {
                plot.mark(y, r.t, "#ed8936", &format!("lane {lane} suspect at the {}", r.end));
            }
            "path down" if r.id == path as u64 => down_since = Some(r.t),
            "path up" if r.id == path as u64 => {
                if let Some(since) = down_since.take() {
                    plot.band(y, since, r.t, "#718096", "path away");
                }
            }
            what if what.starts_with("fault") && r.id == path as u64 => {
                plot.mark(y, r.t, "#000", what);
            }
            _ => {}
        }
    }
}

fn draw_reader(plot: &mut Plot, options: &Options, records: &[Record]) {
    let y = TOP + (ROW + GAP) * options.paths.len() as f64;
    let main = (0..options.streams.len())
        .max_by_key(|&n| options.streams[n].halves[0].bytes)
        .unwrap_or_default() as u64;
    plot.text(10.0, y + 20.0, 13, "reader, in order");
    plot.text(10.0, y + 38.0, 11, "of the largest stream");
    let mut values = vec![0.0; BUCKETS];
    let mut last: Option<Time> = None;
    for r in records.iter().filter(|r| r.what == "read" && r.id == main && r.end == "server") {
        if let Some(value) = values.get_mut(bucket(plot.until, r.t)) {
            *value += r.b as f64 * mbit_factor(plot.until);
        }
        if let Some(last) = last.filter(|last| r.t - last > WAITING) {
            let text = format!("waited {:.0} ms", (r.t - last) as f64 / MS as f64);
            plot.band(y, last, r.t, "#e53e3e", &text);
        }
        last = Some(r.t);
    }
    let most = options.paths.iter().map(|path| path.mbit[0]).sum::<f64>() * 1.2;
    plot.area(y, &values, most, "#1a202c", 0.7);
}

fn draw_axis(plot: &mut Plot, height: f64) {
    let step = (plot.until / SECOND / 10).max(1) * SECOND;
    let mut at = 0;
    while at <= plot.until {
        let x = plot.x(at);
        plot.text(x - 4.0, height - 8.0, 11, &format!("{} s", at / SECOND));
        let _ = writeln!(
            plot.svg,
            r##"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{:.1}" stroke="#cbd5e0" stroke-width="0.5"/>"##,
            height - 22.0
        );
        at += step;
    }
}
