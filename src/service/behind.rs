//! Calls that are made again once this process is not behind the other nodes.

use std::mem;

use super::barriers::{PendingBarrier, WaitingClient};
use super::commits::{WaitingCall, WaitingResponse, take_reads};
use super::listener::Listener;
use super::service::Service;
use crate::api::Behind;
use crate::hub::{Key, Millis};

/// Barriers that are under way at once. The calls of further turns share the next one.
const PENDING_MAX: usize = 4;

impl<L: Listener> Service<L> {
    /// Adds a call that is made again once this process is no longer behind.
    pub(super) fn add_behind(&mut self, client: Key, behind: Behind) {
        let Self { hub, io, commits, .. } = self;
        let called_at = commits.called_at(hub, io.now.mono);
        match behind {
            Behind::Barrier => {
                commits.barriers.waiting.push(WaitingClient { client, since: called_at });
            }
            Behind::Hold | Behind::End => {
                // The proposals must not be late because of an old read.
                let now = io.now.mono;
                let (calls, command) = commits.last_proposals(hub.proposed(), now);
                let since = if behind == Behind::Hold { now } else { called_at };
                let response = WaitingResponse::Retry(behind, since);
                calls.push(WaitingCall { client, command, response });
                commits.has_reads = true;
            }
        }
    }

    /// Asks the log for its end, for all calls of the turn that wait for it. Called before the turn
    /// appends a record, which these calls need not wait for.
    pub(super) fn begin_barrier(&mut self) {
        if !self.hub.is_clustered() {
            return;
        }
        let barriers = &mut self.commits.barriers;
        let is_needed = barriers.owes_one || !barriers.waiting.is_empty();
        if is_needed && barriers.pending.len() < PENDING_MAX {
            let clients = mem::take(&mut barriers.waiting);
            let log = self.commits.log.as_mut().expect("only a cluster has barriers");
            if log.begin_barrier() {
                let barrier = PendingBarrier { clients, joins: false, is_old: false };
                let barriers = &mut self.commits.barriers;
                barriers.pending.push_back(barrier);
                if mem::take(&mut barriers.owes_one) {
                    barriers.catches_up_at = barriers.pending.len();
                }
            } else {
                self.retry_all(clients, Behind::Barrier);
            }
        }
    }

    /// Makes the calls from local state that have waited too long for a barrier. Called after the
    /// events of the log: they may be what the calls wait for, if this process was stopped.
    pub(super) fn end_late_waits(&mut self) {
        self.note_response();
        let barriers = &mut self.commits.barriers;
        let late = barriers.take_late(self.io.now.mono);
        if !late.is_empty() {
            self.hub.set_behind(true);
            barriers.owes_one = true;
            self.begin_barrier();
            // The log would not take a hold either.
            self.retry_all(late, Behind::Hold);
        }
    }

    /// Makes the reads wait for a barrier that wait until this process holds their sessions, or for
    /// the end of those. The log does not respond as usual: a record may take long, and a read may
    /// not.
    pub(super) fn end_read_waits(&mut self) {
        let commits = &mut self.commits;
        if !mem::take(&mut commits.has_reads) {
            return;
        }
        let record = commits.record.as_mut().map(|record| &mut record.waiting);
        let lists = record.into_iter().chain([&mut commits.waiting]);
        let reads = lists.flat_map(|calls| take_reads(calls, |_| true)).collect();
        self.await_barrier(reads);
    }

    /// Makes reads wait for a barrier that have waited for a record.
    pub(super) fn await_barrier(&mut self, clients: Vec<WaitingClient>) {
        if !clients.is_empty() {
            self.commits.barriers.add_earlier(clients);
            self.begin_barrier();
        }
    }

    /// Notes that the log responds, and this process is only slow to apply what it gives.
    fn note_response(&mut self) {
        let Self { io, commits, .. } = self;
        let Some(log) = &commits.log else { return };
        let barriers = &mut commits.barriers;
        let responded_at = if commits.applying.is_some() {
            io.now.mono
        } else if log.is_catching_up() {
            barriers.heard_at
        } else {
            Millis(log.end_told_ms())
        };
        barriers.responded_at = barriers.responded_at.max(responded_at);
    }

    /// Makes the calls again that have waited for the oldest barrier, or has them wait for the next
    /// one if that is too old.
    pub(super) fn end_barrier(&mut self) {
        let barriers = &mut self.commits.barriers;
        barriers.responded_at = self.io.now.mono;
        let is_old = barriers.pending.front().is_some_and(|barrier| barrier.is_old);
        barriers.owes_one |= is_old && barriers.catches_up_at == 1;
        let is_caught_up = barriers.catches_up_at == 1 && !barriers.owes_one;
        barriers.catches_up_at = barriers.catches_up_at.saturating_sub(1);
        if is_caught_up {
            self.hub.set_behind(false);
        }
        if let Some(barrier) = self.commits.barriers.pending.pop_front() {
            if is_old {
                self.await_barrier(barrier.clients);
            } else {
                self.retry_all(barrier.clients, Behind::Barrier);
            }
            if barrier.joins && !self.hub.is_joined() {
                self.hub.propose_join();
            }
        }
    }

    /// Asks the log for its end, at which this process joins the cluster.
    pub(super) fn begin_join(&mut self) {
        let Self { commits, .. } = self;
        if commits.barriers.pending.iter().any(|barrier| barrier.joins) {
            return;
        }
        if let Some(log) = &mut commits.log
            && log.begin_barrier()
        {
            let barrier = PendingBarrier { clients: Vec::new(), joins: true, is_old: false };
            commits.barriers.pending.push_back(barrier);
        }
    }

    fn retry_all(&mut self, clients: Vec<WaitingClient>, waited: Behind) {
        for WaitingClient { client, since } in clients {
            self.retry(client, waited, since);
        }
    }
}
