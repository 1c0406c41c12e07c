//! The ledger's memory of one channel.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::message::{Kind, digest};
use crate::text::Text;

/// Ids of a channel that are remembered: many times what a server retains.
const WINDOW: usize = 1_500;

/// Message that a response promised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answered {
    pub(crate) kind: Kind,
    pub(crate) from: Option<u64>,
    /// Of the text.
    pub(crate) digest: u64,
    pub(crate) text: Option<Text>,
}

impl Answered {
    /// Returns whether it may be what a removal has left.
    pub(crate) fn is_blank(&self) -> bool {
        let is_blank = self.kind == Kind::Introduction && self.digest == digest("");
        self.kind == Kind::Removed || is_blank
    }
}

/// A message that was seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) content: Answered,
    pub(crate) time: u64,
    /// Of all of it.
    pub(crate) digest: u64,
    /// A response named this id.
    pub(crate) is_answered: bool,
    /// The message was made between these times of the ledger's clock.
    pub(crate) made: (u64, u64),
}

/// A member by its newest introduction.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub id: u64,
    pub text: Option<Text>,
}

#[derive(Default)]
pub struct Channel {
    /// Number of ids before the first of `entries`, which begin with 1.
    pub(crate) forgotten: u64,
    pub(crate) entries: VecDeque<Option<Entry>>,
    /// Number of ids that were judged, or that no reader will see.
    pub judged: u64,
    /// Messages that responses promised and no reader has seen yet.
    pub(crate) answered: BTreeMap<u64, Answered>,
    /// Members, as far as it is judged.
    pub members: BTreeMap<u64, Member>,
    /// Sessions that left after the last gap.
    pub(crate) gone: BTreeSet<u64>,
    /// Last text of each sender.
    pub(crate) last_seqs: HashMap<u32, u32>,
    /// Ids were missed by all readers: its members are not known.
    pub has_gaps: bool,
    /// One answer may not contain all that is retained.
    pub is_large: bool,
}

impl Channel {
    fn index(&self, id: u64) -> Option<usize> {
        id.checked_sub(self.forgotten + 1).map(|index| index as usize)
    }

    pub(crate) fn entry(&self, id: u64) -> Option<&Entry> {
        self.entries.get(self.index(id)?)?.as_ref()
    }

    pub(crate) fn entry_mut(&mut self, id: u64) -> Option<&mut Entry> {
        let index = self.index(id)?;
        self.entries.get_mut(index)?.as_mut()
    }

    pub(crate) fn put(&mut self, id: u64, entry: Entry) {
        let Some(index) = self.index(id) else { return };
        if index >= self.entries.len() {
            self.entries.resize(index + 1, None);
        }
        self.entries[index] = Some(entry);
    }

    /// Returns the highest id that a reader saw, or 0.
    pub fn last_seen_id(&self) -> u64 {
        self.forgotten + self.entries.len() as u64
    }

    pub(crate) fn trim(&mut self) {
        while self.entries.len() > WINDOW && self.forgotten < self.judged {
            self.entries.pop_front();
            self.forgotten += 1;
        }
    }
}
