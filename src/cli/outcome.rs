//! How a command ends.

/// How a command ends that did what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    /// The doctor found a fault.
    Faults,
    /// The doctor found nothing worse than a warning.
    Warnings,
}

/// Why a command gives up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The operands are not what they should be.
    Usage(String),
    /// Anything else, in a line.
    Error(String),
    /// Whoever read our output has closed it, and wants nothing more.
    OutputClosed,
}
