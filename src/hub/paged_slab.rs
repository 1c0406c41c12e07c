//! A slab in pages, which gives a page back as soon as it is empty, but for the first.
//!
//! One slab of ten thousand places keeps its memory for the one tenant who stayed. Newcomers
//! get places in the lowest page that has any, so that the upper ones empty.

use std::ops::{Index, IndexMut};

use slab::Slab;

/// Bytes of a page, at least. Allocations of this size should return to the kernel as soon as they are freed,
/// which the binary's allocator sees to.
pub const PAGE_BYTES: usize = 32 * 1024;

/// Values in places, by number. Insertion and removal are O(1), but for the search of a page with room, which is
/// O(pages / 64).
#[derive(Debug)]
pub(super) struct PagedSlab<T> {
    pages: Vec<Slab<T>>,
    /// A bit for each page, set where it has room.
    partial: Vec<u64>,
    len: usize,
}

impl<T> PagedSlab<T> {
    /// A power of two, since every look-up divides by it; rounded up, so that no page is smaller than it should be.
    const PLACES: usize = PAGE_BYTES.div_ceil(size_of::<Option<T>>()).next_power_of_two();

    pub(super) fn new() -> Self {
        Self { pages: Vec::new(), partial: Vec::new(), len: 0 }
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        let page = self.page_with_room();
        let slab = &mut self.pages[page];
        if slab.capacity() == 0 {
            slab.reserve_exact(Self::PLACES);
        }
        let place = slab.insert(value);
        if slab.len() == Self::PLACES {
            self.partial[page / 64] &= !(1 << (page % 64));
        }
        self.len += 1;
        u32::try_from(page * Self::PLACES + place).expect("fewer than 2^32 places")
    }

    pub(super) fn get(&self, index: u32) -> Option<&T> {
        self.pages.get(index as usize / Self::PLACES)?.get(index as usize % Self::PLACES)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.pages.get_mut(index as usize / Self::PLACES)?.get_mut(index as usize % Self::PLACES)
    }

    /// Takes a value out, which must be there.
    pub(super) fn remove(&mut self, index: u32) -> T {
        let page = index as usize / Self::PLACES;
        let slab = &mut self.pages[page];
        let value = slab.remove(index as usize % Self::PLACES);
        // The first page stays: a small crowd that is answered together comes back together.
        if slab.is_empty() && page > 0 {
            *slab = Slab::new();
        }
        self.partial[page / 64] |= 1 << (page % 64);
        self.len -= 1;
        value
    }

    /// All places are below this, those among them that are empty.
    pub(super) fn index_bound(&self) -> u32 {
        (self.pages.len() * Self::PLACES) as u32
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All values with their places, by place.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.pages.iter().enumerate().flat_map(|(page, slab)| {
            slab.iter().map(move |(place, value)| ((page * Self::PLACES + place) as u32, value))
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

/// The value in a place, where there must be one.
impl<T> Index<u32> for PagedSlab<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: u32) -> &T {
        let index = index as usize;
        &self.pages[index / Self::PLACES][index % Self::PLACES]
    }
}

impl<T> IndexMut<u32> for PagedSlab<T> {
    fn index_mut(&mut self, index: u32) -> &mut T {
        let index = index as usize;
        &mut self.pages[index / Self::PLACES][index % Self::PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_page_is_given_back_and_the_lowest_with_room_is_filled_first() {
        let mut pages = PagedSlab::new();
        let places = PagedSlab::<[u64; 64]>::PLACES as u32;
        for number in 0..3 * places {
            assert_eq!(pages.insert([u64::from(number); 64]), number);
        }
        for number in (0..3 * places).filter(|number| *number != 2 * places) {
            assert_eq!(pages.remove(number)[0], u64::from(number));
        }
        assert_eq!(
            pages.pages.iter().map(|slab| slab.capacity() > 0).collect::<Vec<_>>(),
            [true, false, true]
        );
        assert_eq!(pages.get(2 * places).unwrap()[0], u64::from(2 * places));
        assert!(pages.get(0).is_none() && pages.get(9 * places).is_none());
        assert!(pages.insert([0; 64]) < places);
        assert_eq!((pages.len(), pages.iter().count()), (2, 2));
    }
}
