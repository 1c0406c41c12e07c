//! Reads of the model: what is asked, and what is pending.

use speak::hub::Since;

use super::message::Answer;

/// Number and secret of a session, as a call shows them.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) session: u64,
    pub(crate) auth: String,
}

/// A `/read`.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub(crate) client: u64,
    pub(crate) follows: Vec<(usize, Since)>,
    pub(crate) epoch: Option<String>,
    pub(crate) shown: Option<Identity>,
    /// Time that its session survives its closing, as far as the call says.
    pub(crate) grace_ms: Option<u64>,
    pub(crate) wait: Wait,
}

/// Longest duration of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Not,
    /// A long poll, in milliseconds.
    Ms(u64),
    /// A stream.
    On,
}

/// Outcome of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answer(Answer),
    Pends,
    /// A stream, with its first answer.
    Streams(Answer),
}

/// A pending `/read`.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) client: u64,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) session: Option<u64>,
    /// Time that the session survives its closing.
    pub(super) grace_ms: u64,
    /// Time of its end. `None` for a stream.
    pub(super) until_ms: Option<u64>,
    /// Its session ended: it is answered by the end of this turn.
    pub(super) is_orphan: bool,
    /// The server ends it by the end of this turn, and its session stays.
    pub(super) is_ending: bool,
    pub(super) is_stream: bool,
    /// A stream that was not sent all, and gets nothing more before it resumes.
    pub(super) is_paused: bool,
}

pub(super) struct Subscription {
    pub(super) channel: usize,
    pub(super) since: Since,
    /// Next id when it began to wait; of a stream, the first id that it was not sent.
    pub(super) cursor: u64,
}

impl Read {
    /// Returns the channels in the order asked.
    pub(super) fn channels(&self) -> Vec<usize> {
        self.follows.iter().map(|(channel, _)| *channel).collect()
    }
}

impl Pending {
    pub(super) fn new(ask: &Read, session: Option<u64>) -> Self {
        let its = |&(channel, since): &(usize, Since)| Subscription { channel, since, cursor: 0 };
        Self {
            client: ask.client,
            subscriptions: ask.follows.iter().map(its).collect(),
            session,
            grace_ms: ask.grace_ms.unwrap_or(0),
            ..Self::default()
        }
    }

    /// Returns the channels sorted, to compare two sets.
    pub(super) fn channels(&self) -> Vec<usize> {
        let mut channels: Vec<_> = self.subscriptions.iter().map(|its| its.channel).collect();
        channels.sort_unstable();
        channels
    }
}
