//! The error of a failed start.

/// Reason why the server did not start, and what to do about it, in one line.
#[derive(Debug)]
pub struct StartError(pub String);
