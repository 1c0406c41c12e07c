//! The work that one turn of the loop may do, so that no client waits long for the next turn.
//!
//! Work is counted in steps of about five microseconds, not measured: a turn depends on no clock.

use super::run_queue::Weight;
use super::write_queue::FLUSH_BYTES_MAX;

/// Bytes read or encoded that cost one step in addition to the step of their request or frame.
/// These bytes are written twice, to fresh memory.
const STEP_BYTES: usize = 4 * 1024;

/// Bytes sent that cost one step in addition to the step of the send. These bytes exist already.
const SENT_STEP_BYTES: usize = 8 * 1024;

/// Bytes sent from a write queue that cost one step in addition to the step of the flush. A peer
/// with a narrow window takes them in short segments, of which each costs the kernel much.
const FLUSHED_STEP_BYTES: usize = 2 * 1024;

/// Chunks that clients share and that cost one step.
const STEP_CHUNKS: usize = 16;

/// Cost of parsing a byte of JSON, as a multiple of the cost of reading a byte.
const JSON_PARSE_FACTOR: usize = 16;

/// Steps per turn for one client: enough for one read of 64 KiB, unless its requests are very short
/// or their responses very long.
const CLIENT_STEPS: usize = 1024;

/// Steps per turn for one client while other clients have deferred work. A client with a single
/// request then waits at most once for each pipelining client.
const CLIENT_STEPS_CONTENDED: usize = 64;

/// Steps of a share that count as little.
const LIGHT_STEPS: usize = 4;

/// Steps per turn for the requests of all clients, and for the rest of the work that events cause:
/// sends to sockets that have become writable, and updates of streams that go on then.
const ALL_CLIENTS_STEPS: usize = 2048;

/// Steps per turn for handshakes of TLS, of those for the requests of all clients: half. So many
/// new clients do not keep the others waiting.
const HANDSHAKE_STEPS: usize = ALL_CLIENTS_STEPS / 2;

/// Steps per turn for deliveries, in addition to the steps for requests. Deferred sends get at most
/// half.
const DELIVERY_STEPS: usize = 1024;

/// Steps per turn for commands from the log, in addition to the steps for requests.
const COMMIT_STEPS: usize = 2048;

/// Steps per turn for expired deadlines, in addition to the others.
const EXPIRY_STEPS: usize = 1024;

/// Steps that the current turn has spent.
pub(super) struct Budget {
    /// Factor on every step: 1, except in a simulation, whose few clients could not fill a turn.
    pub(super) weight: usize,
    /// Several clients wait in the run queue.
    is_contended: bool,
    /// Steps of the client whose requests are handled now.
    client_spent: usize,
    /// Its next request waits for the log, so that its cost is not known yet.
    is_postponed: bool,
    /// Steps of all clients' requests.
    all_spent: usize,
    /// Steps of handshakes, which are also in `all_spent`.
    handshake_spent: usize,
    /// Steps of deliveries.
    delivery_spent: usize,
    /// Steps of commands from the log.
    commit_spent: usize,
    /// Steps of expired deadlines.
    expiry_spent: usize,
    /// The deliveries of the turn have begun.
    is_delivering: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            weight: 1,
            is_contended: false,
            client_spent: 0,
            is_postponed: false,
            all_spent: 0,
            handshake_spent: 0,
            delivery_spent: 0,
            commit_spent: 0,
            expiry_spent: 0,
            is_delivering: false,
        }
    }
}

impl Budget {
    /// Begins a turn with all steps unspent.
    pub(super) fn begin_turn(&mut self, is_contended: bool) {
        *self = Self { weight: self.weight, is_contended, ..Self::default() };
    }

    /// Begins the deliveries of the turn. Sends before count as requests: unsent bytes of earlier
    /// turns for which a client has made room, and the next update of its stream.
    pub(super) fn begin_delivery(&mut self) {
        self.is_delivering = true;
    }

    /// Begins the share of the next client.
    pub(super) fn begin_client(&mut self) {
        (self.client_spent, self.is_postponed) = (0, false);
    }

    /// Ends the share of a client before a request that is made later.
    pub(super) fn postpone(&mut self) {
        self.is_postponed = true;
    }

    /// Charges a request or frame whose response has `bytes` bytes.
    pub(super) fn charge_request(&mut self, bytes: usize) {
        self.charge(1 + bytes / STEP_BYTES);
    }

    /// Charges `bytes` bytes read from a socket.
    pub(super) fn charge_read(&mut self, bytes: usize) {
        self.charge(bytes / STEP_BYTES);
    }

    /// Charges the work of a socket with records of TLS.
    pub(super) fn charge_socket(&mut self, steps: usize) {
        self.charge(steps);
    }

    /// Charges the work of a socket with a handshake.
    pub(super) fn charge_handshake(&mut self, steps: usize) {
        self.handshake_spent += self.weight * steps;
        self.charge(steps);
    }

    /// Returns whether another client may go on with its handshake in this turn.
    pub(super) fn has_handshake_budget(&self) -> bool {
        self.handshake_spent < HANDSHAKE_STEPS
    }

    /// Charges the parsing of `bytes` bytes of JSON.
    pub(super) fn charge_json(&mut self, bytes: usize) {
        self.charge_read(JSON_PARSE_FACTOR * bytes);
    }

    /// Charges a send of `bytes` bytes from a write queue, to a client whose socket has become
    /// writable.
    pub(super) fn charge_flush(&mut self, bytes: usize) {
        self.charge(1 + bytes / FLUSHED_STEP_BYTES);
    }

    /// Charges the first flush of responses with so many chunks of other clients.
    pub(super) fn charge_insertions(&mut self, count: usize) {
        self.charge_flush(FLUSH_BYTES_MAX);
        self.charge(count / STEP_CHUNKS);
    }

    fn charge(&mut self, steps: usize) {
        let steps = self.weight * steps;
        self.client_spent += steps;
        self.all_spent += steps;
    }

    /// Charges a command from the log, which added `bytes` bytes of messages.
    pub(super) fn charge_commit(&mut self, bytes: usize) {
        self.commit_spent += self.weight * (1 + bytes / STEP_BYTES);
    }

    /// Returns whether another command from the log may be applied in this turn.
    pub(super) fn has_commit_budget(&self) -> bool {
        self.commit_spent < COMMIT_STEPS
    }

    /// Charges a send of `bytes` bytes to a reader.
    pub(super) fn charge_send(&mut self, bytes: usize) {
        self.charge_output(1 + bytes / SENT_STEP_BYTES);
    }

    /// Charges the encoding of `bytes` bytes for a reader.
    pub(super) fn charge_encoding(&mut self, bytes: usize) {
        self.charge_output(bytes / STEP_BYTES);
    }

    fn charge_output(&mut self, steps: usize) {
        if self.is_delivering {
            self.delivery_spent += self.weight * steps;
        } else {
            self.charge(steps);
        }
    }

    /// Charges an expired deadline that has encoded `bytes` bytes.
    pub(super) fn charge_expiry(&mut self, bytes: usize) {
        self.expiry_spent += self.weight * (1 + bytes / STEP_BYTES);
    }

    /// Returns whether the client of the current share may have another request handled.
    pub(super) fn has_client_budget(&self) -> bool {
        let steps = if self.is_contended { CLIENT_STEPS_CONTENDED } else { CLIENT_STEPS };
        self.client_spent < steps
    }

    /// Returns whether another client may have requests handled in this turn.
    pub(super) fn has_turn_budget(&self) -> bool {
        self.all_spent < ALL_CLIENTS_STEPS
    }

    /// Returns whether another expired deadline may be handled in this turn.
    pub(super) fn has_expiry_budget(&self) -> bool {
        self.expiry_spent < EXPIRY_STEPS
    }

    /// Returns what the client of the current share did, or `None` if it did nothing, or little
    /// before a request that is made later.
    pub(super) fn client_weight(&self) -> Option<Weight> {
        match self.client_spent {
            0 => None,
            spent if spent > self.weight * LIGHT_STEPS => Some(Weight::Heavy),
            _ => (!self.is_postponed).then_some(Weight::Light),
        }
    }

    /// Returns whether another delivery may be sent in this turn.
    pub(super) fn has_delivery_budget(&self) -> bool {
        self.delivery_spent < DELIVERY_STEPS
    }

    /// Returns whether another send that an earlier turn deferred may be made. Deferred sends come
    /// first in a turn.
    pub(super) fn has_deferred_send_budget(&self) -> bool {
        self.delivery_spent < DELIVERY_STEPS / 2
    }
}
