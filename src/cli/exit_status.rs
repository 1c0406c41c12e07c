//! Results of commands.

/// Result of a command that did its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExitStatus {
    Success,
    /// The doctor found a failure.
    FoundFailures,
    /// The doctor found nothing worse than a warning.
    FoundWarnings,
}

/// Reason why a command did not do its work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The command line is invalid. One line for standard error.
    Usage(String),
    /// Any other error. One line for standard error.
    Error(String),
    /// The reader of standard output has closed it. The command ends without an error.
    OutputClosed,
}
