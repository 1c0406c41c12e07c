//! Keys in Redis. All have one hash tag, so that they would be in one slot.

/// Names of the keys.
pub struct Keys {
    stream: Vec<u8>,
    snapshots: Vec<u8>,
    lock: Vec<u8>,
    /// Beginning of the keys of snapshots.
    snapshot: String,
    /// Beginning of the keys of vouches.
    vouch: String,
}

impl Keys {
    /// Makes the names that begin with this prefix.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        let key = |name: &str| format!("{{{prefix}}}:{name}");
        Self {
            stream: key("log").into_bytes(),
            snapshots: key("snapshots").into_bytes(),
            lock: key("lock").into_bytes(),
            snapshot: key("snapshot:"),
            vouch: key("vouch:"),
        }
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
        format!("{}{name:016x}", self.snapshot).into_bytes()
    }

    /// Key of the vouches under this run id of Redis: a hash.
    #[must_use]
    pub fn vouches(&self, run_id: &str) -> Vec<u8> {
        format!("{}{run_id}", self.vouch).into_bytes()
    }
}
