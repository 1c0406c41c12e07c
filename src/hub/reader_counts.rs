//! Numbers of readers at the other nodes, for `/members`. Local state: nothing depends on it.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

/// Channels in one heartbeat. The next one has the others.
const CHANGES_MAX: usize = 1024;

/// Memory of a channel in one of the tables, without its name. An estimate.
const ENTRY_BYTES: usize = 96;

/// In `sent`, a number that at least one node does not know. No channel has so many readers.
const UNKNOWN: u32 = u32::MAX;

/// Readers of each channel, at this node as the others know it, and at the others.
///
/// The tables are ordered, so that the table of channels alone hashes names: its hash is inlined
/// then, which saves each call some 20 instructions.
#[derive(Default)]
pub(super) struct ReaderCounts {
    /// Channels with another number than that in `sent`, perhaps.
    changed: BTreeSet<Box<str>>,
    /// Numbers that the other nodes were told. Without those that are 0.
    sent: BTreeMap<Box<str>, u32>,
    /// Nodes with readers of a channel.
    others: BTreeMap<Box<str>, Vec<(u64, u32)>>,
    name_bytes: usize,
}

/// Numbers of readers, as the successor of a process gets them.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct SavedReaderCounts {
    #[n(0)]
    sent: Vec<(Box<str>, u32)>,
    #[n(1)]
    others: Vec<ReadersElsewhere>,
}

/// A channel, and the nodes with readers of it.
type ReadersElsewhere = (Box<str>, Vec<(u64, u32)>);

impl ReaderCounts {
    /// Returns the tables, to be saved.
    pub(super) fn save(&self) -> SavedReaderCounts {
        SavedReaderCounts {
            sent: self.sent.iter().map(|(name, count)| (name.clone(), *count)).collect(),
            others: self.others.iter().map(|(name, nodes)| (name.clone(), nodes.clone())).collect(),
        }
    }

    /// Makes the tables of a process that has no readers yet.
    pub(super) fn restore(saved: SavedReaderCounts) -> Self {
        let mut restored = Self::default();
        for (name, count) in saved.sent {
            restored.mark(&name);
            restored.name_bytes += name.len();
            restored.sent.insert(name, count);
        }
        for (name, nodes) in saved.others {
            restored.name_bytes += name.len();
            restored.others.insert(name, nodes);
        }
        restored
    }

    /// Notes that the number of a channel's readers has changed here.
    pub(super) fn mark(&mut self, channel: &str) {
        if !self.changed.contains(channel) {
            self.name_bytes += channel.len();
            self.changed.insert(channel.into());
        }
    }

    /// Makes the next changes include all numbers that the other nodes were told, even those that
    /// have become 0 since: there is a node that knows none.
    pub(super) fn mark_all(&mut self) {
        for (name, count) in &mut self.sent {
            *count = UNKNOWN;
            if self.changed.insert(name.clone()) {
                self.name_bytes += name.len();
            }
        }
    }

    /// Makes the next changes include the number of a channel, which no node was told.
    pub(super) fn mark_untold(&mut self, channel: &str) {
        if self.sent.insert(channel.into(), UNKNOWN).is_none() {
            self.name_bytes += channel.len();
        }
        self.mark(channel);
    }

    /// Returns channels whose number is another one than the other nodes know. `count` returns the
    /// number, and is called for each channel that is no longer marked.
    pub(super) fn take_changes(
        &mut self,
        mut count: impl FnMut(&str) -> u32,
    ) -> Vec<(Box<str>, u32)> {
        let names: Vec<_> = self.changed.iter().take(CHANGES_MAX).cloned().collect();
        let mut changes = Vec::new();
        for name in names {
            self.changed.remove(&name);
            self.name_bytes -= name.len();
            let now = count(&name);
            if self.sent.get(&name).copied().unwrap_or(0) == now {
                continue;
            }
            if now == 0 {
                self.name_bytes -= name.len();
                self.sent.remove(&name);
            } else if self.sent.insert(name.clone(), now).is_none() {
                self.name_bytes += name.len();
            }
            changes.push((name, now));
        }
        changes
    }

    /// Sets the number of readers of a channel at another node.
    pub(super) fn set(&mut self, node: u64, channel: &str, count: u32) {
        if count > 0 && !self.others.contains_key(channel) {
            self.name_bytes += channel.len();
            self.others.insert(channel.into(), Vec::new());
        }
        let Some(nodes) = self.others.get_mut(channel) else { return };
        nodes.retain(|(other, _)| *other != node);
        if count > 0 {
            nodes.push((node, count));
        } else if nodes.is_empty() {
            self.name_bytes -= channel.len();
            self.others.remove(channel);
        }
    }

    /// Forgets the readers at a node that is gone. Costs O(channels with readers elsewhere).
    pub(super) fn forget(&mut self, node: u64) {
        let name_bytes = &mut self.name_bytes;
        self.others.retain(|name, nodes| {
            nodes.retain(|(other, _)| *other != node);
            if nodes.is_empty() {
                *name_bytes -= name.len();
            }
            !nodes.is_empty()
        });
    }

    /// Returns the number of readers of a channel at the other nodes.
    pub(super) fn elsewhere(&self, channel: &str) -> usize {
        let nodes = self.others.get(channel).map(Vec::as_slice).unwrap_or_default();
        nodes.iter().fold(0, |sum: usize, (_, count)| sum.saturating_add(*count as usize))
    }

    /// Returns the memory of the tables, in bytes.
    pub(super) fn memory(&self) -> usize {
        let entries = self.changed.len() + self.sent.len() + self.others.len();
        entries * ENTRY_BYTES + self.name_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u32; 0] = [];

    #[test]
    fn only_numbers_that_the_others_do_not_know_are_changes() {
        let mut counts = ReaderCounts::default();
        let changes = |counts: &mut ReaderCounts, now: u32| {
            let changes = counts.take_changes(|_| now);
            changes.into_iter().map(|(_, count)| count).collect::<Vec<_>>()
        };
        counts.mark("c");
        assert_eq!(changes(&mut counts, 2), [2]);
        counts.mark("c");
        assert_eq!(changes(&mut counts, 2), NONE);
        counts.mark_all();
        assert_eq!(changes(&mut counts, 2), [2]);
        counts.mark("c");
        assert_eq!(changes(&mut counts, 0), [0]);
        counts.mark_all();
        assert_eq!(changes(&mut counts, 0), NONE);
        counts.mark("c");
        assert_eq!(changes(&mut counts, 3), [3]);
        counts.mark_all();
        assert_eq!(changes(&mut counts, 0), [0], "they were told 3");
        counts.mark_untold("c");
        assert_eq!(changes(&mut counts, 0), [0], "they were not told 0");
        assert_eq!(counts.memory(), 0);
    }

    #[test]
    fn the_others_learn_that_the_readers_of_a_predecessor_are_gone() {
        let mut counts = ReaderCounts::default();
        counts.mark("c");
        counts.take_changes(|_| 2);
        counts.set(1, "d", 3);
        let mut restored = ReaderCounts::restore(counts.save());
        assert_eq!(restored.elsewhere("d"), 3);
        assert_eq!(restored.take_changes(|_| 0), [("c".into(), 0)]);
        restored.forget(1);
        assert_eq!(restored.memory(), 0);
    }

    #[test]
    fn readers_of_all_other_nodes_are_added() {
        let mut counts = ReaderCounts::default();
        counts.set(1, "c", 2);
        counts.set(2, "c", 3);
        counts.set(1, "c", 4);
        counts.set(2, "d", 1);
        assert_eq!(
            (counts.elsewhere("c"), counts.elsewhere("d"), counts.elsewhere("e")),
            (7, 1, 0)
        );
        counts.forget(2);
        counts.set(1, "e", 0);
        assert_eq!((counts.elsewhere("c"), counts.elsewhere("d")), (4, 0));
        counts.set(1, "c", 0);
        assert_eq!(counts.memory(), 0);
    }
}
