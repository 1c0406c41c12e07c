//! Why the server did not start.

/// Why the server did not start, in one line.
#[derive(Debug)]
pub struct StartError(pub String);
