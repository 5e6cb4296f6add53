//! A figure's picture: lines over two axes, as SVG that stands by itself.
//!
//! Written by hand: a few lines are all that is drawn, and a plotting crate would be more to build than all benches together.

use std::fmt::{self, Display};

/// The picture's size.
const SIZE: (f64, f64) = (720.0, 420.0);

/// Where the axes are: left, top, right, bottom.
const FRAME: (f64, f64, f64, f64) = (70.0, 40.0, 560.0, 360.0);

/// Colours that most eyes tell apart (Okabe and Ito, 2008).
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// Numbers on an axis, at most.
const TICKS: f64 = 6.0;

/// Lines over two axes that begin at zero. Its `Display` is the SVG.
#[derive(Clone, PartialEq, Debug)]
pub struct Plot {
    /// Over the picture.
    pub title: String,
    /// Under the horizontal axis.
    pub x: String,
    /// Beside the vertical axis.
    pub y: String,
    /// A level to compare with, and what it is.
    pub mark: Option<(f64, String)>,
    /// The lines: a name and its points, drawn in the order of their first number.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Points by the name of their line, in the order in which lines are first named.
pub(super) fn lines<'a>(
    points: impl IntoIterator<Item = (&'a str, (f64, f64))>,
) -> Vec<(String, Vec<(f64, f64)>)> {
    let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for (name, point) in points {
        match lines.iter_mut().find(|(of, _)| of == name) {
            Some((_, points)) => points.push(point),
            None => lines.push((name.to_owned(), vec![point])),
        }
    }
    lines
}

impl Display for Plot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let x = Axis::to(points().map(|point| point.0));
        let y = Axis::to(points().map(|point| point.1).chain(self.mark.as_ref().map(|mark| mark.0)));
        let (left, top, right, bottom) = FRAME;
        let across = |value: f64| left + (right - left) * value / x.end;
        let up = |value: f64| bottom - (bottom - top) * value / y.end;
        let (width, height) = SIZE;
        writeln!(
            f,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="12">"#
        )?;
        writeln!(f, r#"<rect width="{width}" height="{height}" fill="white"/>"#)?;
        // A long title is written smaller: letters are about half as wide as high.
        let most = 2.0 * (width - left) / self.title.chars().count().max(1) as f64;
        let size = most.clamp(7.0, 15.0);
        writeln!(f, r#"<text x="{left}" y="22" font-size="{size:.1}">{}</text>"#, Escaped(&self.title))?;
        for value in x.ticks() {
            let at = across(value);
            writeln!(f, r##"<line x1="{at:.1}" y1="{top}" x2="{at:.1}" y2="{bottom}" stroke="#ddd"/>"##)?;
            writeln!(
                f,
                r#"<text x="{at:.1}" y="{}" text-anchor="middle">{}</text>"#,
                bottom + 16.0,
                Tick(value)
            )?;
        }
        for value in y.ticks() {
            let at = up(value);
            writeln!(f, r##"<line x1="{left}" y1="{at:.1}" x2="{right}" y2="{at:.1}" stroke="#ddd"/>"##)?;
            writeln!(
                f,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
                left - 6.0,
                at + 4.0,
                Tick(value)
            )?;
        }
        writeln!(f, r#"<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="black"/>"#)?;
        let middle = (left + right) / 2.0;
        writeln!(
            f,
            r#"<text x="{middle}" y="{}" text-anchor="middle">{}</text>"#,
            bottom + 38.0,
            Escaped(&self.x)
        )?;
        let middle = (top + bottom) / 2.0;
        writeln!(
            f,
            r#"<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">{}</text>"#,
            Escaped(&self.y)
        )?;
        if let Some((level, what)) = &self.mark {
            let at = up(*level);
            writeln!(
                f,
                r#"<line x1="{left}" y1="{at:.1}" x2="{right}" y2="{at:.1}" stroke="black" stroke-dasharray="4 4"/>"#
            )?;
            writeln!(f, r#"<text x="{}" y="{:.1}">{}</text>"#, right + 6.0, at + 4.0, Escaped(what))?;
        }
        for (number, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let mut points = points.clone();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let places: Vec<String> =
                points.iter().map(|(x, y)| format!("{:.1},{:.1}", across(*x), up(*y))).collect();
            writeln!(
                f,
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
                places.join(" ")
            )?;
            for (x, y) in points {
                writeln!(f, r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#, across(x), up(y))?;
            }
            let beside = bottom - 18.0 * number as f64;
            writeln!(
                f,
                r#"<text x="{}" y="{beside}" fill="{colour}">{}</text>"#,
                right + 12.0,
                Escaped(name)
            )?;
        }
        writeln!(f, "</svg>")
    }
}

/// An axis from zero.
struct Axis {
    end: f64,
    step: f64,
}

impl Axis {
    /// As long as the largest value needs, with steps of 1, 2 or 5 times a power of ten.
    fn to(values: impl Iterator<Item = f64>) -> Axis {
        let most = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        let most = if most > 0.0 { most } else { 1.0 };
        let rough = most / TICKS;
        let power = 10f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0].map(|times| times * power).into_iter().find(|step| *step >= rough * (1.0 - 1e-9));
        let step = step.unwrap_or(10.0 * power);
        Axis { end: most.max(step), step }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (end, step) = (self.end, self.step);
        (0..)
            .map(move |number| f64::from(number) * step)
            .take_while(move |value| *value <= end * (1.0 + 1e-9))
    }
}

/// A number on an axis, without noise behind its point.
struct Tick(f64);

impl Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:.4}", self.0);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Text as XML holds it.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            character => write!(f, "{character}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_where_the_axes_say_and_words_are_escaped() {
        let plot = Plot {
            title: "a < b".into(),
            x: "rate".into(),
            y: "part".into(),
            mark: Some((0.99, "99 %".into())),
            lines: vec![("ours & theirs".into(), vec![(100.0, 0.5), (0.0, 1.0)])],
        };
        let svg = plot.to_string();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b") && svg.contains("ours &amp; theirs"));
        assert!(svg.contains(r#"points="70.0,40.0 560.0,200.0""#), "{svg}");
    }

    #[test]
    fn steps_of_an_axis_are_round_and_few() {
        for most in [0.003, 0.99, 1.0, 7.0, 60.0, 24_164.0] {
            let axis = Axis::to([most].into_iter());
            let ticks: Vec<f64> = axis.ticks().collect();
            assert!((2..=8).contains(&ticks.len()), "{most}: {ticks:?}");
        }
        let ticks: Vec<String> =
            Axis::to([1.0].into_iter()).ticks().map(|tick| Tick(tick).to_string()).collect();
        assert_eq!(ticks, ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
    }
}
