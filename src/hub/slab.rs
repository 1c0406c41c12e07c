//! A slab whose keys are never reused. So an event for a value that was removed does not reach the
//! next value at its index.

use super::paged_slab::PagedSlab;

/// Key of a value in a slab: its index, and a generation that earlier values at the same index did
/// not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Index of the value. Later values may have the same one.
    pub index: u32,
    generation: u32,
}

impl Key {
    /// Returns the key as one number, for example for a poll token.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// Returns whether the keys have the same index, and generations with the same lowest bits.
    #[must_use]
    pub fn is_alike(self, other: Self, generation_bits: u32) -> bool {
        let differ = (self.generation ^ other.generation) << (u32::BITS - generation_bits);
        self.index == other.index && differ == 0
    }

    /// Makes the key of a number from [`Key::to_bits`].
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// A slab with generations. Insertion, removal and lookup are O(1).
///
/// The generation wraps after 2^32 insertions. A stale key is mistaken only if it is kept that long
/// and a later value gets both its index and its generation.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: PagedSlab<(u32, T)>,
    next_generation: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: PagedSlab::new(), next_generation: 0 }
    }
}

impl<T> Slab<T> {
    /// Adds a value and returns its key.
    pub(crate) fn insert(&mut self, value: T) -> Key {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let index = self.entries.insert((generation, value));
        Key { index, generation }
    }

    /// Returns the value of a key, unless it was removed.
    #[must_use]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        match self.entries.get(key.index) {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Returns the value of a key for a change, unless it was removed.
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.index) {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// Removes and returns the value of a key, unless it was removed before.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (_, value) = self.entries.remove(key.index);
        Some(value)
    }

    /// Returns the key of the present value at an index.
    #[must_use]
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        self.entries.get(index).map(|(generation, _)| Key { index, generation: *generation })
    }

    /// Returns the number of values.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no value.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    /// Iterates over the keys of all values, by index.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.entries.iter().map(|(index, (generation, _))| Key { index, generation: *generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_reach_the_next_value_at_its_index() {
        let mut slab = Slab::default();
        let stays = slab.insert("stays");
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
        assert_eq!(slab.get(Key::from_bits(stays.to_bits())), Some(&"stays"));
    }

    #[test]
    fn keys_are_alike_if_the_lowest_bits_of_their_generations_are() {
        let key = |index: u64, generation: u64| Key::from_bits(generation << 32 | index);
        assert!(key(7, 0x12345).is_alike(key(7, 0x345), 12));
        assert!(!key(7, 0x12345).is_alike(key(7, 0x346), 12));
        assert!(!key(7, 0x12345).is_alike(key(8, 0x345), 12));
        assert!(!key(7, 0x12345).is_alike(key(7, 0x345), 32));
    }

    #[test]
    fn a_key_stays_stale_when_the_slab_was_empty_meanwhile() {
        let mut slab = Slab::default();
        let old = slab.insert(1);
        slab.remove(old);
        assert!(slab.is_empty());
        slab.insert(2);
        assert!(!slab.is_empty());
        assert_eq!(slab.get(old), None);
    }
}
