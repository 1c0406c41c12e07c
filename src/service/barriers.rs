//! Calls that wait until this process has applied what other nodes have acknowledged.

use std::collections::VecDeque;
use std::mem;

use super::commits::{WaitingCall, WaitingResponse};
use super::listener::Listener;
use super::service::Service;
use crate::api::Behind;
use crate::hub::{Key, Millis};

/// Longest wait for the end of the log. Then calls are answered from local state.
const WAIT_MAX_MS: u64 = 1_000;

/// Barriers that are under way at once. The calls of further turns share the next one.
const PENDING_MAX: usize = 4;

/// Clients whose calls wait for a barrier.
#[derive(Default)]
pub(super) struct Barriers {
    /// They wait for the next barrier, since this time.
    waiting: Vec<Key>,
    waiting_since: Option<Millis>,
    /// Barriers that the log was asked for, oldest first.
    pending: VecDeque<PendingBarrier>,
}

struct PendingBarrier {
    since: Millis,
    clients: Vec<Key>,
    /// This process joins the cluster then.
    joins: bool,
}

impl Barriers {
    /// Returns the time at which calls no longer wait.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let pending = self.pending.iter().find(|barrier| !barrier.clients.is_empty());
        let since = pending.map(|barrier| barrier.since);
        Millis::earliest([since, self.waiting_since]).map(|since| since.after(WAIT_MAX_MS))
    }

    /// Returns the memory of the lists, in bytes.
    pub(super) fn memory(&self) -> usize {
        let pending: usize = self.pending.iter().map(|barrier| barrier.clients.capacity()).sum();
        (self.waiting.capacity() + pending) * size_of::<Key>()
    }

    /// Takes the clients that have waited too long.
    fn take_late(&mut self, now: Millis) -> Vec<Key> {
        let mut late = Vec::new();
        for barrier in &mut self.pending {
            if barrier.since.after(WAIT_MAX_MS) <= now {
                late.append(&mut barrier.clients);
            }
        }
        if self.waiting_since.is_some_and(|since| since.after(WAIT_MAX_MS) <= now) {
            self.waiting_since = None;
            late.append(&mut self.waiting);
        }
        late
    }
}

impl<L: Listener> Service<L> {
    /// Adds a call that is made again once this process is no longer behind.
    pub(super) fn add_behind(&mut self, client: Key, behind: Behind) {
        let Self { hub, io, commits, .. } = self;
        match behind {
            Behind::Barrier => {
                commits.barriers.waiting_since.get_or_insert(io.now.mono);
                commits.barriers.waiting.push(client);
            }
            Behind::Hold | Behind::End => {
                let (calls, command) = commits.last_proposals(hub.proposed(), io.now.mono);
                let response = WaitingResponse::Retry(behind);
                calls.push(WaitingCall { client, command, response });
            }
        }
    }

    /// Asks the log for its end, for all calls of the turn that wait for it.
    pub(super) fn begin_barrier(&mut self) {
        let barriers = &mut self.commits.barriers;
        let late = barriers.take_late(self.io.now.mono);
        if !barriers.waiting.is_empty() && barriers.pending.len() < PENDING_MAX {
            let clients = mem::take(&mut barriers.waiting);
            let since = barriers.waiting_since.take().unwrap_or(self.io.now.mono);
            let log = self.commits.log.as_mut().expect("only a cluster has barriers");
            if log.begin_barrier() {
                self.commits.barriers.pending.push_back(PendingBarrier {
                    since,
                    clients,
                    joins: false,
                });
            } else {
                self.retry_all(clients, Behind::Barrier);
            }
        }
        // The log would not take a hold either.
        self.retry_all(late, Behind::Hold);
    }

    /// Makes the calls again that have waited for the oldest barrier.
    pub(super) fn end_barrier(&mut self) {
        if let Some(barrier) = self.commits.barriers.pending.pop_front() {
            self.retry_all(barrier.clients, Behind::Barrier);
            if barrier.joins && !self.hub.is_joined() {
                self.hub.propose_join();
            }
        }
    }

    /// Asks the log for its end, at which this process joins the cluster.
    pub(super) fn begin_join(&mut self) {
        let Self { io, commits, .. } = self;
        if commits.barriers.pending.iter().any(|barrier| barrier.joins) {
            return;
        }
        if let Some(log) = &mut commits.log
            && log.begin_barrier()
        {
            let since = io.now.mono;
            commits.barriers.pending.push_back(PendingBarrier {
                since,
                clients: Vec::new(),
                joins: true,
            });
        }
    }

    fn retry_all(&mut self, clients: Vec<Key>, waited: Behind) {
        for client in clients {
            self.retry(client, waited);
        }
    }
}
