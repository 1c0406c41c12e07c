//! The hub as one of several that apply the same log: nodes, and the sessions that each holds.
//!
//! Shared state names the nodes that hold a session. A node that holds it times out its silence:
//! it then proposes to release the session, and the last release is the end. So clients that move
//! from node to node are not silent, and a node that dies leaves its sessions to another one.

use super::command::{Applied, Command, SharedSettings};
use super::error::Error;
use super::hub::Hub;
use super::message::Reason;
use super::nodes::{Nodes, RELEASE_LATE_MS};
use super::session::Credentials;
use super::time::{Millis, Now, whole_ms};
use super::timers::Timers;
use crate::clustered::Clustered;

/// State of a session at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This node alone holds the session, or there is no cluster.
    Held,
    /// This node and others hold the session.
    Shared,
    /// Other nodes hold the session.
    Elsewhere,
    /// This node alone held the session, as far as it has read the log. It has had no record of its
    /// own back for so long that the others may have taken it for dead.
    Unsure,
    /// No session has this number here. It may have begun at another node a moment ago.
    Unknown,
}

/// What a node has decided about a session that it holds.
#[derive(Clone, Copy)]
pub(super) struct Release {
    /// As in [`Command::Release`].
    pub(super) closed_position: Option<u64>,
    pub(super) decided_position: u64,
    /// It has no effect.
    pub(super) is_void: bool,
}

impl Hub {
    /// Makes the hub one of several that apply the same log. `node` is the number of this process.
    /// The hub must be empty.
    pub fn begin_clustering(&mut self, now: Now, node: u64) {
        self.begin_logging();
        self.timers = Timers::new(now.mono);
        self.nodes = Clustered::new(Nodes::new(node));
    }

    /// Returns whether other processes share the log.
    #[inline]
    #[must_use]
    pub fn is_clustered(&self) -> bool {
        self.nodes.is_some()
    }

    /// Returns whether the hub may serve calls: there is no cluster, or this process is in it.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.is_joined())
    }

    /// Returns whether other nodes took this process for dead, so that it has to join again.
    #[must_use]
    pub fn was_buried(&self) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.was_buried())
    }

    /// Returns the number of nodes; 0 without a cluster.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.as_ref().map_or(0, |nodes| nodes.len())
    }

    /// Returns the numbers of the nodes.
    #[must_use]
    pub fn node_numbers(&self) -> Vec<u64> {
        self.nodes.as_ref().map_or_else(Vec::new, |nodes| nodes.numbers())
    }

    /// Returns whether another node had another state after the same records.
    #[must_use]
    pub fn has_diverged(&self) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.has_diverged)
    }

    /// Begins a record of a node. Returns false if it came before, and must not be applied.
    pub fn begin_record(&mut self, now: Now, node: u64, sequence: u64) -> bool {
        let times_ms = (now.mono.0, now.unix_ms);
        let nodes = self.nodes.as_mut();
        nodes.is_none_or(|nodes| nodes.begin_record(node, sequence, times_ms))
    }

    /// Ends a record: all of its commands are applied.
    pub fn end_record(&mut self, position: u64) {
        if !self.is_clustered() || self.position < self.hashed_from {
            return;
        }
        let hash = self.shared_hash();
        if let Some(nodes) = &mut self.nodes {
            self.recovered_drops = Vec::new();
            nodes.record_hash(position, hash);
        }
    }

    /// Returns the time of a record, not before that of a message that this process began with:
    /// each process estimates by itself how far its clock is ahead of the log's time.
    #[must_use]
    pub fn record_time(&self, now: Now) -> Now {
        let earliest = self.nodes.as_ref().map(|nodes| nodes.earliest_record);
        Now { mono: earliest.map_or(now.mono, |earliest| earliest.max(now.mono)), ..now }
    }

    /// Returns whether all other nodes have applied the log up to the record at this position, as
    /// far as they have told.
    #[must_use]
    pub fn is_applied_by_all(&self, position: u64) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.applied_by_all() >= position)
    }

    /// Returns whether there is another node that would hold the sessions of this one.
    #[must_use]
    pub fn has_heir(&self) -> bool {
        self.nodes.as_ref().is_some_and(|nodes| nodes.heir().is_some())
    }

    /// Proposes that this process joins the cluster. The first process of a cluster begins its
    /// numbering of ids.
    pub fn propose_join(&mut self) {
        let has_begun = self.nodes.as_ref().is_some_and(|nodes| nodes.has_begun);
        if !has_begun {
            self.propose_numbering(true);
        }
        self.propose(&Command::Join { settings: self.shared_settings() });
    }

    /// Gives this process another number after it was buried. It has to join again.
    pub fn renew_node(&mut self, node: u64) {
        if let Some(nodes) = &mut self.nodes {
            nodes.set_own(node);
        }
    }

    /// Returns the longest time that a record of this process has taken lately, in milliseconds. At
    /// most a second; 0 without a cluster.
    #[must_use]
    pub fn round_trip_ms(&self) -> u64 {
        self.nodes.as_ref().map_or(0, |nodes| nodes.round_trip_ms())
    }

    /// Proposes a heartbeat of this node, unless one waits for the log. `position` is that of the
    /// last record. Returns whether it did.
    pub fn propose_heartbeat(&mut self, position: u64) -> bool {
        let shared_hash = self.shared_hash();
        let Some(nodes) = &mut self.nodes else { return true };
        if std::mem::replace(&mut nodes.is_heartbeat_proposed, true) {
            return false;
        }
        // A record may be half applied.
        let hash = nodes.hash_at(position).unwrap_or(shared_hash);
        let channels = &mut self.channels;
        let changes = nodes.reader_counts.take_changes(|name| {
            let Some(index) = channels.find_name(name) else { return 0 };
            let local = channels.local_mut(index);
            local.is_count_marked = false;
            local.reader_count as u32
        });
        let readers = changes.iter().map(|(name, count)| (&**name, *count)).collect();
        self.propose(&Command::Heartbeat { position, hash, readers });
        true
    }

    /// Returns a hash of the commands that were applied and of their results, of the nodes and of
    /// the sessions that each holds. Two nodes with different hashes at one position have different
    /// shared states.
    #[must_use]
    pub fn shared_hash(&self) -> u64 {
        let nodes = self.nodes.as_ref().map_or(0, |nodes| nodes.shared_hash());
        self.applied_hash ^ nodes ^ self.sessions.holders_hash()
    }

    /// Proposes that this node leaves the cluster, and another one holds its sessions.
    pub fn propose_part(&mut self) {
        let heir = self.nodes.as_ref().and_then(|nodes| nodes.heir());
        self.propose(&Command::Part { heir });
    }

    /// Proposes that this node holds a session. `polls` names the channels of the long poll that
    /// will wait. Until the log has that, this node does not release the session: a release that
    /// followed in the same record would be applied before the read is made again.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the credentials, or [`Error::LogBehind`].
    pub fn propose_hold(
        &mut self,
        now: Now,
        credentials: Credentials<'_>,
        polls: &[&str],
    ) -> Result<(), Error> {
        let index = self.sessions.authenticate(credentials)?;
        self.check_log(Some(index), now)?;
        let session = credentials.session;
        self.begin_call(Some(index), now);
        self.propose(&Command::Hold { session, polls: polls.to_vec() });
        Ok(())
    }

    /// Records a call of a session, which waits for a barrier.
    pub fn hear_call(&mut self, now: Now, credentials: Credentials<'_>) {
        if let Ok(index) = self.sessions.authenticate(credentials) {
            self.touch(Some(index), now.mono);
        }
    }

    /// Returns the state of a session at this node.
    #[must_use]
    pub fn standing(&self, now: Now, credentials: Credentials<'_>) -> Standing {
        let Some(nodes) = &self.nodes else { return Standing::Held };
        match self.sessions.find(credentials.session) {
            None => Standing::Unknown,
            Some(index) if !self.sessions[index].local.is_held => Standing::Elsewhere,
            Some(index) if self.sessions[index].holders.len() > 1 => Standing::Shared,
            Some(_) if !nodes.has_lease(now.mono) => Standing::Unsure,
            Some(_) => Standing::Held,
        }
    }

    /// Notes that a record of this process has come back, which was appended at this time.
    pub fn note_round_trip(&mut self, appended: Millis, now: Millis) {
        if let Some(nodes) = &mut self.nodes {
            nodes.note_round_trip(appended, now);
        }
    }

    /// Sets whether other nodes may have acknowledged what this one has not applied, and cannot
    /// apply for now. Then ids beyond the end of a channel are not reset, and unknown sessions are
    /// not said to have ended. When this process is no longer behind, it holds the sessions of
    /// reads that have begun here meanwhile.
    pub fn set_behind(&mut self, is_behind: bool) {
        let was_behind = std::mem::replace(&mut self.is_behind, is_behind);
        self.sessions.set_behind(is_behind);
        if was_behind && !is_behind && self.is_joined() {
            self.propose_holds();
        }
    }

    /// Returns whether this node is behind, as [`Hub::set_behind`] has said.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// Returns the settings that all nodes have to share.
    #[must_use]
    pub fn shared_settings(&self) -> SharedSettings {
        SharedSettings {
            history: self.config.history as u64,
            retention_ms: whole_ms(self.config.retention),
            session_timeout_ms: whole_ms(self.config.connection_timeout),
        }
    }

    /// Returns the settings of the cluster if this process has others, as one may that takes over
    /// from a process of the cluster.
    #[must_use]
    pub fn settings_mismatch(&self) -> Option<SharedSettings> {
        let shared = self.nodes.as_ref()?.settings?;
        (shared != self.shared_settings()).then_some(shared)
    }

    /// Returns whether a command of the present record may be applied: its node is in the cluster,
    /// or about to join.
    pub(super) fn may_apply(&self, command: &Command<'_>) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| {
            matches!(command, Command::Begin { .. } | Command::Join { .. })
                || nodes.is_origin_known()
        })
    }

    /// Returns whether the present record is of this process. Without a cluster, all are.
    pub(super) fn is_own_record(&self) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| nodes.is_own_record())
    }

    /// Makes the node of the present record hold a session.
    pub(super) fn hold_at_origin(&mut self, session: u32, present: Millis) {
        let Some(nodes) = &self.nodes else { return };
        let (origin, is_own) = (nodes.origin, nodes.is_own_record());
        if self.sessions.hold_at(session, origin, self.position) && is_own {
            self.sessions.set_held(session, true, present, &mut self.timers);
        }
    }

    pub(super) fn apply_join(&mut self, settings: SharedSettings) -> Applied {
        let Some(nodes) = &mut self.nodes else { return Applied::Nothing };
        match nodes.join(settings) {
            Some(shared) if nodes.is_own_record() => Applied::Mismatch(shared),
            Some(_) => Applied::Nothing,
            None => {
                if nodes.is_own_record() {
                    self.propose_holds();
                }
                Applied::Nothing
            }
        }
    }

    pub(super) fn apply_heartbeat(
        &mut self,
        position: u64,
        hash: u64,
        readers: &[(&str, u32)],
    ) -> Applied {
        let Some(nodes) = &mut self.nodes else { return Applied::Nothing };
        nodes.set_applied(position);
        if !nodes.is_own_record() {
            nodes.compare_hash(position, hash);
            let origin = nodes.origin;
            for (channel, count) in readers {
                nodes.reader_counts.set(origin, channel, *count);
            }
            return Applied::Nothing;
        }
        nodes.is_heartbeat_proposed = false;
        for dead in nodes.count_heartbeat() {
            self.propose(&Command::Bury { node: dead.node, sequence: dead.sequence });
        }
        Applied::Nothing
    }

    pub(super) fn apply_hold(
        &mut self,
        present: Millis,
        number: u64,
        polls: &[&str],
    ) -> Result<Applied, Error> {
        if !self.is_clustered() {
            return Ok(Applied::Nothing);
        }
        let session = self.end_call(number)?;
        self.hold_at_origin(session, present);
        self.hear(session, present);
        if !self.is_own_record() && !polls.is_empty() {
            self.supersede_elsewhere(present, session, polls);
        }
        Ok(Applied::Nothing)
    }

    /// Returns whether a release has no effect. One that comes late waited for a log that did not
    /// respond: the client may have come back meanwhile. One that was decided before its node got
    /// the sessions of another one would end those too early.
    pub(super) fn is_release_void(
        &self,
        now: Now,
        expected_ms: u64,
        decided_position: u64,
    ) -> bool {
        let inherited = self.nodes.as_ref().map_or(0, |nodes| nodes.inherited_position());
        now.unix_ms > expected_ms.saturating_add(RELEASE_LATE_MS) || decided_position < inherited
    }

    /// Applies a release. If it is because of a reader that was closed, the other nodes release the
    /// session too, unless they have heard of it since. One that has decided to release it for its
    /// silence before it knew of that may be the last one: the end is then still because of the
    /// reader.
    pub(super) fn apply_release(
        &mut self,
        now: Now,
        present: Millis,
        number: u64,
        release: Release,
    ) -> Result<Applied, Error> {
        if !self.is_clustered() {
            return Ok(Applied::Nothing);
        }
        let Release { closed_position, decided_position, is_void } = release;
        let session = self.sessions.find(number).ok_or(Error::SessionEnded)?;
        let is_own = self.is_own_record();
        if is_own {
            self.sessions.local_mut(session).is_ending = false;
        }
        if is_void {
            if is_own {
                self.decide_release_again(now, present, session);
            }
            return Ok(Applied::Nothing);
        }
        let origin = self.nodes.as_ref().map_or(0, |nodes| nodes.origin);
        let is_last = self.sessions.release_at(session, origin, self.position);
        if is_own {
            self.sessions.set_held(session, false, present, &mut self.timers);
        }
        if is_last {
            let was_closed = self.sessions[session].holders.closed_position() > decided_position;
            let is_closed = closed_position.is_some() || was_closed;
            let reason = if is_closed { Reason::Closed } else { Reason::Timeout };
            return self.apply_end(now, present, number, reason, None);
        }
        if let Some(position) = closed_position {
            self.sessions.note_closed(session, self.position);
            if !is_own {
                self.sessions.close_silent(session, position, present, &mut self.timers);
            }
        }
        Ok(Applied::Nothing)
    }

    /// Proposes to release a session again after a release that was void, if it is silent still.
    /// Does so at once, so that the next record has the release: where Redis is far away, one that
    /// waits for another record first is late each time.
    fn decide_release_again(&mut self, now: Now, present: Millis, session: u32) {
        match self.sessions.due_end(present, session) {
            Some(reason) if self.is_log_good() => {
                self.end_silent(Now { mono: present, ..now }, session, reason);
            }
            _ => self.sessions.arm_timer(session, &mut self.timers),
        }
    }

    pub(super) fn apply_bury(&mut self, present: Millis, node: u64, sequence: u64) -> Applied {
        let Some(nodes) = &mut self.nodes else { return Applied::Nothing };
        if nodes.bury(node, sequence, self.position) {
            let heir = nodes.origin;
            self.inherit(present, node, heir);
        }
        Applied::Nothing
    }

    pub(super) fn apply_part(&mut self, present: Millis, heir: Option<u64>) -> Applied {
        let Some(nodes) = &mut self.nodes else { return Applied::Nothing };
        let node = nodes.origin;
        if let Some(heir) = nodes.part(heir, self.position) {
            self.inherit(present, node, heir);
        }
        Applied::Gone
    }

    /// Proposes to hold all sessions that have a read here. Costs O(sessions).
    pub(super) fn propose_holds(&mut self) {
        for index in 0..self.sessions.index_bound() {
            let Some(session) = self.sessions.get(index) else { continue };
            if !session.local.is_held && !session.local.readers.is_empty() {
                let session = session.number;
                self.sessions.begin_proposal(index);
                self.propose(&Command::Hold { session, polls: Vec::new() });
            }
        }
    }

    /// Makes `heir` hold all sessions that `node` holds. They have the whole timeout to be heard
    /// from. Costs O(sessions).
    fn inherit(&mut self, present: Millis, node: u64, heir: u64) {
        let own = self.nodes.as_ref().map_or(0, |nodes| nodes.own());
        for index in 0..self.sessions.index_bound() {
            if self.sessions.get(index).is_none_or(|session| !session.holders.contains(node)) {
                continue;
            }
            self.sessions.hold_at(index, heir, self.position);
            self.sessions.release_at(index, node, self.position);
            if heir == own || node == own {
                self.sessions.set_held(index, heir == own, present, &mut self.timers);
            }
        }
    }
}

#[cfg(test)]
#[path = "clustering_tests.rs"]
mod tests;
