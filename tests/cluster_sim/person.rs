//! A session with its credentials, as its clients know it.

use std::collections::BTreeSet;

pub(crate) struct Person {
    pub(crate) number: u64,
    pub(crate) auth: String,
    /// Channels in which its introduction was answered, and from which it is not about to go.
    pub(crate) channels: BTreeSet<usize>,
    /// Channels to which its goodbye was answered, and no later introduction was sent.
    pub(crate) left: BTreeSet<usize>,
    /// Channels of which its clients do not know whether it is a member.
    pub(crate) unsure: BTreeSet<usize>,
    /// A goodbye was sent, or a client closed that waited with it.
    pub(crate) may_end: bool,
    /// Its goodbye was answered, or a call said that it has ended.
    pub(crate) has_ended: bool,
    /// Its next calls, all of them if false, are made no more: it falls silent.
    pub(crate) is_silent: bool,
    /// Time of its last answered call that counts.
    pub(crate) heard_at: u64,
    /// Number and time of its polls.
    pub(crate) polls: Vec<(u64, u64)>,
}

impl Person {
    pub(crate) fn new(number: u64, auth: &str) -> Self {
        Self {
            number,
            auth: auth.to_owned(),
            channels: BTreeSet::new(),
            left: BTreeSet::new(),
            unsure: BTreeSet::new(),
            may_end: false,
            has_ended: false,
            is_silent: false,
            heard_at: 0,
            polls: Vec::new(),
        }
    }
}
