//! The figures of the journal as a table in Markdown.

use std::fmt::Write;
use std::time::Duration;

use crate::busy::Busy;
use crate::stats::{Spread, at_most, median};
use crate::turns::Turns;

/// CPU time of a write, with `os` and without a journal.
const COST_MAX: f64 = 1.15;
/// Share of what the disk gives.
const RATE_MIN: f64 = 0.8;
/// Seconds of recovery for each GB of the journal.
const RECOVERY_MAX: f64 = 4.0;

/// All figures of a run.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) costs: Vec<Cost>,
    pub(crate) rates: Vec<Rate>,
    pub(crate) snapshot: SnapshotTurns,
    pub(crate) recovery: Recovery,
    pub(crate) busy: Busy,
    pub(crate) took: Duration,
}

/// CPU time of a write in µs, round by round.
#[derive(Default)]
pub(crate) struct Cost {
    pub(crate) connections: usize,
    pub(crate) none: Vec<f64>,
    pub(crate) os: Vec<f64>,
}

/// Writes per second with so many connections, round by round.
#[derive(Default)]
pub(crate) struct Rate {
    pub(crate) depth: usize,
    pub(crate) none: Vec<f64>,
    pub(crate) always: Vec<f64>,
    /// Flushes per second that the disk has done, without the pauses between them.
    pub(crate) flushes: Vec<f64>,
    /// Writes that share a record with `always`.
    pub(crate) each_record: Vec<f64>,
    /// Turns with the journal, and without.
    pub(crate) turns: Turns,
    pub(crate) none_turns: Turns,
}

/// Turns under load while a snapshot is taken, and in another time.
#[derive(Default)]
pub(crate) struct SnapshotTurns {
    pub(crate) bytes: u64,
    pub(crate) turns: Turns,
    pub(crate) time: Duration,
    pub(crate) other_turns: Turns,
    pub(crate) other_time: Duration,
}

/// Start of a server with a journal.
#[derive(Default)]
pub(crate) struct Recovery {
    pub(crate) bytes: f64,
    pub(crate) time: Duration,
}

impl Figures {
    pub(crate) fn render(&self) -> String {
        let mut text =
            "| | measured | goal | measured ÷ goal |\n| --- | --- | --- | --- |\n".into();
        for cost in &self.costs {
            cost.render(&mut text);
        }
        for rate in &self.rates {
            rate.render(&mut text);
        }
        self.render_turns(&mut text);
        self.recovery.render(&mut text);
        text.push_str(&self.busy.sentence(self.took));
        text
    }

    /// Returns the depths with turns above 2 ms, and their number.
    fn long_turns(&self) -> String {
        let mut text = String::new();
        for rate in self.rates.iter().filter(|rate| rate.turns.above[1] > 0) {
            let separator = if text.is_empty() { " (above 2 ms at depth" } else { "," };
            let _ = write!(text, "{separator} {}: {}", rate.depth, rate.turns.above[1]);
        }
        if text.is_empty() { text } else { text + ")" }
    }

    fn render_turns(&self, text: &mut String) {
        let sum = |turns: fn(&Rate) -> Turns| {
            self.rates.iter().fold(Turns::default(), |mut sum, rate| {
                sum += turns(rate);
                sum
            })
        };
        let (always, none) = (sum(|rate| rate.turns), sum(|rate| rate.none_turns));
        let _ = writeln!(
            text,
            "| turns of the loop with `always`, above | {}{}; without a journal {} \
             | none above 2 ms | {} |",
            above(always),
            self.long_turns(),
            above(none),
            verdict(always.above[1], none.above[1], "journal"),
        );
        let snapshot = &self.snapshot;
        let _ = writeln!(
            text,
            "| turns during a snapshot of {:.0} MB, above | {}; under the same load without it {} \
             | none above 5 ms for it | {} |",
            snapshot.bytes as f64 / 1e6,
            above(snapshot.turns),
            above(snapshot.other_turns),
            verdict(snapshot.turns.above[2], snapshot.other_turns.above[2], "snapshot"),
        );
    }
}

/// Verdict on turns above a limit, where others without a journal or snapshot may be above it too.
fn verdict(above: u64, without: u64, what: &str) -> String {
    match (above, without) {
        (0, _) => "met".to_owned(),
        (_, 0) => "missed".to_owned(),
        _ => format!("unknown: also without a {what}"),
    }
}

fn above(turns: Turns) -> String {
    let [one, two, five] = turns.above;
    format!("1 ms: {one}, 2 ms: {two}, 5 ms: {five} of {}", thousands(turns.all))
}

impl Cost {
    fn render(&self, text: &mut String) {
        let ratios = self.os.iter().zip(&self.none).map(|(os, none)| os / none);
        let Some(ratio) = Spread::of(ratios) else { return };
        let _ = writeln!(
            text,
            "| CPU of a write with `os`, connections: {} \
             | {:.1} µs, without a journal {:.1} µs: {} | ≤ {COST_MAX} times | {} |",
            self.connections,
            median(&self.os),
            median(&self.none),
            ratio,
            at_most(ratio.median / COST_MAX),
        );
    }
}

impl Rate {
    fn render(&self, text: &mut String) {
        let depth = self.depth as f64;
        let pairs = self.always.iter().zip(&self.flushes);
        let Some(share) = Spread::of(pairs.map(|(rate, flushes)| rate / (flushes * depth))) else {
            return;
        };
        let mut goal = at_least(share.median / RATE_MIN);
        let none = median(&self.none);
        // A rate that Speak does not reach without a disk either says nothing of the journal.
        if none < RATE_MIN * median(&self.flushes) * depth {
            let pairs = self.always.iter().zip(&self.none);
            let of_none = Spread::of(pairs.map(|(rate, none)| rate / none));
            let of_none = of_none.map_or(0.0, |ratio| ratio.median);
            let _ = write!(goal, "; the disk is faster than Speak: {of_none:.2} of that");
        }
        let _ = writeln!(
            text,
            "| writes with `always`, depth {} \
             | {}/s: {} of the disk's {} × {}/s; {:.1} a record; without a journal {}/s \
             | ≥ {RATE_MIN} of the disk | {goal} |",
            self.depth,
            thousands(whole(median(&self.always))),
            share,
            self.depth,
            thousands(whole(median(&self.flushes))),
            median(&self.each_record),
            thousands(whole(none)),
        );
    }
}

impl Recovery {
    fn render(&self, text: &mut String) {
        let seconds = self.time.as_secs_f64();
        let each = seconds / (self.bytes / 1e9);
        let _ = writeln!(
            text,
            "| recovery, extrapolated to 1 GB \
             | {each:.1} s ({:.0} MB, not in the page cache, took {:.2} s) \
             | ≤ {RECOVERY_MAX} s | {} |",
            self.bytes / 1e6,
            seconds,
            at_most(each / RECOVERY_MAX),
        );
    }
}

fn at_least(ratio: f64) -> String {
    format!("{ratio:.2} {}", if ratio >= 1.0 { "met" } else { "missed" })
}

/// Rounds a rate, which is not negative.
#[allow(clippy::cast_sign_loss)]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

/// Writes a count with a separator of thousands.
fn thousands(count: u64) -> String {
    if count < 1000 {
        return count.to_string();
    }
    format!("{},{:03}", thousands(count / 1000), count % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators() {
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_000), "1,000");
        assert_eq!(thousands(1_234_050), "1,234,050");
    }

    #[test]
    fn long_turns_decide_nothing_if_there_are_others() {
        assert_eq!(verdict(0, 1, "journal"), "met");
        assert_eq!(verdict(1, 0, "journal"), "missed");
        assert_eq!(verdict(1, 1, "journal"), "unknown: also without a journal");
    }

    #[test]
    fn rates_are_compared_with_the_disk_and_with_speak_alone() {
        let rate = |none| Rate {
            depth: 2,
            none: vec![none],
            always: vec![90.0],
            flushes: vec![50.0],
            ..Rate::default()
        };
        let text = |rate: Rate| {
            let mut text = String::new();
            rate.render(&mut text);
            text
        };
        let fast = text(rate(1000.0));
        assert!(fast.ends_with("| ≥ 0.8 of the disk | 1.12 met |\n"), "{fast}");
        let slow = text(rate(60.0));
        assert!(slow.contains("1.12 met; the disk is faster than Speak: 1.50 of that"), "{slow}");
    }
}
