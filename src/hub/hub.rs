//! The hub: the calls that change it, and the deadlines.

use std::time::Duration;

use super::bans::Address;
use super::channel::Members;
use super::channel_name::ChannelKey;
use super::channels::Channels;
use super::checkpoint::{Checkpoint, PIECE_BYTES};
use super::config::Config;
use super::error::Error;
use super::ids::Epoch;
use super::lookup::Lookup;
use super::message::{JsonText, MessageKind, Reason};
use super::nodes::Nodes;
use super::proposals::{LogHealth, Proposals};
use super::readers::Readers;
use super::session::{Credentials, Introduced, Introducer, Session};
use super::sessions::Sessions;
use super::snapshot::Corrupt;
use super::snapshot_load::{Restored, SnapshotLoader};
use super::stats::{Gauges, Stats};
use super::time::{Millis, Now};
use super::timers::{TimerKey, Timers};
use super::usage::WRITE_OVERHEAD_BYTES;
use crate::clustered::Clustered;

/// The state of the server. Calls go in, wake-ups and the next deadline come out.
pub struct Hub {
    // Shared state, except for the local part of each channel and session.
    pub(super) epoch: Epoch,
    pub(super) channels: Channels,
    pub(super) sessions: Sessions,
    /// Position in the log of the last command that was applied; 0 without a log.
    pub(super) position: u64,
    /// Hash of the commands after `hashed_from` and of their results.
    pub(super) applied_hash: u64,
    pub(super) hashed_from: u64,
    /// Positions of the commands that dropped a channel while a checkpoint was saved, rising. Empty
    /// except during the recovery from it.
    pub(super) recovered_drops: Vec<u64>,

    // Local state.
    pub(super) readers: Readers,
    pub(super) timers: Timers,
    /// Bytes that clients make the server hold outside of the hub.
    pub(super) external_bytes: usize,
    /// Changes of shared state that wait for the log. `None` if there is no log.
    pub(super) proposals: Option<Proposals>,
    pub(super) log_health: LogHealth,
    /// Other processes may have acknowledged what this one has not applied.
    pub(super) is_behind: bool,
    /// Processes that share the log. `None` if there is only this one.
    pub(super) nodes: Option<Clustered<Nodes>>,
    /// State that is being saved piece by piece.
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) piece_bytes: usize,
    /// Searches for idle channels at this time. See [`Hub::enforce_memory_limit`].
    pub(super) idle_scans: (Millis, u32),

    // Settings.
    pub(super) config: Config,
}

impl Hub {
    /// Creates an empty hub whose time begins at 0.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            epoch: config.epoch,
            channels: Channels::new(&config),
            sessions: Sessions::new(&config, 0),
            readers: Readers::default(),
            timers: Timers::new(Millis(0)),
            position: 0,
            applied_hash: 0,
            hashed_from: 0,
            recovered_drops: Vec::new(),
            external_bytes: 0,
            proposals: None,
            log_health: LogHealth::Good,
            is_behind: false,
            nodes: None,
            checkpoint: None,
            piece_bytes: PIECE_BYTES,
            idle_scans: (Millis(0), 0),
            config,
        }
    }

    /// Creates a hub from a snapshot, and returns the time at which it continues. The next
    /// [`Hub::expire`] handles deadlines that have passed.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the snapshot is incomplete.
    pub fn restore(loader: SnapshotLoader) -> Result<(Self, Now), Corrupt> {
        let Restored { config, channels, sessions, timers, now, saved_at, log, cluster } =
            loader.finish()?;
        let (position, applied_hash) = log.map_or((0, 0), |log| (log.position, log.applied_hash));
        let nodes = cluster.and_then(|saved| Clustered::new(Nodes::restore_all(saved, saved_at)));
        let mut sessions = sessions;
        sessions.log_position = position;
        let hub =
            Self { channels, sessions, position, applied_hash, timers, nodes, ..Self::new(config) };
        Ok((hub, now))
    }

    /// Returns the name of this numbering of ids.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns whether a session with this number exists.
    #[must_use]
    pub fn has_session(&self, number: u64) -> bool {
        self.sessions.has_number(number)
    }

    /// Returns the time without a call or a reader after which a session ends.
    #[must_use]
    pub fn connection_timeout(&self) -> Duration {
        self.config.connection_timeout
    }

    /// Adds a message and returns its id. Constant time: [`Hub::deliver`] wakes the readers.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the credentials, or of the limits.
    pub fn write(
        &mut self,
        now: Now,
        key: &ChannelKey<'_>,
        text: &str,
        credentials: Option<Credentials<'_>>,
    ) -> Result<u64, Error> {
        let sender = self.sessions.authenticate_optional(credentials)?;
        let text = &JsonText::new(text);
        let lookup = self.channels.lookup(key);
        self.ensure_capacity(now.mono, &[lookup], false)?;
        self.reserve(now.mono, text.len() + WRITE_OVERHEAD_BYTES, &[lookup])?;
        let channel = self.channels.get_or_create(lookup, key, now.mono, &mut self.timers);
        let from = sender.map(|session| self.sessions[session].number);
        let kind = MessageKind::Message { from, is_owner: key.is_room_owner(), text };
        let id = self.channels.append(now, channel, kind, &mut self.timers);
        self.touch(sender, now.mono);
        Ok(id)
    }

    /// Introduces a session in a channel. Later readers see its newest introduction. `address` is
    /// that of the client, if it has one.
    ///
    /// # Errors
    ///
    /// Any [`Error`] except [`Error::TooManyReads`].
    pub fn introduce(
        &mut self,
        now: Now,
        key: &ChannelKey<'_>,
        text: &str,
        introducer: Introducer<'_>,
        address: Option<Address>,
    ) -> Result<Introduced, Error> {
        let lookup = self.channels.lookup(key);
        let existing = self.find_introduced(&introducer, lookup)?;
        self.ensure_capacity(now.mono, &[lookup], false)?;
        let text = &JsonText::new(text);
        self.reserve(now.mono, 3 * (text.len() + WRITE_OVERHEAD_BYTES), &[lookup])?;
        let channel = self.channels.get_or_create(lookup, key, now.mono, &mut self.timers);
        let session = match introducer {
            Introducer::New(auth) => self.sessions.create(auth, now.mono),
            Introducer::Existing(_) => existing.expect("authenticated above"),
        };
        self.sessions.join(session, channel);
        let Session { number, auth, .. } = &self.sessions[session];
        let (number, auth) = (*number, auth.clone());
        let is_owner = key.is_room_owner();
        let kind = MessageKind::Introduction { from: number, is_owner, address, text };
        let id = self.channels.append(now, channel, kind, &mut self.timers);
        self.touch(Some(session), now.mono);
        Ok(Introduced { session: number, auth, id })
    }

    /// Returns the session that is to be introduced, if it exists already.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the credentials, or [`Error::TooManyChannels`].
    fn find_introduced(
        &self,
        introducer: &Introducer<'_>,
        lookup: Lookup,
    ) -> Result<Option<u32>, Error> {
        let Introducer::Existing(credentials) = introducer else { return Ok(None) };
        let session = self.sessions.authenticate(*credentials)?;
        self.sessions[session].check_channel_limit(lookup.index())?;
        Ok(Some(session))
    }

    /// Removes a session from one channel, or ends the session if `key` is `None`. Adds nothing to
    /// a channel that the session is not in.
    ///
    /// # Errors
    ///
    /// An [`Error`] of the credentials.
    pub fn goodbye(
        &mut self,
        now: Now,
        credentials: Credentials<'_>,
        key: Option<&ChannelKey<'_>>,
        text: Option<&str>,
    ) -> Result<(), Error> {
        let session = self.sessions.authenticate(credentials)?;
        let text = text.map(JsonText::new);
        let Some(key) = key else {
            self.end_session(now, session, Reason::Left, text.as_ref());
            return Ok(());
        };
        if let Some(channel) = self.channels.find(key)
            && self.sessions.leave(session, channel)
        {
            let text = text.as_ref();
            self.reserve_for_goodbye(now.mono, text, 1);
            let from = self.sessions[session].number;
            let kind = MessageKind::Goodbye { from, reason: Reason::Left, text };
            self.channels.append(now, channel, kind, &mut self.timers);
        }
        self.touch(Some(session), now.mono);
        Ok(())
    }

    /// Returns the members of a channel whose session numbers are above `after`.
    #[must_use]
    pub fn members(&mut self, now: Now, key: &ChannelKey<'_>, after: u64) -> Members<'_> {
        let channel = self.channels.find(key).map(|index| {
            self.channels.local_mut(index).last_use = now.mono;
            &self.channels[index]
        });
        let nodes = self.nodes.as_ref();
        let readers_elsewhere =
            nodes.map_or(0, |nodes| nodes.reader_counts.elsewhere(key.as_str()));
        Members { channel, after, max_bytes: self.config.max_reply, readers_elsewhere }
    }

    /// Returns the time of the next [`Hub::expire`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.timers.next_deadline()
    }

    /// Ends sessions whose timeout has passed, and drops expired history and idle channels.
    pub fn expire(&mut self, now: Now) {
        while self.expire_next(now) {}
    }

    /// Handles the next deadline that has passed, as [`Hub::expire`] does with all of them. Returns
    /// false if there is none. Costs O(channels of a session) or O(expired messages of a channel).
    pub fn expire_next(&mut self, now: Now) -> bool {
        match self.timers.pop(now.mono) {
            None => return false,
            Some(TimerKey::Session(index)) => {
                let ending = self.sessions.on_timer(now.mono, index, &mut self.timers);
                match ending {
                    None => {}
                    Some(reason) if self.log_health == LogHealth::Good => {
                        self.end_silent(now, index, reason);
                    }
                    Some(_) => self.touch(Some(index), now.mono),
                }
            }
            Some(TimerKey::Channel(index)) => {
                if self.channels.on_timer(now.mono, index, &mut self.timers) {
                    self.drop_or_propose(index);
                }
            }
        }
        true
    }

    /// Detaches the hub after its state was transferred: drops all sessions and timers without
    /// sending goodbyes. Readers remain, and the caller completes them.
    pub fn detach(&mut self, now: Now) {
        self.readers.detach_sessions();
        self.sessions.detach_all();
        self.channels.detach_timers();
        self.nodes = None;
        self.timers = Timers::new(now.mono);
    }

    /// Returns the counts since this process started.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.channels.stats()
    }

    /// Returns the work of adding messages since the start: the length of their JSON, and
    /// a constant for each message, in bytes.
    #[must_use]
    pub fn appended_bytes(&self) -> u64 {
        self.channels.appended_bytes()
    }

    /// Returns the number of channels, sessions, readers, timers and messages.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        Gauges {
            channels: self.channels.len(),
            sessions: self.sessions.len(),
            readers: self.readers.len(),
            timers: self.timers.len(),
            messages: self.channels.usage().messages,
        }
    }

    /// Records a successful call of a session; `None` if the call had no credentials.
    #[inline]
    pub(super) fn touch(&mut self, session: Option<u32>, now: Millis) {
        if let Some(session) = session {
            self.sessions.touch(session, now, &mut self.timers);
        }
    }

    /// Records a call of each session at the same time.
    pub(super) fn touch_all_sessions(&mut self, now: Millis) {
        for index in 0..self.sessions.index_bound() {
            if self.sessions.get(index).is_some() {
                self.touch(Some(index), now);
            }
        }
    }

    /// Counts all channels as used now.
    pub(super) fn touch_all_channels(&mut self, now: Millis) {
        for index in 0..self.channels.index_bound() {
            if self.channels.get(index).is_some() {
                self.channels.local_mut(index).last_use = now;
            }
        }
    }

    /// Ends a session: adds a goodbye to each of its channels. The next delivery completes its
    /// readers.
    pub(super) fn end_session(
        &mut self,
        now: Now,
        session: u32,
        reason: Reason,
        text: Option<&JsonText<'_>>,
    ) {
        let session = self.sessions.remove(session, &mut self.timers);
        self.readers.complete_later(&session.local.readers);
        self.reserve_for_goodbye(now.mono, text, session.channels.len());
        let goodbye = MessageKind::Goodbye { from: session.number, reason, text };
        for channel in session.channels {
            self.channels.append(now, channel, goodbye, &mut self.timers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Auth, ChannelName, Mode, ReadRequest, ReadResult, Since, TOKEN_BYTES};

    #[test]
    fn a_detached_hub_says_no_goodbye() {
        let at = |ms| Now { mono: Millis(ms), unix_ms: ms };
        let mut hub = Hub::new(Config::default());
        let key = ChannelName::parse("c").unwrap().for_writing().unwrap();
        let introducer = Introducer::New(Auth::new([b'A'; TOKEN_BYTES]));
        let josh = hub.introduce(at(0), &key, "Josh", introducer, None).ok().unwrap();
        let credentials = Some(Credentials { session: josh.session, auth: josh.auth.reveal() });
        let targets = [(key, Since::Now)];
        let (epoch, grace_ms, mode) = (None, None, Mode::LongPoll);
        let request =
            ReadRequest { targets: &targets, epoch, credentials, grace_ms, mode, token: 1 };
        let Ok(ReadResult::Pending(poll)) = hub.read(at(0), &request) else {
            panic!("there is nothing to report");
        };
        hub.deliver(at(0), |_| {});
        hub.detach(at(1));
        let gauges = hub.gauges();
        assert_eq!((gauges.sessions, gauges.timers, gauges.readers), (0, 0, 1));
        hub.on_reader_closed(at(2), poll);
        hub.expire(at(1_000_000));
        assert_eq!(hub.stats().messages()[2], ("goodbye", 0));
        assert_eq!(hub.gauges().readers, 0);
    }
}
