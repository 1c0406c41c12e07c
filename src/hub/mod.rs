//! The pure core: channels, sessions and readers.
//!
//! The hub has no sockets, no clock and no randomness. Time and secrets are arguments, and replies
//! leave through [`Hub::deliver`]. So a simulation can drive the real hub with a seed.
//!
//! A reader is a read that waits: a long poll, or a stream.
//!
//! # Shared state and local state
//!
//! - *Shared state* is what calls have changed: channels with ids, entries and members; sessions
//!   with number, `auth` and channels; the watermarks of ids, the last session number and the
//!   epoch. Only `channels.rs` and `sessions.rs` change it. A snapshot holds it.
//! - *Local state* belongs to this process: readers with their cursors, the times of last use,
//!   timers, the memory accounting, lists of work for the next delivery, statistics. The local
//!   state of one channel or session is in `ChannelLocal` or `SessionLocal`, and reachable through
//!   `local_mut`.
//!
//! Three rules make shared state depend on local state: a session ends when this process has not
//! heard from it, a channel is dropped some time after its last use, which reads move too, and the
//! memory limit evicts history. A snapshot holds the times that these rules need.

mod channel;
mod channel_name;
mod channel_slice;
mod channels;
mod config;
mod deliver;
mod error;
mod eviction;
mod id_watermarks;
mod ids;
mod lookup;
mod message;
mod paged_slab;
mod read_request;
mod reader;
mod readers;
mod reads;
mod reply;
mod session;
mod sessions;
mod shrink;
mod slab;
mod snapshot;
mod snapshot_load;
mod snapshot_save;
mod stats;
mod time;
mod timer_wheel;
mod timers;
mod usage;
mod wake;

use std::time::Duration;

use channels::Channels;
use message::MessageKind;
use readers::Readers;
use session::Session;
use sessions::Sessions;
use snapshot_load::Restored;
use timers::{TimerKey, Timers};
use usage::WRITE_OVERHEAD_BYTES;

pub use channel::{Member, Members};
pub use channel_name::{
    BadName, CHANNEL_BYTES_MAX, ChannelKey, ChannelName, NotReadable, NotWritable, Pair,
};
pub use channel_slice::ChannelSlice;
pub use config::Config;
pub use error::Error;
pub use ids::{Auth, Epoch, ID_MAX, TOKEN_BYTES, token};
pub use message::Reason;
pub(crate) use message::{push_number, push_string};
pub use paged_slab::PAGE_BYTES;
pub use read_request::{CHANNELS_PER_READ_MAX, Mode, ReadRequest, ReadResult};
pub use reader::{ReaderKey, Since};
pub use reply::Reply;
pub use session::{
    CHANNELS_PER_SESSION_MAX, Credentials, Introduced, Introducer, READS_PER_SESSION_MAX,
};
pub use slab::{Key, Slab};
pub use snapshot::{
    Corrupt, SnapshotChannel, SnapshotEntry, SnapshotHeader, SnapshotMember, SnapshotRecord,
    SnapshotSession,
};
pub use snapshot_load::SnapshotLoader;
pub use stats::{DropReason, Gauges, Stats};
pub use time::{Millis, Now};
pub use timer_wheel::{TimerId, TimerWheel};
pub use wake::{NO_CHANNEL, ResumeBatch, Wake};

/// The state of the server: calls in, wake-ups and the next deadline out.
pub struct Hub {
    // Shared state, except for the local part of each channel and session.
    epoch: Epoch,
    channels: Channels,
    sessions: Sessions,

    // Local state.
    readers: Readers,
    timers: Timers,
    /// Bytes held for clients outside of the hub.
    external_bytes: usize,

    // Settings, which do not change.
    config: Config,
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
            external_bytes: 0,
            config,
        }
    }

    /// Creates a hub from a snapshot, and returns the time at which it continues. Deadlines that
    /// have passed are for the next [`Hub::expire`].
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if the snapshot is incomplete.
    pub fn restore(loader: SnapshotLoader) -> Result<(Self, Now), Corrupt> {
        let Restored { config, channels, sessions, timers, now } = loader.finish()?;
        let hub = Self { channels, sessions, timers, ..Self::new(config) };
        Ok((hub, now))
    }

    /// Returns the name of this numbering of ids.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
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
        let lookup = self.channels.lookup(key);
        self.ensure_capacity(now.mono, &[lookup])?;
        self.reserve(now.mono, text.len() + WRITE_OVERHEAD_BYTES, &[lookup])?;
        let channel = self.channels.get_or_create(lookup, key, now.mono, &mut self.timers);
        let from = sender.map(|session| self.sessions[session].number);
        let kind = MessageKind::Message { from, text };
        let id = self.channels.append(now, channel, kind, &mut self.timers);
        self.touch(sender, now.mono);
        Ok(id)
    }

    /// Introduces a session in a channel. Later readers see its newest introduction.
    ///
    /// # Errors
    ///
    /// Any [`Error`] but [`Error::TooManyReads`].
    pub fn introduce(
        &mut self,
        now: Now,
        key: &ChannelKey<'_>,
        text: &str,
        introducer: Introducer<'_>,
    ) -> Result<Introduced, Error> {
        let lookup = self.channels.lookup(key);
        let existing = match &introducer {
            Introducer::New(_) => None,
            Introducer::Existing(credentials) => {
                let session = self.sessions.authenticate(*credentials)?;
                self.sessions[session].check_channel_limit(lookup.index())?;
                Some(session)
            }
        };
        self.ensure_capacity(now.mono, &[lookup])?;
        self.reserve(now.mono, 3 * (text.len() + WRITE_OVERHEAD_BYTES), &[lookup])?;
        let channel = self.channels.get_or_create(lookup, key, now.mono, &mut self.timers);
        let session = match introducer {
            Introducer::New(auth) => self.sessions.create(auth, now.mono),
            Introducer::Existing(_) => existing.expect("authenticated above"),
        };
        self.sessions.join(session, channel);
        let Session { number, auth, .. } = &self.sessions[session];
        let (number, auth) = (*number, auth.clone());
        let kind = MessageKind::Introduction { from: number, text };
        let id = self.channels.append(now, channel, kind, &mut self.timers);
        self.touch(Some(session), now.mono);
        Ok(Introduced { session: number, auth, id })
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
        let Some(key) = key else {
            self.end_session(now, session, Reason::Left, text);
            return Ok(());
        };
        if let Some(channel) = self.channels.find(key)
            && self.sessions.leave(session, channel)
        {
            self.reserve_for_goodbye(now.mono, text, 1);
            let from = self.sessions[session].number;
            let kind = MessageKind::Goodbye { from, reason: Reason::Left, text };
            self.channels.append(now, channel, kind, &mut self.timers);
        }
        self.touch(Some(session), now.mono);
        Ok(())
    }

    /// Returns the members of a channel.
    #[must_use]
    pub fn members(&mut self, now: Now, key: &ChannelKey<'_>) -> Members<'_> {
        let channel = self.channels.find(key).map(|index| {
            self.channels.local_mut(index).last_use = now.mono;
            &self.channels[index]
        });
        Members::of(channel)
    }

    /// Returns the time of the next [`Hub::expire`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        self.timers.next_deadline()
    }

    /// Ends sessions whose timeout has passed, and drops expired history and idle channels.
    pub fn expire(&mut self, now: Now) {
        while let Some(key) = self.timers.pop(now.mono) {
            match key {
                TimerKey::Session(index) => {
                    if let Some(reason) = self.sessions.on_timer(now.mono, index, &mut self.timers)
                    {
                        self.end_session(now, index, reason, None);
                    }
                }
                TimerKey::Channel(index) => {
                    self.channels.on_timer(now.mono, index, &mut self.timers);
                }
            }
        }
    }

    /// Detaches the hub after its state was transferred: drops all sessions and timers without
    /// sending goodbyes. Readers remain, and are still to be completed.
    pub fn detach(&mut self, now: Now) {
        self.readers.detach_sessions();
        self.sessions.detach_all();
        self.channels.detach_timers();
        self.timers = Timers::new(now.mono);
    }

    /// Returns the counts since the hub began.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        self.channels.stats()
    }

    /// Returns the numbers of channels, sessions, readers, timers and messages.
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

    /// Records a successful call of a session, if it had one.
    fn touch(&mut self, session: Option<u32>, now: Millis) {
        if let Some(session) = session {
            self.sessions.touch(session, now, &mut self.timers);
        }
    }

    /// Ends a session: adds a goodbye to each of its channels, and completes its readers by the
    /// next delivery.
    fn end_session(&mut self, now: Now, session: u32, reason: Reason, text: Option<&str>) {
        let session = self.sessions.remove(session, &mut self.timers);
        self.readers.orphan(&session.local.readers);
        self.reserve_for_goodbye(now.mono, text, session.channels.len());
        let goodbye = MessageKind::Goodbye { from: session.number, reason, text };
        for channel in session.channels {
            self.channels.append(now, channel, goodbye, &mut self.timers);
        }
    }
}
