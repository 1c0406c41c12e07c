//! Keys in Redis. All have one hash tag, so that they would be in one slot.

/// Names of the keys.
pub struct Keys {
    prefix: String,
    stream: Vec<u8>,
    snapshots: Vec<u8>,
    lock: Vec<u8>,
}

impl Keys {
    /// Makes the names that begin with this prefix.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let key = |name: &str| format!("{{{prefix}}}:{name}").into_bytes();
        Self {
            prefix: prefix.to_owned(),
            stream: key("log"),
            snapshots: key("snapshots"),
            lock: key("lock"),
        }
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

    /// Key of a stream with one entry, which describes the newest snapshot.
    #[must_use]
    pub fn snapshots(&self) -> &[u8] {
        &self.snapshots
    }

    /// Key of the lock of the node that writes a snapshot.
    #[must_use]
    pub fn lock(&self) -> &[u8] {
        &self.lock
    }

    /// Key of the pieces of a snapshot: a hash, from the numbers of the pieces.
    #[must_use]
    pub fn snapshot(&self, name: u64) -> Vec<u8> {
        format!("{{{}}}:snapshot:{name:016x}", self.prefix).into_bytes()
    }
}
