//! Places whose keys are never given twice: a late event cannot reach a slot's next tenant.

use super::paged_slab::PagedSlab;

/// The name of one tenant of [`Slots`]: its place, and the generation that tells
/// it from earlier tenants of the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The place.
    pub index: u32,
    generation: u32,
}

impl Key {
    /// The key as one number, for where only a number fits (an epoll token).
    #[must_use]
    pub fn to_bits(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// Back from [`Key::to_bits`].
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self { index: bits as u32, generation: (bits >> 32) as u32 }
    }
}

/// Places with generations. Insertion, removal and look-up are O(1).
///
/// The generation wraps after 2^32 insertions: a stale key would have to outlive
/// that many newcomers to be mistaken, and every key here lives shorter than a turn
/// of the loop past its tenant.
#[derive(Debug)]
pub struct Slab<T> {
    entries: PagedSlab<(u32, T)>,
    next_generation: u32,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: PagedSlab::new(), next_generation: 0 }
    }
}

impl<T> Slab<T> {
    /// Moves `tenant` in and names it.
    pub fn insert(&mut self, tenant: T) -> Key {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let index = self.entries.insert((generation, tenant));
        Key { index, generation }
    }

    /// The tenant, if it is still the one that `key` named.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        match self.entries.get(key.index) {
            Some((generation, tenant)) if *generation == key.generation => Some(tenant),
            _ => None,
        }
    }

    /// As [`Slots::get`], to change it.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.entries.get_mut(key.index) {
            Some((generation, tenant)) if *generation == key.generation => Some(tenant),
            _ => None,
        }
    }

    /// Moves the tenant out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let (_, tenant) = self.entries.remove(key.index);
        Some(tenant)
    }

    /// The key of the tenant at this place now.
    #[must_use]
    pub fn key_at(&self, index: u32) -> Option<Key> {
        self.entries.get(index).map(|(generation, _)| Key { index, generation: *generation })
    }

    /// How many tenants there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    /// The keys of all tenants, by place.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.entries.iter().map(|(index, (generation, _))| Key { index, generation: *generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_does_not_open_the_slot_of_its_next_tenant() {
        let mut slots = Slab::default();
        let stays = slots.insert("stays");
        let first = slots.insert("first");
        assert_eq!(slots.remove(first), Some("first"));
        let second = slots.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(slots.get(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get(second), Some(&"second"));
        assert_eq!(slots.get(Key::from_bits(stays.to_bits())), Some(&"stays"));
    }

    #[test]
    fn a_key_stays_stale_also_after_all_have_left() {
        let mut slots = Slab::default();
        let old = slots.insert(1);
        slots.remove(old);
        assert!(slots.is_empty());
        slots.insert(2);
        assert_eq!(slots.get(old), None);
    }
}
