//! Keys in Redis. All have one hash tag, so that they would be in one slot.

/// Names of the keys.
pub struct Keys {
    stream: Vec<u8>,
}

impl Keys {
    /// Makes the names that begin with this prefix.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { stream: format!("{{{prefix}}}:log").into_bytes() }
    }

    /// Key of the stream of records.
    #[must_use]
    pub fn stream(&self) -> &[u8] {
        &self.stream
    }
}
