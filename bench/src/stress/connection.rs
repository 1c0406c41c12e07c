//! How an introduced connection is to end, and whether a goodbye is right for that.

/// The server stamps a turn's messages with the time at which the turn began, in whole milliseconds.
pub(super) const STAMP_SLACK_MS: u64 = 5;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Reason {
    Timeout,
    Closed,
    Left,
}

/// How a connection is to end, or that it is not.
#[derive(Clone, Debug)]
pub(super) enum ExpectedEnd {
    /// Introduced by a call whose answer nobody reads: falls silent.
    Unclaimed,
    /// Nobody means it to end. `alive_ms` is when the last of the answered calls that carried it was sent.
    Lives { alive_ms: u64 },
    /// It said goodbye.
    Left,
    /// A read that waited with it was closed at a time, with these cursors: if an answer crossed the closing, nothing
    /// waited, and it falls silent instead.
    Closed { at_ms: u64, cursors: Vec<(u32, u64)>, alive_ms: u64 },
    /// It calls no more.
    Silent { alive_ms: u64 },
    /// Its stream is not read any more: it may be cut, and then it is closed.
    Clogged,
    /// The server changed or ended while it was to end, so that it may have ended in its way, or falls silent.
    Unsure { alive_ms: u64 },
}

/// An introduced connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) fate: ExpectedEnd,
    /// Rooms that it leaves, while it lives on.
    pub(super) leaves: Vec<u32>,
    /// The reason of the first of its goodbyes that ended it: the others must have the same.
    pub(super) ended: Option<Reason>,
    /// Where they were seen.
    pub(super) ended_in: Vec<u32>,
    /// When it was first introduced.
    pub(super) since_ms: u64,
    /// In how many rooms it is present.
    pub(super) present: usize,
}

/// What is to be thought of a goodbye.
pub(super) enum Verdict {
    Meant,
    /// Right only if an answer was under way when its reader closed.
    IfCrossed,
    /// Right only if the machine was too slow.
    IfSlow,
    Wrong,
}

impl Connection {
    pub(super) fn new(fate: ExpectedEnd, since_ms: u64) -> Self {
        Self { fate, leaves: Vec::new(), ended: None, ended_in: Vec::new(), since_ms, present: 0 }
    }

    pub(super) fn verdict(&self, reason: Reason, time: u64, timeout_ms: u64) -> Verdict {
        let is_time_over = |alive_ms: u64| time + STAMP_SLACK_MS >= alive_ms + timeout_ms;
        let timed =
            |alive_ms, verdict| if is_time_over(alive_ms) { verdict } else { Verdict::Wrong };
        match (&self.fate, reason) {
            (ExpectedEnd::Left | ExpectedEnd::Unsure { .. }, Reason::Left)
            | (
                ExpectedEnd::Clogged | ExpectedEnd::Closed { .. } | ExpectedEnd::Unsure { .. },
                Reason::Closed,
            ) => Verdict::Meant,
            (ExpectedEnd::Unclaimed, Reason::Timeout) => timed(self.since_ms, Verdict::Meant),
            (
                ExpectedEnd::Silent { alive_ms } | ExpectedEnd::Unsure { alive_ms },
                Reason::Timeout,
            ) => timed(*alive_ms, Verdict::Meant),
            (ExpectedEnd::Closed { alive_ms, .. }, Reason::Timeout) => {
                timed(*alive_ms, Verdict::IfCrossed)
            }
            (ExpectedEnd::Lives { alive_ms }, Reason::Timeout) => timed(*alive_ms, Verdict::IfSlow),
            // It was not yet reading when its time was over, or its goodbye came later than that.
            (ExpectedEnd::Clogged | ExpectedEnd::Left, Reason::Timeout) => {
                timed(self.since_ms, Verdict::IfSlow)
            }
            _ => Verdict::Wrong,
        }
    }
}
