//! How much is done in one turn of the loop, so that nobody has to wait long for the next.
//!
//! Counted in steps of some five microseconds, not measured: what a turn does depends on no clock.

/// A step is a request or a frame, and one more for so many bytes that were read for it or answered: they are written
/// twice, to memory that is new.
const STEP_BYTES: usize = 4 * 1024;

/// A step is a send, and one more for so many bytes: those are there already.
const SENT_STEP_BYTES: usize = 16 * 1024;

/// JSON that a client sends costs as much as so many times its bytes.
const JSON_PARSE_FACTOR: usize = 16;

/// One client has so much of a turn: what comes in one read of 64 KiB, unless its requests are very short or what they
/// ask for is very long.
const CLIENT_STEPS: usize = 1024;

/// The same where others wait for their part: whoever comes with one request stands behind each of them once.
const CLIENT_STEPS_CONTENDED: usize = 64;

/// All clients have so much of a turn, those of whom there is more to do than a turn has time for only half of it.
const ALL_CLIENTS_STEPS: usize = 2048;

/// Answers of reads that waited have so much of a turn beside that, those for which an earlier turn had no time half of it.
const DELIVERY_STEPS: usize = 1024;

/// What one turn has spent so far.
pub(super) struct Budget {
    /// For how many a step counts: one, but where a small crowd is to find a turn too short.
    pub(super) weight: usize,
    /// Others wait for what earlier turns had no time for.
    is_contended: bool,
    client: usize,
    clients: usize,
    delivery: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { weight: 1, is_contended: false, client: 0, clients: 0, delivery: 0 }
    }
}

/// Whether there is time for more in this turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    Left,
    Spent,
}

impl Time {
    fn of(is_left: bool) -> Self {
        if is_left { Self::Left } else { Self::Spent }
    }
}

impl Budget {
    /// A turn begins; tells whether several wait for what earlier turns had no time for.
    pub(super) fn begin_turn(&mut self, is_contended: bool) {
        *self = Self { weight: self.weight, is_contended, ..Self::default() };
    }

    /// Somebody else's requests are handled now.
    pub(super) fn begin_client(&mut self) {
        self.client = 0;
    }

    /// A request or a frame was handled; its answer has so many bytes.
    pub(super) fn charge_request(&mut self, bytes: usize) {
        let steps = self.weight * (1 + bytes / STEP_BYTES);
        self.client += steps;
        self.clients += steps;
    }

    /// So many bytes were read.
    pub(super) fn charge_read(&mut self, bytes: usize) {
        let steps = self.weight * (bytes / STEP_BYTES);
        self.client += steps;
        self.clients += steps;
    }

    /// So many bytes of JSON are to be read.
    pub(super) fn charge_json(&mut self, bytes: usize) {
        self.charge_read(JSON_PARSE_FACTOR * bytes);
    }

    /// Something was sent to a read that waited.
    pub(super) fn charge_send(&mut self, bytes: usize) {
        self.delivery += self.weight * (1 + bytes / SENT_STEP_BYTES);
    }

    /// Whether the client whose requests are handled now may have more of them handled.
    pub(super) fn for_client(&self) -> Time {
        let steps = if self.is_contended { CLIENT_STEPS_CONTENDED } else { CLIENT_STEPS };
        Time::of(self.client < steps)
    }

    /// Whether there is time for one more client.
    pub(super) fn for_clients(&self) -> Time {
        Time::of(self.clients < ALL_CLIENTS_STEPS)
    }

    /// Whether there is time for one more of those whose work was cut short. They come first in a turn.
    pub(super) fn for_ready(&self) -> Time {
        Time::of(self.clients < ALL_CLIENTS_STEPS / 2)
    }

    /// Whether there is time to answer one more read that waited.
    pub(super) fn for_delivery(&self) -> Time {
        Time::of(self.delivery < DELIVERY_STEPS)
    }

    /// Whether there is time for one more answer that an earlier turn left. They come first in a turn.
    pub(super) fn for_late_delivery(&self) -> Time {
        Time::of(self.delivery < DELIVERY_STEPS / 2)
    }
}
