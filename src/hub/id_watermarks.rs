//! Where dropped channels leave the ids that they reached.
//!
//! A fixed table, so that channels which come and go leave no memory behind. A
//! place is shared by all names that hash to it and holds the highest id of them:
//! a name may start above 1, but never gets an id twice.

use sha2::{Digest, Sha256};

const BUCKETS: usize = 4096;

/// The table of docs/api.md's "id".
pub(super) struct IdWatermarks {
    /// Secret, so that nobody can aim a channel at another's place and tell that the other was dropped.
    key: [u8; 16],
    /// 0 stands for an untouched place; the kernel gives those pages only when they are written.
    next_ids: Box<[u64]>,
    /// No channel was ever dropped, so there is nothing to look for.
    is_empty: bool,
}

impl IdWatermarks {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { key, next_ids: vec![0; BUCKETS].into_boxed_slice(), is_empty: true }
    }

    /// The first id of a new channel of that name.
    pub(super) fn first_id(&self, name: &str) -> u64 {
        if self.is_empty { 1 } else { self.next_ids[self.bucket(name)].max(1) }
    }

    /// Keeps what a dropped channel would have given next.
    pub(super) fn record(&mut self, name: &str, next_id: u64) {
        if next_id <= 1 {
            return;
        }
        let place = self.bucket(name);
        self.is_empty = false;
        self.next_ids[place] = self.next_ids[place].max(next_id);
    }

    /// Secret of the table.
    pub(super) fn key(&self) -> [u8; 16] {
        self.key
    }

    /// The places that something rests in, and what does.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        let places = self.next_ids.iter().enumerate().filter(|(_, next_id)| **next_id > 0);
        places.map(|(place, next_id)| (place as u16, *next_id))
    }

    /// Puts back what rested in a place. Tells whether there is such a place.
    pub(super) fn restore(&mut self, place: u16, next_id: u64) -> bool {
        let place = self.next_ids.get_mut(usize::from(place));
        self.is_empty &= place.is_none();
        place.map(|place| *place = next_id).is_some()
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
    fn a_dropped_name_goes_on_where_it_was_and_collisions_only_skip() {
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
}
