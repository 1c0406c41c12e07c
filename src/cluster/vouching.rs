//! What happens when Redis is another one than before: unanimous or reset.
//!
//! A Redis with another run id was restarted, is another server, or both: it may lack what was
//! acknowledged. One that has lost the stream lacks it for sure. Then nothing is appended or read
//! until the nodes agree. Each node vouches: it adds the id of the last record that it has read to
//! a hash, again and again, so that the others see that it lives. If all nodes of the shared state
//! vouch, nothing is lost: the one that has read most appends what the log lacks, with the ids that
//! the records had. Of several, it is the one that has kept most records. If it has not kept all
//! that the log lacks, it appends those that it has, and its state as a snapshot; a node that has
//! read less loads that. If one node does not vouch within some seconds, it is unknown what it has
//! told its readers: so a record with a new epoch is appended too.
//!
//! The decision is the field `done` of the hash, with the id of the record up to which the log is
//! whole. Redis takes it only if the log is still the one that it was made from. A node whose last
//! record is not in the log afterwards is contradicted: it begins a new epoch, and loads its state
//! again. A node that the decision has counted and whose records are in the snapshot now is not.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::mem;

use super::log_end::Seal;
use super::snapshot_entry::SnapshotEntry;
use super::stream_id::StreamId;
use super::tail::Tail;
use super::value::Value;

/// Interval of the vouches, in milliseconds.
const INTERVAL_MS: u64 = 100;

/// Time for the vouches of all nodes, in milliseconds: more than a connection takes at most from
/// one attempt to the next.
const UNANIMITY_MS: u64 = 3_000;

/// A node that has not vouched again for longer is not there, in milliseconds.
const FRESH_MS: u64 = 1_000;

/// Field of the hash with the decision.
pub(super) const DONE: &[u8] = b"done";

/// Field of the hash that is there if a new epoch came with the decision.
pub(super) const RESET: &[u8] = b"reset";

/// Beginning of the fields with the nodes that the decision has counted.
const COUNTED: &str = "counted.";

/// End of the fields with what the nodes have kept. Earlier versions of the program have none.
const BASE: &str = ".base";

/// Whether the log in Redis is the one that was read.
pub(super) struct Vouching {
    /// Run id of the Redis whose log it is.
    trusted: Option<Box<str>>,
    /// Run id of the last one that was trusted.
    last_trusted: Option<Box<str>>,
    round: Option<Round>,
    /// Number of the last vouch.
    count: u64,
}

/// A round of vouches under one run id.
struct Round {
    run_id: Box<str>,
    began_ms: u64,
    /// Time of the next vouch. `None` while replies are awaited.
    next_ms: Option<u64>,
    /// Last vouch of each node that has one, and the time at which it was seen to follow another
    /// one.
    seen: BTreeMap<u64, (u64, Option<u64>)>,
    /// End of the log, as it was last seen.
    end: Option<StreamId>,
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vouch {
    pub(super) node: u64,
    /// Number of the vouch among those of the node.
    pub(super) count: u64,
    /// Last record that the node has read.
    pub(super) last: StreamId,
    /// Last record before those that the node has kept.
    pub(super) base: StreamId,
}

/// What Redis holds.
#[derive(Clone, Default)]
pub(super) struct View {
    pub(super) vouches: Vec<Vouch>,
    pub(super) done: Option<StreamId>,
    /// Nodes that the decision has counted, each with the last record that it had read.
    pub(super) counted: Vec<(u64, StreamId)>,
    /// A new epoch came with the decision.
    pub(super) has_reset: bool,
    /// Last record of the log.
    pub(super) end: Option<Seal>,
    /// Id of the entry that describes the newest snapshot, and the snapshot; `None` for one of a
    /// later version.
    pub(super) newest_id: StreamId,
    pub(super) newest: Option<SnapshotEntry>,
    /// The log, or the snapshot, has the last record that this node has read.
    pub(super) has_own: bool,
}

/// This node.
pub(super) struct Own<'a> {
    pub(super) node: u64,
    /// Nodes of the shared state.
    pub(super) members: &'a [u64],
    /// Records that it has read.
    pub(super) tail: &'a Tail,
}

/// What a node has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Vouch again.
    Wait,
    /// Go on with the log.
    Trust,
    /// Load the state again, after a record with a new epoch if `is_member`: readers know ids that
    /// the log does not have.
    Contradicted { is_member: bool },
    /// Decide.
    Decide(Decision),
}

/// A decision, which makes the log whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    /// Append the records after this id again.
    pub(super) after: Option<StreamId>,
    /// The records before those are lost to Redis: it needs a snapshot.
    pub(super) is_cut: bool,
    /// Then append a record without commands, so that there is a stream.
    pub(super) needs_record: bool,
    /// Then append a record with a new epoch.
    pub(super) resets: bool,
}

impl Vouching {
    pub(super) fn new() -> Self {
        Self { trusted: None, last_trusted: None, round: None, count: 0 }
    }

    /// Continues for a predecessor, which trusted the log under this run id.
    pub(super) fn resume(&mut self, run_id: Option<Box<str>>) {
        self.last_trusted.clone_from(&run_id);
        self.trusted = run_id;
    }

    /// Returns the run id of the Redis whose log is trusted.
    pub(super) fn trusted(&self) -> Option<&str> {
        self.trusted.as_deref().filter(|_| self.round.is_none())
    }

    /// Returns whether the log at the server with this run id is the one that was read.
    pub(super) fn trusts(&self, run_id: &str) -> bool {
        self.trusted() == Some(run_id)
    }

    /// Returns whether a round goes on.
    pub(super) fn has_round(&self) -> bool {
        self.round.is_some()
    }

    /// Returns the run id of the Redis whose log was trusted last.
    pub(super) fn last_trusted(&self) -> Option<&str> {
        self.last_trusted.as_deref()
    }

    /// Notes a connection for commands. Returns whether a round begins.
    pub(super) fn on_connected(&mut self, run_id: &str, now_ms: u64) -> bool {
        if self.trusts(run_id) {
            return false;
        }
        self.begin(run_id.into(), now_ms);
        true
    }

    /// Begins a round under the same run id, since the log lacks something.
    pub(super) fn suspect(&mut self, run_id: &str, now_ms: u64) {
        if self.round.is_none() {
            self.begin(run_id.into(), now_ms);
        }
    }

    /// Returns whether it is time to vouch.
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.next_ms().is_some_and(|at| at <= now_ms)
    }

    /// Returns the time of the next vouch.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.round.as_ref().and_then(|round| round.next_ms)
    }

    /// Returns the number of the next vouch, whose replies are awaited from now on.
    pub(super) fn vouch(&mut self) -> u64 {
        self.await_replies();
        self.count += 1;
        self.count
    }

    /// Does not vouch until there are replies.
    pub(super) fn await_replies(&mut self) {
        if let Some(round) = &mut self.round {
            round.next_ms = None;
        }
    }

    /// Vouches again later, since there are no replies to judge.
    pub(super) fn wait(&mut self, now_ms: u64) {
        if let Some(round) = &mut self.round {
            round.next_ms = Some(now_ms + INTERVAL_MS);
        }
    }

    /// Ends a round without a verdict, for want of a connection. The log is not trusted.
    pub(super) fn end_round(&mut self) {
        if self.round.take().is_some() {
            self.trusted = None;
        }
    }

    /// Returns the nodes that a decision counts, each with the last record that it has read.
    pub(super) fn counted(&self, now_ms: u64, view: &View, own: u64) -> Vec<(u64, StreamId)> {
        let round = self.round.as_ref();
        let vouches = view.vouches.iter();
        let fresh = vouches.filter(|it| round.is_some_and(|its| its.is_fresh(now_ms, it, own)));
        fresh.map(|vouch| (vouch.node, vouch.last)).collect()
    }

    fn begin(&mut self, run_id: Box<str>, now_ms: u64) {
        let (next_ms, seen) = (Some(now_ms), BTreeMap::new());
        self.round = Some(Round { run_id, began_ms: now_ms, next_ms, seen, end: None });
    }

    /// Judges what Redis holds.
    pub(super) fn judge(&mut self, now_ms: u64, view: &View, own: &Own<'_>) -> Verdict {
        let Some(round) = &mut self.round else { return Verdict::Wait };
        round.next_ms = Some(now_ms + INTERVAL_MS);
        let end = view.end.map(|end| end.id);
        if end < round.end {
            // Redis has lost the log again, and the vouches with it: other nodes may not know yet.
            round.began_ms = now_ms;
        }
        round.end = end;
        // Nodes without a vouch now are forgotten: a hostile Redis may invent others each time.
        let before = mem::take(&mut round.seen);
        for Vouch { node, count, .. } in &view.vouches {
            // The first one may be of a node that is long gone.
            let seen = before.get(node).copied().unwrap_or((*count, None));
            let seen = if seen.0 == *count { seen } else { (*count, Some(now_ms)) };
            round.seen.insert(*node, seen);
        }
        let verdict = round.judge(now_ms, view, own);
        if verdict == Verdict::Trust {
            self.trusted = self.round.take().map(|round| round.run_id);
            self.last_trusted.clone_from(&self.trusted);
        }
        verdict
    }
}

impl Round {
    /// Returns whether the node of this vouch is there.
    fn is_fresh(&self, now_ms: u64, vouch: &Vouch, own: u64) -> bool {
        let seen = || self.seen.get(&vouch.node).and_then(|(_, at)| *at);
        vouch.node == own || seen().is_some_and(|at| now_ms < at + FRESH_MS)
    }

    fn judge(&self, now_ms: u64, view: &View, own: &Own<'_>) -> Verdict {
        let last = own.tail.last();
        let is_member = own.members.contains(&own.node) && last.is_some();
        // A decision about a stream that was lost since is none.
        if view.done.is_some_and(|done| done <= view.end.unwrap_or_default().id) {
            let newest = view.newest.filter(|it| last.is_some_and(|last| last.id < it.end.last.id));
            let is_included = |last: Seal| {
                view.has_own || view.has_reset || view.counted.contains(&(own.node, last.id))
            };
            return match (last, newest) {
                // All that it has read is in the snapshot, or its readers see another epoch. It
                // keeps its state until the snapshot is there.
                (Some(last), Some(newest)) if is_included(last) => {
                    if newest.is_missing() {
                        Verdict::Wait
                    } else {
                        Verdict::Trust
                    }
                }
                (Some(_), _) if !view.has_own => Verdict::Contradicted { is_member },
                _ => Verdict::Trust,
            };
        }
        let end = view.end.or(view.snapshot_end());
        let is_late = now_ms >= self.began_ms + UNANIMITY_MS;
        let fresh = || view.vouches.iter().filter(|vouch| self.is_fresh(now_ms, vouch, own.node));
        let decide = |after| Decision { after, is_cut: false, needs_record: false, resets: false };
        let Some(last) = last.filter(|_| is_member) else {
            // A node that has a state decides.
            if fresh().any(|vouch| vouch.node != own.node) || !is_late {
                return Verdict::Wait;
            }
            return Verdict::Decide(Decision { resets: end.is_some(), ..decide(None) });
        };
        let base = own.tail.base().last.id;
        let rank = |last, base, node| (last, Reverse(base), Reverse(node));
        let own_rank = rank(last.id, base, own.node);
        if fresh().any(|it| it.node != own.node && rank(it.last, it.base, it.node) > own_rank) {
            return Verdict::Wait;
        }
        let vouched = |member: &u64| fresh().any(|vouch| vouch.node == *member);
        let is_unanimous = own.members.iter().all(vouched);
        if !is_unanimous && !is_late {
            return Verdict::Wait;
        }
        let resets = !is_unanimous;
        Verdict::Decide(match end {
            Some(end) if end.id >= last.id => {
                if !view.has_own {
                    return Verdict::Contradicted { is_member };
                }
                Decision { needs_record: view.end.is_none(), resets, ..decide(None) }
            }
            Some(end) if own.tail.has_after(end) => Decision { resets, ..decide(Some(end.id)) },
            // The log of other nodes.
            Some(end) if end.id >= base => return Verdict::Contradicted { is_member },
            _ => {
                let (is_cut, needs_record) = (!own.tail.is_whole(), own.tail.is_empty());
                Decision { is_cut, needs_record, resets, ..decide(Some(base)) }
            }
        })
    }
}

impl View {
    /// Reads the hash from the reply of `HGETALL`. Fields of a later version are left out.
    pub(super) fn of_hash(reply: &Value) -> Self {
        let (mut view, mut bases) = (Self::default(), BTreeMap::new());
        for pair in reply.as_array().unwrap_or_default().chunks_exact(2) {
            let [name, value] = pair else { continue };
            let (Some(name), Some(value)) = (name.as_text(), value.as_text()) else { continue };
            let Ok(text) = str::from_utf8(name) else { continue };
            if name == DONE {
                view.done = StreamId::parse(value);
            } else if name == RESET {
                view.has_reset = true;
            } else if let Some(node) = text.strip_prefix(COUNTED) {
                view.counted.extend(node.parse().ok().zip(StreamId::parse(value)));
            } else if let Some(node) = text.strip_suffix(BASE) {
                bases.extend(node.parse::<u64>().ok().zip(StreamId::parse(value)));
            } else {
                view.vouches.extend(Vouch::parse(text, value));
            }
        }
        for vouch in &mut view.vouches {
            vouch.base = bases.get(&vouch.node).copied().unwrap_or(vouch.last);
        }
        view
    }

    /// Last record before those that are not in the newest snapshot.
    pub(super) fn snapshot_end(&self) -> Option<Seal> {
        self.newest.map(|newest| newest.end.last)
    }
}

impl Vouch {
    /// Formats the fields of the node: names and values.
    pub(super) fn format(&self) -> [(String, String); 2] {
        let Self { node, count, last, base } = self;
        [(node.to_string(), format!("{count} {last}")), (format!("{node}{BASE}"), base.to_string())]
    }

    /// Parses a field, as one of a node that has kept nothing.
    fn parse(node: &str, value: &[u8]) -> Option<Self> {
        let (count, last) = str::from_utf8(value).ok()?.split_once(' ')?;
        let last = StreamId::parse(last.as_bytes())?;
        Some(Self { node: node.parse().ok()?, count: count.parse().ok()?, last, base: last })
    }
}

/// Returns the name of the field of a node that a decision has counted.
pub(super) fn counted_field(node: u64) -> String {
    format!("{COUNTED}{node}")
}

#[cfg(test)]
#[path = "vouching_tests.rs"]
mod tests;
