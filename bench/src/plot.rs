//! A line chart as SVG: one or two series over a logarithmic axis.

use std::fmt::Write;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 45.0;
/// Readable on white and on black.
const COLOURS: [&str; 2] = ["#2a7de1", "#d9822b"];
const GRID_LINES: u32 = 4;

pub struct Plot<'a> {
    pub title: &'a str,
    /// What the horizontal axis counts.
    pub axis: &'a str,
    /// Names, and points in the order of the axis.
    pub series: &'a [(&'a str, Vec<(f64, f64)>)],
}

impl Plot<'_> {
    pub fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|(_, points)| points);
        let (first, last) = all().fold((f64::MAX, f64::MIN), |(min, max), (x, _)| (min.min(*x), max.max(*x)));
        let top = ceiling(all().map(|(_, y)| *y).fold(0.0, f64::max));
        let span = (last / first).ln().max(f64::EPSILON);
        let across = |x: f64| LEFT + (x / first).ln() / span * (WIDTH - LEFT - RIGHT);
        let up = |y: f64| HEIGHT - BOTTOM - y / top * (HEIGHT - TOP - BOTTOM);

        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\" fill=\"#777\" role=\"img\">\n<title>{0}</title>\n<text x=\"{LEFT}\" y=\"20\" \
             font-size=\"14\">{0}</text>\n",
            self.title
        );
        let text = |x: f64, y: f64, anchor: &str, text: &str| {
            format!("<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{text}</text>\n")
        };
        for line in 0..=GRID_LINES {
            let value = top * f64::from(line) / f64::from(GRID_LINES);
            let y = up(value);
            let _ = writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#7774\"/>", WIDTH - RIGHT);
            svg += &text(LEFT - 8.0, y + 4.0, "end", &short(value));
        }
        if let Some((_, points)) = self.series.first() {
            for (x, _) in points {
                svg += &text(across(*x), HEIGHT - BOTTOM + 18.0, "middle", &short(*x));
            }
        }
        svg += &text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0, "middle", self.axis);
        for (number, ((name, points), colour)) in self.series.iter().zip(COLOURS).enumerate() {
            let places = points.iter().map(|(x, y)| format!("{:.1},{:.1}", across(*x), up(*y)));
            let places: Vec<String> = places.collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                places.join(" ")
            );
            #[expect(clippy::cast_precision_loss, reason = "two series at most")]
            let x = WIDTH - RIGHT - 110.0 * (self.series.len() - 1 - number) as f64;
            let _ = writeln!(svg, "<text x=\"{x:.0}\" y=\"20\" text-anchor=\"end\" fill=\"{colour}\">{name}</text>");
        }
        svg + "</svg>\n"
    }
}

/// The next number of one digit and zeros.
fn ceiling(value: f64) -> f64 {
    let unit = 10_f64.powf(value.max(f64::MIN_POSITIVE).log10().floor());
    (value / unit).ceil() * unit
}

fn short(value: f64) -> String {
    match value {
        1_000_000.0.. => format!("{} M", value / 1_000_000.0),
        10_000.0.. => format!("{} k", value / 1_000.0),
        _ => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_lies_where_its_values_say() {
        let series = [("a", vec![(1.0, 0.0), (10.0, 25_000.0), (100.0, 30_000.0)])];
        let svg = Plot { title: "t", axis: "x", series: &series }.svg();
        // The lowest value at the lower end, the highest at the upper one, and the middle of a logarithmic axis.
        assert!(svg.contains("points=\"70.0,235.0 345.0,72.5 620.0,40.0\""), "{svg}");
        assert!(svg.contains(">30 k</text>") && svg.contains(">7500</text>"), "{svg}");
    }
}
