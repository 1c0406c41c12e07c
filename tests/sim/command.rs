//! Commands of the model and their results.

use speak::hub::Reason;

/// A command, as a record of the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Begin,
    Write { channel: usize, from: Option<u64>, is_owner: bool, text: String },
    Introduce { channel: usize, session: Introducing, by: Introducer, text: String },
    Leave { channel: usize, session: u64, text: Option<String> },
    End { session: u64, reason: Reason, text: Option<String> },
    Drop { channel: usize, next_id: u64 },
    Remove { channel: usize, id: u64 },
    Kick { channel: usize, session: u64, seconds: u32, text: Option<String> },
}

/// What is known of the client that introduces a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Introducer {
    pub(crate) is_owner: bool,
    pub(crate) address: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Introducing {
    /// With this secret.
    New(String),
    Existing(u64),
}

/// Result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    Written(u64),
    Introduced { session: u64, auth: String, id: u64 },
    Gone,
    Nothing,
}

impl Applied {
    /// Returns the id of the message that the command added.
    pub(crate) fn id(&self) -> Option<u64> {
        match self {
            Self::Written(id) | Self::Introduced { id, .. } => Some(*id),
            Self::Gone | Self::Nothing => None,
        }
    }
}
