//! Clients whose calls wait until this process has applied what other nodes have acknowledged.

use std::collections::VecDeque;

use crate::hub::{HEARTBEAT_MS, Key, Millis};

/// Longest wait for a log that does not respond. Then calls are answered from local state.
const WAIT_MAX_MS: u64 = 1_000;

/// Time between two turns after which this process was stopped: heartbeats wake it more often.
const STOPPED_MS: u64 = 2 * HEARTBEAT_MS;

/// Time from one such stop to the next that counts. So a process that is always that slow answers,
/// too.
const NEXT_STOP_MS: u64 = 3 * STOPPED_MS;

/// Clients whose calls wait for a barrier.
#[derive(Default)]
pub(super) struct Barriers {
    /// They wait for the next barrier, in the order of their calls.
    pub(super) waiting: Vec<WaitingClient>,
    /// Barriers that the log was asked for, oldest first.
    pub(super) pending: VecDeque<PendingBarrier>,
    /// Calls were answered without a barrier, and none was begun since.
    pub(super) owes_one: bool,
    /// Number of the barrier in `pending`, from 1, at which this process is no longer behind for
    /// those calls; 0 if there is none.
    pub(super) catches_up_at: usize,
    /// Time of the last event of the log.
    pub(super) heard_at: Millis,
    /// Time until which the log has responded: it told its end, or gave records before the end that
    /// it had told.
    pub(super) responded_at: Millis,
    /// Time of the last turn, and of the last one after a stop.
    turned_at: Millis,
    stopped_until: Millis,
}

/// A client whose call waits.
pub(super) struct WaitingClient {
    pub(super) client: Key,
    /// Time at which the call came.
    pub(super) since: Millis,
}

/// A barrier that the log was asked for.
pub(super) struct PendingBarrier {
    pub(super) clients: Vec<WaitingClient>,
    /// This process joins the cluster then.
    pub(super) joins: bool,
    /// This process was stopped since: the end of the log is another one by now, and its sessions
    /// may have ended.
    pub(super) is_old: bool,
}

impl Barriers {
    /// Notes a turn, and whether this process was stopped before it.
    pub(super) fn note_turn(&mut self, now: Millis) {
        let is_next = self.stopped_until.after(NEXT_STOP_MS) <= now;
        if self.turned_at.after(STOPPED_MS) <= now && is_next {
            self.stopped_until = now;
            self.pending.iter_mut().for_each(|barrier| barrier.is_old = true);
        }
        self.turned_at = now;
    }

    /// Returns the time at which calls no longer wait.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let pending = self.pending.iter().map(|barrier| &barrier.clients);
        let firsts = pending.chain([&self.waiting]).filter_map(|clients| clients.first());
        firsts.map(|client| self.late_at(client)).min()
    }

    /// Adds clients whose calls have waited for something else. The lists are in the order of the
    /// calls.
    pub(super) fn add_earlier(&mut self, clients: Vec<WaitingClient>) {
        self.waiting.extend(clients);
        self.waiting.sort_by_key(|client| client.since);
    }

    /// Returns the time at which a call no longer waits.
    fn late_at(&self, client: &WaitingClient) -> Millis {
        client.since.max(self.responded_at).after(WAIT_MAX_MS)
    }

    /// Returns whether no call waits, and this process does not join.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.pending.is_empty()
    }

    /// Returns the memory of the lists, in bytes.
    pub(super) fn memory(&self) -> usize {
        let pending: usize = self.pending.iter().map(|barrier| barrier.clients.capacity()).sum();
        (self.waiting.capacity() + pending) * size_of::<WaitingClient>()
    }

    /// Takes the clients that have waited too long.
    pub(super) fn take_late(&mut self, now: Millis) -> Vec<WaitingClient> {
        let mut late = Vec::new();
        if self.responded_at.after(WAIT_MAX_MS) > now {
            return late;
        }
        let pending = self.pending.iter_mut().map(|barrier| &mut barrier.clients);
        for clients in pending.chain([&mut self.waiting]) {
            let end = clients.partition_point(|it| it.since.after(WAIT_MAX_MS) <= now);
            late.extend(clients.drain(..end));
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A barrier that is told to be too old each time would be asked for again for ever.
    #[test]
    fn a_process_that_is_always_slow_answers_too() {
        let mut barriers = Barriers::default();
        barriers.note_turn(Millis(10_000));
        let mut is_old = |now| {
            barriers.pending =
                [PendingBarrier { clients: vec![], joins: false, is_old: false }].into();
            barriers.note_turn(Millis(now));
            barriers.pending[0].is_old
        };
        let times = [10_500, 12_000, 14_000, 16_000, 18_000, 20_000];
        assert_eq!(times.map(&mut is_old), [false, false, true, false, true, false]);
    }
}
