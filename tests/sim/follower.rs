//! A client as it should be: it continues where its last answer ended.
//!
//! Its claims do not need the model: each id once, in order, except gaps that were reported.

use speak::hub::Since;

use super::message::{Answer, Part};

pub(crate) struct Follower {
    tracks: Vec<Track>,
    /// Client of its pending read, or of its stream.
    pub(crate) client: Option<u64>,
}

/// One channel, as far as it has read.
struct Track {
    channel: usize,
    /// `next_id` of the last answer.
    cursor: Option<u64>,
    seen: Vec<u64>,
}

impl Follower {
    pub(crate) fn new(channels: Vec<usize>) -> Self {
        let track = |channel| Track { channel, cursor: None, seen: Vec::new() };
        Self { tracks: channels.into_iter().map(track).collect(), client: None }
    }

    /// Returns the channels of the next read.
    pub(crate) fn follows(&self) -> Vec<(usize, Since)> {
        self.tracks
            .iter()
            .map(|track| (track.channel, track.cursor.map_or(Since::Now, Since::Id)))
            .collect()
    }

    pub(crate) fn take(&mut self, answer: &Answer, was_given: impl Fn(usize, u64) -> bool) {
        assert_eq!(answer.len(), self.tracks.len());
        for (track, part) in self.tracks.iter_mut().zip(answer) {
            track.take(part, &was_given);
        }
    }

    /// Claims that it saw all messages except those in gaps, after it has read until nothing more
    /// came: each answer continues where the last one ended, and the last one ends here.
    pub(crate) fn assert_saw_all(
        &self,
        next_id: impl Fn(usize) -> u64,
        was_given: impl Fn(usize, u64) -> bool,
    ) {
        for track in &self.tracks {
            let Some(cursor) = track.cursor else { continue };
            assert_eq!(cursor, next_id(track.channel), "it has read to the end");
            let are_given = track.seen.iter().all(|id| was_given(track.channel, *id));
            assert!(are_given, "it saw a message that was never written");
        }
    }
}

impl Track {
    fn take(&mut self, part: &Part, was_given: impl Fn(usize, u64) -> bool) {
        assert!(!part.reset, "its cursor is of this server");
        // A read from now on begins with the first message that comes.
        let first = part.messages.first().map_or(part.next_id, |message| message.id);
        let mut next = self.cursor.unwrap_or(first);
        // With a log, a channel that is only read may continue at the watermark of another name:
        // then no message had one of these ids.
        let is_right =
            part.missed == (first > next) || !(next..first).any(|id| was_given(self.channel, id));
        assert!(is_right, "a gap from {next} to {first}");
        next = first.max(next);
        for message in &part.messages {
            assert_eq!(message.id, next, "the next one");
            self.seen.push(message.id);
            next += 1;
        }
        assert_eq!(part.next_id, next, "the cursor is the id after the last message");
        self.cursor = Some(next);
    }
}
