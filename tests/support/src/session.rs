//! A session: how it may end, and whether a goodbye is right for that.

use std::collections::BTreeSet;

use crate::message::Reason;

/// Judgement of a goodbye.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Verdict {
    #[default]
    Meant,
    /// Right only if the machine was too slow to keep the session alive.
    IfSlow,
    /// Right only if a response was under way when the client of a pending read closed.
    IfCrossed {
        at_ms: u64,
        /// Channels of the read, with the ids that it waited for.
        cursors: Vec<(usize, u64)>,
    },
    Wrong,
}

/// Stands for all channels of a session.
const ALL: usize = usize::MAX;

/// An introduced session. Each time is in milliseconds of the ledger's clock.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// The session was certainly alive then.
    pub alive_ms: u64,
    /// The session was last heard of then, as far as the ledger knows.
    pub alive_most_ms: u64,
    /// Channels in which it is a member.
    pub channels: BTreeSet<usize>,
    /// Reason and time of the goodbyes that ended it.
    pub ended: Option<(Reason, u64)>,
    /// Channels with such a goodbye.
    pub(crate) ended_in: Vec<usize>,
    /// A client has its credentials.
    pub(crate) is_claimed: bool,
    /// Clients keep it alive, and none means it to end.
    pub lives: bool,
    /// `/goodbye` to all channels may have been sent.
    pub may_leave: bool,
    /// Channels to which `/goodbye` is about to be sent, or was; once for each call.
    pub leaves: Vec<usize>,
    /// Times from which a client with a pending read of the session may close, before the grace.
    pub closings: Vec<u64>,
    timeout: Verdict,
    /// Channels to which `/goodbye` was acknowledged, and not seen yet. [`ALL`] for a `/goodbye` to
    /// all of them.
    left: Vec<usize>,
}

impl Session {
    pub(crate) fn new(alive_ms: u64) -> Self {
        Self { alive_ms, alive_most_ms: alive_ms, ..Self::default() }
    }

    /// A client got its credentials, and keeps it alive from now on.
    /// `timeout` is the verdict if the session times out all the same.
    pub(crate) fn claim(&mut self, timeout: Verdict) {
        (self.is_claimed, self.lives, self.timeout) = (true, true, timeout);
    }

    /// A call with its credentials succeeded at that time or later.
    pub fn lived(&mut self, at_ms: u64) {
        if self.lives {
            self.alive_ms = self.alive_ms.max(at_ms);
        }
    }

    /// `/goodbye` to all channels is about to be sent.
    pub fn leave(&mut self) {
        (self.lives, self.may_leave, self.timeout) = (false, true, Verdict::IfSlow);
    }

    /// `/goodbye` to all channels was acknowledged: it is said, whatever becomes of the server.
    pub fn left(&mut self) {
        self.left.push(ALL);
    }

    /// `/goodbye` to this channel was acknowledged, which is to be said unless it was.
    pub fn left_channel(&mut self, channel: usize) {
        if self.leaves.contains(&channel) && self.channels.contains(&channel) {
            self.left.push(channel);
        }
    }

    /// The session is introduced in this channel, or has left it.
    pub(crate) fn enter_or_leave(&mut self, channel: usize) {
        self.left.retain(|left| *left != channel);
    }

    /// Says whether it is still a member of a channel to which `/goodbye` was acknowledged.
    pub(crate) fn should_have_left(&self, channel: usize) -> bool {
        self.left.contains(&channel)
    }

    /// The client of its pending read is about to close. A clock with bounds does not tell when the
    /// server sees that, so `closed` is right at any time.
    pub fn close(&mut self, at_ms: u64, cursors: Vec<(usize, u64)>) {
        self.closings.push(0);
        (self.lives, self.timeout) = (false, Verdict::IfCrossed { at_ms, cursors });
    }

    /// Its stream is not read any more: it may be closed.
    pub fn clog(&mut self) {
        self.closings.push(0);
        (self.lives, self.timeout) = (false, Verdict::IfSlow);
    }

    /// No client calls any more.
    pub fn fall_silent(&mut self) {
        (self.lives, self.timeout) = (false, Verdict::Meant);
    }

    /// It has left its channels one by one, no client calls any more, and its pending read is about
    /// to close. Where a `/goodbye` had no response, it may be a member still: then the closing
    /// ends it.
    pub fn depart(&mut self) {
        self.fall_silent();
        if self.leaves.iter().any(|channel| !self.left.contains(channel)) {
            self.closings.push(0);
        }
    }

    /// The server changes while the session is being closed: it may be closed, or fall silent.
    pub fn unsettle(&mut self) {
        if !self.lives && self.ended.is_none() && !self.closings.is_empty() {
            self.timeout = Verdict::Meant;
        }
    }

    /// A call or a closing with which it was to end may have come to the server or not.
    pub fn lose_track(&mut self) {
        if self.left.contains(&ALL) {
            return;
        }
        self.closings.push(0);
        (self.lives, self.may_leave, self.timeout) = (false, true, Verdict::Meant);
    }

    /// Judges a goodbye that the server said no later than `at_ms`.
    pub(crate) fn judge(&self, reason: Reason, at_ms: u64, limits: (u64, u64)) -> Verdict {
        let (timeout_ms, grace_ms) = limits;
        let may_be = match reason {
            Reason::Left => self.may_leave,
            Reason::Closed => self.closings.iter().any(|closed| at_ms >= closed + grace_ms),
            Reason::Timeout => at_ms >= self.alive_ms + timeout_ms,
            // A kick ends no session.
            Reason::Removed => false,
        };
        match (may_be, reason) {
            (false, _) => Verdict::Wrong,
            (true, Reason::Timeout) => self.timeout.clone(),
            (true, _) => Verdict::Meant,
        }
    }
}
