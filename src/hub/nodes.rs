//! Nodes: the processes that share a log.
//!
//! Each process has a random number of its own, for as long as it is in the cluster. Shared state
//! names the nodes and the last record of each that was applied. A node is dead for another one if
//! that one has applied several heartbeats of its own since the last record of the node. So a log
//! that stalls kills no node, and no clock decides.

use std::collections::{BTreeMap, VecDeque};

use minicbor::{Decode, Encode};

use super::command::SharedSettings;
use super::holders::mix;
use super::reader_counts::{ReaderCounts, SavedReaderCounts};
use super::time::Millis;

/// Interval of a node's heartbeats, in milliseconds.
pub const HEARTBEAT_MS: u64 = 500;

/// A node is dead after so many heartbeats of another node without a record of it.
const HEARTBEATS_UNTIL_DEATH: u32 = 6;

/// A record shows that its node lives for so many milliseconds from when it was appended. The first
/// of the heartbeats after which the node is dead may have been under way then, and the second one
/// follows as soon as that is back. The others come at intervals.
const LEASE_MS: u64 = (HEARTBEATS_UNTIL_DEATH as u64 - 2) * HEARTBEAT_MS;

/// A release that is applied more than this many milliseconds later than expected is void.
pub(super) const RELEASE_LATE_MS: u64 = 500;

/// Longest time that a record is expected to take, in milliseconds. So an outage makes no later one
/// seem usual.
const ROUND_TRIP_MAX_MS: u64 = 1_000;

/// Records whose time is remembered. It depends on whether Redis was just asked for the next one.
const ROUND_TRIPS: usize = 4;

/// Records whose hash is kept, to be compared with those of other nodes.
const HASHES_KEPT: usize = 1024;

/// A process that shares the log.
#[derive(Default)]
struct Node {
    /// Number of its last record that was applied.
    sequence: u64,
    /// Position of the command by which it last got the sessions of another node; 0 if it never
    /// did.
    inherited: u64,
    /// Position of a record that it has applied, as its last heartbeat said. Local state.
    position: u64,
    /// Own heartbeats since then. Local state.
    unseen: u32,
    /// Its burial waits for the log. Local state.
    is_bury_proposed: bool,
}

/// The nodes, and which of them this process is.
#[derive(Default)]
pub(super) struct Nodes {
    // Shared state.
    table: BTreeMap<u64, Node>,
    pub(super) settings: Option<SharedSettings>,
    /// The numbering of ids has begun.
    pub(super) has_begun: bool,

    // Local state.
    /// Number of this process.
    own: u64,
    /// This process was in the cluster under this number.
    was_joined: bool,
    /// Node whose record is being applied.
    pub(super) origin: u64,
    /// Number of that record.
    sequence: u64,
    /// Hash after each of the last records, by its position.
    hashes: VecDeque<(u64, u64)>,
    /// Time of the log minus the monotonic time of this process.
    log_time_ahead_ms: i64,
    /// No record has an earlier time: that of the newest message of a checkpoint that was loaded,
    /// or that at which the predecessor of this process was saved.
    pub(super) earliest_record: Millis,
    /// Another node had another hash at the same position.
    pub(super) has_diverged: bool,
    pub(super) reader_counts: ReaderCounts,
    /// A heartbeat waits for the log.
    pub(super) is_heartbeat_proposed: bool,
    /// Until then, no other node has taken this process for dead.
    leased_until: Millis,
    /// Times from the append of the last records of this process until they came back.
    round_trips_ms: [u64; ROUND_TRIPS],
}

/// The shared part of the nodes, as a checkpoint or a snapshot has it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SavedNodes {
    /// Number of each node, and of its last record that was applied; position of the command by
    /// which it last got the sessions of another node, or 0.
    #[n(0)]
    nodes: Vec<(u64, u64, u64)>,
    #[n(1)]
    settings: Option<SharedSettings>,
    #[n(2)]
    has_begun: bool,
}

/// The nodes, as the successor of a process gets them.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SavedCluster {
    #[n(0)]
    nodes: SavedNodes,
    /// Number of the process.
    #[n(1)]
    own: u64,
    #[n(2)]
    log_time_ahead_ms: i64,
    #[n(3)]
    reader_counts: SavedReaderCounts,
}

impl SavedCluster {
    /// Number of the process.
    pub(super) fn own(&self) -> u64 {
        self.own
    }
}

/// A node that is dead for this process.
pub(super) struct DeadNode {
    pub(super) node: u64,
    /// Number of its last record that was applied.
    pub(super) sequence: u64,
}

impl Nodes {
    /// Makes the table of a process that is not in the cluster yet.
    pub(super) fn new(own: u64) -> Self {
        Self { own, ..Self::default() }
    }

    /// Number of this process.
    pub(super) fn own(&self) -> u64 {
        self.own
    }

    /// Gives this process another number, under which it is not in the cluster yet.
    pub(super) fn set_own(&mut self, own: u64) {
        (self.own, self.was_joined) = (own, false);
    }

    /// Returns whether other nodes took this process for dead.
    pub(super) fn was_buried(&self) -> bool {
        self.was_joined && !self.is_joined()
    }

    /// Returns whether this process is in the cluster.
    pub(super) fn is_joined(&self) -> bool {
        self.table.contains_key(&self.own)
    }

    /// Notes that a record of this process has come back, which was appended at this time.
    pub(super) fn note_round_trip(&mut self, appended: Millis, now: Millis) {
        self.leased_until = self.leased_until.max(appended.after(LEASE_MS));
        self.round_trips_ms.rotate_right(1);
        self.round_trips_ms[0] = now.0.saturating_sub(appended.0);
    }

    /// Returns the longest time that a record of this process has taken lately, in milliseconds.
    pub(super) fn round_trip_ms(&self) -> u64 {
        let longest = self.round_trips_ms.iter().copied().fold(0, u64::max);
        longest.min(ROUND_TRIP_MAX_MS)
    }

    /// Returns whether no other node can have taken this process for dead.
    pub(super) fn has_lease(&self, now: Millis) -> bool {
        now < self.leased_until
    }

    /// Returns whether the record that is being applied is of this process.
    pub(super) fn is_own_record(&self) -> bool {
        self.origin == self.own
    }

    /// Returns the numbers of the nodes.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.table.keys().copied().collect()
    }

    /// Returns the number of nodes.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Begins a record. Returns false if it has no effect: it came before.
    pub(super) fn begin_record(&mut self, node: u64, sequence: u64, times_ms: (u64, u64)) -> bool {
        let (mono_ms, unix_ms) = times_ms;
        let ahead_ms = unix_ms.wrapping_sub(mono_ms).cast_signed();
        self.log_time_ahead_ms = ahead_ms;
        (self.origin, self.sequence) = (node, sequence);
        let Some(node) = self.table.get_mut(&node) else { return true };
        node.unseen = 0;
        let is_new = sequence > node.sequence;
        node.sequence = node.sequence.max(sequence);
        is_new
    }

    /// Returns whether the node of the present record is in the cluster. Without that, it may only
    /// join.
    pub(super) fn is_origin_known(&self) -> bool {
        self.table.contains_key(&self.origin)
    }

    /// Returns the time of the log at which a record is there that has to wait for the present one
    /// to come back, in milliseconds since 1970. Both take as long as the last ones did.
    pub(super) fn next_record_ms(&self, mono_ms: u64) -> u64 {
        let both_ms = 2 * self.round_trip_ms();
        mono_ms.saturating_add_signed(self.log_time_ahead_ms).saturating_add(both_ms)
    }

    /// Returns the time of the log minus the monotonic time of this process, in milliseconds.
    pub(super) fn log_time_ahead_ms(&self) -> i64 {
        self.log_time_ahead_ms
    }

    /// Returns the position up to which all nodes have applied the log, as far as is known. 0 if
    /// one of them has not told its position.
    pub(super) fn applied_by_all(&self) -> u64 {
        let others = self.table.iter().filter(|(number, _)| **number != self.own);
        others.map(|(_, node)| node.position).min().unwrap_or(u64::MAX)
    }

    /// Notes the position that the heartbeat of the present record tells.
    pub(super) fn set_applied(&mut self, position: u64) {
        if let Some(node) = self.table.get_mut(&self.origin) {
            node.position = position;
        }
    }

    /// Returns the shared part, to be saved.
    pub(super) fn save(&self) -> SavedNodes {
        SavedNodes {
            nodes: (self.table.iter())
                .map(|(number, node)| (*number, node.sequence, node.inherited))
                .collect(),
            settings: self.settings,
            has_begun: self.has_begun,
        }
    }

    /// Returns all parts, to be saved for the successor of this process.
    pub(super) fn save_all(&self) -> SavedCluster {
        SavedCluster {
            nodes: self.save(),
            own: self.own,
            log_time_ahead_ms: self.log_time_ahead_ms(),
            reader_counts: self.reader_counts.save(),
        }
    }

    /// Makes the table of a process whose number is `own`, and whose clock is behind that of the
    /// log by `log_time_ahead_ms`, from the shared part.
    pub(super) fn restore(saved: SavedNodes, own: u64, log_time_ahead_ms: i64) -> Self {
        let with_shared = |(number, sequence, inherited)| {
            (number, Node { sequence, inherited, ..Node::default() })
        };
        Self {
            table: saved.nodes.into_iter().map(with_shared).collect(),
            settings: saved.settings,
            has_begun: saved.has_begun,
            log_time_ahead_ms,
            ..Self::new(own)
        }
    }

    /// Makes the table of a process that takes over from another one, under the same number.
    /// `saved_at` is the time at which that one was saved.
    pub(super) fn restore_all(saved: SavedCluster, saved_at: Millis) -> Self {
        let SavedCluster { nodes, own, log_time_ahead_ms, reader_counts } = saved;
        let mut restored = Self::restore(nodes, own, log_time_ahead_ms);
        restored.was_joined = restored.is_joined();
        restored.earliest_record = saved_at;
        restored.reader_counts = ReaderCounts::restore(reader_counts);
        restored
    }

    /// Adds the node of the present record. Returns the settings of the cluster if the node has
    /// others: then it is not added.
    pub(super) fn join(&mut self, settings: SharedSettings) -> Option<SharedSettings> {
        if let Some(shared) = self.settings
            && shared != settings
            && !self.table.is_empty()
        {
            return Some(shared);
        }
        self.settings = Some(settings);
        let sequence = self.sequence;
        self.was_joined |= self.is_own_record();
        self.reader_counts.mark_all();
        self.table.insert(self.origin, Node { sequence, ..Node::default() });
        None
    }

    /// Removes a node, if its last record is this one. The node of the present record holds its
    /// sessions from this position on. Returns whether it did.
    pub(super) fn bury(&mut self, node: u64, sequence: u64, position: u64) -> bool {
        let Some(found) = self.table.get_mut(&node) else { return false };
        if found.sequence != sequence {
            found.is_bury_proposed = false;
            return false;
        }
        self.table.remove(&node);
        self.reader_counts.forget(node);
        self.note_heir(self.origin, position);
        true
    }

    /// Removes the node of the present record, which stops. Returns the node that holds its
    /// sessions from this position on: `heir`, or another one if that is gone. Without another node
    /// it stays, since its sessions would have no holder: the next node buries it.
    pub(super) fn part(&mut self, heir: Option<u64>, position: u64) -> Option<u64> {
        let is_other = |number: &u64| *number != self.origin;
        let heir = heir
            .filter(|heir| is_other(heir) && self.table.contains_key(heir))
            .or_else(|| self.table.keys().copied().find(is_other))?;
        self.table.remove(&self.origin);
        self.reader_counts.forget(self.origin);
        self.note_heir(heir, position);
        Some(heir)
    }

    fn note_heir(&mut self, heir: u64, position: u64) {
        if let Some(node) = self.table.get_mut(&heir) {
            node.inherited = position;
        }
    }

    /// Returns the position of the command by which the node of the present record last got the
    /// sessions of another one; 0 if it never did.
    pub(super) fn inherited_position(&self) -> u64 {
        self.table.get(&self.origin).map_or(0, |node| node.inherited)
    }

    /// Returns another node that lives, if there is one: the one with the lowest number.
    pub(super) fn heir(&self) -> Option<u64> {
        let mut nodes = self.table.iter();
        nodes
            .find(|(number, node)| **number != self.own && node.unseen < 2)
            .map(|(number, _)| *number)
    }

    /// Counts an own heartbeat. Returns the nodes that are dead since.
    pub(super) fn count_heartbeat(&mut self) -> Vec<DeadNode> {
        let mut dead = Vec::new();
        for (number, node) in &mut self.table {
            if *number == self.own {
                continue;
            }
            node.unseen += 1;
            if node.unseen >= HEARTBEATS_UNTIL_DEATH && !node.is_bury_proposed {
                node.is_bury_proposed = true;
                dead.push(DeadNode { node: *number, sequence: node.sequence });
            }
        }
        dead
    }

    /// Forgets that burials wait for the log, which did not take them.
    pub(super) fn forget_burial(&mut self, node: u64) {
        if let Some(node) = self.table.get_mut(&node) {
            node.is_bury_proposed = false;
        }
    }

    /// Forgets a heartbeat that the log did not take, and what it told the other nodes.
    pub(super) fn forget_heartbeat(&mut self, readers: &[(&str, u32)]) {
        self.is_heartbeat_proposed = false;
        for (channel, _) in readers {
            self.reader_counts.mark_untold(channel);
        }
    }

    /// Notes the hash after the record at this position.
    pub(super) fn record_hash(&mut self, position: u64, hash: u64) {
        while self.hashes.pop_back_if(|(last, _)| *last >= position).is_some() {}
        self.hashes.push_back((position, hash));
        if self.hashes.len() > HASHES_KEPT {
            self.hashes.pop_front();
        }
    }

    /// Returns the hash after the record at this position, if it is known still.
    pub(super) fn hash_at(&self, position: u64) -> Option<u64> {
        let found = self.hashes.binary_search_by_key(&position, |(position, _)| *position);
        found.ok().map(|index| self.hashes[index].1)
    }

    /// Returns a hash of the nodes and of their last records.
    pub(super) fn shared_hash(&self) -> u64 {
        let nodes = self.table.iter();
        let hash = |number: u64, node: &Node| {
            mix(number, node.sequence).wrapping_add(mix(!number, node.inherited))
        };
        nodes.fold(0, |sum: u64, (number, node)| sum.wrapping_add(hash(*number, node)))
    }

    /// Compares the hash of another node at a position. If this process has another one, the two
    /// have different states.
    pub(super) fn compare_hash(&mut self, position: u64, hash: u64) {
        self.has_diverged |= self.hash_at(position).is_some_and(|own| own != hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: SharedSettings =
        SharedSettings { history: 100, retention_ms: 1, session_timeout_ms: 5 };

    /// Two nodes, 1 and 2; this process is 1.
    fn two_nodes() -> Nodes {
        let mut nodes = Nodes::new(1);
        for node in [1, 2] {
            assert!(nodes.begin_record(node, 1, (0, 0)));
            assert!(!nodes.is_origin_known());
            assert!(nodes.join(SETTINGS).is_none());
        }
        nodes
    }

    #[test]
    fn a_record_that_comes_twice_has_no_effect() {
        let mut nodes = two_nodes();
        assert!(nodes.begin_record(2, 2, (0, 0)));
        assert!(!nodes.begin_record(2, 2, (0, 0)));
        assert!(!nodes.begin_record(2, 1, (0, 0)));
        assert!(nodes.begin_record(2, 3, (0, 0)));
    }

    #[test]
    fn a_node_is_dead_after_six_heartbeats_of_another_one_without_a_record() {
        let mut nodes = two_nodes();
        for _ in 0..5 {
            assert!(nodes.count_heartbeat().is_empty());
        }
        nodes.begin_record(2, 2, (0, 0));
        for _ in 0..5 {
            assert!(nodes.count_heartbeat().is_empty());
        }
        let dead = nodes.count_heartbeat();
        assert_eq!((dead.len(), dead[0].node, dead[0].sequence), (1, 2, 2));
        assert!(nodes.count_heartbeat().is_empty(), "it is proposed once");
        nodes.forget_burial(2);
        assert_eq!(nodes.count_heartbeat().len(), 1);
    }

    #[test]
    fn a_burial_is_void_if_a_record_of_the_node_came_first() {
        let mut nodes = two_nodes();
        nodes.begin_record(2, 2, (0, 0));
        assert!(!nodes.bury(2, 1, 7));
        assert!(nodes.bury(2, 2, 7));
        assert!(!nodes.bury(2, 2, 7));
        assert_eq!(nodes.len(), 1);
    }

    #[test]
    fn a_node_with_other_settings_does_not_join() {
        let mut nodes = two_nodes();
        nodes.begin_record(3, 1, (0, 0));
        let other = SharedSettings { history: 7, ..SETTINGS };
        assert!(nodes.join(other) == Some(SETTINGS));
        assert!(!nodes.is_origin_known());
    }

    #[test]
    fn a_different_hash_at_an_equal_position_is_noticed() {
        let mut nodes = two_nodes();
        nodes.record_hash(7, 1);
        nodes.compare_hash(7, 1);
        nodes.compare_hash(8, 2);
        assert!(!nodes.has_diverged);
        nodes.compare_hash(7, 2);
        assert!(nodes.has_diverged);
    }
}
