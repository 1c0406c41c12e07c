//! Introduced identities.

use super::ids::Auth;
use super::slab::Key;
use super::time::Millis;
use super::timer_wheel::TimerId;

/// In how many channels one connection may be introduced at once.
pub const CHANNELS_PER_CONNECTION_MAX: usize = 32;

/// How many reads may wait with one connection at once. Each new one looks at all of them for the one that it replaces,
/// and so does each that ends.
pub const READS_PER_CONNECTION_MAX: usize = 256;

/// What a call shows to prove who it comes from. Not yet checked.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The connection's number; 0 never exists.
    pub session: u64,
    /// The secret that belongs to it.
    pub auth: &'a str,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    pub(super) auth: Auth,
    /// Where it is introduced, by place.
    pub(super) channels: Vec<u32>,
    /// The reads that wait with it, the oldest first.
    pub(super) reader_count: Vec<Key>,
    /// When a call that carried it was last answered, or a read that carried it ceased to wait.
    pub(super) last_alive: Millis,
    /// When the closing of a waiting read ends it, unless something is heard of it before.
    pub(super) closes_at: Option<Millis>,
    /// Never later than [`Connection::ends_at`]; none while a read waits and nobody has to look.
    pub(super) timer: Option<TimerId>,
}

impl Session {
    pub(super) fn new(number: u64, auth: Auth, now: Millis) -> Self {
        Self {
            number,
            auth,
            channels: Vec::new(),
            reader_count: Vec::new(),
            last_alive: now,
            closes_at: None,
            timer: None,
        }
    }

    /// A call that carried it succeeded. It may be known already that it is alive later than that: where another process
    /// answers the read that waited with it.
    pub(super) fn touch(&mut self, now: Millis) {
        self.last_alive = self.last_alive.max(now);
        self.closes_at = None;
    }

    /// When it ends if nothing more is heard of it. `None` while a read waits with it.
    pub(super) fn ends_at(&self, timeout_ms: u64) -> Option<Millis> {
        if !self.reader_count.is_empty() {
            return None;
        }
        let times_out_at = self.last_alive.after(timeout_ms);
        Some(self.closes_at.map_or(times_out_at, |at| at.min(times_out_at)))
    }
}
