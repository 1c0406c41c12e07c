//! Something that a correct server does not do.

use std::fmt;

/// A violated claim.
pub struct Fault {
    pub channel: Option<usize>,
    pub what: String,
}

pub type Checked<T = ()> = Result<T, Fault>;

impl Fault {
    pub fn new(what: impl Into<String>) -> Self {
        Self { channel: None, what: what.into() }
    }

    pub fn within(channel: usize, what: impl Into<String>) -> Self {
        Self { channel: Some(channel), what: what.into() }
    }

    /// Adds the channel, unless it is known.
    #[must_use]
    pub fn or_within(self, channel: usize) -> Self {
        Self { channel: self.channel.or(Some(channel)), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.channel {
            Some(channel) => write!(f, "channel {channel}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// Equals `Display`, so that `unwrap` and `expect` print the fault readably.
impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

/// Returns a [`Fault`] from the function unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err($crate::fault::Fault::new(format!($($what)+)));
        }
    };
}
