//! Plots as plain SVG: bars, lines over time, and distributions. No more than the report needs.

use super::stats::number;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 140.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;
/// Distinguishable by colour-blind people, too (Okabe and Ito's palette).
const COLOURS: [&str; 7] =
    ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#000000"];

/// A contender's bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Its name.
    pub name: String,
    /// Height of the bar.
    pub value: f64,
    /// The worst run, drawn as a whisker.
    pub worst: f64,
}

/// A named line.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<(f64, f64)>,
}

/// Bars with their worst runs as whiskers, and the target as a dashed line.
#[must_use]
pub fn bars(title: &str, bars: &[Bar], target: Option<f64>) -> String {
    let values = bars.iter().flat_map(|b| [b.value, b.worst]).chain(target);
    let frame = Frame::new((0.0, bars.len().max(1) as f64), (0.0, top(values)));
    let mut out = frame.open(title);
    for (i, bar) in bars.iter().enumerate() {
        let (left, right) = (frame.x(i as f64 + 0.2), frame.x(i as f64 + 0.8));
        let (value, worst) = (frame.y(bar.value), frame.y(bar.worst));
        let middle = f64::midpoint(left, right);
        out += &format!(
            "<rect x='{left:.1}' y='{value:.1}' width='{:.1}' height='{:.1}' fill='{}'/>\n\
             <path d='M{middle:.1} {value:.1}V{worst:.1}M{:.1} {worst:.1}h12' stroke='black' fill='none'/>\n\
             <text x='{middle:.1}' y='{:.1}' text-anchor='middle'>{}</text>\n\
             <text x='{middle:.1}' y='{:.1}' text-anchor='middle'>{}</text>\n",
            right - left,
            (frame.y(0.0) - value).max(0.0),
            colour(i),
            middle - 6.0,
            value.min(worst) - 4.0,
            number(bar.value),
            HEIGHT - BOTTOM + 16.0,
            escape(&bar.name),
        );
    }
    if let Some(target) = target {
        out += &format!(
            "<path d='M{LEFT} {y:.1}H{x:.1}' stroke='#d00' stroke-dasharray='6 4'/>\n\
             <text x='{:.1}' y='{:.1}' fill='#d00'>target {}</text>\n",
            WIDTH - RIGHT + 4.0,
            frame.y(target) + 4.0,
            number(target),
            y = frame.y(target),
            x = WIDTH - RIGHT,
        );
    }
    out + "</svg>\n"
}

/// Lines over a common axis, with marks at the given places.
#[must_use]
pub fn lines(title: &str, lines: &[Line], marks: &[f64]) -> String {
    let points = || lines.iter().flat_map(|l| &l.points);
    let right = points().map(|p| p.0).fold(0.0, f64::max);
    let left = points().map(|p| p.0).fold(0.0, f64::min);
    let bottom = points().map(|p| p.1).fold(0.0, f64::min);
    let frame = Frame::new((left, right), (bottom, top(points().map(|p| p.1))));
    let mut out = frame.open(title);
    out += &frame.ticks();
    for mark in marks {
        let (x, to) = (frame.x(*mark), HEIGHT - BOTTOM);
        out += &format!("<path d='M{x:.1} {TOP}V{to}' stroke='#d00' stroke-dasharray='3 3'/>\n");
    }
    for (i, line) in lines.iter().enumerate() {
        let path: Vec<String> = line
            .points
            .iter()
            .map(|p| format!("{:.1},{:.1}", frame.x(p.0), frame.y(p.1)))
            .collect();
        out += &format!(
            "<polyline points='{}' fill='none' stroke='{c}' stroke-width='1.5'/>\n\
             <text x='{:.1}' y='{:.1}' fill='{c}'>{}</text>\n",
            path.join(" "),
            WIDTH - RIGHT + 8.0,
            TOP + 14.0 + 16.0 * i as f64,
            escape(&line.name),
            c = colour(i),
        );
    }
    out + "</svg>\n"
}

/// The plot's area and its scales.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
}

impl Frame {
    fn new(x: (f64, f64), y: (f64, f64)) -> Self {
        let wide =
            |(low, high): (f64, f64)| if high > low { (low, high) } else { (low, low + 1.0) };
        Self { x: wide(x), y: wide(y) }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (value - self.x.0) / (self.x.1 - self.x.0) * (WIDTH - LEFT - RIGHT)
    }

    /// Infinite values are drawn at the upper edge.
    fn y(&self, value: f64) -> f64 {
        let value = value.clamp(self.y.0, self.y.1);
        HEIGHT - BOTTOM - (value - self.y.0) / (self.y.1 - self.y.0) * (HEIGHT - TOP - BOTTOM)
    }

    fn open(&self, title: &str) -> String {
        let mut out = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' \
             font-family='sans-serif' font-size='12'>\n<rect width='100%' height='100%' fill='white'/>\n\
             <text x='{LEFT}' y='20' font-size='13'>{}</text>\n",
            escape(title)
        );
        for i in 0..=4 {
            let value = self.y.0 + (self.y.1 - self.y.0) * f64::from(i) / 4.0;
            let y = self.y(value);
            out += &format!(
                "<path d='M{LEFT} {y:.1}H{:.1}' stroke='#ddd'/>\n\
                 <text x='{:.1}' y='{:.1}' text-anchor='end'>{}</text>\n",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                number(value)
            );
        }
        out
    }

    fn ticks(&self) -> String {
        let tick = |i: i32| {
            let value = self.x.0 + (self.x.1 - self.x.0) * f64::from(i) / 8.0;
            format!(
                "<text x='{:.1}' y='{:.1}' text-anchor='middle'>{}</text>\n",
                self.x(value),
                HEIGHT - BOTTOM + 16.0,
                number(value)
            )
        };
        (0..=8).map(tick).collect()
    }
}

fn top(values: impl Iterator<Item = f64>) -> f64 {
    let highest = values.filter(|v| v.is_finite()).fold(0.0, f64::max);
    if highest > 0.0 { highest * 1.1 } else { 1.0 }
}

fn colour(i: usize) -> &'static str {
    COLOURS[i % COLOURS.len()]
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_hold_what_they_are_given() {
        let bar = |name: &str, value, worst| Bar { name: name.to_owned(), value, worst };
        let plot =
            bars("a < b", &[bar("tcp", 0.5, 0.4), bar("x&y", f64::INFINITY, 1.0)], Some(0.97));
        assert!(plot.starts_with("<svg") && plot.ends_with("</svg>\n"));
        for part in ["a &lt; b", "x&amp;y", "never", "target 0.97"] {
            assert!(plot.contains(part), "{part}");
        }
        assert!(!plot.contains("NaN") && !plot.contains("inf"));
        let line = Line { name: "imux".to_owned(), points: vec![(0.0, 1.0), (1.0, -2.0)] };
        let plot = lines("t", &[line], &[0.5]);
        assert!(plot.contains("<polyline") && plot.contains("imux"));
        assert!(!lines("t", &[], &[]).contains("NaN"));
        assert!(!bars("t", &[], None).contains("NaN"));
    }
}
