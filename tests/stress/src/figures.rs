//! Figures of a run.

use std::collections::BTreeMap;
use std::time::Duration;

/// Standstill of the server, as its clients see it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Pauses {
    /// Longest time in which no call was answered.
    pub(crate) all: Duration,
    /// Longest time that a call took.
    pub(crate) one: Duration,
}

/// Resident memory of the server, in bytes.
#[derive(Default, Clone, Copy)]
pub(crate) struct Memory {
    /// With full histories, and no users.
    pub(crate) before: u64,
    pub(crate) peak: u64,
    /// At the last rest.
    pub(crate) after: u64,
    /// Largest growth from a rest to a later one of the same server.
    pub(crate) growth: f64,
}

#[derive(Default)]
pub(crate) struct Figures {
    /// Events by name.
    pub(crate) counts: BTreeMap<&'static str, u64>,
    /// Outside of upgrades, and during them.
    pub(crate) pauses: [Pauses; 2],
    pub(crate) memory: Memory,
    /// Longest time until a server with a journal was there again.
    pub(crate) longest_recovery: Duration,
    pub(crate) users_most: u64,
    pub(crate) clients_most: u64,
    /// CPU time of all servers, and the part of it that the present one used.
    pub(crate) cpu_ns: u64,
    pub(crate) cpu_counted_ns: u64,
}

impl Figures {
    pub(crate) fn add(&mut self, what: &'static str, count: u64) {
        *self.counts.entry(what).or_default() += count;
    }
}
