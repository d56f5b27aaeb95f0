//! A ladder as a bar chart, in SVG: a group of bars a rung, ours and the paper's, and under them
//! what ours cost in CPU time. Pure text.

use std::fmt::Write;

use super::ladder::Unit;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 236.0;
const RIGHT: f64 = 844.0;
const TOP: f64 = 104.0;
const GROUP: f64 = 58.0;
/// Bars that are longer have their words within.
const INSIDE: f64 = 640.0;
const OURS: &str = "#1f6f8b";
const PAPER: &str = "#e0a458";

/// A rung's bars.
#[derive(Clone, PartialEq, Debug)]
pub struct Bar {
    /// The rung.
    pub name: String,
    /// Ours, and what it shows; `None` if it was not measured.
    pub ours: Option<f64>,
    /// The paper's, with its name there.
    pub paper: Option<(f64, String)>,
    /// What ours cost, or why there is none.
    pub cost: String,
}

/// A chart.
#[derive(Clone, PartialEq, Debug)]
pub struct Chart {
    /// Above all.
    pub title: String,
    /// Below it.
    pub note: String,
    /// What the bars are.
    pub unit: Unit,
    /// From the top down.
    pub bars: Vec<Bar>,
    /// Date, machine, source of the paper's numbers; a line each.
    pub foot: Vec<String>,
}

/// A horizontal axis.
struct Axis {
    logarithmic: bool,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Axis {
    fn new(unit: Unit, values: &[f64]) -> Axis {
        let most = values.iter().copied().fold(0.0, f64::max).max(1e-3);
        match unit {
            Unit::Microseconds => {
                let least = values.iter().copied().fold(most, f64::min);
                let low = least.log10().floor();
                let high = most.log10().ceil().max(low + 1.0);
                let mut ticks = Vec::new();
                let mut exponent = low;
                while exponent <= high + 0.5 {
                    ticks.push(10_f64.powf(exponent));
                    exponent += 1.0;
                }
                Axis { logarithmic: true, low, high, ticks }
            }
            Unit::Gigabits => {
                let step = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]
                    .into_iter()
                    .find(|step| most / step <= 8.0)
                    .unwrap_or(1000.0);
                let mut ticks = vec![0.0];
                let mut high = 0.0;
                while high < most {
                    high += step;
                    ticks.push(high);
                }
                Axis { logarithmic: false, low: 0.0, high, ticks }
            }
        }
    }

    fn place(&self, value: f64) -> f64 {
        let at = if self.logarithmic { value.max(1e-9).log10() } else { value };
        let part = ((at - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        LEFT + part * (RIGHT - LEFT)
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number with three digits or so, without zeros at its end.
fn short(value: f64) -> String {
    let text = match value {
        value if value >= 100.0 => return format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Appends text; `style` is more of the element's attributes.
fn text(svg: &mut String, (x, y): (f64, f64), style: &str, words: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{}</text>", escaped(words));
}

fn bar(svg: &mut String, (y, height): (f64, f64), to: f64, colour: &str) {
    let width = (to - LEFT).max(1.0);
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
         fill=\"{colour}\"/>"
    );
}

/// Words at the end of a bar: behind it, or within it where it is too long for that.
fn beside(svg: &mut String, (to, y): (f64, f64), (style, within): (&str, &str), words: &str) {
    if to < INSIDE {
        text(svg, (to + 5.0, y), &format!("{style} fill=\"#222222\""), words);
    } else {
        let style = format!("{style} text-anchor=\"end\" fill=\"{within}\"");
        text(svg, (to - 5.0, y), &style, words);
    }
}

impl Chart {
    /// The picture.
    #[must_use]
    pub fn svg(&self) -> String {
        let groups = f64::from(u32::try_from(self.bars.len()).unwrap_or(u32::MAX));
        let bottom = TOP + groups * GROUP;
        let lines = f64::from(u32::try_from(self.foot.len()).unwrap_or(u32::MAX));
        let height = bottom + 64.0 + 16.0 * lines;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH:.0}\" \
             height=\"{height:.0}\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
        );
        text(&mut svg, (20.0, 30.0), "font-size=\"19\" font-weight=\"bold\"", &self.title);
        for (index, line) in wrapped(&self.note, 130).iter().enumerate() {
            let y = 50.0 + 15.0 * f64::from(u32::try_from(index).unwrap_or(0));
            text(&mut svg, (20.0, y), "font-size=\"12\" fill=\"#444444\"", line);
        }
        let values: Vec<f64> = self
            .bars
            .iter()
            .flat_map(|bar| bar.ours.into_iter().chain(bar.paper.as_ref().map(|paper| paper.0)))
            .collect();
        let axis = Axis::new(self.unit, &values);
        self.push_axis(&mut svg, &axis, bottom);
        self.push_legend(&mut svg);
        let mut y = TOP;
        for group in &self.bars {
            self.push_group(&mut svg, &axis, group, y);
            y += GROUP;
        }
        let mut y = bottom + 58.0;
        for line in &self.foot {
            text(&mut svg, (20.0, y), "font-size=\"11\" fill=\"#444444\"", line);
            y += 16.0;
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn push_axis(&self, svg: &mut String, axis: &Axis, bottom: f64) {
        for tick in &axis.ticks {
            let x = axis.place(*tick);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{TOP:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\" \
                 stroke=\"#dddddd\"/>"
            );
            text(svg, (x, bottom + 16.0), "text-anchor=\"middle\" font-size=\"12\"", &short(*tick));
        }
        let what = match self.unit {
            Unit::Microseconds => "median round trip, us (logarithmic; shorter is better)",
            Unit::Gigabits => "throughput, Gbit/s of payload (longer is better)",
        };
        let middle = f64::midpoint(LEFT, RIGHT);
        text(svg, (middle, bottom + 34.0), "text-anchor=\"middle\"", what);
    }

    fn push_legend(&self, svg: &mut String) {
        for (x, colour, words) in [
            (LEFT, OURS, "Roceway's run on this machine"),
            (LEFT + 240.0, PAPER, "the paper's own"),
        ] {
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"82\" width=\"12\" height=\"12\" fill=\"{colour}\"/>"
            );
            text(svg, (x + 18.0, 93.0), "font-size=\"12\"", words);
        }
    }

    fn push_group(&self, svg: &mut String, axis: &Axis, group: &Bar, y: f64) {
        let unit = self.unit.name();
        text(svg, (LEFT - 12.0, y + 17.0), "text-anchor=\"end\" font-weight=\"bold\"", &group.name);
        if let Some(ours) = group.ours {
            let to = axis.place(ours);
            bar(svg, (y + 5.0, 16.0), to, OURS);
            beside(svg, (to, y + 17.0), ("", "#ffffff"), &format!("{} {unit}", short(ours)));
        } else {
            text(svg, (LEFT + 5.0, y + 17.0), "fill=\"#999999\"", "not measured");
        }
        let mut below = y + 34.0;
        if let Some((paper, name)) = &group.paper {
            let to = axis.place(*paper);
            bar(svg, (y + 23.0, 11.0), to, PAPER);
            let words = format!("{} {unit}, {name}", short(*paper));
            beside(svg, (to, y + 32.5), ("font-size=\"11\"", "#222222"), &words);
            below = y + 47.0;
        }
        text(svg, (LEFT + 2.0, below), "font-size=\"11\" fill=\"#444444\"", &group.cost);
    }
}

/// Lines of at most so many characters, broken at spaces.
fn wrapped(words: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < most => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(unit: Unit) -> Chart {
        let bar = |name: &str, ours, paper: Option<(f64, &str)>| Bar {
            name: name.into(),
            ours,
            paper: paper.map(|(value, name)| (value, name.into())),
            cost: "CPU 1.5 us a transaction".into(),
        };
        Chart {
            title: "A & B".into(),
            note: "one < two".into(),
            unit,
            bars: vec![
                bar("first", Some(0.65), Some((33.0, "busy poll"))),
                bar("second", None, None),
            ],
            foot: vec!["a machine".into()],
        }
    }

    #[test]
    fn a_chart_has_axis_legend_bars_and_costs() {
        for unit in [Unit::Microseconds, Unit::Gigabits] {
            let svg = chart(unit).svg();
            for part in [
                "A &amp; B",
                "one &lt; two",
                "first",
                "not measured",
                "busy poll",
                "CPU 1.5",
                "the paper's own",
                "a machine",
                unit.name(),
            ] {
                assert!(svg.contains(part), "{part}: {svg}");
            }
            assert_eq!(svg.matches("<rect").count(), 1 + 2 + 2, "{svg}");
        }
    }

    #[test]
    fn values_lie_within_the_axis() {
        for (unit, values) in [
            (Unit::Microseconds, vec![0.65, 33.0, 92.0]),
            (Unit::Microseconds, vec![1.0]),
            (Unit::Gigabits, vec![2.0, 81.3]),
            (Unit::Gigabits, vec![0.3]),
        ] {
            let axis = Axis::new(unit, &values);
            for value in &values {
                let x = axis.place(*value);
                assert!((LEFT..=RIGHT).contains(&x), "{value}");
            }
            assert!((2..=12).contains(&axis.ticks.len()), "{:?}", axis.ticks);
        }
    }
}
