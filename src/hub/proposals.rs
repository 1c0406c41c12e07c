//! Commands that wait for their place in a log, and the response of the log.

use minicbor::Decoder;

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

    /// Moves the first `max` commands, or all if there are fewer, to `to`, which must be empty. The
    /// first one that makes them have `max_bytes` is the last. Costs O(1) if all are moved.
    pub(super) fn move_first(&mut self, max: u32, max_bytes: usize, to: &mut Self) {
        if self.count <= max && self.bytes.len() <= max_bytes {
            return std::mem::swap(self, to);
        }
        let mut decoder = Decoder::new(&self.bytes);
        let mut count = 0;
        while count < max.min(self.count) && decoder.position() < max_bytes {
            decoder.skip().expect("this process has encoded it");
            count += 1;
        }
        let end = decoder.position();
        to.bytes.extend(self.bytes.drain(..end));
        to.count = count;
        self.count -= count;
    }

    /// Adds a command.
    pub(super) fn push(&mut self, command: &Command<'_>) {
        minicbor::encode(command, &mut self.bytes).expect("a Vec takes all bytes");
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_commands_are_moved_and_the_others_stay() {
        let mut proposals = Proposals::default();
        for next_id in 1..=5 {
            proposals.push(&Command::DropChannel { channel: "c", next_id });
        }
        let ids = |proposals: &Proposals| {
            let mut decoder = Decoder::new(proposals.bytes());
            let ids = (0..proposals.count()).map(|_| match decoder.decode().unwrap() {
                Command::DropChannel { next_id, .. } => next_id,
                _ => unreachable!("only these were pushed"),
            });
            let ids: Vec<_> = ids.collect();
            assert_eq!(decoder.position(), proposals.bytes().len());
            ids
        };
        for (expected, left) in [(&[1, 2][..], 3), (&[3, 4], 1), (&[5], 0), (&[], 0)] {
            let mut first = Proposals::default();
            proposals.move_first(2, usize::MAX, &mut first);
            assert_eq!((ids(&first), proposals.count()), (expected.to_vec(), left));
        }
        for next_id in 1..=5 {
            proposals.push(&Command::DropChannel { channel: "c", next_id });
        }
        let bytes = proposals.bytes().len() / 5;
        for (expected, left) in [(&[1, 2][..], 3), (&[3, 4], 1), (&[5], 0)] {
            let mut first = Proposals::default();
            proposals.move_first(u32::MAX, bytes + 1, &mut first);
            assert_eq!((ids(&first), proposals.count()), (expected.to_vec(), left));
        }
    }
}
