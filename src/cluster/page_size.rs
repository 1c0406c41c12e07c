//! Number of entries that a page of the stream may have.

/// Most entries of a page.
const ENTRIES_MAX: usize = 256;

/// Entries of the first page: a record has at most some MiB, and a page 64 MiB.
const ENTRIES_FIRST: usize = 8;

/// A page of more bytes than this is followed by a smaller one.
const BYTES_GOAL: usize = 2 << 20;

/// Number of entries of the next page.
pub(super) struct PageSize {
    entries: usize,
}

impl Default for PageSize {
    fn default() -> Self {
        Self { entries: ENTRIES_FIRST }
    }
}

impl PageSize {
    /// Returns the number of entries of the next page.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    /// Begins again with small pages.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Adapts the size to a page with so many entries and bytes.
    pub(super) fn adapt(&mut self, entries: usize, bytes: usize) {
        if bytes > BYTES_GOAL {
            self.entries = (self.entries / 2).max(1);
        } else if entries == self.entries && bytes < BYTES_GOAL / 2 {
            self.entries = (self.entries * 2).min(ENTRIES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_while_they_are_full_and_small() {
        let mut size = PageSize::default();
        size.adapt(7, 100);
        assert_eq!(size.entries(), 8);
        for expected in [16, 32, 64, 128, 256, 256] {
            size.adapt(size.entries(), 1000);
            assert_eq!(size.entries(), expected);
        }
        for expected in [128, 64, 32, 16, 8, 4, 2, 1, 1] {
            size.adapt(1, 3 << 20);
            assert_eq!(size.entries(), expected);
        }
        size.reset();
        assert_eq!(size.entries(), 8);
    }
}
