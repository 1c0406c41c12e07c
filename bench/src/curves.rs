//! A run with peers as line plots: cost and memory by the number of readers, latency by the load.

use std::fmt::Write;
use std::time::Duration;

use crate::outcome::{Outcome, Row};
use crate::plot::{STYLE, colour};
use crate::sample::Sample;
use crate::server::Kind;
use crate::stats::{Latency, Spread};
use crate::work::Work;

/// Size of a panel, with its labels, and of the plot in it.
const PANEL: (f64, f64) = (380.0, 260.0);
const PLOT: (f64, f64) = (290.0, 180.0);
/// Place of the plot in its panel.
const PLOT_AT: (f64, f64) = (64.0, 40.0);
const COLUMNS: usize = 2;
const LEGEND_HEIGHT: f64 = 56.0;

/// A point with the least and the most of its rounds.
type Point = (f64, Spread);

struct Panel {
    title: &'static str,
    below: &'static str,
    lines: Vec<(Kind, Vec<Point>)>,
}

/// Returns the plots as an SVG file. All axes are logarithmic.
pub(crate) fn render(outcome: &Outcome) -> String {
    let panels = panels(outcome);
    let rows = panels.len().div_ceil(COLUMNS) as f64;
    let (width, height) = (PANEL.0 * COLUMNS as f64, LEGEND_HEIGHT + rows * PANEL.1);
    let mut body = legend(outcome);
    for (index, panel) in panels.iter().enumerate() {
        let x = PANEL.0 * (index % COLUMNS) as f64 + PLOT_AT.0;
        let y = LEGEND_HEIGHT + PANEL.1 * (index / COLUMNS) as f64 + PLOT_AT.1;
        let _ = writeln!(body, "<g transform=\"translate({x:.0} {y:.0})\">");
        draw(&mut body, panel);
        body.push_str("</g>\n");
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\">\n<style>{STYLE}\
         .grid{{stroke:#737c87;stroke-opacity:.3}}.line{{fill:none;stroke-width:2}}\
         .tick{{font-size:11px}}</style>\n\
         <title>Costs by the number of readers, and latencies by the load</title>\n{body}</svg>\n"
    )
}

fn panels(outcome: &Outcome) -> Vec<Panel> {
    let fanouts = |row: &Row| match row.part.work {
        Work::Fanout(work) if row.part.name.starts_with("frames") => Some(work.readers as f64),
        _ => None,
    };
    let loads = |row: &Row| match row.part.work {
        Work::Chat(work) if row.part.name.starts_with("load") => {
            Some(work.per_second * work.users as f64)
        }
        _ => None,
    };
    let panel =
        |title, below, x: &dyn Fn(&Row) -> Option<f64>, y: &dyn Fn(&Sample) -> Option<f64>| {
            let line = |kind: &Kind| {
                let points = outcome.rows.iter().filter_map(|row| {
                    let samples = row.samples.get(kind)?.iter();
                    Some((x(row)?, Spread::of(samples.filter_map(y))?))
                });
                let mut points: Vec<Point> = points.collect();
                points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
                (*kind, points)
            };
            Panel { title, below, lines: outcome.kinds.iter().map(line).collect() }
        };
    let latency = |part: fn(Latency) -> Duration| {
        move |sample: &Sample| sample.latency.map(|latency| part(latency).as_secs_f64() * 1e3)
    };
    let memory = |sample: &Sample| sample.figure("resident_bytes").map(|bytes| bytes / 1e6);
    let (readers, rate) = ("WebSockets in one room", "deliveries a second, rooms of 10");
    vec![
        panel("CPU time of a delivery, µs", readers, &fanouts, &|sample| sample.cost),
        panel("resident memory, MB", readers, &fanouts, &memory),
        panel("latency of half of the deliveries, ms", rate, &loads, &latency(|all| all.half)),
        panel("latency that 1 % exceed, ms", rate, &loads, &latency(|all| all.p99)),
        panel("latency that 0.1 % exceed, ms", rate, &loads, &latency(|all| all.p99_9)),
        panel("CPU time of a delivery, µs", rate, &loads, &|sample| sample.cost),
    ]
}

fn legend(outcome: &Outcome) -> String {
    let mut text = format!(
        "<text class=\"title\" x=\"16\" y=\"22\">Where each server ends: medians of {} rounds, on \
         one core; bars are least to most</text>\n",
        outcome.rounds
    );
    for (index, &kind) in outcome.kinds.iter().enumerate() {
        let x = 16.0 + 110.0 * index as f64;
        let _ = writeln!(
            text,
            "<path class=\"line\" stroke=\"{}\" d=\"M{x} 42h20\"/>\
             <text x=\"{}\" y=\"46\">{}</text>",
            colour(kind),
            x + 26.0,
            kind.name()
        );
    }
    text
}

/// The powers of ten around some figures.
fn decades(figures: impl Iterator<Item = f64>) -> (f64, f64) {
    let logs = figures.filter(|figure| *figure > 0.0).map(f64::log10);
    let (least, most) =
        logs.fold((f64::MAX, f64::MIN), |(least, most), log| (least.min(log), most.max(log)));
    if least > most {
        return (0.0, 1.0);
    }
    (least.floor(), most.ceil().max(least.floor() + 1.0))
}

fn draw(body: &mut String, panel: &Panel) {
    let points = || panel.lines.iter().flat_map(|(_, points)| points);
    let xs = decades(points().map(|(x, _)| *x));
    let ys = decades(points().flat_map(|(_, y)| [y.least, y.most]));
    let x_of = |x: f64| (x.log10() - xs.0) / (xs.1 - xs.0) * PLOT.0;
    let y_of = |y: f64| {
        let log = y.max(f64::MIN_POSITIVE).log10().max(ys.0);
        PLOT.1 - (log - ys.0) / (ys.1 - ys.0) * PLOT.1
    };
    let (title, below, middle) = (panel.title, panel.below, PLOT.0 / 2.0);
    let _ = writeln!(
        body,
        "<text class=\"work\" x=\"0\" y=\"-14\">{title}</text>\
         <text class=\"tick\" x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{below}</text>",
        PLOT.1 + 32.0
    );
    for (power, at) in powers(xs) {
        let (x, bottom) = (x_of(at), PLOT.1);
        let _ = writeln!(
            body,
            "<path class=\"grid\" d=\"M{x:.1} 0V{bottom}\"/><text class=\"tick\" x=\"{x:.1}\" \
             y=\"{}\" text-anchor=\"middle\">{power}</text>",
            bottom + 16.0
        );
    }
    for (power, at) in powers(ys) {
        let (y, right) = (y_of(at), PLOT.0);
        let _ = writeln!(
            body,
            "<path class=\"grid\" d=\"M0 {y:.1}H{right}\"/><text class=\"tick\" x=\"-6\" \
             y=\"{:.1}\" text-anchor=\"end\">{power}</text>",
            y + 4.0
        );
    }
    for (kind, points) in &panel.lines {
        let stroke = colour(*kind);
        let path: Vec<String> =
            points.iter().map(|(x, y)| format!("{:.1} {:.1}", x_of(*x), y_of(y.median))).collect();
        if path.is_empty() {
            continue;
        }
        let _ =
            writeln!(body, "<path class=\"line\" stroke=\"{stroke}\" d=\"M{}\"/>", path.join("L"));
        for (x, y) in points {
            let (x, middle, top, bottom) = (x_of(*x), y_of(y.median), y_of(y.most), y_of(y.least));
            let _ = writeln!(
                body,
                "<circle cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"3\" fill=\"{stroke}\"/>\
                 <path stroke=\"{stroke}\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>"
            );
        }
    }
}

/// Returns the powers of ten from one exponent to another, with their labels.
fn powers((least, most): (f64, f64)) -> impl Iterator<Item = (String, f64)> {
    #[expect(clippy::cast_possible_truncation, reason = "exponents are small")]
    let exponents = least as i32..=most as i32;
    exponents.map(|exponent| {
        let power = 10_f64.powi(exponent);
        let label = match exponent {
            6.. => format!("{} M", power / 1e6),
            3.. => format!("{} k", power / 1e3),
            _ => format!("{power}"),
        };
        (label, power)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_the_powers_of_ten_around_all_points() {
        assert_eq!(decades([100.0, 18_000.0].into_iter()), (2.0, 5.0));
        assert_eq!(decades([0.0, 0.5].into_iter()), (-1.0, 0.0));
        assert_eq!(decades(std::iter::empty()), (0.0, 1.0));
        let labels: Vec<String> = powers((-1.0, 3.0)).map(|(label, _)| label).collect();
        assert_eq!(labels, ["0.1", "1", "10", "100", "1 k"]);
    }
}
