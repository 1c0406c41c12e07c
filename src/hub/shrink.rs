//! Memory of hash tables that have become small.

use std::collections::HashMap;
use std::hash::Hash;

/// Capacity that a table always keeps.
const KEEP_CAPACITY: usize = 1024;

/// Halves the capacity of a table that is less than a quarter full. Amortized O(1) per removal.
pub(super) fn shrink<K: Eq + Hash, V>(map: &mut HashMap<K, V>) {
    if map.capacity() > KEEP_CAPACITY && map.len() < map.capacity() / 4 {
        map.shrink_to(map.capacity() / 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_has_become_small_halves_its_capacity() {
        let mut map: HashMap<_, _> = (0..10_000).map(|number| (number, number)).collect();
        for number in 0..10_000 {
            map.remove(&number);
            let (length, before) = (map.len(), map.capacity());
            shrink(&mut map);
            let is_small = before > KEEP_CAPACITY && length < before / 4;
            assert_eq!(map.capacity() < before, is_small, "{length} of {before}");
            assert!(map.capacity() >= before / 2, "{length} of {before}");
        }
        assert!(map.capacity() <= KEEP_CAPACITY);
    }
}
