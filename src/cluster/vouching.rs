//! What happens when Redis is another one than before: unanimous or reset.
//!
//! A Redis with another run id was restarted, is another server, or both: it may lack what was
//! acknowledged. One that has lost the stream lacks it for sure. Then nothing is appended or read
//! until the nodes agree. Each node vouches: it adds the id of the last record that it has read to
//! a hash, again and again, so that the others see that it lives. If all nodes of the shared state
//! vouch, nothing is lost: the one that has read most appends what the log lacks, with the ids that
//! the records had. If one node does not vouch within some seconds, it is unknown what it has told
//! its readers: so a record with a new epoch is appended too.
//!
//! The decision is the field `done` of the hash, with the id of the record up to which the log is
//! whole. Two nodes may decide at once. Then Redis takes each record once, as ids have to rise. A
//! node whose last record is not in the log afterwards is contradicted: it begins a new epoch, and
//! loads its state again.

use std::collections::BTreeMap;

use super::log_end::Seal;
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
    /// Last vouch of each node, and the time at which it was seen to follow another one.
    seen: BTreeMap<u64, (u64, Option<u64>)>,
}

/// What Redis holds.
#[derive(Clone, Default)]
pub(super) struct View {
    /// Vouches: node, number of the vouch, last record.
    pub(super) vouches: Vec<(u64, u64, StreamId)>,
    pub(super) done: Option<StreamId>,
    /// Last record of the log.
    pub(super) end: Option<Seal>,
    /// Last record before those that are not in the newest snapshot.
    pub(super) snapshot_end: Option<Seal>,
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
        if let Some(round) = &mut self.round {
            round.next_ms = None;
        }
        self.count += 1;
        self.count
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

    fn begin(&mut self, run_id: Box<str>, now_ms: u64) {
        let (next_ms, seen) = (Some(now_ms), BTreeMap::new());
        self.round = Some(Round { run_id, began_ms: now_ms, next_ms, seen });
    }

    /// Judges what Redis holds.
    pub(super) fn judge(&mut self, now_ms: u64, view: &View, own: &Own<'_>) -> Verdict {
        let Some(round) = &mut self.round else { return Verdict::Wait };
        round.next_ms = Some(now_ms + INTERVAL_MS);
        for (node, count, _) in &view.vouches {
            // The first one may be of a node that is long gone.
            let seen = round.seen.entry(*node).or_insert((*count, None));
            if seen.0 != *count {
                *seen = (*count, Some(now_ms));
            }
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
    fn judge(&self, now_ms: u64, view: &View, own: &Own<'_>) -> Verdict {
        let last = own.tail.last();
        let is_member = own.members.contains(&own.node) && last.is_some();
        // A decision about a stream that was lost since is none.
        if view.done.is_some_and(|done| done <= view.end.unwrap_or_default().id) {
            return match last {
                Some(_) if !view.has_own => Verdict::Contradicted { is_member },
                _ => Verdict::Trust,
            };
        }
        let end = view.end.or(view.snapshot_end);
        let is_late = now_ms >= self.began_ms + UNANIMITY_MS;
        let is_fresh = |node: u64| {
            let seen = || self.seen.get(&node).and_then(|(_, at)| *at);
            node == own.node || seen().is_some_and(|at| now_ms < at + FRESH_MS)
        };
        let fresh = || view.vouches.iter().filter(|(node, ..)| is_fresh(*node));
        let Some(last) = last.filter(|_| is_member) else {
            // A node that has a state decides.
            if fresh().any(|(node, ..)| *node != own.node) || !is_late {
                return Verdict::Wait;
            }
            let resets = end.is_some();
            return Verdict::Decide(Decision { after: None, is_cut: false, resets });
        };
        let is_behind = |(node, _, id): &(u64, u64, StreamId)| {
            *id < last.id || (*id == last.id && *node >= own.node)
        };
        if !fresh().all(is_behind) {
            return Verdict::Wait;
        }
        let vouched = |member: &u64| fresh().any(|(node, ..)| node == member);
        let is_unanimous = own.members.iter().all(vouched);
        if !is_unanimous && !is_late {
            return Verdict::Wait;
        }
        match end {
            Some(end) if end.id >= last.id => {
                if !view.has_own {
                    return Verdict::Contradicted { is_member };
                }
                // There has to be a stream, for records to be added.
                let resets = !is_unanimous || view.end.is_none();
                Verdict::Decide(Decision { after: None, is_cut: false, resets })
            }
            Some(end) if own.tail.has_after(end) => {
                let resets = !is_unanimous;
                Verdict::Decide(Decision { after: Some(end.id), is_cut: false, resets })
            }
            // The log of other nodes, or one that has lost more than this node has kept.
            Some(_) => Verdict::Contradicted { is_member },
            None => {
                let base = own.tail.base().last.id;
                let is_cut = !own.tail.is_whole();
                let oldest = fresh().map(|(.., id)| *id).min().unwrap_or(last.id);
                // A node that has read less than is lost to Redis loads the state again.
                let is_contradicted = is_cut && (oldest < base || own.tail.is_empty());
                let resets = !is_unanimous || is_contradicted;
                Verdict::Decide(Decision { after: Some(base), is_cut, resets })
            }
        }
    }
}

impl View {
    /// Reads the hash from the reply of `HGETALL`. Fields of a later version are no vouches.
    pub(super) fn of_hash(reply: &Value) -> Self {
        let mut view = Self::default();
        for pair in reply.as_array().unwrap_or_default().chunks_exact(2) {
            let [name, value] = pair else { continue };
            let (Some(name), Some(value)) = (name.as_text(), value.as_text()) else { continue };
            match name {
                DONE => view.done = StreamId::parse(value),
                node => view.vouches.extend(parse_vouch(node, value)),
            }
        }
        view
    }
}

/// Formats a vouch, the value of a node's field.
pub(super) fn format_vouch(count: u64, last: StreamId) -> String {
    format!("{count} {last}")
}

fn parse_vouch(node: &[u8], value: &[u8]) -> Option<(u64, u64, StreamId)> {
    let node = str::from_utf8(node).ok()?.parse().ok()?;
    let (count, last) = str::from_utf8(value).ok()?.split_once(' ')?;
    Some((node, count.parse().ok()?, StreamId::parse(last.as_bytes())?))
}

#[cfg(test)]
mod tests {
    use super::super::log_end::LogEnd;
    use super::*;

    /// Nodes of the shared state.
    const MEMBERS: [u64; 3] = [1, 2, 3];

    fn id(unix_ms: u64) -> StreamId {
        StreamId { unix_ms, number: 0 }
    }

    fn seal(ms: u64) -> Seal {
        Seal { id: id(ms), node: 1, sequence: ms }
    }

    /// A log of records with the ids 1 to `newest`, of which those from `first` on are kept.
    fn tail(first: u64, newest: u64) -> Tail {
        let before = first - 1;
        let last = if before > 0 { seal(before) } else { Seal::default() };
        let mut tail = Tail::after(LogEnd { last, position: before, bytes: 0 });
        (first..=newest).for_each(|ms| tail.push(seal(ms), b""));
        tail
    }

    /// A node in a round under the run id `r`, which began at 0.
    struct Node {
        vouching: Vouching,
        number: u64,
        members: Vec<u64>,
        tail: Tail,
        count: u64,
    }

    impl Node {
        fn new(number: u64, tail: Tail) -> Self {
            let mut vouching = Vouching::new();
            assert!(vouching.on_connected("r", 0) && !vouching.trusts("r"));
            Self { vouching, number, members: MEMBERS.to_vec(), tail, count: 0 }
        }

        /// Judges what Redis holds, with the next vouch of each of these nodes.
        fn judge(&mut self, now_ms: u64, mut view: View, vouches: &[(u64, u64)]) -> Verdict {
            self.count += 1;
            let vouch = |(node, last): &(u64, u64)| (*node, self.count, id(*last));
            view.vouches = vouches.iter().map(vouch).collect();
            self.vouching.vouch();
            let Self { vouching, number, members, tail, .. } = self;
            let own = Own { node: *number, members, tail };
            vouching.judge(now_ms, &view, &own)
        }

        /// Judges it when all of these nodes have vouched twice, so that they live.
        fn judge_all(&mut self, now_ms: u64, view: View, vouches: &[(u64, u64)]) -> Verdict {
            self.judge(now_ms, view.clone(), vouches);
            self.judge(now_ms, view, vouches)
        }
    }

    fn log_up_to(ms: u64, own_last: u64) -> View {
        let end = (ms > 0).then(|| seal(ms));
        View { end, has_own: ms >= own_last, ..View::default() }
    }

    fn decision(after: Option<StreamId>, is_cut: bool, resets: bool) -> Verdict {
        Verdict::Decide(Decision { after, is_cut, resets })
    }

    #[test]
    fn if_all_vouch_the_furthest_one_appends_what_is_missing() {
        let vouches = [(1, 5), (2, 7), (3, 6)];
        let mut furthest = Node::new(2, tail(1, 7));
        assert_eq!(
            furthest.judge_all(0, log_up_to(4, 7), &vouches),
            decision(Some(id(4)), false, false)
        );
        assert_eq!(
            furthest.judge(100, log_up_to(0, 7), &vouches),
            decision(Some(id(0)), false, false)
        );
        // Nothing is missing.
        assert_eq!(furthest.judge(200, log_up_to(7, 7), &vouches), decision(None, false, false));
        for (node, last) in [(1, 5), (3, 6)] {
            let mut other = Node::new(node, tail(1, last));
            assert_eq!(other.judge_all(9_000, log_up_to(4, last), &vouches), Verdict::Wait);
        }
    }

    #[test]
    fn of_equal_nodes_the_one_with_the_lowest_number_decides() {
        let vouches = MEMBERS.map(|node| (node, 7));
        let mut verdicts =
            MEMBERS.map(|node| Node::new(node, tail(1, 7)).judge_all(0, log_up_to(7, 7), &vouches));
        assert_eq!(verdicts[0], decision(None, false, false));
        verdicts[0] = Verdict::Wait;
        assert_eq!(verdicts, [Verdict::Wait; 3]);
    }

    #[test]
    fn if_one_is_missing_there_is_a_new_epoch_after_a_while() {
        let vouches = [(1, 7), (2, 7)];
        let mut node = Node::new(1, tail(1, 7));
        assert_eq!(node.judge_all(0, log_up_to(7, 7), &vouches), Verdict::Wait);
        assert_eq!(node.judge_all(UNANIMITY_MS - 1, log_up_to(7, 7), &vouches), Verdict::Wait);
        let reset = decision(None, false, true);
        assert_eq!(node.judge_all(UNANIMITY_MS, log_up_to(7, 7), &vouches), reset);
        // A vouch that stays the same is of a node that is gone.
        let mut node = Node::new(1, tail(1, 7));
        let stale = || View { vouches: vec![(3, 9, id(7))], ..log_up_to(7, 7) };
        for now_ms in [0, 1_000, UNANIMITY_MS - 1] {
            let View { end, has_own, .. } = stale();
            node.count += 1;
            let mut all = stale().vouches;
            all.extend([(1, node.count, id(7)), (2, node.count, id(7))]);
            let own = Own { node: 1, members: &MEMBERS, tail: &node.tail };
            let view = View { end, has_own, vouches: all, ..View::default() };
            assert_eq!(node.vouching.judge(now_ms, &view, &own), Verdict::Wait);
        }
    }

    #[test]
    fn a_decision_ends_the_round_of_those_whose_records_the_log_has() {
        let done = |end: u64, own_last: u64| View { done: Some(id(7)), ..log_up_to(end, own_last) };
        let mut node = Node::new(1, tail(1, 6));
        assert_eq!(node.judge(0, done(7, 6), &[]), Verdict::Trust);
        assert!(node.vouching.trusts("r") && !node.vouching.trusts("s"));
        assert!(!node.vouching.on_connected("r", 0));
        // The one of a later process goes on without a round.
        let mut later = Vouching::new();
        later.resume(node.vouching.trusted().map(Into::into));
        assert_eq!(later.last_trusted(), Some("r"));
        assert!(!later.on_connected("r", 0) && later.on_connected("s", 0));
        // The log went on without this node.
        let mut node = Node::new(1, tail(1, 6));
        let other = View { has_own: false, ..done(9, 6) };
        assert_eq!(node.judge(0, other, &[]), Verdict::Contradicted { is_member: true });
        // The stream is gone again: the decision was about another one.
        let mut node = Node::new(1, tail(1, 6));
        assert_eq!(node.judge(0, done(0, 6), &[]), Verdict::Wait);
    }

    #[test]
    fn a_log_with_records_of_others_in_the_place_of_own_ones_contradicts() {
        let mut node = Node::new(1, tail(1, 7));
        let vouches = MEMBERS.map(|node| (node, 7));
        let end = Some(Seal { id: id(6), node: 9, sequence: 6 });
        let verdict = node.judge_all(0, View { end, ..View::default() }, &vouches);
        assert_eq!(verdict, Verdict::Contradicted { is_member: true });
        let end = Some(Seal { id: id(8), node: 9, sequence: 6 });
        let verdict = node.judge(0, View { end, ..View::default() }, &vouches);
        assert_eq!(verdict, Verdict::Contradicted { is_member: true });
    }

    #[test]
    fn records_that_are_no_longer_kept_leave_the_log_without_its_beginning() {
        let vouches = [(1, 7), (2, 7), (3, 3)];
        let mut node = Node::new(1, tail(4, 7));
        assert_eq!(
            node.judge_all(0, log_up_to(0, 7), &vouches),
            decision(Some(id(3)), true, false)
        );
        // One node needs more than what is kept.
        let vouches = [(1, 7), (2, 7), (3, 2)];
        assert_eq!(node.judge_all(0, log_up_to(0, 7), &vouches), decision(Some(id(3)), true, true));
        // The one that reads a record as it was before the first one that is left goes on.
        let mut behind = Node::new(3, tail(1, 3));
        let view = View { done: Some(id(7)), has_own: true, ..log_up_to(7, 3) };
        assert_eq!(behind.judge(0, view, &[]), Verdict::Trust);
    }

    #[test]
    fn a_node_that_has_kept_no_record_has_its_state() {
        let vouches = [(1, 7), (2, 7), (3, 7)];
        let mut node = Node::new(1, tail(8, 7));
        assert_eq!(node.judge_all(0, log_up_to(7, 7), &vouches), decision(None, false, false));
        // A record is needed, so that there is a stream.
        assert_eq!(node.judge(100, log_up_to(0, 8), &vouches), decision(Some(id(7)), true, true));
        let view = View { snapshot_end: Some(seal(7)), has_own: true, ..log_up_to(0, 8) };
        assert_eq!(node.judge(200, view, &vouches), decision(None, false, true));
    }

    #[test]
    fn a_node_without_a_state_begins_only_if_there_is_no_other_one() {
        let fresh = || Node { members: Vec::new(), ..Node::new(9, Tail::after(LogEnd::default())) };
        assert_eq!(fresh().judge(UNANIMITY_MS - 1, log_up_to(0, 0), &[]), Verdict::Wait);
        let begin = decision(None, false, false);
        assert_eq!(fresh().judge(UNANIMITY_MS, log_up_to(0, 0), &[]), begin);
        let decided = View { done: Some(StreamId::default()), ..log_up_to(0, 0) };
        assert_eq!(fresh().judge(UNANIMITY_MS, decided, &[]), Verdict::Trust);
        // It is unknown what the nodes had read that wrote this log.
        let reset = decision(None, false, true);
        assert_eq!(fresh().judge(UNANIMITY_MS, log_up_to(7, 0), &[]), reset);
        let others = [(1, 7)];
        assert_eq!(fresh().judge_all(UNANIMITY_MS, log_up_to(7, 0), &others), Verdict::Wait);
    }

    #[test]
    fn who_was_missing_is_missing_at_the_next_redis_too() {
        let vouches = [(1, 7), (2, 7)];
        let mut node = Node::new(1, tail(1, 7));
        assert_eq!(node.judge_all(100, log_up_to(7, 7), &vouches), Verdict::Wait);
        node.vouching.end_round();
        assert!(node.vouching.on_connected("s", 1_000));
        assert_eq!(node.judge_all(1_000, log_up_to(7, 7), &vouches), Verdict::Wait);
        let verdict = node.judge_all(1_000 + UNANIMITY_MS, log_up_to(7, 7), &vouches);
        assert_eq!(verdict, decision(None, false, true));
    }

    #[test]
    fn vouches_are_read_as_they_were_written() {
        let text = |text: &str| Value::Text(text.as_bytes().into());
        let vouch = format_vouch(12, StreamId { unix_ms: 5, number: 6 });
        let fields = ["77", &vouch, "done", "8-1", "x", "y", "78", "1", "79", "a 5-6"];
        let view = View::of_hash(&Value::Array(fields.map(text).to_vec()));
        assert_eq!(view.vouches, [(77, 12, StreamId { unix_ms: 5, number: 6 })]);
        assert_eq!(view.done, Some(StreamId { unix_ms: 8, number: 1 }));
    }
}
