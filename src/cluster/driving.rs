//! The log in Redis, as the service drives it.

use super::cluster_log::{Barrier, ClusterLog, Pending, random_number};
use super::connection::Event as ConnectionEvent;
use super::entry;
use super::snapshot_entry::SnapshotEntry;
use super::snapshot_reader::SnapshotReader;
use super::snapshot_writer::SnapshotWriter;
use super::state::ClusterLogState;
use crate::log::{Event, Log, Outcome};

impl ClusterLog {
    fn poll_connections(&mut self) {
        while let Some(event) = self.commands.poll() {
            match event {
                ConnectionEvent::Connected(info) => self.on_commands_up(info),
                ConnectionEvent::Reply(value) => self.on_reply(&value),
                ConnectionEvent::Disconnected(failure) => {
                    self.report_outage(&failure);
                    self.on_commands_down();
                }
            }
        }
        while self.has_room()
            && let Some(event) = self.follower.poll()
        {
            match event {
                ConnectionEvent::Connected(info) => {
                    self.is_follower_up = true;
                    self.follower_run_id = info.run_id;
                }
                ConnectionEvent::Reply(value) => self.on_followed(&value),
                ConnectionEvent::Disconnected(_) => self.on_follower_down(),
            }
        }
    }

    /// Sends what waits to be sent.
    fn send(&mut self) {
        if self.is_commands_up {
            if self.vouching.has_round() {
                self.vouch();
            } else {
                self.send_commands();
            }
        }
        self.ask_for_more();
    }
}

impl Log for ClusterLog {
    fn begin_turn(&mut self, mono_ms: u64) {
        self.now_ms = mono_ms;
    }

    fn is_ready(&self) -> bool {
        self.pending.is_none()
    }

    fn append(&mut self, _mono_ms: u64, _unix_ms: u64, commands: &[u8]) {
        self.sequence += 1;
        let value = entry::encode(self.node, self.sequence, commands);
        self.pending = Some(Pending {
            value,
            may_be_there: false,
            is_sent: false,
            retry_at_ms: 0,
            id: None,
            probe_at_ms: 0,
        });
        self.send();
    }

    fn withdraw(&mut self) -> bool {
        let is_unsent = |pending: &mut Pending| !pending.may_be_there && !pending.is_sent;
        self.pending.take_if(is_unsent).is_some()
    }

    fn poll(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.poll_connections();
            self.send();
        }
        let event = self.events.pop_front()?;
        self.on_taken(&event);
        Some(event)
    }

    fn begin_barrier(&mut self) -> bool {
        self.barriers.push_back(Barrier::Unsent);
        self.send();
        true
    }

    fn end_told_ms(&self) -> u64 {
        self.end_told_ms
    }

    fn is_catching_up(&self) -> bool {
        !self.events.is_empty() || matches!(self.barriers.front(), Some(Barrier::At(_)))
    }

    fn is_reachable(&self) -> bool {
        let is_up = self.is_commands_up && self.is_follower_up;
        is_up && !self.vouching.has_round() && self.reader.is_none()
    }

    fn renew_node(&mut self) -> u64 {
        (self.node, self.sequence) = (random_number(self.random), 0);
        // The reply to what was sent is not that to the first record of the new number.
        self.forget_replies();
        self.pending = None;
        self.node
    }

    fn wants_members(&self) -> bool {
        self.vouching.has_round() && self.members.is_none() && self.events.is_empty()
    }

    fn set_members(&mut self, members: Vec<u64>, renumbering: Vec<u8>) {
        (self.members, self.renumbering) = (Some(members), renumbering);
        self.send();
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        let pending_at = |it: &Pending| if it.is_sent { it.probe_at_ms } else { it.retry_at_ms };
        let pending_at = self.pending.as_ref().map(pending_at);
        let vouch_ms = self.vouching.next_ms().filter(|_| self.members.is_some());
        let read_ms = self.reader.as_ref().and_then(SnapshotReader::next_deadline_ms);
        let deadlines = pending_at.into_iter().chain(vouch_ms).chain(read_ms);
        // One that has passed is of a record that waits for something else, as the end of a round.
        deadlines.filter(|at| *at > self.now_ms).min()
    }

    fn reload(&mut self) {
        if self.reader.is_none() {
            self.abandon_snapshot();
            self.begin_reading();
        }
    }

    fn state(&self) -> Option<Vec<u8>> {
        let state = ClusterLogState {
            node: self.node,
            sequence: self.sequence,
            end: self.taken,
            newest: self.newest,
            newest_id: self.newest_id,
            run_id: self.vouching.trusted().map(Into::into),
            tail: Some(Box::new(self.tail.save(self.taken.last.id))),
            may_lack_records: self.may_lack_records,
        };
        Some(state.encode())
    }

    fn memory(&self) -> usize {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.value.len());
        let buffered = self.commands.buffered_bytes() + self.follower.buffered_bytes();
        // The tail has a limit of its own, and has it also while there are no clients.
        self.queued_bytes + pending + buffered
    }

    fn take_outcome(&mut self) -> Option<Outcome> {
        None
    }

    fn close(self: Box<Self>) {}

    fn bytes(&self) -> u64 {
        self.taken.bytes.saturating_sub(self.newest.map_or(0, |newest| newest.end.bytes))
    }

    fn is_snapshot_due(&self) -> bool {
        let (bytes, newest) = (self.bytes(), self.newest.as_ref());
        let is_cut = newest.is_some_and(SnapshotEntry::is_missing);
        let is_large =
            bytes > self.snapshot_min_bytes && bytes / 2 > newest.map_or(0, |newest| newest.bytes);
        self.reader.is_none()
            && self.is_commands_up
            && !self.vouching.has_round()
            && self.writer.may_begin(self.now_ms)
            && (is_cut || is_large)
    }

    fn begin_snapshot(&mut self, position: u64) {
        assert_eq!(position, self.taken.position, "all records that were taken are applied");
        let (name, end) = (random_number(self.random), self.taken);
        self.write_snapshot(|writer, sending| writer.begin(name, end, sending));
    }

    fn has_snapshot(&self) -> bool {
        self.writer.is_open()
    }

    fn wants_piece(&self) -> bool {
        self.writer.wants_piece()
    }

    fn append_piece(&mut self, bytes: &[u8]) {
        self.write_snapshot(|writer, sending| writer.write(bytes, sending));
    }

    fn finish_snapshot(&mut self) {
        self.write_snapshot(SnapshotWriter::finish);
    }

    fn abandon_snapshot(&mut self) {
        self.write_snapshot(SnapshotWriter::abandon);
    }
}

#[cfg(test)]
#[path = "driving_tests.rs"]
mod tests;
