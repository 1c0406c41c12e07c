//! The log of a run: its records and checkpoints.

use std::collections::BTreeSet;

use speak::hub::{self, Command as HubCommand, Now};

use support::random::Random;

use super::command::Applied;
use super::machine::{Entry, Machine};

/// A position in the log has as many bits for the command in its record.
const INDEX_BITS: u32 = 20;

/// When a run applies its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logging {
    /// There is no log.
    None,
    /// After each call.
    AtOnce,
    /// At the end of the turn.
    AtTheEnd,
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) records: Vec<LogRecord>,
    /// Checkpoint that is being saved.
    pub(crate) begun: Option<Checkpoint>,
    /// The newest complete checkpoint.
    pub(crate) complete: Option<Checkpoint>,
    /// Names that were dropped since the checkpoint began.
    pub(crate) dropped: BTreeSet<usize>,
    /// The same log on a disk.
    pub(crate) machine: Option<Machine>,
    /// The hash of the hub is that of all records since the log or a checkpoint began.
    pub(crate) is_hashed: bool,
}

pub(crate) struct LogRecord {
    pub(crate) now: Now,
    pub(crate) commands: Vec<u8>,
    /// Hash of the hub after the record. `None` if the process died before.
    pub(crate) hash: Option<u64>,
}

pub(crate) fn entry(now: Now, commands: &[u8]) -> Entry {
    Entry { mono_ms: now.mono.0, unix_ms: now.unix_ms, commands: commands.to_owned() }
}

#[derive(Clone, Default)]
pub(crate) struct Checkpoint {
    pub(crate) pieces: Vec<Vec<u8>>,
    /// Number of records when it began.
    pub(crate) from: usize,
    /// Number of records when it was complete: recovery needs all of these.
    pub(crate) until: usize,
}

pub(crate) fn position(record: usize, index: u32) -> u64 {
    ((record as u64 + 1) << INDEX_BITS) + u64::from(index)
}

pub(crate) fn decode(proposals: &[u8]) -> Vec<HubCommand<'_>> {
    let mut decoder = minicbor::Decoder::new(proposals);
    let mut commands = Vec::new();
    while decoder.position() < proposals.len() {
        commands.push(decoder.decode().expect("the hub has encoded it"));
    }
    commands
}

impl Logging {
    pub(crate) fn draw(random: &mut Random) -> Self {
        random.pick(&[Self::None, Self::None, Self::AtOnce, Self::AtTheEnd])
    }
}

pub(crate) fn applied(result: hub::Applied) -> Applied {
    match result {
        hub::Applied::Written(id) => Applied::Written(id),
        hub::Applied::Introduced(introduced) => Applied::Introduced {
            session: introduced.session,
            auth: introduced.auth.reveal().to_owned(),
            id: introduced.id,
        },
        hub::Applied::Gone => Applied::Gone,
        hub::Applied::Nothing => Applied::Nothing,
        hub::Applied::Mismatch(_) => unreachable!("there is no cluster"),
    }
}
