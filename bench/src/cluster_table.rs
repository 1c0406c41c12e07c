//! The figures of a cluster as a table in Markdown, and as JSON.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::busy::Busy;
use crate::json::{kernel, processor, rounded, spread};
use crate::stats::{Spread, at_most, median};

/// All figures of a run.
pub(crate) struct Figures {
    pub(crate) rows: Vec<Row>,
    pub(crate) busy: Busy,
    pub(crate) is_unix: bool,
    pub(crate) rounds: usize,
    pub(crate) took: Duration,
}

/// A figure with its goal, round by round.
#[derive(Default)]
pub(crate) struct Row {
    /// Name in JSON.
    pub(crate) name: String,
    pub(crate) label: String,
    /// Unit of the figure. Empty for a ratio.
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<f64>,
    pub(crate) at_most: Option<f64>,
    /// Figures that this one was made of, or that explain it.
    pub(crate) parts: Vec<Part>,
}

/// A figure without a goal, round by round.
pub(crate) struct Part {
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<f64>,
}

impl Row {
    /// Adds the figure of a round, with the parts that it was made of: label, unit and figure.
    pub(crate) fn push(&mut self, value: f64, parts: &[(&'static str, &'static str, f64)]) {
        self.values.push(value);
        for &(label, unit, value) in parts {
            match self.parts.iter_mut().find(|part| part.label == label) {
                Some(part) => part.values.push(value),
                None => self.parts.push(Part { label, unit, values: vec![value] }),
            }
        }
    }

    fn render(&self, text: &mut String) {
        let Some(spread) = Spread::of(self.values.iter().copied()) else { return };
        let unit = with_space(self.unit);
        let _ = write!(text, "| {} | **{spread}**{unit}", self.label);
        for (index, part) in self.parts.iter().enumerate() {
            let separator = if index == 0 { ": " } else { ", " };
            let value = median(&part.values);
            let _ = write!(text, "{separator}{} {value:.2}{}", part.label, with_space(part.unit));
        }
        let _ = match self.at_most {
            Some(goal) => {
                writeln!(text, " | ≤ {goal}{unit} | {} |", at_most(spread.median / goal))
            }
            None => writeln!(text, " | | |"),
        };
    }

    fn to_json(&self) -> Value {
        let rounds = |values: &[f64]| values.iter().copied().map(rounded).collect::<Vec<_>>();
        let part = |part: &Part| {
            (part.label.to_owned(), json!({ "unit": part.unit, "rounds": rounds(&part.values) }))
        };
        let measured = Spread::of(self.values.iter().copied());
        let is_met =
            measured.zip(self.at_most).map(|(measured, at_most)| measured.median <= at_most);
        json!({
            "name": self.name,
            "label": self.label,
            "unit": self.unit,
            "measured": measured.map(spread),
            "rounds": rounds(&self.values),
            "at_most": self.at_most,
            "met": is_met,
            "parts": self.parts.iter().map(part).collect::<Map<_, _>>(),
        })
    }
}

impl Figures {
    pub(crate) fn render(&self) -> String {
        let mut text =
            "| | measured | goal | measured ÷ goal |\n| --- | --- | --- | --- |\n".to_owned();
        for row in &self.rows {
            row.render(&mut text);
        }
        let _ = write!(
            text,
            "\nRedis on the load generator's core, by {}, without persistence. {} rounds.{}",
            if self.is_unix { "a Unix socket" } else { "TCP on loopback" },
            self.rounds,
            self.busy.sentence(self.took),
        );
        text
    }

    pub(crate) fn to_json(&self, at: u64) -> Value {
        json!({
            "at": at,
            "took_seconds": rounded(self.took.as_secs_f64()),
            "rounds": self.rounds,
            "redis": if self.is_unix { "unix" } else { "tcp" },
            "disturbed": rounded(self.busy.disturbed),
            "processor": processor(),
            "kernel": kernel(),
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        })
    }
}

fn with_space(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(" {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at_most: Option<f64>) -> Row {
        let mut row = Row { label: "a write".into(), at_most, ..Row::default() };
        row.push(2.0, &[("cluster", "µs", 8.0), ("none", "µs", 4.0)]);
        row.push(3.0, &[("cluster", "µs", 6.0), ("none", "µs", 2.0)]);
        row
    }

    #[test]
    fn a_row_has_the_medians_of_its_parts_and_the_verdict_on_its_goal() {
        let text = |row: Row| {
            let mut text = String::new();
            row.render(&mut text);
            text
        };
        assert_eq!(
            text(row(Some(2.5))),
            "| a write | **2.50 (2.00–3.00)**: cluster 7.00 µs, none 3.00 µs | ≤ 2.5 | 1.00 met |\n"
        );
        assert!(text(row(Some(2.0))).ends_with("| ≤ 2 | 1.25 missed |\n"));
        assert!(text(row(None)).ends_with(" | | |\n"));
        assert_eq!(text(Row::default()), "");
    }

    #[test]
    fn json_has_all_rounds() {
        let value = row(Some(2.0)).to_json();
        assert_eq!(value["met"], json!(false));
        assert_eq!(value["rounds"], json!([2.0, 3.0]));
        assert_eq!(value["parts"]["none"]["rounds"], json!([4.0, 2.0]));
        assert_eq!(row(None).to_json()["met"], Value::Null);
    }
}
