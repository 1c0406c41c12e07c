//! Commands from a log, applied to the hub.
//!
//! The result depends on shared state, on the command and on its time, and on nothing else. A
//! command that a part of the state already includes, since that part was saved later, changes the
//! other parts only: so a snapshot may be saved piece by piece while the log goes on.

use super::bans::Address;
use super::channel::Channel;
use super::clustering::Release;
use super::command::{Applied, Command, Introducing};
use super::error::Error;
use super::hub::Hub;
use super::ids::{Auth, Epoch};
use super::message::{JsonText, MessageKind, Reason};
use super::moderation::Kick;
use super::proposals::{Proposal, WriteHint};
use super::reader::{GapPolicy, ReaderKind};
use super::session::{Introduced, Session};
use super::time::{Millis, Now};

impl Hub {
    /// Applies a command. `now` is the time of its record, which never goes back. `present` is the
    /// time at which the caller learned that the record is in the log: until then, clients waited.
    /// `position` is the place of the command in the log, above those of all earlier commands.
    ///
    /// # Errors
    ///
    /// [`Error::SessionEnded`], [`Error::TooManyChannels`]. The command then has no effect, in any
    /// process.
    pub fn apply(
        &mut self,
        now: Now,
        present: Millis,
        position: u64,
        command: &Command<'_>,
    ) -> Result<Applied, Error> {
        self.apply_near(now, present, position, command, None)
    }

    /// Applies a command of this process or of another one, as [`Hub::apply`] does.
    ///
    /// # Errors
    ///
    /// As for [`Hub::apply`].
    pub fn apply_proposal(
        &mut self,
        now: Now,
        present: Millis,
        position: u64,
        proposal: &Proposal<'_>,
    ) -> Result<Applied, Error> {
        self.apply_near(now, present, position, &proposal.command, proposal.hint)
    }

    /// Applies a command. `hint` is for a write only.
    fn apply_near(
        &mut self,
        now: Now,
        present: Millis,
        position: u64,
        command: &Command<'_>,
        hint: Option<WriteHint>,
    ) -> Result<Applied, Error> {
        self.position = position;
        self.sessions.log_position = position;
        if !self.may_apply(command) {
            let result = Err(Error::NotJoined);
            if self.is_own_record() {
                self.refuse(Now { mono: present, ..now }, command);
            }
            self.mix_hash(&result);
            return result;
        }
        let result = match *command {
            Command::Write { .. } => self.apply_write(now, present, command, hint),
            Command::Introduce { .. } => self.apply_introduction(now, present, command),
            Command::Leave { channel, session, text } => {
                self.apply_leave(now, present, channel, session, text)
            }
            Command::End { session, reason, text } => {
                self.apply_end(now, present, session, reason, text)
            }
            Command::Begin { epoch, watermark_hash_key } => {
                self.apply_begin(Epoch::new(epoch), watermark_hash_key);
                Ok(Applied::Nothing)
            }
            Command::DropChannel { channel, next_id } => {
                self.apply_drop(present, channel, next_id);
                Ok(Applied::Nothing)
            }
            Command::Join { settings } => Ok(self.apply_join(settings)),
            Command::Heartbeat { position, hash, ref readers } => {
                Ok(self.apply_heartbeat(position, hash, readers))
            }
            Command::Hold { session, ref polls } => self.apply_hold(present, session, polls),
            Command::Release { session, expected_ms, closed_position, decided_position } => {
                let is_void = self.is_release_void(now, expected_ms, decided_position);
                let release = Release { closed_position, decided_position, is_void };
                self.apply_release(now, present, session, release)
            }
            Command::Bury { node, sequence } => Ok(self.apply_bury(present, node, sequence)),
            Command::Part { heir } => Ok(self.apply_part(present, heir)),
            Command::Remove { channel, id } => Ok(self.apply_removal(now, present, channel, id)),
            Command::Kick { channel, session, seconds, text } => {
                Ok(self.apply_kick(now, present, channel, session, Kick { seconds, text }))
            }
        };
        if let (Err(_), Command::Write { channel, .. } | Command::Introduce { channel, .. }) =
            (&result, command)
        {
            self.arm_channel(channel);
        }
        self.mix_hash(&result);
        result
    }

    /// Returns the position of the last command that was applied.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns a hash of all commands that were applied and of their results. Two processes with
    /// different hashes at one position have different shared states.
    #[must_use]
    pub fn applied_hash(&self) -> u64 {
        self.applied_hash
    }

    fn apply_write(
        &mut self,
        now: Now,
        present: Millis,
        command: &Command<'_>,
        hint: Option<WriteHint>,
    ) -> Result<Applied, Error> {
        let Command::Write { channel: name, from, text, is_owner } = *command else {
            unreachable!("the caller has matched the command")
        };
        let channel = self.end_channel_proposal(name, hint.map(|hint| hint.channel));
        let sender = from.map(|number| self.end_call(number)).transpose()?;
        let channel = self.share_channel(present, channel, name);
        let is_owner = is_owner == Some(true);
        let text = &JsonText::of_known(text, hint.is_some_and(|hint| hint.is_plain));
        let id = self.append_once(now, channel, MessageKind::Message { from, is_owner, text });
        if let Some(sender) = sender {
            self.hold_at_origin(sender, present);
            self.hear(sender, present);
        }
        Ok(Applied::Written(id))
    }

    fn apply_introduction(
        &mut self,
        now: Now,
        present: Millis,
        command: &Command<'_>,
    ) -> Result<Applied, Error> {
        let Command::Introduce { channel: name, session, text, is_owner, address } = *command
        else {
            unreachable!("the caller has matched the command")
        };
        let known = self.end_channel_proposal(name, None);
        let index = match session {
            Introducing::New(auth) => {
                self.sessions.create_once(Auth::new(auth), present, self.position)
            }
            Introducing::Existing(number) => self.end_call(number)?,
        };
        if self.sessions[index].position >= self.position {
            // Saved later, and its channels after it.
            return Ok(Applied::Nothing);
        }
        if !self.is_own_record() && matches!(session, Introducing::New(_)) {
            self.sessions.set_held(index, false, present, &mut self.timers);
        }
        self.hold_at_origin(index, present);
        self.sessions[index].check_channel_limit(known)?;
        let channel = self.share_channel(present, known, name);
        self.sessions.join_at(index, channel, self.position);
        let Session { number, auth, .. } = &self.sessions[index];
        let (session, auth) = (*number, auth.clone());
        let text = &JsonText::new(text);
        let is_owner = is_owner == Some(true);
        let address = address.and_then(Address::from_number);
        let kind = MessageKind::Introduction { from: session, is_owner, address, text };
        let id = self.append_once(now, channel, kind);
        self.hear(index, present);
        Ok(Applied::Introduced(Introduced { session, auth, id }))
    }

    fn apply_leave(
        &mut self,
        now: Now,
        present: Millis,
        name: &str,
        number: u64,
        text: Option<&str>,
    ) -> Result<Applied, Error> {
        let session = self.end_call(number)?;
        if self.sessions[session].position >= self.position {
            // Saved later, and its channels after it.
            return Ok(Applied::Gone);
        }
        self.hold_at_origin(session, present);
        if let Some(channel) = self.channels.find_name(name) {
            let is_member = self.channels[channel].members.contains_key(&number);
            if is_member {
                let text = text.map(JsonText::new);
                let text = text.as_ref();
                self.reserve_for_goodbye(present, text, 1);
                let reason = Reason::Left;
                self.append_once(now, channel, MessageKind::Goodbye { from: number, reason, text });
            }
            self.sessions.leave_at(session, channel, self.position);
        }
        self.hear(session, present);
        Ok(Applied::Gone)
    }

    pub(super) fn apply_end(
        &mut self,
        now: Now,
        present: Millis,
        number: u64,
        reason: Reason,
        text: Option<&str>,
    ) -> Result<Applied, Error> {
        let index = self.sessions.find(number).ok_or(Error::SessionEnded)?;
        self.rescue_session(index);
        let session = self.sessions.remove(index, &mut self.timers);
        self.readers.complete_later(&session.local.readers);
        let text = text.map(JsonText::new);
        let text = text.as_ref();
        self.reserve_for_goodbye(present, text, session.channels.len());
        for channel in session.channels {
            // A log that is damaged may have dropped the channel before.
            if self.channels.get(channel).is_some() {
                self.append_once(now, channel, MessageKind::Goodbye { from: number, reason, text });
            }
        }
        Ok(Applied::Gone)
    }

    /// Drops a channel if nothing has happened in it since. A channel with readers stays for them,
    /// as one that does not exist in shared state.
    fn apply_drop(&mut self, present: Millis, name: &str, next_id: u64) {
        let Some(index) = self.channels.find_name(name) else { return };
        if self.is_own_record() {
            self.channels.cancel_drop(index);
        }
        let channel = &self.channels[index];
        if channel.position >= self.position {
            // Saved later: it is another one if this command has dropped one.
            if self.recovered_drops.binary_search(&self.position).is_ok() {
                self.channels.record_id_watermark(name, next_id);
            }
            return;
        }
        let is_unchanged = channel.next_id() == next_id;
        if !channel.is_shared || !channel.members.is_empty() || !is_unchanged {
            return self.channels.arm_timer(index, &mut self.timers);
        }
        if let Some(checkpoint) = &mut self.checkpoint {
            checkpoint.rescue_channel(index, channel, self.position);
        }
        if channel.local.is_awaited() || channel.local.is_dirty {
            self.channels.unshare(index);
            self.channels.local_mut(index).last_use = present;
            self.channels.arm_timer(index, &mut self.timers);
        } else {
            self.channels.drop_channel(index, &mut self.timers);
        }
    }

    /// Ends the wait of a session's call for the log. Returns the session's index.
    ///
    /// # Errors
    ///
    /// [`Error::SessionEnded`].
    pub(super) fn end_call(&mut self, number: u64) -> Result<u32, Error> {
        let index = self.sessions.find(number).ok_or(Error::SessionEnded)?;
        if self.is_own_record() {
            self.sessions.end_proposal(index, &mut self.timers);
        }
        Ok(index)
    }

    /// Ends the wait of a command for a channel, which is probably at `hint`. Returns the channel's
    /// index, if it exists here.
    pub(super) fn end_channel_proposal(&mut self, name: &str, hint: Option<u32>) -> Option<u32> {
        let index = self.channels.find_name_near(name, hint)?;
        if self.is_own_record() {
            self.channels.end_proposal(index);
        }
        Some(index)
    }

    /// Records that the client of a session made a call here.
    pub(super) fn hear(&mut self, session: u32, present: Millis) {
        if self.is_own_record() {
            self.sessions.hear(session, present, &mut self.timers);
        }
    }

    /// Begins a numbering of ids, unless another node has begun it.
    fn apply_begin(&mut self, epoch: Epoch, watermark_hash_key: Option<[u8; 16]>) {
        if let Some(nodes) = &mut self.nodes
            && std::mem::replace(&mut nodes.has_begun, true)
            && watermark_hash_key.is_some()
        {
            return;
        }
        let is_other = self.epoch.as_bytes() != epoch.as_bytes();
        self.begin_numbering(epoch, watermark_hash_key);
        if is_other {
            self.reset_readers();
        }
    }

    /// Makes the next delivery tell the readers that their ids are of another numbering. Costs
    /// O(readers).
    fn reset_readers(&mut self) {
        for key in self.readers.keys() {
            let Some(reader) = self.readers.get_mut(key) else { continue };
            // A long poll without `from_id` has got no id yet, and one from 0 gets all anyway.
            let has_ids = reader.kind != ReaderKind::LongPoll;
            for subscription in reader.subscriptions.as_mut_slice() {
                let is_told = match subscription.gap_policy {
                    GapPolicy::Report | GapPolicy::Reset => true,
                    GapPolicy::Ignore => has_ids,
                    GapPolicy::FullState => false,
                };
                if is_told {
                    subscription.gap_policy = GapPolicy::Reset;
                    self.channels.mark_dirty(subscription.channel);
                }
            }
        }
    }

    /// Arms the timer of a channel for which no command waits any more.
    pub(super) fn arm_channel(&mut self, name: &str) {
        if let Some(index) = self.channels.find_name(name) {
            self.channels.arm_timer(index, &mut self.timers);
        }
    }

    /// Saves a session that is about to be removed in the checkpoint, if there is one.
    fn rescue_session(&mut self, index: u32) {
        if let Some(mut checkpoint) = self.checkpoint.take() {
            let record = self.session_record(&self.sessions[index], self.position - 1);
            checkpoint.rescue_session(index, &record);
            self.checkpoint = Some(checkpoint);
        }
    }

    /// Sets the name of the numbering of ids and, in an empty hub, the key of the watermarks.
    pub(super) fn begin_numbering(&mut self, epoch: Epoch, watermark_hash_key: Option<[u8; 16]>) {
        self.epoch = epoch;
        if let Some(key) = watermark_hash_key {
            self.channels.begin_id_watermarks(key);
        }
    }

    /// Returns the channel of this name, which exists in shared state from now on. `index` is its
    /// index, if it exists here.
    #[inline]
    pub(super) fn share_channel(&mut self, present: Millis, index: Option<u32>, name: &str) -> u32 {
        match index {
            Some(index) if self.channels[index].is_shared => index,
            _ => self.begin_sharing(present, index, name),
        }
    }

    /// Makes a channel exist in shared state, also if it does not exist here. Returns its index.
    #[inline(never)]
    fn begin_sharing(&mut self, present: Millis, index: Option<u32>, name: &str) -> u32 {
        let index = index.unwrap_or_else(|| {
            let first_id = self.channels.id_watermarks().first_id(name);
            self.channels.insert(Channel::new(name, first_id, present), &mut self.timers)
        });
        let waited_for = self.channels[index].next_id();
        let first_id = self.channels.share(index, self.position);
        if first_id != waited_for {
            // Readers came before the channel. They have missed nothing.
            self.move_cursors(index, waited_for, first_id);
        }
        index
    }

    /// Moves the cursors of a channel's readers that are at `from`.
    fn move_cursors(&mut self, channel: u32, from: u64, to: u64) {
        for key in &self.channels[channel].local.readers_in_order {
            let Some(reader) = self.readers.get_mut(*key) else { continue };
            let subscriptions = reader.subscriptions.as_mut_slice().iter_mut();
            let moved = subscriptions.filter(|it| it.channel == channel && it.cursor == from);
            moved.for_each(|subscription| subscription.cursor = to);
        }
    }

    /// Adds a message, unless the channel was saved with it. Returns the id of the newest message.
    pub(super) fn append_once(&mut self, now: Now, channel: u32, kind: MessageKind<'_>) -> u64 {
        if self.channels[channel].position >= self.position {
            return self.channels[channel].next_id() - 1;
        }
        self.channels.set_position(channel, self.position);
        self.channels.append(now, channel, kind, &mut self.timers)
    }

    /// Adds the result of a command to the hash.
    fn mix_hash(&mut self, result: &Result<Applied, Error>) {
        if self.position <= self.hashed_from {
            return;
        }
        let value = match result {
            Ok(Applied::Written(id)) => *id,
            Ok(Applied::Introduced(introduced)) => introduced.session << 32 ^ introduced.id,
            Ok(Applied::Gone) => 1,
            Ok(Applied::Nothing | Applied::Mismatch(_)) => 2,
            Err(_) => 3,
        };
        // The multiplier of Knuth's MMIX generator: odd, so no step loses information.
        let mixed = self.applied_hash.rotate_left(7) ^ self.position ^ value.rotate_left(32);
        self.applied_hash = mixed.wrapping_mul(6_364_136_223_846_793_005);
    }
}
