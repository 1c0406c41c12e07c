//! A run as a plot: bars for each workload, readable on light and on dark backgrounds.

use std::fmt::Write;

use crate::outcome::{Outcome, Row};
use crate::server::Kind;
use crate::stats::Spread;

const WIDTH: f64 = 760.0;
const MARGIN: f64 = 16.0;
/// Left end of the bars, and length of the longest bar of a workload.
const BARS_AT: f64 = 86.0;
const BAR_WIDTH: f64 = 500.0;
const BAR_HEIGHT: f64 = 14.0;
const BAR_STEP: f64 = 18.0;
const TITLE_HEIGHT: f64 = 50.0;
const LABEL_HEIGHT: f64 = 22.0;
const GAP: f64 = 14.0;

/// Colours of medium lightness: each contrasts with white and with black.
pub(crate) fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Speak => "#2f81f7",
        Kind::Baseline | Kind::OtherBuild => "#868e98",
        Kind::Nchan => "#d97a2b",
        Kind::Nginx | Kind::Ws => "#2f9e62",
        Kind::SocketIo => "#c2416b",
        Kind::Pushpin => "#8a63d2",
    }
}

pub(crate) const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#737c87}\
    .title{font-size:15px;font-weight:600}.work{font-weight:600}\
    .spread{stroke:#737c87;stroke-width:1.5}";

/// Returns the plot as an SVG file. Each workload has its own scale.
pub(crate) fn render(outcome: &Outcome) -> String {
    let rows: Vec<&Row> = outcome.rows.iter().filter(|row| row.samples.len() > 1).collect();
    let mut body = String::new();
    let mut y = TITLE_HEIGHT;
    for row in rows {
        y = group(&mut body, row, y);
    }
    let height = y + MARGIN - GAP;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n\
         <title>What each server spends on the same work</title>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"22\">\
         What each server spends on the same work</text>\n\
         <text x=\"{MARGIN}\" y=\"40\">CPU time by the scheduler's clock, median of {} rounds; \
         the line is least to most; less is better</text>\n{body}</svg>\n",
        outcome.rounds
    )
}

/// Draws one workload's bars from `y` down. Returns where the next may begin.
fn group(body: &mut String, row: &Row, mut y: f64) -> f64 {
    y += LABEL_HEIGHT;
    let (label, unit) = (row.part.label, row.part.unit);
    let _ =
        writeln!(body, "<text class=\"work\" x=\"{MARGIN}\" y=\"{:.0}\">{label}</text>", y - 7.0);
    let bars = Kind::ALL.map(|kind| row.cost(kind).map(|cost| (kind, cost)));
    let longest = bars.iter().flatten().map(|(_, cost)| cost.most).fold(0.0, f64::max);
    let scale = BAR_WIDTH / longest.max(f64::MIN_POSITIVE);
    for (kind, cost) in bars.into_iter().flatten() {
        bar(body, kind, cost, unit, y, scale);
        y += BAR_STEP;
    }
    y + GAP
}

fn bar(body: &mut String, kind: Kind, cost: Spread, unit: &str, y: f64, scale: f64) {
    let name = kind.name();
    let text_y = y + BAR_HEIGHT - 3.0;
    let width = (cost.median * scale).max(1.0);
    let middle = y + BAR_HEIGHT / 2.0;
    let (least, most) = (BARS_AT + cost.least * scale, BARS_AT + cost.most * scale);
    let figure = if cost.median < 100.0 {
        format!("{:.2}", cost.median)
    } else {
        format!("{:.0}", cost.median)
    };
    let _ = writeln!(
        body,
        "<text x=\"{:.0}\" y=\"{text_y:.0}\" text-anchor=\"end\">{name}</text>\
         <rect x=\"{BARS_AT:.0}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{BAR_HEIGHT:.0}\" \
         rx=\"2\" fill=\"{}\"/>\
         <path class=\"spread\" d=\"M{least:.1} {middle:.0}H{most:.1}\"/>\
         <text x=\"{:.1}\" y=\"{text_y:.0}\">{figure} {unit}</text>",
        BARS_AT - 8.0,
        colour(kind),
        most + 6.0,
    );
}
