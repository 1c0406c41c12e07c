//! Keys in Redis. All have one hash tag, so that they would be in one slot.

/// Names of the keys.
pub struct Keys {
    prefix: String,
    stream: Vec<u8>,
}

impl Keys {
    /// Makes the names that begin with this prefix.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let stream = format!("{{{prefix}}}:log").into_bytes();
        Self { prefix: prefix.to_owned(), stream }
    }

    /// Key of the vouches under this run id of Redis: a hash.
    #[must_use]
    pub fn vouches(&self, run_id: &str) -> Vec<u8> {
        format!("{{{}}}:vouch:{run_id}", self.prefix).into_bytes()
    }

    /// Key of the stream of records.
    #[must_use]
    pub fn stream(&self) -> &[u8] {
        &self.stream
    }
}
