//! Server-sent events: a reply of the hub as text.

use crate::hub::{ChannelSlice, Reply, push_number, push_string};

/// Encodes a reply as events. `start` returns the cursor of a channel before its first event.
pub(super) struct SseEncoder<'o, 'r, 'h, S> {
    pub(super) out: &'o mut Vec<u8>,
    pub(super) epoch: &'o [u8],
    pub(super) reply: &'r Reply<'h>,
    pub(super) start: S,
}

impl<S: Fn(usize, &ChannelSlice<'_>) -> i64> SseEncoder<'_, '_, '_, S> {
    /// Appends the cursors alone, for a client that has to reconnect before the first event.
    pub(super) fn push_id_alone(&mut self) {
        self.push_id(0, None);
        self.out.push(b'\n');
    }

    /// Appends the gaps, then each message with the cursors after it. `labels` are the names of the
    /// channels, if there are several.
    pub(super) fn push_all(&mut self, labels: &[Box<str>]) {
        let slices = self.reply.slices();
        for (index, slice) in slices.iter().enumerate() {
            for (event, has_gap) in [("missed", slice.missed), ("reset", slice.reset)] {
                if has_gap {
                    self.push_gap(event, labels.get(index).map(|label| &**label));
                }
            }
        }
        for (index, slice) in slices.iter().enumerate() {
            for message in slice.introductions() {
                self.push_message(index, (self.start)(index, slice), labels, message);
            }
            for (next_id, message) in (slice.first_id() + 1..).zip(slice.retained()) {
                self.push_message(index, next_id.cast_signed(), labels, message);
            }
        }
    }

    fn push_gap(&mut self, event: &str, label: Option<&str>) {
        self.out.extend_from_slice(b"event: ");
        self.out.extend_from_slice(event.as_bytes());
        self.out.extend_from_slice(b"\ndata: {");
        if let Some(label) = label {
            self.out.extend_from_slice(b"\"channel\":");
            push_string(self.out, label);
        }
        self.out.extend_from_slice(b"}\n\n");
    }

    fn push_message(&mut self, index: usize, next_id: i64, labels: &[Box<str>], message: &[u8]) {
        self.push_id(index, Some(next_id));
        self.out.extend_from_slice(b"data: {");
        if let Some(label) = labels.get(index) {
            self.out.extend_from_slice(b"\"channel\":");
            push_string(self.out, label);
            self.out.push(b',');
        }
        self.out.extend_from_slice(&message[1..]);
        self.out.extend_from_slice(b"\n\n");
    }

    /// Appends an `id` with one cursor per channel. Channels before `index` are at their end, the
    /// channel `index` is at `next_id`, and later channels are at their start. If `next_id` is
    /// `None`, all channels are at their start.
    fn push_id(&mut self, index: usize, next_id: Option<i64>) {
        self.out.extend_from_slice(b"id: ");
        self.out.extend_from_slice(self.epoch);
        for (other, slice) in self.reply.slices().iter().enumerate() {
            self.out.push(if other == 0 { b':' } else { b',' });
            let cursor = match next_id {
                Some(_) if other < index => slice.next_id().cast_signed(),
                Some(next_id) if other == index => next_id,
                _ => (self.start)(other, slice),
            };
            if cursor < 0 {
                self.out.push(b'-');
            }
            push_number(self.out, cursor.unsigned_abs());
        }
        self.out.push(b'\n');
    }
}
