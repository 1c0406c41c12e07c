//! The results of a run: samples by row and server, and the ratios between them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::{Against, Goal, Length, Part};
use crate::sample::Sample;
use crate::server::Kind;
use crate::stats::Spread;

/// Results of a run.
pub(crate) struct Outcome {
    pub(crate) length: Length,
    pub(crate) rounds: usize,
    pub(crate) took: Duration,
    /// Seconds since 1970.
    pub(crate) at: u64,
    /// The compared servers, Speak first.
    pub(crate) kinds: &'static [Kind],
    pub(crate) rows: Vec<Row>,
    /// Servers that do not start here, and loads that a server did not endure, with the reasons.
    pub(crate) left_out: Vec<String>,
}

/// A part of the plan with its samples: for each server one of each round.
pub(crate) struct Row {
    pub(crate) part: Part,
    pub(crate) samples: BTreeMap<Kind, Vec<Sample>>,
}

impl Row {
    /// Returns the figures of a server, by round.
    fn costs(&self, kind: Kind) -> impl Iterator<Item = f64> {
        let samples = self.samples.get(&kind).into_iter().flatten();
        samples.filter_map(|sample| sample.cost)
    }

    pub(crate) fn cost(&self, kind: Kind) -> Option<Spread> {
        Spread::of(self.costs(kind))
    }

    /// Returns a further figure of a server.
    pub(crate) fn extra(&self, kind: Kind, wanted: &str) -> Option<Spread> {
        let extras = self.samples.get(&kind)?.iter().flat_map(|sample| &sample.extra);
        Spread::of(extras.filter(|(name, _)| *name == wanted).map(|(_, value)| *value))
    }

    /// Returns Speak's figure divided by a peer's, round by round. A disturbance mostly hits both.
    pub(crate) fn ratio(&self, peer: Kind) -> Option<Spread> {
        let pairs = self.costs(Kind::Speak).zip(self.costs(peer));
        Spread::of(pairs.map(|(speak, peer)| speak / peer))
    }
}

impl Outcome {
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.part.name == name)
    }

    /// Returns the measured value of a goal, if there is one.
    pub(crate) fn measured(&self, row: &Row, goal: &Goal) -> Option<Spread> {
        match goal.against {
            Against::Peer(kind) => row.ratio(kind),
            Against::Absolute => row.cost(Kind::Speak),
            Against::LongPoll(name) => {
                let other = self.row(name)?;
                let pairs = row.costs(Kind::Speak).zip(other.costs(Kind::Speak));
                Spread::of(pairs.map(|(one, other)| one / other))
            }
            Against::WritePerCall => {
                let connects = self.row("connect")?.costs(Kind::Speak);
                let writes = self.row("publish")?.costs(Kind::Speak);
                let both = row.costs(Kind::Speak).zip(connects).zip(writes);
                Spread::of(both.map(|((churn, connect), write)| {
                    let calls = churn - (connect - write);
                    calls / 2.0 / write
                }))
            }
            Against::LeftOverBefore => row.extra(Kind::Speak, "left_over_before"),
        }
    }
}
