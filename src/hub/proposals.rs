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
///
/// A write that this process proposes is also kept as it was proposed: it is applied without being
/// decoded again. Its CBOR says the same, for the log and for all other processes.
#[derive(Default)]
pub struct Proposals {
    bytes: Vec<u8>,
    count: u32,
    /// Writes in their order, with their names and texts one after the other.
    writes: Vec<KeptWrite>,
    texts: String,
}

/// A write that was proposed.
struct KeptWrite {
    /// Number of commands before it.
    index: u32,
    hint: WriteHint,
    from: Option<u64>,
    is_owner: bool,
    /// Lengths in bytes, of the name and the text in `texts` and of the CBOR.
    name: u32,
    text: u32,
    encoded: u32,
}

/// Place among the commands of [`Proposals`], at first before all of them.
#[derive(Clone, Copy, Default)]
pub struct ProposalCursor {
    index: u32,
    /// Lengths of the CBOR, of the writes and of their texts before this place.
    bytes: usize,
    writes: usize,
    texts: usize,
}

/// One of the commands of [`Proposals`].
pub struct Proposal<'a> {
    /// The command.
    pub command: Command<'a>,
    /// For a write that this process has proposed.
    pub(super) hint: Option<WriteHint>,
}

/// What is known of a write since this process has proposed it. It spares work, and changes no
/// result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WriteHint {
    /// Index of the channel that had the name. The name decides: this channel may be gone.
    pub(super) channel: u32,
    /// The text is the contents of a JSON string as it is.
    pub(super) is_plain: bool,
}

impl Proposals {
    /// Takes commands of another process, whose number is unknown. There must be no others.
    pub fn fill(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
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

    /// Returns the memory of the commands, in bytes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.texts.len() + self.writes.len() * size_of::<KeptWrite>()
    }

    /// Returns the command at a place, and moves the place after it. `None` at the end.
    ///
    /// # Errors
    ///
    /// [`minicbor::decode::Error`] if the bytes of another process are no command.
    #[inline]
    pub fn next<'a>(
        &'a self,
        at: &mut ProposalCursor,
    ) -> Result<Option<Proposal<'a>>, minicbor::decode::Error> {
        match self.writes.get(at.writes).filter(|write| write.index == at.index) {
            Some(write) => Ok(Some(self.next_write(write, at))),
            None if self.is_end(at) => Ok(None),
            None => self.decode(at).map(Some),
        }
    }

    fn next_write(&self, write: &KeptWrite, at: &mut ProposalCursor) -> Proposal<'_> {
        let text_at = at.texts + write.name as usize;
        let end = text_at + write.text as usize;
        let (channel, text) = (&self.texts[at.texts..text_at], &self.texts[text_at..end]);
        *at = ProposalCursor {
            index: at.index + 1,
            bytes: at.bytes + write.encoded as usize,
            writes: at.writes + 1,
            texts: end,
        };
        let command = Command::Write {
            channel,
            from: write.from,
            text,
            is_owner: write.is_owner.then_some(true),
        };
        Proposal { command, hint: Some(write.hint) }
    }

    #[inline(never)]
    fn decode(&self, at: &mut ProposalCursor) -> Result<Proposal<'_>, minicbor::decode::Error> {
        let mut decoder = Decoder::new(&self.bytes);
        decoder.set_position(at.bytes);
        let command = decoder.decode()?;
        at.index += 1;
        at.bytes = decoder.position();
        Ok(Proposal { command, hint: None })
    }

    /// Returns whether a place is after all commands.
    #[inline]
    #[must_use]
    pub fn is_end(&self, at: &ProposalCursor) -> bool {
        at.bytes == self.bytes.len()
    }

    /// Removes the commands, and keeps the memory for the next ones unless it is large.
    pub fn clear(&mut self) {
        const KEEP_BYTES: usize = 64 * 1024;
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_BYTES);
        self.texts.clear();
        self.texts.shrink_to(KEEP_BYTES);
        self.writes.clear();
        self.writes.shrink_to(KEEP_BYTES / size_of::<KeptWrite>());
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
        let writes = self.writes.partition_point(|write| write.index < count);
        to.writes.extend(self.writes.drain(..writes));
        let texts: usize = to.writes.iter().map(|it| it.name as usize + it.text as usize).sum();
        to.texts.extend(self.texts.drain(..texts));
        for write in &mut self.writes {
            write.index -= count;
        }
    }

    /// Adds a command.
    pub(super) fn push(&mut self, command: &Command<'_>) {
        minicbor::encode(command, &mut self.bytes).expect("a Vec takes all bytes");
        self.count += 1;
    }

    /// Adds a write.
    pub(super) fn push_write(
        &mut self,
        hint: WriteHint,
        channel: &str,
        from: Option<u64>,
        is_owner: bool,
        text: &str,
    ) {
        let before = self.bytes.len();
        self.push(&Command::Write { channel, from, text, is_owner: is_owner.then_some(true) });
        self.texts.push_str(channel);
        self.texts.push_str(text);
        self.writes.push(KeptWrite {
            index: self.count - 1,
            hint,
            from,
            is_owner,
            name: channel.len() as u32,
            text: text.len() as u32,
            encoded: (self.bytes.len() - before) as u32,
        });
    }
}

impl ProposalCursor {
    /// Returns the number of commands before this place.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A write with these parts, or a command that is not kept.
    #[derive(Clone, Debug)]
    enum Proposed {
        Write { hint: WriteHint, name: String, from: Option<u64>, is_owner: bool, text: String },
        Other { next_id: u64 },
    }

    impl Proposed {
        fn strategy() -> impl Strategy<Value = Self> {
            let hint = (any::<u32>(), any::<bool>());
            let hint = hint.prop_map(|(channel, is_plain)| WriteHint { channel, is_plain });
            let write = (hint, "\\PC{1,40}", any::<Option<u64>>(), any::<bool>(), any::<String>());
            let write = write.prop_map(|(hint, name, from, is_owner, text)| Self::Write {
                hint,
                name,
                from,
                is_owner,
                text,
            });
            prop_oneof![3 => write, 1 => any::<u64>().prop_map(|next_id| Self::Other { next_id })]
        }

        fn command(&self) -> Command<'_> {
            match self {
                Self::Write { name, from, is_owner, text, .. } => {
                    let is_owner = is_owner.then_some(true);
                    Command::Write { channel: name, from: *from, text, is_owner }
                }
                Self::Other { next_id } => Command::DropChannel { channel: "c", next_id: *next_id },
            }
        }

        fn push_to(&self, proposals: &mut Proposals) {
            match self {
                Self::Write { hint, name, from, is_owner, text } => {
                    proposals.push_write(*hint, name, *from, *is_owner, text);
                }
                Self::Other { .. } => proposals.push(&self.command()),
            }
        }

        fn hint(&self) -> Option<WriteHint> {
            match self {
                Self::Write { hint, .. } => Some(*hint),
                Self::Other { .. } => None,
            }
        }
    }

    proptest! {
        /// The process that proposes a command and those that read it from the log must do the
        /// same.
        #[test]
        fn commands_are_those_that_their_bytes_say_also_in_parts(
            commands in prop::collection::vec(Proposed::strategy(), 0..20),
            first in 0..20_u32,
            max_bytes in 1..2_000_usize,
        ) {
            let mut rest = Proposals::default();
            for command in &commands {
                command.push_to(&mut rest);
            }
            let mut expected = commands.iter();
            while rest.count() > 0 {
                let mut part = Proposals::default();
                rest.move_first(first.max(1), max_bytes, &mut part);
                let mut decoder = Decoder::new(part.bytes());
                let mut at = ProposalCursor::default();
                for index in 0..part.count() {
                    prop_assert!(!part.is_end(&at));
                    prop_assert_eq!(at.index(), index);
                    let proposal = part.next(&mut at).unwrap().unwrap();
                    let expected = expected.next().unwrap();
                    prop_assert!(proposal.command == expected.command());
                    prop_assert!(proposal.command == decoder.decode().unwrap());
                    prop_assert_eq!(proposal.hint, expected.hint());
                    prop_assert_eq!(at.bytes, decoder.position());
                }
                prop_assert!(part.is_end(&at) && part.next(&mut at).unwrap().is_none());
                prop_assert!(!part.bytes().is_empty());
            }
            prop_assert!(expected.next().is_none() && rest.memory() == 0);
        }
    }

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
