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
