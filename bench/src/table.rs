//! A run as text: tables that are valid Markdown.

use std::fmt::Write;
use std::time::Duration;

use crate::outcome::{Outcome, Row};
use crate::plan::{Against, Goal};
use crate::server::Kind;
use crate::stats::{Latency, Spread};
use crate::work::Work;

/// A rate or latency is marked if others took more than this share of a core.
const DISTURBED: f64 = 0.05;

/// Largest difference in length between the responses of the baseline and of Speak: ids have more
/// or fewer digits.
const LENGTHS_DIFFER_BYTES: usize = 16;

/// Returns the tables: costs, rates, memory, and the ratios in short.
pub(crate) fn render(outcome: &Outcome) -> String {
    let mut text = format!(
        "\nCPU time of the server: median of {} rounds (least–most). Ratios are Speak's by the \
         peer's, round by round.\n\n",
        outcome.rounds
    );
    let kinds = outcome.kinds;
    let ratios: Vec<String> = kinds[1..].iter().map(|kind| format!("÷ {}", kind.name())).collect();
    let mut rows = vec![header(kinds, &[&ratios[..], &["goal".to_owned()]].concat())];
    rows.extend(outcome.rows.iter().map(|row| costs(outcome, row)));
    text.push_str(&aligned(&rows));
    text.push_str(
        "\nRates, and latencies in ms (median / 99 % / most): of a fan-out from the write to the \
         last reader,\nof a chat from when the message was due to each reader.\n\n",
    );
    let (idle, busy): (Vec<&Row>, Vec<&Row>) = outcome.rows.iter().partition(|row| is_idle(row));
    let mut rows = vec![header(kinds, &[])];
    rows.extend(busy.into_iter().map(|row| rates(outcome, row)));
    text.push_str(&aligned(&rows));
    if !idle.is_empty() {
        text.push_str(
            "\nMemory in bytes per reader: before a message / after one to each; and the resident \
             memory after they left,\nas a multiple of that before they came.\n\n",
        );
        let mut rows = vec![header(kinds, &[])];
        rows.extend(idle.into_iter().map(|row| memory(outcome, row)));
        text.push_str(&aligned(&rows));
    }
    text.push_str("\nThe ratios and goals in short, by the medians.\n\n");
    text.push_str(&short(outcome));
    let _ = writeln!(
        text,
        "\n* others took more than {:.0} % of a core in at least one round. All took {:.0} s.",
        DISTURBED * 100.0,
        outcome.took.as_secs_f64()
    );
    for line in &outcome.left_out {
        let _ = writeln!(text, "Left out: {line}.");
    }
    for row in &outcome.rows {
        text.push_str(&unlike_lengths(row).unwrap_or_default());
    }
    text
}

/// Returns a warning if the responses of Speak and the baseline differ in length: a comparison
/// needs equal lengths.
fn unlike_lengths(row: &Row) -> Option<String> {
    let bytes = |kind| Some(row.samples.get(&kind)?.last()?.answer_bytes);
    let (speak, baseline) = (bytes(Kind::Speak)?, bytes(Kind::Baseline)?);
    (speak.abs_diff(baseline) > LENGTHS_DIFFER_BYTES).then(|| {
        let name = row.part.name;
        format!(
            "{name}: Speak's responses have {speak} bytes, the baseline's {baseline}: \
             fix baseline.rs\n"
        )
    })
}

fn header(kinds: &[Kind], more: &[String]) -> Vec<String> {
    let names = kinds.iter().map(|kind| kind.name().to_owned());
    std::iter::once("work".to_owned()).chain(names).chain(more.iter().cloned()).collect()
}

fn costs(outcome: &Outcome, row: &Row) -> Vec<String> {
    let mut cells = vec![format!("{}: {}", row.part.label, row.part.unit)];
    for &kind in outcome.kinds {
        cells.push(row.cost(kind).map_or_else(String::new, figure));
    }
    for &peer in &outcome.kinds[1..] {
        let ratio = row.ratio(peer);
        cells.push(ratio.map_or_else(String::new, |ratio| {
            format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.least, ratio.most)
        }));
    }
    cells.push(goals(outcome, row));
    cells
}

fn goals(outcome: &Outcome, row: &Row) -> String {
    let goals = row.part.goals.iter();
    let goals: Vec<String> = goals.filter_map(|g| goal(outcome, row, g)).collect();
    goals.join("; ")
}

fn figure(spread: Spread) -> String {
    let places = match spread.median {
        0.0..3.0 => 2,
        3.0..100.0 => 1,
        _ => 0,
    };
    format!("{:.places$} ({:.places$}–{:.places$})", spread.median, spread.least, spread.most)
}

/// Returns a goal and whether it is met, or `None` if it was not measured.
fn goal(outcome: &Outcome, row: &Row, goal: &Goal) -> Option<String> {
    let measured = outcome.measured(row, goal)?.median;
    let verdict = match goal.stretch {
        Some(stretch) if measured <= stretch => "met, stretch too",
        _ if !goal.at_most.is_finite() => "missed",
        _ if measured <= goal.at_most => "met",
        _ => "missed",
    };
    // A goal may have only a stretch limit.
    let limit = if goal.at_most.is_finite() { goal.at_most } else { goal.stretch? };
    Some(match goal.against {
        Against::Peer(kind) => format!("≤ {limit:.2} {} {verdict}", kind.name()),
        Against::LongPoll(_) => {
            format!("{measured:.2} of a long poll's delivery, ≤ {limit:.2} {verdict}")
        }
        Against::WritePerCall => format!("{measured:.2} of a write a call, ≤ {limit:.1} {verdict}"),
        Against::Absolute => {
            let places = if measured < 3.0 { 2 } else { 0 };
            format!("{measured:.places$} {}, ≤ {limit} {verdict}", row.part.unit)
        }
        Against::LeftOverBefore => {
            format!("{measured:.2} of the base when they left, ≤ {limit:.2} {verdict}")
        }
    })
}

fn rates(outcome: &Outcome, row: &Row) -> Vec<String> {
    let mut cells = vec![row.part.label.to_owned()];
    for &kind in outcome.kinds {
        let samples = row.samples.get(&kind).map_or(&[][..], Vec::as_slice);
        let Some(rate) = Spread::of(samples.iter().map(|sample| sample.per_second)) else {
            cells.push(String::new());
            continue;
        };
        let mut cell = format!("{:.0}/s", rate.median);
        let latencies: Vec<_> = samples.iter().filter_map(|sample| sample.latency).collect();
        let parts: [fn(&Latency) -> Duration; 3] =
            [|latency| latency.half, |latency| latency.p99, |latency| latency.most];
        let medians = parts.map(|part| {
            let times = latencies.iter().map(|latency| part(latency).as_secs_f64() * 1000.0);
            Spread::of(times).map(|spread| spread.median)
        });
        if let [Some(half), Some(p99), Some(most)] = medians {
            let _ = write!(cell, ", {half:.1} / {p99:.1} / {most:.1}");
        }
        if samples.iter().any(|sample| sample.disturbed > DISTURBED) {
            cell.push('*');
        }
        cells.push(cell);
    }
    cells
}

fn is_idle(row: &Row) -> bool {
    matches!(row.part.work, Work::Idle { .. })
}

fn memory(outcome: &Outcome, row: &Row) -> Vec<String> {
    let mut cells = vec![row.part.label.to_owned()];
    for &kind in outcome.kinds {
        let figures = ["waiting_bytes_each", "notified_bytes_each", "left_over_before"]
            .map(|name| row.extra(kind, name).map(|spread| spread.median));
        cells.push(match figures {
            [Some(before), Some(after), Some(left)] => {
                format!("{before:.0} / {after:.0}; {left:.2}")
            }
            _ => String::new(),
        });
    }
    cells
}

/// Returns ratios and goals alone, in unpadded lines: for a README.
fn short(outcome: &Outcome) -> String {
    let peers = &outcome.kinds[1..];
    let mut text = "| work |".to_owned();
    for peer in peers {
        let _ = write!(text, " ÷ {} |", peer.name());
    }
    let _ = writeln!(text, " goal |\n| --- |{} --- |", " --- |".repeat(peers.len()));
    for row in &outcome.rows {
        let _ = write!(text, "| {} |", row.part.label);
        for &peer in peers {
            let _ = match row.ratio(peer) {
                Some(ratio) => write!(text, " {:.2} |", ratio.median),
                None => write!(text, " |"),
            };
        }
        let goals = goals(outcome, row);
        let _ = if goals.is_empty() { writeln!(text, " |") } else { writeln!(text, " {goals} |") };
    }
    text
}

/// Pads the cells and draws the line that Markdown needs under the first row.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if index == 0 {
            for width in &widths {
                let _ = write!(text, "| {} ", "-".repeat((*width).max(3)));
            }
            text.push_str("|\n");
        }
    }
    text
}
