//! Verdicts of single nodes about what Redis holds.

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
    let mut tail = Tail::after(LogEnd { last, position: before, bytes: 0 }, 8 << 20);
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

    /// Judges what Redis holds, with the next vouch of each of these nodes, which have read up to
    /// these records and keep all of them.
    fn judge(&mut self, now_ms: u64, view: View, vouches: &[(u64, u64)]) -> Verdict {
        let vouches: Vec<_> = vouches.iter().map(|(node, last)| (*node, 1, *last)).collect();
        self.judge_tails(now_ms, view, &vouches)
    }

    /// Judges it with nodes each of which keeps the records from one to another.
    fn judge_tails(&mut self, now_ms: u64, mut view: View, tails: &[(u64, u64, u64)]) -> Verdict {
        self.count += 1;
        view.vouches = tails.iter().map(|it| vouch(*it, self.count)).collect();
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

/// The vouch of a node that keeps the records from one to another.
fn vouch((node, first, last): (u64, u64, u64), count: u64) -> Vouch {
    Vouch { node, count, last: id(last), base: id(first - 1) }
}

/// Redis has a snapshot of the records up to 3, in so many pieces.
fn with_snapshot(pieces: u64, view: View) -> View {
    with_snapshot_of(seal(3), pieces, view)
}

fn with_snapshot_of(last: Seal, pieces: u64, view: View) -> View {
    let mut newest = SnapshotEntry::new(9, LogEnd { last, ..LogEnd::default() });
    newest.pieces = pieces;
    View { newest: Some(newest), ..view }
}

fn log_up_to(ms: u64, own_last: u64) -> View {
    let end = (ms > 0).then(|| seal(ms));
    View { end, has_own: ms >= own_last, ..View::default() }
}

/// A decision to append the records after this one.
fn append(after: u64) -> Decision {
    Decision { after: Some(id(after)), ..KEEP }
}

/// The decision that the log is whole.
const KEEP: Decision = Decision { after: None, is_cut: false, needs_record: false, resets: false };

/// The decision that it needs a new epoch.
const RESET: Decision = Decision { resets: true, ..KEEP };

#[test]
fn if_all_vouch_the_furthest_one_appends_what_is_missing() {
    let vouches = [(1, 5), (2, 7), (3, 6)];
    let mut furthest = Node::new(2, tail(1, 7));
    let verdict = furthest.judge_all(0, log_up_to(4, 7), &vouches);
    assert_eq!(verdict, Verdict::Decide(append(4)));
    assert_eq!(furthest.judge(100, log_up_to(0, 7), &vouches), Verdict::Decide(append(0)));
    // Nothing is missing.
    assert_eq!(furthest.judge(200, log_up_to(7, 7), &vouches), Verdict::Decide(KEEP));
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
    assert_eq!(verdicts[0], Verdict::Decide(KEEP));
    verdicts[0] = Verdict::Wait;
    assert_eq!(verdicts, [Verdict::Wait; 3]);
}

#[test]
fn if_one_is_missing_there_is_a_new_epoch_after_a_while() {
    let vouches = [(1, 7), (2, 7)];
    let mut node = Node::new(1, tail(1, 7));
    assert_eq!(node.judge_all(0, log_up_to(7, 7), &vouches), Verdict::Wait);
    assert_eq!(node.judge_all(UNANIMITY_MS - 1, log_up_to(7, 7), &vouches), Verdict::Wait);
    let reset = Verdict::Decide(RESET);
    assert_eq!(node.judge_all(UNANIMITY_MS, log_up_to(7, 7), &vouches), reset);
    // A vouch that stays the same is of a node that is gone.
    let mut node = Node::new(1, tail(1, 7));
    let stale = || View { vouches: vec![vouch((3, 1, 7), 9)], ..log_up_to(7, 7) };
    for now_ms in [0, 1_000, UNANIMITY_MS - 1] {
        let View { end, has_own, .. } = stale();
        node.count += 1;
        let mut all = stale().vouches;
        all.extend([1, 2].map(|number| vouch((number, 1, 7), node.count)));
        let own = Own { node: 1, members: &MEMBERS, tail: &node.tail };
        let view = View { end, has_own, vouches: all, ..View::default() };
        assert_eq!(node.vouching.judge(now_ms, &view, &own), Verdict::Wait);
    }
}

#[test]
fn all_nodes_have_their_time_again_if_the_log_is_lost_in_a_round() {
    let mut node = Node::new(1, tail(1, 7));
    let late_ms = UNANIMITY_MS - 1;
    assert_eq!(node.judge_all(late_ms, log_up_to(7, 7), &[(1, 7), (2, 7)]), Verdict::Wait);
    let lost = || log_up_to(0, 7);
    for now_ms in [late_ms, late_ms + UNANIMITY_MS - 1] {
        assert_eq!(node.judge(now_ms, lost(), &[(1, 7)]), Verdict::Wait);
    }
    let reset = Verdict::Decide(Decision { resets: true, ..append(0) });
    assert_eq!(node.judge(late_ms + UNANIMITY_MS, lost(), &[(1, 7)]), reset);
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
fn records_that_are_no_longer_kept_are_in_the_snapshot_of_the_furthest_node() {
    // One node has read less than is kept.
    let vouches = [(1, 4, 7), (2, 6, 7), (3, 1, 2)];
    let cut = Verdict::Decide(Decision { is_cut: true, ..append(3) });
    for end in [0, 2] {
        let mut node = Node::new(1, tail(4, 7));
        node.judge_tails(0, log_up_to(end, 7), &vouches);
        assert_eq!(node.judge_tails(0, log_up_to(end, 7), &vouches), cut, "{end}");
    }
    // It loads the snapshot, and no new epoch begins.
    let done = View { done: Some(id(7)), has_own: false, ..log_up_to(7, 3) };
    let counted = View { counted: vec![(3, id(2))], ..done.clone() };
    let behind = |view: View| Node::new(3, tail(1, 2)).judge(0, view, &[]);
    assert_eq!(behind(with_snapshot(1, counted.clone())), Verdict::Trust);
    // It keeps its state until the snapshot is there.
    assert_eq!(behind(with_snapshot(0, counted.clone())), Verdict::Wait);
    // Also if the log has its last record, before the ones that it lacks.
    let own = |view: &View| View { has_own: true, ..view.clone() };
    assert_eq!(behind(with_snapshot(0, own(&done))), Verdict::Wait);
    assert_eq!(behind(with_snapshot(1, own(&done))), Verdict::Trust);
    // Its records may be others than those in the snapshot.
    let contradicted = Verdict::Contradicted { is_member: true };
    assert_eq!(behind(counted), contradicted);
    assert_eq!(behind(with_snapshot(1, done.clone())), contradicted);
    let elsewhere = View { counted: vec![(3, id(1)), (2, id(2))], ..done.clone() };
    assert_eq!(behind(with_snapshot(1, elsewhere)), contradicted);
    // Readers see another epoch.
    let reset = View { has_reset: true, ..done };
    assert_eq!(behind(with_snapshot(1, reset)), Verdict::Trust);
    // The one that has read all before the first record that is left goes on.
    let mut behind = Node::new(3, tail(1, 3));
    let view = View { done: Some(id(7)), has_own: true, ..log_up_to(7, 3) };
    assert_eq!(behind.judge(0, view, &[]), Verdict::Trust);
}

#[test]
fn of_nodes_that_have_read_the_same_the_one_that_keeps_most_decides() {
    let vouches = [(1, 7, 7), (2, 2, 7), (3, 2, 7)];
    let mut verdicts = vouches.map(|(number, first, last)| {
        let mut node = Node::new(number, tail(first, last));
        node.judge_tails(0, log_up_to(4, 7), &vouches);
        node.judge_tails(0, log_up_to(4, 7), &vouches)
    });
    assert_eq!(verdicts[1], Verdict::Decide(append(4)));
    verdicts[1] = Verdict::Wait;
    assert_eq!(verdicts, [Verdict::Wait; 3]);
}

#[test]
fn a_node_that_has_kept_no_record_has_its_state() {
    let vouches = MEMBERS.map(|number| (number, 8, 7));
    let mut node = Node::new(1, tail(8, 7));
    node.judge_tails(0, log_up_to(7, 7), &vouches);
    assert_eq!(node.judge_tails(0, log_up_to(7, 7), &vouches), Verdict::Decide(KEEP));
    // A record is needed, so that there is a stream.
    let empty = Decision { needs_record: true, ..KEEP };
    let verdict = node.judge_tails(100, log_up_to(0, 8), &vouches);
    assert_eq!(verdict, Verdict::Decide(Decision { is_cut: true, after: Some(id(7)), ..empty }));
    let view = View { has_own: true, ..log_up_to(0, 8) };
    let view = with_snapshot_of(seal(7), 1, view);
    assert_eq!(node.judge_tails(200, view, &vouches), Verdict::Decide(empty));
}

#[test]
fn a_node_without_a_state_begins_only_if_there_is_no_other_one() {
    let fresh =
        || Node { members: Vec::new(), ..Node::new(9, Tail::after(LogEnd::default(), 8 << 20)) };
    assert_eq!(fresh().judge(UNANIMITY_MS - 1, log_up_to(0, 0), &[]), Verdict::Wait);
    let begin = Verdict::Decide(KEEP);
    assert_eq!(fresh().judge(UNANIMITY_MS, log_up_to(0, 0), &[]), begin);
    let decided = View { done: Some(StreamId::default()), ..log_up_to(0, 0) };
    assert_eq!(fresh().judge(UNANIMITY_MS, decided, &[]), Verdict::Trust);
    // It is unknown what the nodes had read that wrote this log.
    let reset = Verdict::Decide(RESET);
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
    assert_eq!(verdict, Verdict::Decide(RESET));
}

#[test]
fn the_hash_is_read_as_it_was_written() {
    let text = |text: &str| Value::Text(text.as_bytes().into());
    let vouch = Vouch { base: StreamId { unix_ms: 3, number: 4 }, ..vouch((77, 1, 5), 12) };
    let [(node, own), (base_of, base)] = vouch.format();
    let others = ["done", "8-1", "counted.78", "9-0", "x", "y", "78", "1", "79", "a 5-6"];
    let fields = [[&*base_of, &base, &node, &own].as_slice(), &others].concat();
    let read = |fields: &[&str]| {
        View::of_hash(&Value::Array(fields.iter().map(|field| text(field)).collect()))
    };
    let view = read(&fields);
    assert_eq!((&view.vouches[..], view.has_reset), (&[vouch][..], false));
    assert_eq!(view.done, Some(StreamId { unix_ms: 8, number: 1 }));
    assert_eq!(view.counted, [(78, id(9))]);
    assert_eq!(counted_field(78), "counted.78");
    // An earlier version of the program does not say what it has kept.
    let view = read(&["77", "12 5-0", "reset", "1"]);
    assert_eq!(view.vouches, [Vouch { base: id(5), ..vouch }]);
    assert!(view.has_reset);
}

#[test]
fn nodes_that_redis_invents_do_not_add_up() {
    let mut node = Node::new(1, tail(1, 7));
    for round in 0..100 {
        let vouches: Vec<_> = (0..10).map(|number| (1_000 + 10 * round + number, 7)).collect();
        node.judge(round, log_up_to(7, 7), &vouches);
    }
    let seen = node.vouching.round.map(|round| round.seen.len());
    assert_eq!(seen, Some(10));
}
