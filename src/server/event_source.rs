//! Tokens of the poll: which of the server's files an event belongs to.

use mio::Token;

use crate::hub::Key;

const SIGNALS: Token = Token(usize::MAX - 1);
const TIMER: Token = Token(usize::MAX - 2);
const PREDECESSOR: Token = Token(usize::MAX - 3);
const SUCCESSOR: Token = Token(usize::MAX - 4);
const JOURNAL: Token = Token(usize::MAX - 5);
const COMMIT_DELAY: Token = Token(usize::MAX - 6);
const CLUSTER_COMMANDS: Token = Token(usize::MAX - 7);
const CLUSTER_FOLLOWER: Token = Token(usize::MAX - 8);
/// Bits of a client's token for its index. The others have the end of its generation: all of it on
/// a machine of 64 bits, 12 bits on one of 32.
const INDEX_BITS: u32 = if usize::BITS == 64 { 32 } else { 20 };
pub(super) const GENERATION_BITS: u32 = usize::BITS - INDEX_BITS;
/// Clients that have tokens of their own, with as many again to spare for rejected ones.
pub(super) const CLIENTS_MAX: usize = 1 << (INDEX_BITS - 1);

/// Token of the first listener; the others count down from here.
const FIRST_LISTENER: usize = usize::MAX - 9;

/// File that an event of the poll belongs to.
///
/// The highest tokens are the server's own. A client's token is its key, made of an index and a
/// generation, and the index never gets that high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventSource {
    /// Self-pipe of the signal handlers.
    Signals,
    /// The timer file.
    Timer,
    /// Upgrade socket to the predecessor.
    Predecessor,
    /// Upgrade socket to the successor.
    Successor,
    /// Waker of the journal's helper thread.
    Journal,
    /// Timer of the delay of a record.
    CommitDelay,
    /// Connection to Redis for commands.
    ClusterCommands,
    /// Connection to Redis that waits for records.
    ClusterFollower,
    /// Listener, by its index.
    Listener(usize),
    /// Client, by its key. The key of an event has only [`GENERATION_BITS`] of its generation.
    Client(Key),
}

impl EventSource {
    /// Token to register the file with.
    pub(super) fn token(self) -> Token {
        match self {
            Self::Signals => SIGNALS,
            Self::Timer => TIMER,
            Self::Predecessor => PREDECESSOR,
            Self::Successor => SUCCESSOR,
            Self::Journal => JOURNAL,
            Self::CommitDelay => COMMIT_DELAY,
            Self::ClusterCommands => CLUSTER_COMMANDS,
            Self::ClusterFollower => CLUSTER_FOLLOWER,
            Self::Listener(index) => Token(FIRST_LISTENER - index),
            Self::Client(key) => {
                let generation = (key.to_bits() >> 32) as usize;
                Token(generation << INDEX_BITS | key.index as usize)
            }
        }
    }

    /// Source of an event with this token, of a server with `listener_count` listeners.
    pub(super) fn from_token(token: Token, listener_count: usize) -> Self {
        match token {
            SIGNALS => Self::Signals,
            TIMER => Self::Timer,
            PREDECESSOR => Self::Predecessor,
            SUCCESSOR => Self::Successor,
            JOURNAL => Self::Journal,
            COMMIT_DELAY => Self::CommitDelay,
            CLUSTER_COMMANDS => Self::ClusterCommands,
            CLUSTER_FOLLOWER => Self::ClusterFollower,
            Token(token) if token > FIRST_LISTENER - listener_count && token <= FIRST_LISTENER => {
                Self::Listener(FIRST_LISTENER - token)
            }
            Token(token) => {
                let token = token as u64;
                let index = token & ((1 << INDEX_BITS) - 1);
                Self::Client(Key::from_bits(token >> INDEX_BITS << 32 | index))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_a_token_of_its_own() {
        let generation = u64::from(u32::MAX) >> (u32::BITS - GENERATION_BITS);
        let client = Key::from_bits(generation << 32 | 7);
        let sources = [
            EventSource::Signals,
            EventSource::Timer,
            EventSource::Predecessor,
            EventSource::Successor,
            EventSource::Journal,
            EventSource::CommitDelay,
            EventSource::ClusterCommands,
            EventSource::ClusterFollower,
            EventSource::Listener(0),
            EventSource::Listener(1),
            EventSource::Client(client),
            EventSource::Client(Key::from_bits(CLIENTS_MAX as u64)),
        ];
        for source in sources {
            assert_eq!(EventSource::from_token(source.token(), 2), source);
        }
    }
}
