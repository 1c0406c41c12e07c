//! Points in time, as the caller passes them in.

use std::time::Duration;

/// Milliseconds of a clock that never goes back, for all deadlines. The clock starts at 0; a server
/// that restores a state continues the clock of that state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// A time that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// Returns the time `ms` milliseconds later. Saturates, so that a huge option means "never".
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Returns the earliest of some deadlines, if any is set.
    #[must_use]
    pub fn earliest<const N: usize>(deadlines: [Option<Self>; N]) -> Option<Self> {
        let at_or_never = |at: Option<Self>| at.unwrap_or(Self::NEVER);
        let first = deadlines.into_iter().map(at_or_never).fold(Self::NEVER, Self::min);
        (first < Self::NEVER).then_some(first)
    }
}

/// The present time. It is read once per turn and passed to all calls of the turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Time for deadlines.
    pub mono: Millis,
    /// Milliseconds since 1970 (UTC), for the `time` of messages. May go back.
    pub unix_ms: u64,
}

/// Returns the whole milliseconds of a duration. Saturates, so that a huge option means "never".
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
