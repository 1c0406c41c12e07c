//! Server-sent events: a reply of the hub as text.

use std::ops::Range;
use std::rc::Rc;

use super::payload::{Chunk, Insertions, IntroductionEvents};
use super::shared_reply::ReplySlice;
use crate::http::{EventFraming, RETRY};
use crate::hub::{ChannelKey, IntroductionSlice, Since, push_number, push_string};

/// Encodes a reply as events.
pub(super) struct SseEncoder<'o, 'r, S> {
    pub(super) out: &'o mut Vec<u8>,
    pub(super) framing: EventFraming,
    pub(super) epoch: &'o [u8],
    pub(super) slices: &'r [S],
    /// Starts of the read, for the first reply of a stream; empty for a later reply.
    pub(super) targets: &'r [(ChannelKey<'r>, Since)],
}

impl<S: ReplySlice> SseEncoder<'_, '_, S> {
    /// Appends the event `ready` with the cursors, for a client that has to reconnect before the
    /// first message.
    pub(super) fn push_beginning(&mut self) {
        let start = self.out.len();
        self.out.extend_from_slice(RETRY);
        self.push_id(0, None);
        self.out.extend_from_slice(b"event: ready\ndata: {}\n\n");
        self.framing.end_event(self.out, start);
    }

    /// Appends the gaps, then each message with the cursors after it. `labels` are the names of the
    /// channels, if there are several. Complete pages of introductions, but for the last of a
    /// channel, are only in `insertions`, if there are any.
    pub(super) fn push_all(
        &mut self,
        labels: &[Box<str>],
        mut insertions: Option<&mut Insertions>,
    ) {
        let slices = self.slices;
        for (index, slice) in slices.iter().enumerate() {
            for (event, has_gap) in [("missed", slice.missed()), ("reset", slice.reset())] {
                if has_gap {
                    self.push_gap(event, labels.get(index).map(|label| &**label));
                }
            }
        }
        for (index, slice) in slices.iter().enumerate() {
            let mut inserted = 0;
            if let Some(insertions) = insertions.as_deref_mut()
                && let Some(introductions) = slice.introduction_pages()
            {
                inserted = self.insert_introductions(index, labels, introductions, insertions);
            }
            let mut introductions = slice.introductions().skip(inserted).peekable();
            while let Some(message) = introductions.next() {
                let is_last = introductions.peek().is_none() && slice.retained().next().is_none();
                let cursor = if is_last { slice.next_id() } else { slice.start() };
                self.push_message(index, cursor, labels, message);
            }
            for (next_id, message) in (slice.first_id() + 1..).zip(slice.retained()) {
                self.push_message(index, next_id, labels, message);
            }
        }
    }

    /// Inserts complete pages of introductions, but not the last, whose last event may have another
    /// cursor. Returns the number of introductions.
    #[cold]
    fn insert_introductions(
        &mut self,
        index: usize,
        labels: &[Box<str>],
        introductions: IntroductionSlice<'_>,
        insertions: &mut Insertions,
    ) -> usize {
        let start = self.out.len();
        self.push_beginning_of_message(index, self.slices[index].start(), labels);
        let prefix: Rc<[u8]> = self.out[start..].into();
        self.out.truncate(start);
        let mut inserted = 0;
        for page in introductions.pages().rev().skip(1).rev() {
            let place = |object: Range<usize>| (object.start as u32, object.end as u32);
            let objects: Box<[_]> = page.objects().map(place).collect();
            inserted += objects.len();
            let events = IntroductionEvents {
                page: Rc::clone(page.shared()),
                objects,
                prefix: Rc::clone(&prefix),
                framing: self.framing,
            };
            insertions.push(self.out.len(), Chunk::Events(Box::new(events)));
        }
        inserted
    }

    fn push_gap(&mut self, event: &str, label: Option<&str>) {
        let start = self.out.len();
        self.out.extend_from_slice(b"event: ");
        self.out.extend_from_slice(event.as_bytes());
        self.out.extend_from_slice(b"\ndata: {");
        if let Some(label) = label {
            self.out.extend_from_slice(b"\"channel\":");
            push_string(self.out, label);
        }
        self.out.extend_from_slice(b"}\n\n");
        self.framing.end_event(self.out, start);
    }

    fn push_message(&mut self, index: usize, cursor: u64, labels: &[Box<str>], message: &[u8]) {
        let start = self.out.len();
        self.push_beginning_of_message(index, cursor, labels);
        self.out.extend_from_slice(&message[1..]);
        self.out.extend_from_slice(b"\n\n");
        self.framing.end_event(self.out, start);
    }

    /// Appends what comes before the first key of a message.
    fn push_beginning_of_message(&mut self, index: usize, cursor: u64, labels: &[Box<str>]) {
        self.push_id(index, Some(cursor));
        self.out.extend_from_slice(b"data: {");
        if let Some(label) = labels.get(index) {
            self.out.extend_from_slice(b"\"channel\":");
            push_string(self.out, label);
            self.out.push(b',');
        }
    }

    /// Appends an `id` with one cursor per channel. Channels before `index` are at their end, the
    /// channel `index` is at `cursor`, and later channels are at their start. If `cursor` is
    /// `None`, all channels are at their start.
    fn push_id(&mut self, index: usize, cursor: Option<u64>) {
        self.out.extend_from_slice(b"id: ");
        self.out.extend_from_slice(self.epoch);
        for (other, slice) in self.slices.iter().enumerate() {
            self.out.push(if other == 0 { b':' } else { b',' });
            let cursor = match cursor {
                Some(_) if other < index => slice.next_id(),
                Some(cursor) if other == index => cursor,
                _ => self.start(other, slice),
            };
            push_number(self.out, cursor);
        }
        self.out.push(b'\n');
    }

    /// Returns the cursor of a channel of which nothing was sent yet. Never `-N`: a message that
    /// comes while the client is away would then take the place of an earlier one.
    fn start(&self, index: usize, slice: &S) -> u64 {
        match self.targets.get(index) {
            Some((_, Since::Id(id))) if !slice.reset() => *id,
            _ => slice.start(),
        }
    }
}
