//! Conditions that a call of a cluster may wait for.

/// Condition for making a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// All records up to the present end of the log are applied.
    Barrier,
    /// This process holds the session of the call.
    Hold,
    /// The session of the call has ended, or lives on.
    End,
}
