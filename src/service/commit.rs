//! Calls that wait for the log: from proposals to a record, and from the record to responses.
//!
//! The proposals of a turn become a record, unless another record is being written: then they wait
//! and become one record together (group commit). Once a record is in the log, its commands are
//! applied, and their calls are answered.

use std::mem;
use std::time::Duration;

use super::commit_responses::Responses;
use super::commits::{Commits, LATE_MS, WaitingCall, WaitingResponse, is_late};
use super::listener::Listener;
use super::service::Service;
use crate::api::Responder;
use crate::http::Persistence;
use crate::hub::{Applied, Command, Key, LogHealth, ProposalCursor, Proposals};
use crate::log::{Event, Log, Outcome};
use crate::metrics::LogRefusal;

/// Interval of attempts to write while the disk is full. Calls wait so long for one of them.
const RETRY_MS: u64 = 1_000;

/// Bits of a command's position for its index in the record.
const INDEX_BITS: u32 = 20;

impl<L: Listener> Service<L> {
    /// Makes changes wait for a log from now on, whose last record is the last one that the hub has
    /// applied.
    pub fn set_log(&mut self, log: Box<dyn Log>) {
        self.hub.begin_logging();
        self.commits.position = record_position(self.hub.position());
        self.commits.log = Some(log);
    }

    /// Proposes the command that begins the numbering of ids. `is_new` is true for a new log.
    pub fn begin_numbering(&mut self, is_new: bool) {
        self.hub.propose_numbering(is_new);
    }

    /// Sets the number of commands that one record has at most. For a simulation, whose turns have
    /// few.
    pub fn set_record_commands_max(&mut self, max: u32) {
        self.commits.record_commands_max = max;
    }

    /// Releases the log, for the successor in an upgrade. No record may be pending.
    pub fn release_log(&mut self) {
        assert!(self.is_log_idle(), "a record is still pending");
        self.hub.abandon_checkpoint();
        self.commits.is_saving = false;
        if let Some(log) = self.commits.log.take() {
            log.close();
        }
    }

    /// Commits what has been proposed, outside of a turn. Returns whether nothing waits for the log
    /// any more, and the hub has nothing to deliver.
    pub fn advance_log(&mut self) -> bool {
        self.end_commit_delay();
        self.io.clients.begin_turn();
        self.commit();
        self.deliver();
        let Commits { barriers, loading, .. } = &self.commits;
        self.is_log_idle() && barriers.is_idle() && loading.is_none()
    }

    /// Refuses the calls that wait for the next attempt to write to a full disk, outside of a turn.
    /// Nothing of them was written.
    pub fn refuse_while_full(&mut self) {
        if self.commits.retry_at.is_some() && self.commits.record.is_none() {
            self.refuse_proposals(LogRefusal::Full);
        }
    }

    /// Returns the time after which [`Service::end_commit_delay`] has to be called, if a delay has
    /// begun since the last call.
    #[inline]
    pub fn take_commit_delay(&mut self) -> Option<Duration> {
        self.commits.delay.take_timer()
    }

    /// Ends the delay of the next record. The turn that follows begins it.
    pub fn end_commit_delay(&mut self) {
        self.commits.delay.expire();
    }

    /// Returns whether no change waits for the log.
    #[must_use]
    pub fn is_log_idle(&self) -> bool {
        !self.commits.has_record() && self.hub.proposed() == 0
    }

    /// Returns whether the log has failed. The process has to stop: what it answers is right, but
    /// it cannot keep anything any more.
    #[must_use]
    pub fn has_log_failed(&self) -> bool {
        self.commits.has_failed
    }

    /// Records that the log cannot be used any more.
    pub fn fail_log(&mut self) {
        self.commits.has_failed = true;
    }

    /// Adds the response to a call that waits for the log.
    pub(super) fn add_waiting_call(&mut self, client: Key, responder: Responder) {
        if let Some(session) = responder.ending() {
            return self.add_ending_call(client, session, responder);
        }
        let command = self.hub.proposed() - 1;
        let response = WaitingResponse::Of(responder);
        self.commits.wait_since(self.commits.called_at(&self.hub, self.io.now.mono));
        self.commits.waiting.push(WaitingCall { client, command, response });
    }

    /// Adds the response to a call whose session ends with a command that waits for the log.
    fn add_ending_call(&mut self, client: Key, session: u64, responder: Responder) {
        let Self { hub, io, commits, .. } = self;
        let response = WaitingResponse::Ending(session, responder);
        let called_at = commits.called_at(hub, io.now.mono);
        let (calls, command) = commits.last_proposals(hub.proposed(), called_at);
        calls.push(WaitingCall { client, command, response });
    }

    /// Adds a response that was appended at `start` of the responses, and has to wait for those of
    /// earlier calls.
    pub(super) fn add_waiting_response(
        &mut self,
        client: Key,
        start: usize,
        persistence: Persistence,
    ) {
        let command = self.hub.proposed();
        let response = WaitingResponse::Ready(self.io.response.split_off(start), persistence);
        self.commits.waiting.push(WaitingCall { client, command, response });
    }

    /// Applies the record that has come into the log, and appends the next one.
    #[inline]
    pub(super) fn commit(&mut self) {
        if self.commits.log.is_some() {
            self.drive_log();
        }
    }

    #[inline(never)]
    fn drive_log(&mut self) {
        let is_clustered = self.hub.is_clustered();
        if is_clustered {
            self.begin_cluster_turn();
        }
        loop {
            let may_have_more = self.take_events();
            if !self.apply_record() {
                break;
            }
            if self.append_record() {
                continue;
            }
            self.drive_checkpoint();
            if !may_have_more {
                break;
            }
        }
        if is_clustered {
            self.end_cluster_turn();
        }
        self.check_health();
        self.io.log_bytes = self.commits.memory() + self.hub.log_bytes();
    }

    /// Appends a record with the proposals. Returns whether it did.
    fn append_record(&mut self) -> bool {
        let Self { hub, io, commits, .. } = self;
        if hub.proposed() == 0 || commits.record.is_some() || commits.has_failed {
            return false;
        }
        let has_to_wait = commits.retry_at.is_some_and(|at| at > io.now.mono)
            || commits.delay.is_delayed(commits.waiting.len());
        if has_to_wait || !commits.log.as_ref().is_some_and(|log| log.is_ready()) {
            return false;
        }
        if is_late(commits.waiting_since, io.now.mono) {
            // They are refused, and certain to have changed nothing only if they are not sent.
            self.refuse_proposals(LogRefusal::Behind);
            return false;
        }
        commits.retry_at = None;
        commits.delay.end();
        let mut record = commits.new_record();
        let (max, max_bytes) = (commits.record_commands_max, commits.record_bytes_max);
        hub.take_proposals(max, max_bytes, &mut record.commands);
        commits.move_waiting(&mut record);
        record.now = io.now;
        let log = commits.log.as_mut().expect("it is ready");
        log.append(io.now.mono.0, io.now.unix_ms, record.commands.bytes());
        commits.record = Some(record);
        true
    }

    /// Takes events of the log, up to the next record that is to be applied. Returns whether there
    /// were any, and more may follow.
    fn take_events(&mut self) -> bool {
        let mut has_events = false;
        while self.commits.applying.is_none()
            && let Some(event) = self.commits.poll_log()
        {
            has_events = true;
            self.commits.barriers.heard_at = self.io.now.mono;
            match event {
                Event::Outcome(outcome) => self.on_outcome(outcome),
                event => self.on_shared_event(event),
            }
        }
        has_events && self.commits.log.as_ref().is_some_and(|log| log.may_have_events())
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        let Self { io, commits, .. } = self;
        match outcome {
            Outcome::Durable { position, flush } => {
                if !flush.is_zero() {
                    io.metrics.flushes.add(flush.as_nanos() as u64);
                }
                let record = commits.record.take();
                let mut record = record.expect("only a pending record has an outcome");
                (record.position, record.flush) = (position, flush);
                commits.applying = Some(record);
            }
            Outcome::Full => {
                commits.retry_at = Some(io.now.mono.after(RETRY_MS));
                self.refuse_record(LogRefusal::Full);
            }
            Outcome::Failed => {
                commits.has_failed = true;
                self.refuse_record(LogRefusal::Unknown);
                self.refuse_proposals(LogRefusal::Behind);
            }
        }
    }

    /// Applies commands of the record while the turn has budget. Returns whether all are applied.
    fn apply_record(&mut self) -> bool {
        let Some(mut record) = self.commits.applying.take() else { return true };
        let mut responses = Responses::default();
        loop {
            record.answered +=
                responses.push_due(self, &record.waiting[record.answered..], record.next.index());
            if !self.io.clients.budget.has_commit_budget() {
                break;
            }
            let index = record.next.index();
            let proposal = match record.commands.next(&mut record.next) {
                Ok(Some(proposal)) => proposal,
                Ok(None) => break,
                Err(_) => {
                    log::error!("the log has a command that this version cannot read; stopping");
                    self.commits.has_failed = true;
                    break;
                }
            };
            let before = self.hub.appended_bytes();
            let position = command_position(record.position, index);
            let (now, present) = (record.now, self.io.now.mono);
            let result = self.hub.apply_proposal(now, present, position, &proposal);
            let encoded = (self.hub.appended_bytes() - before) as usize;
            self.io.clients.budget.charge_commit(encoded);
            if let Ok(Applied::Mismatch(shared)) = result {
                self.on_mismatch(shared);
            }
            if let Command::Begin { watermark_hash_key, .. } = proposal.command {
                self.io.api.set_epoch(self.hub.epoch());
                // A log begins with a key. A node that has not joined yet reads old records.
                if watermark_hash_key.is_none() && self.hub.is_joined() {
                    self.io.metrics.count_log_epoch();
                }
            }
            if let Some(WaitingCall { client, command, response }) =
                record.waiting.get(record.answered)
                && *command == index
            {
                match response {
                    WaitingResponse::Of(responder) => {
                        responses.begin(self, *client);
                        let out = &mut self.io.response;
                        responses.persistence = self.io.api.respond_applied(responder, result, out);
                        record.answered += 1;
                    }
                    WaitingResponse::Ending(..)
                    | WaitingResponse::Ready(..)
                    | WaitingResponse::Retry(..) => {}
                }
            }
        }
        // A record may have only the first calls of a client.
        let next = record.waiting.get(record.answered).or(self.commits.waiting.first());
        let next = next.map(|call| call.client);
        responses.end(self, next);
        let is_applied = record.is_applied();
        if is_applied {
            self.commits.position = record.position;
            self.hub.end_record(record.position);
            self.commits.delay.begin(record.answered, self.commits.waiting.len(), record.flush);
            self.commits.recycle(record);
        } else {
            self.commits.applying = Some(record);
        }
        is_applied
    }

    /// Saves the next piece of the checkpoint, or begins one if the log has grown enough. Called
    /// when no record is half applied, and none is in the log that is not applied.
    fn drive_checkpoint(&mut self) {
        let Self { hub, io, commits, .. } = self;
        let Some(log) = &mut commits.log else { return };
        if !log.has_snapshot() {
            if mem::take(&mut commits.is_saving) {
                hub.abandon_checkpoint();
            }
            if commits.position > 0 && hub.is_joined() && log.is_snapshot_due() {
                log.begin_snapshot(commits.position);
                commits.snapshot_position = commits.position;
                hub.begin_checkpoint();
                commits.is_saving = true;
            }
        } else if commits.is_saving && log.wants_piece() {
            if let Some(piece) = hub.next_piece(io.now) {
                log.append_piece(&piece);
            } else if hub.is_applied_by_all(commits.snapshot_position) {
                // Until then another node may need the records that the snapshot replaces.
                log.finish_snapshot();
                commits.is_saving = false;
            }
        }
    }

    /// Answers the calls of the record with an error, and forgets its commands.
    fn refuse_record(&mut self, reason: LogRefusal) {
        let Some(mut record) = self.commits.record.take() else { return };
        self.refuse_calls(mem::take(&mut record.waiting), reason);
        self.refuse_commands(&record.commands);
        self.commits.recycle(record);
    }

    /// Answers the calls that wait for the next record: nothing of them is, or will be, in the log.
    pub(super) fn refuse_proposals(&mut self, reason: LogRefusal) {
        let mut proposals = Proposals::default();
        self.hub.swap_proposals(&mut proposals);
        let waiting = mem::take(&mut self.commits.waiting);
        self.commits.waiting_since = None;
        self.refuse_calls(waiting, reason);
        self.refuse_commands(&proposals);
    }

    fn refuse_commands(&mut self, proposals: &Proposals) {
        let mut at = ProposalCursor::default();
        while let Some(it) = proposals.next(&mut at).expect("this process has encoded it") {
            self.hub.refuse(self.io.now, &it.command);
        }
    }

    /// Tells the hub how the log responds. Called before the timers of a turn too: they may all
    /// fire at once, if this process was stopped.
    #[inline]
    pub(super) fn update_health(&mut self) -> LogHealth {
        let health = self.commits.health(&self.hub, self.io.now.mono);
        self.hub.set_log_health(self.io.now.mono, health);
        health
    }

    /// Tells the hub how the log responds. Answers the calls of a record that is late.
    fn check_health(&mut self) {
        let now = self.io.now.mono;
        let health = self.update_health();
        if health != LogHealth::Good {
            self.end_read_waits();
        }
        if let Some(record) = &mut self.commits.record
            && is_late(record.waiting_since, now)
        {
            let log = if self.hub.is_clustered() { "cluster: Redis" } else { "journal: the disk" };
            log::error!("{log} has not responded for {} s", LATE_MS / 1000);
            record.waiting_since = None;
            let waiting = mem::take(&mut record.waiting);
            if self.commits.log.as_mut().is_some_and(|log| log.withdraw()) {
                self.commits.withdrawn_at.get_or_insert(record.now.mono);
                self.refuse_calls(waiting, LogRefusal::Behind);
                self.refuse_record(LogRefusal::Behind);
            } else {
                self.refuse_calls(waiting, LogRefusal::Unknown);
            }
        }
        let is_refused = health == LogHealth::Stalled || is_late(self.commits.waiting_since, now);
        if is_refused && self.hub.proposed() > 0 {
            self.refuse_proposals(LogRefusal::Behind);
        }
    }
}

/// Returns the position in the log of a command of a record.
#[must_use]
pub fn command_position(record: u64, index: u32) -> u64 {
    (record << INDEX_BITS) + u64::from(index)
}

/// Returns the position of the record of a command.
#[must_use]
pub fn record_position(command: u64) -> u64 {
    command >> INDEX_BITS
}
