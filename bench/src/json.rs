//! A run as JSON, for comparison with another run.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::outcome::{Outcome, Row};
use crate::plan::{Against, Goal};
use crate::sample::Sample;
use crate::stats::{Latency, Spread};

/// The whole run.
pub(crate) fn render(outcome: &Outcome) -> Value {
    let parts: Vec<Value> = outcome.rows.iter().map(|row| part(outcome, row)).collect();
    json!({
        "length": outcome.length.name(),
        "at": outcome.at,
        "took_seconds": rounded(outcome.took.as_secs_f64()),
        "rounds": outcome.rounds,
        "processor": processor(),
        "kernel": kernel(),
        "left_out": outcome.left_out,
        "parts": parts,
    })
}

/// One sample, as `drive` prints it.
pub(crate) fn sample(sample: &Sample) -> Value {
    let mut map = Map::new();
    map.insert("cost".into(), json!(sample.cost.map(rounded)));
    map.insert("operations".into(), json!(sample.operations));
    map.insert("per_second".into(), json!(rounded(sample.per_second)));
    // Without the server's own time, all of it would count as other processes'.
    if sample.cost.is_some() {
        map.insert("disturbed".into(), json!(rounded(sample.disturbed)));
    }
    if sample.answer_bytes > 0 {
        map.insert("answer_bytes".into(), json!(sample.answer_bytes));
    }
    if let Some(latency) = sample.latency {
        map.insert("latency_ms".into(), latency_value(latency));
    }
    for (name, value) in &sample.extra {
        map.insert((*name).into(), json!(rounded(*value)));
    }
    Value::Object(map)
}

fn part(outcome: &Outcome, row: &Row) -> Value {
    let mut servers = Map::new();
    for (kind, samples) in &row.samples {
        let rounds: Vec<Value> = samples.iter().map(sample).collect();
        servers.insert(
            kind.name().into(),
            json!({ "cost": row.cost(*kind).map(spread), "rounds": rounds }),
        );
    }
    let mut ratios = Map::new();
    for &peer in &outcome.kinds[1..] {
        if let Some(ratio) = row.ratio(peer) {
            ratios.insert(peer.name().into(), spread(ratio));
        }
    }
    let goals: Vec<Value> = row.part.goals.iter().map(|g| goal(outcome, row, g)).collect();
    json!({
        "name": row.part.name,
        "label": row.part.label,
        "unit": row.part.unit,
        "servers": servers,
        "speak_by": ratios,
        "goals": goals,
    })
}

fn goal(outcome: &Outcome, row: &Row, goal: &Goal) -> Value {
    let against = match goal.against {
        Against::Peer(kind) => kind.name(),
        Against::LongPoll(name) => name,
        Against::WritePerCall => "write, for each call",
        Against::Absolute => "absolute",
        Against::LeftOverBefore => "memory before",
    };
    let measured = outcome.measured(row, goal);
    let at_most = goal.at_most.is_finite().then_some(goal.at_most);
    json!({
        "against": against,
        "at_most": at_most,
        "stretch": goal.stretch,
        "measured": measured.map(spread),
        "met": measured.map(|measured| measured.median <= goal.at_most),
    })
}

pub(crate) fn spread(spread: Spread) -> Value {
    json!({
        "median": rounded(spread.median),
        "least": rounded(spread.least),
        "most": rounded(spread.most),
    })
}

fn latency_value(latency: Latency) -> Value {
    let milliseconds = |time: Duration| rounded(time.as_secs_f64() * 1000.0);
    json!({
        "half": milliseconds(latency.half),
        "p99": milliseconds(latency.p99),
        "p99_9": milliseconds(latency.p99_9),
        "most": milliseconds(latency.most),
    })
}

/// Three decimal places are more than any of these figures is worth.
pub(crate) fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

pub(crate) fn processor() -> Option<String> {
    first_value("/proc/cpuinfo", "model name")
}

pub(crate) fn kernel() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(release.trim().to_owned())
}

fn first_value(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
