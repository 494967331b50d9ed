//! A chart of the worker's memory over time, as SVG.

use std::fmt::Write;

use super::samples::{Sample, memory_medians, number, quarters};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 46.0;

struct Scale {
    seconds: f64,
    mib: f64,
}

impl Scale {
    fn x(&self, second: f64) -> f64 {
        LEFT + second / self.seconds * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, mib: f64) -> f64 {
        HEIGHT - BOTTOM - mib / self.mib * (HEIGHT - TOP - BOTTOM)
    }
}

fn mib(kb: u64) -> f64 {
    number(kb) / 1_024.0
}

/// Draws the chart with `about` as its heading.
pub(super) fn draw(samples: &[Sample], about: &str) -> String {
    let most = samples.iter().map(|it| it.usage.rss_kb).max().unwrap_or_default();
    let seconds = samples.last().map_or(1.0, |it| number(it.second).max(1.0));
    // The axis begins at zero: otherwise noise would look like growth.
    let scale = Scale { seconds, mib: (mib(most) / 10.0).ceil().max(1.0) * 10.0 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"24\" font-size=\"14\" fill=\"#222\">{about}</text>\n"
    );
    quarters_of(&mut svg, samples, &scale);
    axes(&mut svg, &scale);
    let mut points = String::new();
    for it in samples {
        let (x, y) = (scale.x(number(it.second)), scale.y(mib(it.usage.rss_kb)));
        write!(points, "{x:.1},{y:.1} ").expect("writing to a String never fails");
    }
    let line = "fill=\"none\" stroke=\"#1f6feb\" stroke-width=\"1.5\"";
    add(&mut svg, &format!("<polyline points=\"{}\" {line}/>", points.trim_end()));
    svg.push_str("</svg>\n");
    svg
}

fn add(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

/// Draws the two compared quarters with their medians.
fn quarters_of(svg: &mut String, samples: &[Sample], scale: &Scale) {
    let (second, last) = quarters(samples);
    let (before, after) = memory_medians(samples);
    for (quarter, median) in [(second, before), (last, after)] {
        let (Some(from), Some(to)) = (quarter.first(), quarter.last()) else { continue };
        let (from, to) = (scale.x(number(from.second)), scale.x(number(to.second)));
        let (width, height) = (to - from, HEIGHT - TOP - BOTTOM);
        add(
            svg,
            &format!(
                "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"#f0f3f8\"/>"
            ),
        );
        let text = format!("median {:.1} MiB", mib(median));
        let (x, y) = (from + 6.0, TOP + 16.0);
        add(svg, &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"#444\">{text}</text>"));
    }
}

fn axes(svg: &mut String, scale: &Scale) {
    for step in 0..=5 {
        let part = f64::from(step) / 5.0;
        let (value, y) = (scale.mib * part, scale.y(scale.mib * part));
        let end = WIDTH - RIGHT;
        add(
            svg,
            &format!(
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{end}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"
            ),
        );
        let (x, y) = (LEFT - 8.0, y + 4.0);
        add(
            svg,
            &format!(
                "<text x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\" fill=\"#444\">{value:.0} MiB</text>"
            ),
        );
        let (x, y) = (scale.x(scale.seconds * part), HEIGHT - BOTTOM + 20.0);
        let minutes = scale.seconds * part / 60.0;
        add(
            svg,
            &format!(
                "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\" fill=\"#444\">{minutes:.1} min</text>"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Usage;

    #[test]
    fn every_sample_is_a_point_inside_the_axes() {
        let usage = |second| Usage { rss_kb: 20_000 + second, ..Usage::default() };
        let samples: Vec<_> = (0..40)
            .map(|second| Sample { second, usage: usage(second), ..Sample::default() })
            .collect();
        let svg = draw(&samples, "memory");
        let points = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next());
        let points: Vec<&str> = points.unwrap_or_default().split(' ').collect();
        assert_eq!(points.len(), samples.len());
        for point in points {
            let (x, y) = point.split_once(',').expect("x and y");
            let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
            assert!((LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y));
        }
        assert!(svg.contains("median 19.5 MiB") && svg.ends_with("</svg>\n"));
    }
}
