//! Conditions that a call of a cluster may wait for.

/// Condition for making a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// All records up to the present end of the log are applied.
    Barrier,
    /// All proposals of this process are applied.
    Proposals,
}
