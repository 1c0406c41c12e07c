//! Watermarks of the ids of dropped channels.
//!
//! The table has a fixed size, so dropped channels need no memory. All names with the same hash
//! share a bucket, which holds the highest next id of their channels. A new channel may begin above
//! 1, but no channel gets an id twice.

use sha2::{Digest, Sha256};

const BUCKETS: usize = 4096;

/// The table of watermarks. `docs/api.md` describes its effect on ids.
pub(super) struct IdWatermarks {
    /// Secret hash key. With a known key, a client could choose a name in the bucket of another
    /// channel, and see when that channel is dropped.
    key: [u8; 16],
    /// Next id per bucket; 0 means that no channel of the bucket was dropped. The kernel allocates
    /// pages of the table when they are first written.
    next_ids: Box<[u64]>,
    /// No channel was ever dropped, so no name has to be hashed.
    is_empty: bool,
}

impl IdWatermarks {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { key, next_ids: vec![0; BUCKETS].into_boxed_slice(), is_empty: true }
    }

    /// Returns the first id of a new channel with this name.
    pub(super) fn first_id(&self, name: &str) -> u64 {
        if self.is_empty { 1 } else { self.next_ids[self.bucket(name)].max(1) }
    }

    /// Records the next id of a dropped channel.
    pub(super) fn record(&mut self, name: &str, next_id: u64) {
        if next_id <= 1 {
            return;
        }
        let bucket = self.bucket(name);
        self.is_empty = false;
        self.next_ids[bucket] = self.next_ids[bucket].max(next_id);
    }

    /// Returns the secret hash key.
    pub(super) fn key(&self) -> [u8; 16] {
        self.key
    }

    /// Iterates over the buckets that have a watermark, with their next ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        let used = self.next_ids.iter().enumerate().filter(|(_, next_id)| **next_id > 0);
        used.map(|(bucket, next_id)| (bucket as u16, *next_id))
    }

    /// Restores the next id of a bucket. Returns whether the bucket exists.
    pub(super) fn restore(&mut self, bucket: u16, next_id: u64) -> bool {
        let watermark = self.next_ids.get_mut(usize::from(bucket));
        self.is_empty &= watermark.is_none();
        watermark.map(|watermark| *watermark = next_id).is_some()
    }

    fn bucket(&self, name: &str) -> usize {
        let digest = Sha256::new().chain_update(self.key).chain_update(name).finalize();
        usize::from(u16::from_be_bytes([digest[0], digest[1]])) % BUCKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_channel_continues_its_ids_and_a_collision_only_skips_some() {
        let mut ids = IdWatermarks::new([7; 16]);
        assert_eq!(ids.first_id("a"), 1);
        ids.record("a", 100);
        assert_eq!(ids.first_id("a"), 100);
        let twin = (0..1_000_000)
            .map(|n| n.to_string())
            .find(|name| ids.bucket(name) == ids.bucket("a"))
            .unwrap();
        assert_eq!(ids.first_id(&twin), 100);
        ids.record(&twin, 50);
        assert_eq!(ids.first_id("a"), 100);
    }

    #[test]
    fn few_names_share_a_bucket() {
        let mut ids = IdWatermarks::new([7; 16]);
        ids.record("a", 100);
        let later = (0..1_000).filter(|number| ids.first_id(&number.to_string()) > 1).count();
        assert!(later < 10, "{later} of 1,000");
    }

    #[test]
    fn a_restored_table_continues_the_ids_of_dropped_channels() {
        let mut before = IdWatermarks::new([7; 16]);
        before.record("a", 100);
        let mut after = IdWatermarks::new(before.key());
        for (bucket, next_id) in before.iter() {
            assert!(after.restore(bucket, next_id));
        }
        assert_eq!(after.first_id("a"), 100);
        assert!(!after.restore(BUCKETS as u16, 5), "there is no such bucket");
        assert_eq!(after.first_id("a"), 100);
    }
}
