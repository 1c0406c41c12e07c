//! Commands from the log, applied to the model.

use speak::hub::{self, LogHealth, Now, Reason, Since};

use super::command::{Applied, Command, Introducer, Introducing};
use super::message::Type;
use super::model::{CHANNELS_PER_SESSION_MAX, Model, Session};

impl Model {
    /// Applies a command. The hub gave its message the id `id`.
    pub(crate) fn apply(
        &mut self,
        command: &Command,
        id: Option<u64>,
    ) -> Result<Applied, hub::Error> {
        self.end_proposal(command);
        match command {
            Command::Begin => Ok(Applied::Nothing),
            Command::Write { channel, from, is_owner, text } => {
                if let Some(from) = from {
                    self.find(*from)?;
                }
                self.share(*channel, id);
                self.hear(*from);
                Ok(Applied::Written(self.append_message(*channel, *from, *is_owner, text)))
            }
            Command::Introduce { channel, session, by, text } => {
                self.introduce_applied(*channel, session, *by, text, id)
            }
            Command::Remove { channel, id: of } => {
                self.share(*channel, id);
                Ok(Applied::Written(self.remove_one(*channel, *of)))
            }
            Command::Kick { channel, session, seconds, text } => {
                self.kick(*channel, *session, *seconds, text.as_deref());
                Ok(Applied::Gone)
            }
            Command::Leave { channel, session, text } => {
                self.find(*session)?;
                if self.members(*channel).contains_key(session) {
                    let (text, reason) = (text.as_deref(), Some(Reason::Left));
                    self.append(*channel, Type::Goodbye, Some(*session), text, reason);
                }
                self.hear(Some(*session));
                Ok(Applied::Gone)
            }
            Command::End { session, reason, text } => {
                self.find(*session)?;
                self.end(*session, *reason, text.as_deref());
                Ok(Applied::Gone)
            }
            Command::Drop { channel, next_id } => {
                self.drop_applied(*channel, *next_id);
                Ok(Applied::Nothing)
            }
        }
    }

    fn introduce_applied(
        &mut self,
        channel: usize,
        session: &Introducing,
        by: Introducer,
        text: &str,
        id: Option<u64>,
    ) -> Result<Applied, hub::Error> {
        let (number, auth) = match session {
            Introducing::New(auth) => {
                self.last_session += 1;
                let (auth, last_alive_ms) = (auth.clone(), self.now_ms());
                let session = Session {
                    auth: auth.clone(),
                    last_alive_ms,
                    closes_at_ms: None,
                    is_ending: false,
                };
                self.sessions.insert(self.last_session, session);
                (self.last_session, auth)
            }
            Introducing::Existing(number) => {
                let auth = self.find(*number)?.auth.clone();
                let memberships = self.memberships(*number);
                if !memberships.contains(&channel) && memberships.len() >= CHANNELS_PER_SESSION_MAX
                {
                    return Err(hub::Error::TooManyChannels);
                }
                (*number, auth)
            }
        };
        self.share(channel, id);
        self.hear(Some(number));
        let id = self.append_introduction(channel, number, by, text);
        Ok(Applied::Introduced { session: number, auth, id })
    }

    fn drop_applied(&mut self, channel: usize, next_id: u64) {
        let its = &mut self.channels[channel];
        its.is_dropping = false;
        let is_changed = its.next_id != next_id;
        if is_changed || !its.is_shared || !self.members(channel).is_empty() {
            return self.tally.count("drop of a channel that is used again");
        }
        self.channels[channel].is_shared = false;
        if self.readers(channel) > 0 || self.channels[channel].proposed > 0 {
            self.tally.count("dropped channel stays for readers or commands");
            self.watermarks.push(next_id);
            self.channels[channel].bans.clear();
            self.used(channel);
        } else {
            self.forget(channel);
        }
    }

    fn find(&self, session: u64) -> Result<&Session, hub::Error> {
        self.sessions.get(&session).ok_or(hub::Error::SessionEnded)
    }

    /// The call of a command was made before. Since then, a closed read may have begun a grace.
    fn hear(&mut self, session: Option<u64>) {
        let now_ms = self.now_ms();
        if let Some(session) = session.and_then(|number| self.sessions.get_mut(&number)) {
            session.last_alive_ms = session.last_alive_ms.max(now_ms);
        }
    }

    /// A channel exists in shared state from now on. Ids may go on after those of another name.
    fn share(&mut self, channel: usize, first_id: Option<u64>) {
        if self.channels[channel].is_shared {
            return;
        }
        let before = self.next_id(channel);
        let first_id = first_id.unwrap_or(before);
        self.learn_next_id(channel, first_id);
        self.channels[channel].is_shared = true;
        let subscriptions = self.pending.iter_mut().flat_map(|read| &mut read.subscriptions);
        let waiting = subscriptions.filter(|its| its.channel == channel && its.cursor == before);
        for its in waiting {
            its.cursor = first_id;
            if let Since::Id(_) = its.since {
                its.since = Since::Id(first_id);
            }
            self.tally.count_if(first_id > before, "cursor moved to the watermark of another name");
        }
    }

    /// The process died, and another one recovered what is in the log.
    pub(crate) fn recover(&mut self, now: Now) {
        self.now = now;
        let now_ms = self.now_ms();
        self.pending.clear();
        self.completed.clear();
        self.health = LogHealth::Good;
        self.take_proposals();
        self.turn += 1;
        for session in self.sessions.values_mut() {
            (session.last_alive_ms, session.closes_at_ms) = (now_ms, None);
            session.is_ending = false;
        }
        self.forget_unshared();
        for channel in self.channels.iter_mut().filter(|its| its.exists) {
            channel.last_use_ms = now_ms;
            channel.is_dropping = false;
        }
        self.channels.iter_mut().for_each(|its| its.proposed = 0);
    }

    /// Channels that have only readers do not outlive their process.
    pub(crate) fn forget_unshared(&mut self) {
        for channel in self.channels.iter_mut().filter(|its| !its.is_shared) {
            channel.exists = false;
        }
    }
}
