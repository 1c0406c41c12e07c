//! Commands that wait for their place in a log, and the response of the log.

use super::command::Command;

/// Response of the log, as far as the hub depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogHealth {
    /// It takes records as usual, or there is no log.
    #[default]
    Good,
    /// No session times out: a client that waits for the log is not silent.
    Slow,
    /// Also, calls that would change something fail.
    Stalled,
}

/// Commands in CBOR, one after the other.
#[derive(Default)]
pub struct Proposals {
    bytes: Vec<u8>,
    count: u32,
}

impl Proposals {
    /// Makes the commands of another process, whose number is unknown.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes, count: 0 }
    }

    /// Returns the CBOR.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of commands.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Removes the commands, and keeps the memory for the next ones unless it is large.
    pub fn clear(&mut self) {
        const KEEP_BYTES: usize = 64 * 1024;
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_BYTES);
        self.count = 0;
    }

    /// Adds a command.
    pub(super) fn push(&mut self, command: &Command<'_>) {
        minicbor::encode(command, &mut self.bytes).expect("a Vec takes all bytes");
        self.count += 1;
    }
}
