//! The table of sessions.

use std::collections::HashMap;
use std::ops::Index;

use super::config::Config;
use super::error::Error;
use super::holders::mix;
use super::ids::Auth;
use super::message::Reason;
use super::paged_slab::PagedSlab;
use super::session::{Credentials, SESSION_BYTES, Session, SessionLocal};
use super::shrink::shrink;
use super::slab::Key;
use super::time::{Millis, whole_ms};
use super::timers::{TimerKey, Timers};

/// All sessions, by index and by number.
pub(super) struct Sessions {
    // Shared state.
    slab: PagedSlab<Session>,
    by_number: HashMap<u64, u32>,
    /// Number of the newest session, even if it has ended; 0 if there was none.
    last_number: u64,
    /// Position of the last command that was applied.
    pub(super) log_position: u64,
    /// Sum of the hashes of each session with each of its holders.
    holders_hash: u64,

    /// No session counts as silent since before this time: until then, clients could not be heard.
    /// Local state.
    heard_until: Millis,

    // Local state.
    /// Other processes may know sessions that this one does not know yet.
    is_behind: bool,

    // Settings.
    timeout_ms: u64,
    close_grace_ms: u64,
}

impl Index<u32> for Sessions {
    type Output = Session;

    #[inline]
    fn index(&self, index: u32) -> &Session {
        &self.slab[index]
    }
}

/// Shared state.
impl Sessions {
    /// Makes an empty table. Its first session gets the number after `last_number`.
    pub(super) fn new(config: &Config, last_number: u64) -> Self {
        Self {
            slab: PagedSlab::new(),
            by_number: HashMap::new(),
            last_number,
            log_position: 0,
            holders_hash: 0,
            heard_until: Millis::default(),
            is_behind: false,
            timeout_ms: whole_ms(config.connection_timeout),
            close_grace_ms: whole_ms(config.close_grace),
        }
    }

    pub(super) fn get(&self, index: u32) -> Option<&Session> {
        self.slab.get(index)
    }

    /// Returns a bound above all indexes.
    pub(super) fn index_bound(&self) -> u32 {
        self.slab.index_bound()
    }

    /// Sets the number of the newest session, in a table from a checkpoint.
    pub(super) fn set_last_number(&mut self, number: u64) {
        self.last_number = number;
    }

    /// Returns the index of the session that the credentials belong to.
    ///
    /// # Errors
    ///
    /// [`Error::SessionEnded`] or [`Error::WrongAuth`]; [`Error::LogBehind`] instead of the first
    /// if the session may be one that this process does not know yet.
    pub(super) fn authenticate(&self, credentials: Credentials<'_>) -> Result<u32, Error> {
        let unknown = if self.is_behind { Error::LogBehind } else { Error::SessionEnded };
        let index = *self.by_number.get(&credentials.session).ok_or(unknown)?;
        if self.slab[index].auth.matches(credentials.auth) {
            Ok(index)
        } else {
            Err(Error::WrongAuth)
        }
    }

    /// Authenticates a read, which may have no credentials. Returns `None` then.
    ///
    /// # Errors
    ///
    /// As for [`Sessions::authenticate`]; also [`Error::SessionEnding`]: a read that succeeded
    /// would promise that the session lives on. Other calls become commands after the end.
    #[inline]
    pub(super) fn authenticate_reader(
        &self,
        credentials: Option<Credentials<'_>>,
    ) -> Result<Option<u32>, Error> {
        let session = self.authenticate_optional(credentials)?;
        match session.map(|index| &self.slab[index]) {
            Some(session) if session.local.is_ending => Err(Error::SessionEnding(session.number)),
            _ => Ok(session),
        }
    }

    /// Authenticates a call that may have no credentials. Returns `None` then.
    pub(super) fn authenticate_optional(
        &self,
        credentials: Option<Credentials<'_>>,
    ) -> Result<Option<u32>, Error> {
        credentials.map(|credentials| self.authenticate(credentials)).transpose()
    }

    /// Creates a session. Its timer is not armed yet: see [`Sessions::touch`].
    pub(super) fn create(&mut self, auth: Auth, now: Millis) -> u32 {
        self.last_number += 1;
        self.insert(Session::new(self.last_number, auth, now))
    }

    /// Creates the next session, unless it was saved already. Returns its index.
    pub(super) fn create_once(&mut self, auth: Auth, now: Millis, position: u64) -> u32 {
        let number = self.last_number + 1;
        if let Some(index) = self.find(number) {
            self.last_number = number;
            return index;
        }
        let index = self.create(auth, now);
        // Its first channel is still to be added.
        self.slab[index].position = position - 1;
        index
    }

    /// Finds a session by its number.
    pub(super) fn find(&self, number: u64) -> Option<u32> {
        self.by_number.get(&number).copied()
    }

    /// Adds a channel to a session's channels, unless the session was saved with it.
    pub(super) fn join_at(&mut self, index: u32, channel: u32, position: u64) {
        if self.slab[index].position < position {
            self.slab[index].position = position;
            self.join(index, channel);
        }
    }

    /// Removes a channel from a session's channels, unless the session was saved without it.
    pub(super) fn leave_at(&mut self, index: u32, channel: u32, position: u64) {
        if self.slab[index].position < position {
            self.slab[index].position = position;
            self.leave(index, channel);
        }
    }

    /// Makes a node hold a session, unless the session was saved with it. Returns whether the node
    /// did not hold it before.
    pub(super) fn hold_at(&mut self, index: u32, node: u64, position: u64) -> bool {
        let session = &mut self.slab[index];
        if session.position >= position || session.holders.contains(node) {
            return false;
        }
        session.holders.push(node);
        self.holders_hash = self.holders_hash.wrapping_add(mix(session.number, node));
        true
    }

    /// Makes a node hold a session no longer, unless the session was saved without it. Returns
    /// whether no node holds it any more.
    pub(super) fn release_at(&mut self, index: u32, node: u64, position: u64) -> bool {
        let session = &mut self.slab[index];
        if session.position >= position {
            return false;
        }
        if session.holders.remove(node) {
            self.holders_hash = self.holders_hash.wrapping_sub(mix(session.number, node));
        }
        session.holders.is_empty()
    }

    /// Notes that a node has released a session because of a reader that was closed, and other
    /// nodes hold it. Does nothing if the session was saved after that.
    pub(super) fn note_closed(&mut self, index: u32, position: u64) {
        let session = &mut self.slab[index];
        if session.position >= position {
            return;
        }
        let before = session.holders_hash();
        session.holders.note_closed(position);
        let change = session.holders_hash().wrapping_sub(before);
        self.holders_hash = self.holders_hash.wrapping_add(change);
    }

    /// Adds a session from a snapshot.
    pub(super) fn restore(&mut self, session: Session, timers: &mut Timers) {
        let index = self.insert(session);
        self.arm_timer(index, timers);
    }

    /// Adds a channel to a session's channels.
    pub(super) fn join(&mut self, index: u32, channel: u32) {
        let channels = &mut self.slab[index].channels;
        if !channels.contains(&channel) {
            channels.push(channel);
        }
    }

    /// Removes a channel from a session's channels. Returns whether it was there.
    pub(super) fn leave(&mut self, index: u32, channel: u32) -> bool {
        let channels = &mut self.slab[index].channels;
        let position = channels.iter().position(|other| *other == channel);
        position.map(|position| channels.remove(position)).is_some()
    }

    /// Removes a session and its timer.
    pub(super) fn remove(&mut self, index: u32, timers: &mut Timers) -> Session {
        let session = self.slab.remove(index);
        self.holders_hash = self.holders_hash.wrapping_sub(session.holders_hash());
        self.by_number.remove(&session.number);
        shrink(&mut self.by_number);
        if let Some(timer) = session.local.timer {
            timers.cancel(timer);
        }
        session
    }

    /// Removes all sessions after the wheel of their timers was dropped.
    pub(super) fn detach_all(&mut self) {
        self.slab = PagedSlab::new();
        self.by_number.clear();
        self.holders_hash = 0;
    }

    pub(super) fn has_number(&self, number: u64) -> bool {
        self.by_number.contains_key(&number)
    }

    pub(super) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Iterates over all sessions, by index.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.slab.iter().map(|(_, session)| session)
    }

    pub(super) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Returns a hash of the nodes that hold each session.
    pub(super) fn holders_hash(&self) -> u64 {
        self.holders_hash
    }

    fn insert(&mut self, session: Session) -> u32 {
        let number = session.number;
        self.holders_hash = self.holders_hash.wrapping_add(session.holders_hash());
        let index = self.slab.insert(session);
        self.by_number.insert(number, index);
        index
    }
}

/// Local state.
impl Sessions {
    /// Sets whether other processes may know sessions that this one does not know yet.
    pub(super) fn set_behind(&mut self, is_behind: bool) {
        self.is_behind = is_behind;
    }

    pub(super) fn local_mut(&mut self, index: u32) -> &mut SessionLocal {
        &mut self.slab[index].local
    }

    /// Gives all sessions their whole timeout from now on. Costs O(1): their timers are armed again
    /// when they fire.
    pub(super) fn hear_all(&mut self, now: Millis) {
        self.heard_until = self.heard_until.max(now);
    }

    /// Returns the time of the last [`Sessions::hear_all`].
    pub(super) fn heard_until(&self) -> Millis {
        self.heard_until
    }

    /// Records a successful call of a session.
    pub(super) fn touch(&mut self, index: u32, now: Millis, timers: &mut Timers) {
        let local = &mut self.slab[index].local;
        local.touch(now);
        local.heard_position = self.log_position;
        self.arm_timer(index, timers);
    }

    /// Records that a reader of a session ended.
    pub(super) fn end_reader(&mut self, index: u32, key: Key, now: Millis, timers: &mut Timers) {
        let local = &mut self.slab[index].local;
        local.remove_reader(key, now);
        local.heard_position = self.log_position;
        self.arm_timer(index, timers);
    }

    /// Records that a session was alive when its command was applied. A grace period that began
    /// since the call goes on.
    pub(super) fn hear(&mut self, index: u32, present: Millis, timers: &mut Timers) {
        let local = &mut self.slab[index].local;
        local.last_alive = local.last_alive.max(present);
        local.heard_position = self.log_position;
        self.arm_timer(index, timers);
    }

    /// Sets whether this process holds a session, which was heard from at `present`.
    pub(super) fn set_held(
        &mut self,
        index: u32,
        is_held: bool,
        present: Millis,
        timers: &mut Timers,
    ) {
        self.slab[index].local.is_held = is_held;
        self.hear(index, present, timers);
    }

    /// Counts a call of a session that waits for its place in the log. Until then, the session does
    /// not time out.
    pub(super) fn begin_proposal(&mut self, index: u32) {
        self.slab[index].local.proposed += 1;
    }

    /// Ends the wait of a call of a session.
    pub(super) fn end_proposal(&mut self, index: u32, timers: &mut Timers) {
        let local = &mut self.slab[index].local;
        // Commands that another process proposed were not counted here.
        local.proposed = local.proposed.saturating_sub(1);
        self.arm_timer(index, timers);
    }

    /// Reduces the grace period that a read asks for to the timeout of sessions, in milliseconds. A
    /// timeout of more than 49 days is not reached.
    pub(super) fn limit_grace(&self, grace_ms: u64) -> u32 {
        u32::try_from(grace_ms.min(self.timeout_ms)).unwrap_or(u32::MAX)
    }

    /// Starts the grace period of a session after one of its readers was closed: `close_grace`, or
    /// `grace_ms` of that reader if it is longer. Returns false if both are 0: the session ends
    /// now.
    pub(super) fn begin_grace(
        &mut self,
        index: u32,
        grace_ms: u64,
        now: Millis,
        timers: &mut Timers,
    ) -> bool {
        let grace_ms = grace_ms.max(self.close_grace_ms);
        if grace_ms == 0 {
            return false;
        }
        let at = now.after(grace_ms);
        let local = &mut self.slab[index].local;
        local.closes_at = Some(local.closes_at.map_or(at, |earlier| earlier.min(at)));
        self.arm_timer(index, timers);
        true
    }

    /// Ends the grace period of a session whose reader was closed at another node, which had
    /// applied the log up to this position, if its client was not heard from here since. Otherwise
    /// the session lives on, and its timeout begins no earlier than that closing.
    pub(super) fn close_silent(
        &mut self,
        index: u32,
        closed_position: u64,
        present: Millis,
        timers: &mut Timers,
    ) {
        let local = &mut self.slab[index].local;
        let is_silent = local.readers.is_empty()
            && local.proposed == 0
            && local.heard_position < closed_position;
        if local.is_held && is_silent {
            (local.heard_position, local.closes_at) = (closed_position, Some(present));
            self.arm_timer(index, timers);
        } else {
            local.last_alive = local.last_alive.max(present);
        }
    }

    /// Arms the timer that a session needs.
    pub(super) fn arm_timer(&mut self, index: u32, timers: &mut Timers) {
        let local = &mut self.slab[index].local;
        if let Some(at) = local.ends_at(self.timeout_ms, self.heard_until) {
            timers.arm(&mut local.timer, at, TimerKey::Session(index));
        }
    }

    /// Returns the reason for ending a session now. If the session lives on, arms its timer again
    /// and returns `None`.
    pub(super) fn on_timer(
        &mut self,
        now: Millis,
        index: u32,
        timers: &mut Timers,
    ) -> Option<Reason> {
        self.slab[index].local.timer = None;
        let ending = self.due_end(now, index);
        if ending.is_none() {
            self.arm_timer(index, timers);
        }
        ending
    }

    /// Returns the reason for ending a session now, if there is one.
    pub(super) fn due_end(&self, now: Millis, index: u32) -> Option<Reason> {
        let local = &self.slab[index].local;
        let at = local.ends_at(self.timeout_ms, self.heard_until).filter(|at| *at <= now)?;
        let is_closed = local.closes_at == Some(at);
        Some(if is_closed { Reason::Closed } else { Reason::Timeout })
    }

    /// Returns the memory of all sessions.
    pub(super) fn memory(&self) -> usize {
        self.slab.len() * SESSION_BYTES
    }
}
