//! A client as it should be: it goes on where its last answer ended.
//!
//! What it must have seen by then does not need the model: every id once, in order, but for gaps that it was told of.

use std::ops::Range;

use speak::hub::Since;

use super::message::{Answer, Part};

pub(crate) struct Follower {
    tracks: Vec<Track>,
    /// Of the read that it waits for, or of the stream that it follows by.
    pub(crate) client: Option<u64>,
}

/// What it knows of one channel.
struct Track {
    channel: usize,
    /// The `next_id` of the last answer.
    cursor: Option<u64>,
    seen: Vec<u64>,
    gaps: Vec<Range<u64>>,
}

impl Follower {
    pub(crate) fn new(channels: Vec<usize>) -> Self {
        let track = |channel| Track { channel, cursor: None, seen: Vec::new(), gaps: Vec::new() };
        Self { tracks: channels.into_iter().map(track).collect(), client: None }
    }

    /// What it asks next.
    pub(crate) fn follows(&self) -> Vec<(usize, Since)> {
        self.tracks
            .iter()
            .map(|track| (track.channel, track.cursor.map_or(Since::Now, Since::Id)))
            .collect()
    }

    pub(crate) fn take(&mut self, answer: &Answer) {
        assert_eq!(answer.len(), self.tracks.len());
        for (track, part) in self.tracks.iter_mut().zip(answer) {
            track.take(part);
        }
    }

    /// For one that has read until nothing more came: it saw all there ever was.
    pub(crate) fn assert_saw_all(
        &self,
        next_id: impl Fn(usize) -> u64,
        was_given: impl Fn(usize, u64) -> bool,
    ) {
        for track in &self.tracks {
            let Some(cursor) = track.cursor else { continue };
            assert_eq!(cursor, next_id(track.channel), "it has read to the end");
            let first = track
                .seen
                .first()
                .copied()
                .into_iter()
                .chain(track.gaps.first().map(|gap| gap.start))
                .min();
            let Some(first) = first else { continue };
            assert!(
                track.seen.iter().all(|id| was_given(track.channel, *id)),
                "it saw what nobody said"
            );
            for id in (first..cursor).filter(|id| was_given(track.channel, *id)) {
                let times = track.seen.iter().filter(|seen| **seen == id).count();
                let is_in_gap = track.gaps.iter().any(|gap| gap.contains(&id));
                assert_eq!(
                    times,
                    usize::from(!is_in_gap),
                    "message {id} of channel {}",
                    track.channel
                );
            }
        }
    }
}

impl Track {
    fn take(&mut self, part: &Part) {
        assert!(!part.reset, "its cursor came from this very server");
        // Whoever asked for what comes from now on begins with what comes first.
        let first = part.messages.first().map_or(part.next_id, |message| message.id);
        let mut next = self.cursor.unwrap_or(first);
        assert_eq!(part.missed, first > next, "a gap from {next} to {first}");
        if part.missed {
            self.gaps.push(next..first);
            next = first;
        }
        for message in &part.messages {
            assert_eq!(message.id, next, "the next one, neither the one before nor the one after");
            self.seen.push(message.id);
            next += 1;
        }
        assert_eq!(part.next_id, next, "the cursor goes on behind the last message");
        self.cursor = Some(next);
    }
}
