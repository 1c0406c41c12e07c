//! Points in time, as the loop hands them in.

use std::time::Duration;

/// Milliseconds since the server started, or since the one started whose state it goes on with, from a clock that never goes back.
/// Every deadline is one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// The point `ms` milliseconds later. Saturates, so that a huge option is merely "never".
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The first of some deadlines, if there is one.
    #[must_use]
    pub fn earliest<const N: usize>(deadlines: [Option<Self>; N]) -> Option<Self> {
        const NEVER: Millis = Millis(u64::MAX);
        let first = deadlines.into_iter().fold(NEVER, |first, at| first.min(at.unwrap_or(NEVER)));
        (first < NEVER).then_some(first)
    }
}

/// The present, read once at the start of a turn and passed to all that happens in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// For deadlines.
    pub mono: Millis,
    /// For people: milliseconds since 1970 (UTC), a message's `time`.
    pub unix_ms: u64,
}

/// Whole milliseconds of a duration. Saturates, so that a huge option means "never".
pub(super) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
