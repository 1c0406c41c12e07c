//! The log of a service, and the calls that wait for it.

use std::mem;
use std::time::Duration;

use super::barriers::{Barriers, WaitingClient};
use super::commit_delay::CommitDelay;
use super::waited::Waited;
use crate::api::{Behind, Responder};
use crate::http::Persistence;
use crate::hub::{Hub, Key, LogHealth, Millis, Now, ProposalCursor, Proposals, Recovery};
use crate::log::{Event, Log};
use crate::metrics::LogGauges;

/// Time of writing a record after which sessions no longer time out, in addition to the time that
/// the last ones took to come back from Redis.
const SLOW_MS: u64 = 1_000;

/// Time of writing a record after which its calls are answered, with an outcome that is unknown.
pub(super) const LATE_MS: u64 = 5_000;

/// Time that counts, of a wait before a call that changes something is made again. So its record
/// has at least a second, and a call from before a stop of this process does not make newer ones
/// late, which are answered with it.
const WAITED_MAX_MS: u64 = LATE_MS - 1_000;

/// Commands that one record has at most. A position has 20 bits for the command in its record.
const RECORD_COMMANDS_MAX: u32 = 64 * 1024;

/// The log, and the calls that wait for it.
pub(super) struct Commits {
    pub(super) log: Option<Box<dyn Log>>,
    /// Time at which the call came that is handled now, in a cluster.
    called_at: Millis,
    /// Calls whose commands are proposals of the hub, in the order of the commands.
    pub(super) waiting: Vec<WaitingCall>,
    /// Time at which the first of them came.
    pub(super) waiting_since: Option<Millis>,
    /// Record that was appended, until the log has it.
    pub(super) record: Option<Box<CommitRecord>>,
    /// Record in the log, until all of its commands are applied.
    pub(super) applying: Option<Box<CommitRecord>>,
    /// Calls that wait for what other nodes have acknowledged.
    pub(super) barriers: Barriers,
    /// A read may wait for a record, in which this process holds its session, or ends it.
    pub(super) has_reads: bool,
    /// Delay of the next record.
    pub(super) delay: CommitDelay,
    /// Empty, with memory for the next record.
    spare: Option<Box<CommitRecord>>,
    /// Position of the last record that was applied.
    pub(super) position: u64,
    /// A checkpoint of the hub is being saved.
    pub(super) is_saving: bool,
    /// Position of the last record before it.
    pub(super) snapshot_position: u64,
    /// State that is being loaded from the log.
    pub(super) loading: Option<Box<Recovery>>,
    /// The state is not loaded again before this time for being another one than that of another
    /// node.
    pub(super) reload_after: Millis,
    /// Commands that one record has at most.
    pub(super) record_commands_max: u32,
    /// Bytes of commands at which a record is complete.
    pub(super) record_bytes_max: usize,
    /// Time of the next attempt after one that found the disk full.
    pub(super) retry_at: Option<Millis>,
    pub(super) has_failed: bool,
    /// Time of the next heartbeat in a cluster.
    pub(super) heartbeat_at: Millis,
    /// A heartbeat was due while the last one had not come back.
    pub(super) is_heartbeat_late: bool,
    /// Time at which the last record of this process came back. `None` without a cluster, and while
    /// this process is not in it.
    pub(super) heard_at: Option<Millis>,
    /// Time of the first record that was withdrawn, unless a later one has come back.
    pub(super) withdrawn_at: Option<Millis>,
}

/// A call that waits for the log.
pub(super) struct WaitingCall {
    pub(super) client: Key,
    /// Index of its command among those of the record.
    pub(super) command: u32,
    pub(super) response: WaitingResponse,
}

/// Response to a call that waits for the log.
pub(super) enum WaitingResponse {
    /// Made when the command is applied.
    Of(Responder),
    /// An error, made when the commands before this one are applied or refused: then this session
    /// has ended, or lives on.
    Ending(u64, Responder),
    /// A response that waits for those before it.
    Ready(Vec<u8>, Persistence),
    /// The call is made again, after it has waited for this. It came at that time.
    Retry(Behind, Millis),
}

/// A record, from its append until all of its commands are applied. It lives in a box, so that it
/// goes from one state to the next without a copy.
#[derive(Default)]
pub(super) struct CommitRecord {
    pub(super) commands: Proposals,
    /// Calls of this process.
    pub(super) waiting: Vec<WaitingCall>,
    /// Time at which the first of the calls came, until they are answered. Unused once the log has
    /// the record.
    pub(super) waiting_since: Option<Millis>,
    /// Time of the append, which becomes that of the record.
    pub(super) now: Now,
    /// Position of the record, and time of its flush, once the log has it.
    pub(super) position: u64,
    pub(super) flush: Duration,
    /// Commands before this place are applied, and `answered` calls of them are answered.
    pub(super) next: ProposalCursor,
    pub(super) answered: usize,
}

impl CommitRecord {
    /// Returns whether all commands are applied.
    pub(super) fn is_applied(&self) -> bool {
        self.commands.is_end(&self.next)
    }

    /// Makes this the next record, which gets its times and its position later. Keeps the memory of
    /// lists unless they are long.
    fn clear(&mut self) {
        const KEEP_CALLS: usize = 1024;
        self.commands.clear();
        self.waiting.clear();
        self.waiting.shrink_to(KEEP_CALLS);
        self.waiting_since = None;
        self.next = ProposalCursor::default();
        self.answered = 0;
    }
}

impl Default for Commits {
    fn default() -> Self {
        Self {
            log: None,
            called_at: Millis(0),
            waiting: Vec::new(),
            waiting_since: None,
            record: None,
            applying: None,
            barriers: Barriers::default(),
            has_reads: false,
            heartbeat_at: Millis(0),
            is_heartbeat_late: false,
            heard_at: None,
            withdrawn_at: None,
            delay: CommitDelay::default(),
            spare: None,
            position: 0,
            is_saving: false,
            snapshot_position: 0,
            loading: None,
            reload_after: Millis(0),
            record_commands_max: RECORD_COMMANDS_MAX,
            record_bytes_max: usize::MAX,
            retry_at: None,
            has_failed: false,
        }
    }
}

impl Commits {
    /// Returns the next event of the log.
    pub(super) fn poll_log(&mut self) -> Option<Event> {
        let log = self.log.as_mut().filter(|log| log.may_have_events())?;
        log.poll()
    }

    /// Begins a record, without commands and calls.
    pub(super) fn new_record(&mut self) -> Box<CommitRecord> {
        self.spare.take().unwrap_or_default()
    }

    /// Begins a record with these commands of another process, without calls.
    pub(super) fn new_foreign_record(&mut self, commands: &[u8]) -> Box<CommitRecord> {
        let mut record = self.new_record();
        record.commands.fill(commands);
        record
    }

    /// Keeps the memory of a record for the next one.
    pub(super) fn recycle(&mut self, mut record: Box<CommitRecord>) {
        record.clear();
        self.spare = Some(record);
    }

    /// Moves the calls of the first proposals to the record, which has their commands.
    pub(super) fn move_waiting(&mut self, record: &mut CommitRecord) {
        let commands = record.commands.count();
        let is_in_record = |call: &WaitingCall| {
            let is_of_command = matches!(call.response, WaitingResponse::Of(_));
            call.command < commands || (call.command == commands && !is_of_command)
        };
        record.waiting_since = self.waiting_since;
        let end = self.waiting.partition_point(is_in_record);
        if end == self.waiting.len() {
            mem::swap(&mut self.waiting, &mut record.waiting);
            self.waiting_since = None;
            return;
        }
        // None of the rest came earlier.
        record.waiting.extend(self.waiting.drain(..end));
        for call in &mut self.waiting {
            call.command -= commands;
        }
    }

    /// Returns whether there is a step to take without waiting for the log.
    #[inline]
    pub(super) fn has_work(&self, hub: &Hub) -> bool {
        let Some(log) = &self.log else { return false };
        let is_held = self.record.is_some()
            || self.retry_at.is_some()
            || self.delay.is_delayed(self.waiting.len());
        self.applying.is_some() || (!is_held && hub.proposed() > 0 && log.is_ready())
    }

    /// Begins a call in a cluster: a new one, or one that has waited. Returns what it has waited
    /// for.
    pub(super) fn begin_call(&mut self, now: Millis, waited: Option<Waited>) -> Option<Behind> {
        let waited_ms = waited.map_or(0, Waited::ms).min(WAITED_MAX_MS);
        self.called_at = Millis(now.0.saturating_sub(waited_ms));
        waited.map(Waited::behind)
    }

    /// Returns the time at which the call came that is handled at `now`.
    pub(super) fn called_at(&self, hub: &Hub, now: Millis) -> Millis {
        if hub.is_clustered() { self.called_at } else { now }
    }

    /// Notes a call that waits for the next record, and came at this time.
    pub(super) fn wait_since(&mut self, called_at: Millis) {
        note_earliest(&mut self.waiting_since, called_at);
    }

    /// Returns the calls that are answered with the last proposals, and the number of commands
    /// before them. `proposed` counts the commands that wait for the next record. Another such call
    /// came at `called_at`.
    pub(super) fn last_proposals(
        &mut self,
        proposed: u32,
        called_at: Millis,
    ) -> (&mut Vec<WaitingCall>, u32) {
        match (&mut self.record, &mut self.applying) {
            (Some(record), _) if proposed == 0 => {
                note_earliest(&mut record.waiting_since, called_at);
                (&mut record.waiting, record.commands.count())
            }
            (None, Some(record)) if proposed == 0 => (&mut record.waiting, record.commands.count()),
            _ => {
                note_earliest(&mut self.waiting_since, called_at);
                (&mut self.waiting, proposed)
            }
        }
    }

    /// Returns whether a record is being written or applied.
    pub(super) fn has_record(&self) -> bool {
        self.record.is_some() || self.applying.is_some()
    }

    /// Returns the time at which the record that is being written becomes slow, or calls have
    /// waited too long. After a full disk, returns that of the next attempt, unless nothing is
    /// proposed.
    #[inline]
    pub(super) fn next_deadline(&self, hub: &Hub, now: Millis) -> Option<Millis> {
        let log = self.log.as_ref()?;
        let is_idle =
            self.record.is_none() && self.waiting_since.is_none() && self.retry_at.is_none();
        if is_idle && !hub.is_clustered() {
            return None;
        }
        let log_at = log.next_deadline_ms().map(Millis);
        let heartbeat_at = hub.is_clustered().then_some(self.heartbeat_at);
        let late = |since: Option<Millis>| since.map(|since| since.after(LATE_MS));
        let record = self.record.as_ref();
        let retry_at = self.retry_at.filter(|_| record.is_none() && hub.proposed() > 0);
        let slow_ms = SLOW_MS + hub.round_trip_ms();
        let slow_at = record.map(|record| record.now.mono.after(slow_ms)).filter(|at| *at > now);
        let stalled_at = record.map(|record| record.now.mono.after(LATE_MS)).filter(|at| *at > now);
        let late_at = late(record.and_then(|record| record.waiting_since));
        let barrier_at = self.barriers.next_deadline();
        let late_calls_at = late(self.waiting_since);
        let deadlines = [slow_at, stalled_at, late_at, late_calls_at, barrier_at];
        let deadline = Millis::earliest(deadlines);
        Millis::earliest([retry_at, deadline, log_at, heartbeat_at])
    }

    /// Returns the values for the metrics.
    pub(super) fn gauges(&self, hub: &Hub, now: Millis) -> LogGauges {
        let Some(log) = &self.log else { return LogGauges::default() };
        let lag_ms = self.lag_ms(now);
        LogGauges {
            is_up: !self.has_failed && self.retry_at.is_none() && lag_ms < LATE_MS,
            nodes: hub.node_count(),
            lag: Duration::from_millis(lag_ms),
            position: self.position,
            bytes: log.bytes(),
        }
    }

    /// Returns whether the log takes records without delay, or there is none.
    pub(super) fn takes_changes(&self, now: Millis) -> bool {
        let is_failing = self.has_failed || self.retry_at.is_some();
        self.log.is_none() || !(is_failing || self.lag_ms(now) >= SLOW_MS)
    }

    /// Returns the time for which a record has been written.
    fn record_ms(&self, now: Millis) -> u64 {
        self.record.as_ref().map_or(0, |record| now.0 - record.now.mono.0)
    }

    /// Returns the time for which the log has not taken a record that was to be written. A record
    /// that was withdrawn, with its calls refused, does not end it.
    fn lag_ms(&self, now: Millis) -> u64 {
        self.withdrawn_at.map_or_else(|| self.record_ms(now), |at| now.0 - at.0)
    }

    /// Returns how the log responds.
    pub(super) fn health(&self, hub: &Hub, now: Millis) -> LogHealth {
        let slow_ms = SLOW_MS + hub.round_trip_ms();
        // Nothing of this process may be on its way: a log that is full refuses all of it.
        let is_silent = self.heard_at.is_some_and(|at| at.after(slow_ms) <= now);
        match self.record_ms(now) {
            _ if self.has_failed => LogHealth::Stalled,
            LATE_MS.. => LogHealth::Stalled,
            lag_ms if lag_ms >= slow_ms || is_silent => LogHealth::Slow,
            _ => LogHealth::Good,
        }
    }

    /// Returns the bytes of the records and of waiting calls.
    pub(super) fn memory(&self) -> usize {
        let calls = |calls: &Vec<WaitingCall>| match calls.len() {
            0 => 0,
            _ => {
                calls.capacity() * size_of::<WaitingCall>()
                    + calls.iter().map(WaitingCall::memory).sum::<usize>()
            }
        };
        let record = |record: &Option<Box<CommitRecord>>| {
            record.as_ref().map_or(0, |it| it.commands.memory() + calls(&it.waiting))
        };
        calls(&self.waiting)
            + self.barriers.memory()
            + self.log.as_ref().map_or(0, |log| log.memory())
            + record(&self.record)
            + record(&self.applying)
    }
}

/// Takes the reads out of a list of calls that wait for this. No other call of their clients waits.
pub(super) fn take_reads(
    calls: &mut Vec<WaitingCall>,
    is_awaited: impl Fn(Behind) -> bool,
) -> Vec<WaitingClient> {
    let waits = |call: &mut WaitingCall| match call.response {
        WaitingResponse::Retry(behind, _) => is_awaited(behind),
        _ => false,
    };
    let reads = calls.extract_if(.., waits).filter_map(|call| match call.response {
        WaitingResponse::Retry(_, since) => Some(WaitingClient { client: call.client, since }),
        _ => None,
    });
    reads.collect()
}

fn note_earliest(earliest: &mut Option<Millis>, at: Millis) {
    *earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
}

/// Returns whether calls have waited too long, the first of which came at this time.
pub(super) fn is_late(since: Option<Millis>, now: Millis) -> bool {
    since.is_some_and(|at| at.after(LATE_MS) <= now)
}

impl WaitingCall {
    fn memory(&self) -> usize {
        match &self.response {
            WaitingResponse::Of(responder) | WaitingResponse::Ending(_, responder) => {
                responder.memory()
            }
            WaitingResponse::Ready(bytes, _) => bytes.capacity(),
            WaitingResponse::Retry(..) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_process_takes_the_memory_of_an_earlier_record() {
        let mut commits = Commits::default();
        let mut record = commits.new_record();
        record.commands.fill(&[0; 1_000]);
        let memory = record.commands.bytes().as_ptr();
        commits.recycle(record);
        let record = commits.new_foreign_record(b"commands");
        assert_eq!(record.commands.bytes(), b"commands");
        assert_eq!(record.commands.bytes().as_ptr(), memory);
    }
}
