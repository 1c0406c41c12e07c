//! A slab in pages, which frees each page but the first as soon as the page is empty.
//!
//! A plain slab that had ten thousand values keeps all its memory, even for one value that remains.
//! Here, new values go to the lowest page with room, so that the upper pages become empty.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// Minimum size of a page in bytes. The allocator of the binary returns allocations of this size to
/// the kernel as soon as they are freed.
pub const PAGE_BYTES: usize = 32 * 1024;

/// Values by index. Insertion and removal are O(1), except for the search for a page with room,
/// which is O(pages / 64).
#[derive(Debug)]
pub(crate) struct PagedSlab<T> {
    pages: Vec<Slab<T>>,
    /// One bit per page, set if the page has room.
    partial: Vec<u64>,
    len: usize,
}

impl<T> PagedSlab<T> {
    /// Values per page. A power of two, because every lookup divides by it; rounded up, so that no
    /// page is smaller than [`PAGE_BYTES`].
    pub(super) const PAGE_LEN: usize =
        PAGE_BYTES.div_ceil(size_of::<Option<T>>()).next_power_of_two();

    pub(crate) const fn new() -> Self {
        Self { pages: Vec::new(), partial: Vec::new(), len: 0 }
    }

    pub(crate) fn insert(&mut self, value: T) -> u32 {
        let page = self.page_with_room();
        let slab = &mut self.pages[page];
        if slab.capacity() == 0 {
            slab.reserve_exact(Self::PAGE_LEN);
        }
        let offset = slab.insert(value);
        if slab.len() == Self::PAGE_LEN {
            self.partial[page / 64] &= !(1 << (page % 64));
        }
        self.len += 1;
        u32::try_from(page * Self::PAGE_LEN + offset).expect("there are fewer than 2^32 values")
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.pages.get(index as usize / Self::PAGE_LEN)?.get(index as usize % Self::PAGE_LEN)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.pages
            .get_mut(index as usize / Self::PAGE_LEN)?
            .get_mut(index as usize % Self::PAGE_LEN)
    }

    /// Removes and returns a value, which must exist.
    pub(crate) fn remove(&mut self, index: u32) -> T {
        let page = index as usize / Self::PAGE_LEN;
        let slab = &mut self.pages[page];
        let value = slab.remove(index as usize % Self::PAGE_LEN);
        // The first page stays: readers that are completed together often return together.
        if slab.is_empty() && page > 0 {
            *slab = Slab::new();
        }
        self.partial[page / 64] |= 1 << (page % 64);
        self.len -= 1;
        value
    }

    /// Returns a bound above all indexes. Some indexes below it are empty.
    pub(super) fn index_bound(&self) -> u32 {
        (self.pages.len() * Self::PAGE_LEN) as u32
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of pages that have memory.
    #[cfg(test)]
    pub(crate) fn pages_in_use(&self) -> usize {
        self.pages.iter().filter(|page| page.capacity() > 0).count()
    }

    /// Iterates over all values with their indexes, by index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.pages.iter().enumerate().flat_map(|(page, slab)| {
            slab.iter().map(move |(offset, value)| ((page * Self::PAGE_LEN + offset) as u32, value))
        })
    }

    fn page_with_room(&mut self) -> usize {
        if let Some(word) = self.partial.iter().position(|bits| *bits != 0) {
            return word * 64 + self.partial[word].trailing_zeros() as usize;
        }
        let page = self.pages.len();
        self.pages.push(Slab::new());
        self.partial.resize(page / 64 + 1, 0);
        self.partial[page / 64] |= 1 << (page % 64);
        page
    }
}

/// The value at an index. Panics if there is none.
impl<T> Index<u32> for PagedSlab<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        let index = index as usize;
        &self.pages[index / Self::PAGE_LEN][index % Self::PAGE_LEN]
    }
}

impl<T> IndexMut<u32> for PagedSlab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        let index = index as usize;
        &mut self.pages[index / Self::PAGE_LEN][index % Self::PAGE_LEN]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_page_is_freed_and_the_lowest_page_with_room_is_filled_first() {
        let mut pages = PagedSlab::new();
        let page_len = PagedSlab::<[u64; 64]>::PAGE_LEN as u32;
        for number in 0..3 * page_len {
            assert_eq!(pages.insert([u64::from(number); 64]), number);
        }
        for number in (0..3 * page_len).filter(|number| *number != 2 * page_len) {
            assert_eq!(pages.remove(number)[0], u64::from(number));
        }
        assert_eq!(
            pages.pages.iter().map(Slab::capacity).collect::<Vec<_>>(),
            [page_len as usize, 0, page_len as usize]
        );
        assert_eq!(pages.get(2 * page_len).unwrap()[0], u64::from(2 * page_len));
        assert!(pages.get(0).is_none() && pages.get(9 * page_len).is_none());
        assert!(pages.insert([0; 64]) < page_len);
        assert_eq!((pages.len(), pages.iter().count()), (2, 2));
        assert_eq!(pages.index_bound(), 3 * page_len);
        let indexes: Vec<_> = (1..page_len).map(|_| pages.insert([0; 64])).collect();
        assert!(indexes.iter().all(|index| *index < page_len));
        assert_eq!(pages.insert([0; 64]), page_len, "the first page is full");
        let indexes: Vec<_> = (0..=page_len).chain([2 * page_len]).collect();
        assert_eq!(pages.iter().map(|(index, _)| index).collect::<Vec<_>>(), indexes);
    }

    #[test]
    fn a_slab_has_any_number_of_pages() {
        let mut pages = PagedSlab::new();
        let page_len = PagedSlab::<[u64; 64]>::PAGE_LEN as u32;
        for number in 0..130 * page_len {
            assert_eq!(pages.insert([0_u64; 64]), number);
        }
        pages.remove(129 * page_len + 7);
        pages.remove(70 * page_len + 7);
        assert_eq!(pages.insert([0_u64; 64]), 70 * page_len + 7);
        assert_eq!(pages.insert([0_u64; 64]), 129 * page_len + 7);
        assert_eq!(pages.partial.len(), 3, "one bit per page");
    }
}
