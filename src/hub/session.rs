//! Sessions: introduced identities.

use super::error::Error;
use super::holders::{Holders, mix};
use super::ids::Auth;
use super::slab::Key;
use super::time::Millis;
use super::timer_wheel::TimerId;
use super::usage::ALLOCATION_BYTES;

/// Limit of channels in which one session is introduced.
pub const CHANNELS_PER_SESSION_MAX: usize = 32;

/// Limit of readers of one session. The start and the end of a reader search all of them.
pub const READS_PER_SESSION_MAX: usize = 256;

/// Memory of a session: its secret, its lists, and its index in a hash table that is half full.
pub(super) const SESSION_BYTES: usize =
    size_of::<Session>() + 2 * (size_of::<(u64, u32)>() + 1) + 6 * ALLOCATION_BYTES;

/// Credentials of a call, not yet checked.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// Number of the session; 0 never exists.
    pub session: u64,
    /// Secret of the session.
    pub auth: &'a str,
}

/// Caller of an introduction.
pub enum Introducer<'a> {
    /// A new session, which gets this secret.
    New(Auth),
    /// A session that exists.
    Existing(Credentials<'a>),
}

/// Result of an introduction.
pub struct Introduced {
    /// Number of the session.
    pub session: u64,
    /// Secret of the session.
    pub auth: Auth,
    /// Id of the introduction.
    pub id: u64,
}

/// A session. All but `local` is shared state: only [`Sessions`](super::sessions::Sessions)
/// changes it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) auth: Auth,
    /// Channels in which the session is introduced, by index.
    pub(super) channels: Vec<u32>,
    /// Position in the log of the last command that changed the session.
    pub(super) position: u64,
    /// Nodes that hold the session. Empty without a cluster.
    pub(super) holders: Holders,
    pub(super) local: SessionLocal,
}

/// Local state of a session.
#[derive(Debug)]
pub(super) struct SessionLocal {
    /// Readers of the session, oldest first.
    pub(super) readers: Vec<Key>,
    /// Time of the last successful call, or of the last end of a reader.
    pub(super) last_alive: Millis,
    /// Position in the log of the last command that was applied before `last_alive`. So nodes of a
    /// cluster find out which of them has heard of the session later, without clocks.
    pub(super) heard_position: u64,
    /// Time at which the session ends because a reader was closed, unless a call is made before.
    pub(super) closes_at: Option<Millis>,
    /// Never later than [`SessionLocal::ends_at`]. May be unset while that is `None`.
    pub(super) timer: Option<TimerId>,
    /// Number of calls of the session that wait for their place in the log.
    pub(super) proposed: u32,
    /// The end of the session waits for its place in the log.
    pub(super) is_ending: bool,
    /// This process holds the session: it times out the silence of the session.
    pub(super) is_held: bool,
}

impl Session {
    pub(super) fn new(number: u64, auth: Auth, now: Millis) -> Self {
        let local = SessionLocal {
            readers: Vec::new(),
            last_alive: now,
            heard_position: 0,
            closes_at: None,
            timer: None,
            proposed: 0,
            is_ending: false,
            is_held: true,
        };
        Self { number, auth, channels: Vec::new(), position: 0, holders: Holders::default(), local }
    }

    /// Returns the sum of the hashes of the session with each of its holders, and with
    /// [`Holders::closed_position`] unless that is 0.
    pub(super) fn holders_hash(&self) -> u64 {
        let closed = match self.holders.closed_position() {
            0 => 0,
            position => mix(!self.number, position),
        };
        let holders = self.holders.as_slice().iter();
        holders.fold(closed, |sum: u64, node| sum.wrapping_add(mix(self.number, *node)))
    }

    /// Checks that the session is, or may be, introduced in the channel.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyChannels`].
    pub(super) fn check_channel_limit(&self, channel: Option<u32>) -> Result<(), Error> {
        let is_member = channel.is_some_and(|channel| self.channels.contains(&channel));
        if is_member || self.channels.len() < CHANNELS_PER_SESSION_MAX {
            Ok(())
        } else {
            Err(Error::TooManyChannels)
        }
    }
}

impl SessionLocal {
    /// Records a successful call.
    ///
    /// `last_alive` may be later than `now`: after an upgrade, a session is alive until the
    /// predecessor has completed the session's readers.
    pub(super) fn touch(&mut self, now: Millis) {
        self.last_alive = self.last_alive.max(now);
        self.closes_at = None;
    }

    /// Records that a reader ended.
    pub(super) fn remove_reader(&mut self, key: Key, now: Millis) {
        self.readers.retain(|other| *other != key);
        self.last_alive = self.last_alive.max(now);
        // A grace period that ran out while the reader waited is void.
        self.closes_at = self.closes_at.filter(|at| *at > now);
    }

    /// Returns the time at which the session ends if no call is made. `None` while the session has
    /// a reader. A call that waits for the log is not answered, so its timeout has not begun. No
    /// timeout begins before `heard_until`.
    pub(super) fn ends_at(&self, timeout_ms: u64, heard_until: Millis) -> Option<Millis> {
        if !self.readers.is_empty() || !self.is_held {
            return None;
        }
        let times_out_at =
            (self.proposed == 0).then(|| self.last_alive.max(heard_until).after(timeout_ms));
        [self.closes_at, times_out_at].into_iter().flatten().min()
    }

    /// Checks that one more reader may wait once `ending` has ended.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyReads`].
    pub(super) fn check_read_limit(&self, ending: Option<Key>) -> Result<(), Error> {
        if self.readers.len() < READS_PER_SESSION_MAX
            || ending.is_some_and(|key| self.readers.contains(&key))
        {
            Ok(())
        } else {
            Err(Error::TooManyReads)
        }
    }
}
