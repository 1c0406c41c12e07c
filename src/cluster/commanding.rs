//! The connection for commands: records, barriers and snapshots go out by it.

use super::cluster_log::{Barrier, ClusterLog, Expected, Pending};
use super::connection::{Failure, ServerInfo};
use super::entry::{self, Entry};
use super::log_end::LogEnd;
use super::snapshot_writer::{Sending, SnapshotWriter};
use super::stream_id::StreamId;
use super::value::{ErrorKind, Value};
use crate::log::{Event, Outcome};

/// Time until a record is sent again that Redis did not take.
const RETRY_MS: u64 = 500;

/// Time until Redis is asked whether it still has the log, if a record does not come back.
const PROBE_MS: u64 = 1_000;

impl ClusterLog {
    pub(super) fn on_commands_up(&mut self, info: ServerInfo) {
        if let Some(failure) = find_flaw(&info) {
            self.report_outage(&failure);
            self.commands.reset();
            return;
        }
        self.is_operator_called = false;
        if std::mem::take(&mut self.is_outage_reported) {
            log::info!("cluster: connected to Redis");
        }
        if info.run_id != self.commands_run_id {
            // Another server has another clock.
            self.mono_ahead_ms = self.now_ms.wrapping_sub(info.unix_ms).cast_signed();
        }
        if self.vouching.on_connected(&info.run_id, self.now_ms) {
            self.begin_round();
        }
        self.is_commands_up = true;
        self.commands_run_id = info.run_id;
    }

    /// Reports the first failure of an outage. One that the operator has to end makes this process
    /// end, unless it has used the log before.
    pub(super) fn report_outage(&mut self, failure: &Failure) {
        let is_call = failure.needs_operator && !self.is_operator_called;
        if !self.is_outage_reported || is_call {
            log::error!("cluster: no connection to Redis: {failure}");
        }
        self.is_outage_reported = true;
        self.is_operator_called |= failure.needs_operator;
        if is_call && self.vouching.last_trusted().is_none() {
            self.events.push_back(Event::Unusable);
        }
    }

    pub(super) fn on_commands_down(&mut self) {
        self.is_commands_up = false;
        self.expected.clear();
        self.deciding = None;
        self.writer.on_disconnected(self.now_ms);
        if let Some(pending) = &mut self.pending {
            pending.forget_reply();
        }
        for barrier in &mut self.barriers {
            if *barrier == Barrier::Sent {
                *barrier = Barrier::Unsent;
            }
        }
        // The round begins again with the next connection.
        self.vouching.end_round();
    }

    /// Looks for another server.
    pub(super) fn reset_connections(&mut self) {
        self.commands.reset();
        self.on_commands_down();
        self.reset_follower();
    }

    pub(super) fn on_reply(&mut self, value: &Value) {
        match self.expected.pop_front() {
            Some(Expected::Append(sequence)) => self.on_append(sequence, value),
            Some(Expected::End(floor)) => self.on_end(floor, value),
            Some(Expected::Probe(floor)) => self.on_probe(floor, value),
            Some(Expected::Snapshot(name, reply)) => {
                let published = self
                    .write_snapshot(|writer, sending| writer.on_reply(name, reply, value, sending));
                if let Some(entry) = published {
                    let LogEnd { position, .. } = entry.end;
                    let bytes = entry.bytes;
                    log::info!("cluster snapshot complete position={position} bytes={bytes}");
                    self.newest = Some(entry);
                }
            }
            Some(Expected::Step) => {
                self.on_step(value);
            }
            Some(Expected::View) => self.on_view(value),
            Some(Expected::Unchanged(last_id)) => self.on_watched(last_id, value),
            None => {}
        }
    }

    /// Notes the reply to an append. The record itself comes by the other connection.
    fn on_append(&mut self, sequence: u64, value: &Value) {
        // It may have come back before.
        if sequence != self.sequence {
            return;
        }
        let Some(pending) = &mut self.pending else { return };
        let Some(kind) = value.error_kind() else {
            pending.id = value.as_text().and_then(StreamId::parse);
            if *value == Value::Nil {
                pending.is_sent = false;
                self.suspect();
            } else if self.refusal.take().is_some() {
                log::info!("cluster: Redis takes records again");
            }
            return;
        };
        pending.is_sent = false;
        pending.retry_at_ms = self.now_ms + RETRY_MS;
        // The earlier one of two that were sent may be there.
        let is_full = kind.is_full() && !pending.may_be_there;
        self.report_refusal(kind);
        if is_full {
            self.pending = None;
            self.events.push_back(Event::Outcome(Outcome::Full));
        } else if kind.is_of_the_server() {
            self.reset_connections();
        }
    }

    pub(super) fn report_refusal(&mut self, kind: ErrorKind) {
        if self.refusal.replace(kind) != Some(kind) {
            log::error!("cluster: Redis does not take records: {}", kind.explanation());
        }
    }

    /// Notes the end of the stream, for the oldest barrier that waits for it.
    fn on_end(&mut self, floor: StreamId, value: &Value) {
        let newest = parse_end(value);
        if newest.is_some_and(|newest| newest < floor) {
            return self.suspect();
        }
        let Some(barrier) = self.barriers.iter_mut().find(|it| **it == Barrier::Sent) else {
            return;
        };
        if newest.is_some() {
            self.end_told_ms = self.now_ms;
        }
        *barrier = newest.map_or(Barrier::Unsent, Barrier::At);
        self.reach_barriers();
    }

    /// Notes the end of the stream, which may have lost a record that does not come back.
    fn on_probe(&mut self, floor: StreamId, value: &Value) {
        if parse_end(value).is_some_and(|newest| newest < floor) {
            self.suspect();
        }
    }

    /// Sends the record again if Redis has lost it alone: it had taken the record, and this process
    /// has read the stream beyond its place.
    pub(super) fn find_lost_record(&mut self) {
        if let Some(pending) = &mut self.pending
            && pending.id.is_some_and(|id| id <= self.read_id)
        {
            log::warn!("cluster: Redis has lost a record that it had taken; sending it again");
            pending.forget_reply();
        }
    }

    /// Lets the writer of a snapshot send commands.
    pub(super) fn write_snapshot<T>(
        &mut self,
        write: impl FnOnce(&mut SnapshotWriter, &mut Sending<'_>) -> T,
    ) -> T {
        let mut sending = Sending {
            connection: &mut *self.commands,
            keys: &self.keys,
            now_ms: self.now_ms,
            expected: Vec::new(),
        };
        let result = write(&mut self.writer, &mut sending);
        let expected = sending.expected.into_iter();
        self.expected.extend(expected.map(|(name, reply)| Expected::Snapshot(name, reply)));
        result
    }

    /// Sends the record, barriers, and what keeps a snapshot.
    pub(super) fn send_commands(&mut self) {
        let stream = self.keys.stream();
        // One that is appended before the state is replaced is refused.
        if self.reader.is_none()
            && let Some(pending) = &mut self.pending
            && !pending.is_sent
            && pending.retry_at_ms <= self.now_ms
        {
            let field = entry::FIELD;
            if self.read_id == StreamId::default() {
                self.commands.send(&[b"XADD", stream, b"*", field, &pending.value]);
            } else {
                // Fails if the stream is gone, with all that was in it.
                self.commands.send(&[b"XADD", stream, b"NOMKSTREAM", b"*", field, &pending.value]);
            }
            (pending.is_sent, pending.probe_at_ms) = (true, self.now_ms + PROBE_MS);
            self.expected.push_back(Expected::Append(self.sequence));
        }
        if let Some(pending) = &mut self.pending
            && pending.is_sent
            && pending.probe_at_ms <= self.now_ms
        {
            pending.probe_at_ms = self.now_ms + PROBE_MS;
            self.commands.send(&[b"XREVRANGE", stream, b"+", b"-", b"COUNT", b"1"]);
            let floor = pending.id.unwrap_or_default().max(self.read_id);
            self.expected.push_back(Expected::Probe(floor));
        }
        for barrier in self.barriers.iter_mut().filter(|it| **it == Barrier::Unsent) {
            self.commands.send(&[b"XREVRANGE", stream, b"+", b"-", b"COUNT", b"1"]);
            *barrier = Barrier::Sent;
            self.expected.push_back(Expected::End(self.read_id));
        }
        if self.writer.is_open() {
            self.write_snapshot(SnapshotWriter::renew);
        }
    }

    /// Gives up what replies are awaited to. A record may be in the log or not.
    pub(super) fn forget_replies(&mut self) {
        if let Some(pending) = &mut self.pending {
            pending.forget_reply();
        }
        for barrier in &mut self.barriers {
            *barrier = Barrier::Unsent;
        }
        for expected in &mut self.expected {
            if matches!(expected, Expected::Append(_) | Expected::End(_) | Expected::Probe(_)) {
                *expected = Expected::Step;
            }
        }
    }
}

impl Pending {
    /// Gives up the reply that is awaited, or was there. The record may be in the log or not.
    fn forget_reply(&mut self) {
        self.may_be_there |= self.is_sent;
        (self.is_sent, self.id) = (false, None);
    }
}

/// Returns the id of the last entry of the stream, in a reply of `XREVRANGE`. `None` for an error.
pub(super) fn parse_end(value: &Value) -> Option<StreamId> {
    match value.as_array()? {
        [] => Some(StreamId::default()),
        [newest, ..] => Entry::parse(newest).map(|(id, _)| id),
    }
}

/// Returns why a server cannot hold the log.
fn find_flaw(info: &ServerInfo) -> Option<Failure> {
    if info.evicts {
        let reason = "Redis drops keys when its memory is full, so it would drop the log: set its \
                      maxmemory-policy to noeviction";
        return Some(Failure::permanent(reason.to_owned()));
    }
    let reason = "the server is a replica, which takes no records";
    (!info.is_writable).then(|| Failure::transient(reason.to_owned()))
}
