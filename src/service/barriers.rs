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
    /// They wait for the next barrier, in the order of their calls.
    waiting: Vec<WaitingClient>,
    /// Barriers that the log was asked for, oldest first.
    pending: VecDeque<PendingBarrier>,
}

struct WaitingClient {
    client: Key,
    since: Millis,
}

struct PendingBarrier {
    clients: Vec<WaitingClient>,
    /// This process joins the cluster then.
    joins: bool,
}

impl Barriers {
    /// Returns the time at which calls no longer wait.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        // A client of an earlier barrier came earlier.
        let mut pending = self.pending.iter().filter_map(|barrier| barrier.clients.first());
        let first = pending.next().or(self.waiting.first());
        first.map(|client| client.since.after(WAIT_MAX_MS))
    }

    /// Returns the memory of the lists, in bytes.
    pub(super) fn memory(&self) -> usize {
        let pending: usize = self.pending.iter().map(|barrier| barrier.clients.capacity()).sum();
        (self.waiting.capacity() + pending) * size_of::<WaitingClient>()
    }

    /// Takes the clients that have waited too long.
    fn take_late(&mut self, now: Millis) -> Vec<WaitingClient> {
        let mut late = Vec::new();
        let pending = self.pending.iter_mut().map(|barrier| &mut barrier.clients);
        for clients in pending.chain([&mut self.waiting]) {
            let end = clients.partition_point(|it| it.since.after(WAIT_MAX_MS) <= now);
            late.extend(clients.drain(..end));
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
                let since = io.now.mono;
                commits.barriers.waiting.push(WaitingClient { client, since });
            }
            Behind::Proposals => {
                let (calls, command) = commits.last_proposals(hub.proposed(), io.now.mono);
                calls.push(WaitingCall { client, command, response: WaitingResponse::Retry });
            }
        }
    }

    /// Asks the log for its end, for all calls of the turn that wait for it.
    pub(super) fn begin_barrier(&mut self) {
        let barriers = &mut self.commits.barriers;
        let late = barriers.take_late(self.io.now.mono);
        if !barriers.waiting.is_empty() && barriers.pending.len() < PENDING_MAX {
            let clients = mem::take(&mut barriers.waiting);
            let log = self.commits.log.as_mut().expect("only a cluster has barriers");
            if log.begin_barrier() {
                self.commits.barriers.pending.push_back(PendingBarrier { clients, joins: false });
            } else {
                self.retry_all(clients);
            }
        }
        if !late.is_empty() {
            self.hub.set_behind(true);
        }
        self.retry_all(late);
    }

    /// Makes the calls again that have waited for the oldest barrier.
    pub(super) fn end_barrier(&mut self) {
        self.hub.set_behind(false);
        if let Some(barrier) = self.commits.barriers.pending.pop_front() {
            self.retry_all(barrier.clients);
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
            let barrier = PendingBarrier { clients: Vec::new(), joins: true };
            commits.barriers.pending.push_back(barrier);
        }
    }

    fn retry_all(&mut self, clients: Vec<WaitingClient>) {
        for WaitingClient { client, .. } in clients {
            self.retry(client);
        }
    }
}
