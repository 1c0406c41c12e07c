//! Introductions of the members of a channel, for readers that begin after history has dropped
//! them.
//!
//! A channel may have very many, and a reader that begins gets all of them. So they are kept as
//! JSON in pages, in the order of their ids, and readers share the pages: an answer of 100 MB costs
//! a reader some pointers, and a turn some microseconds. A page that is complete never changes. If
//! a member leaves, its introduction stays in the page until half of the page is stale.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use super::usage::{ALLOCATION_BYTES, Counted};

/// Bytes from which a page is complete.
pub(super) const PAGE_BYTES: usize = 32 * 1024;

/// Memory of an entry. The capacity of a `Vec` is at most twice its length.
pub(super) const ENTRY_BYTES: usize = 2 * size_of::<Entry>();

/// Memory of a complete page without its JSON and its entries.
const PAGE_OVERHEAD_BYTES: usize =
    2 * size_of::<Page>() + size_of::<IntroductionPage>() + 3 * ALLOCATION_BYTES;

/// JSON objects of a complete page, each followed by a comma. Counted as memory of the hub until
/// the channel and all readers have dropped it.
#[derive(Debug)]
pub struct IntroductionPage {
    json: Box<[u8]>,
    _counted: Counted,
}

impl IntroductionPage {
    /// Returns the JSON objects, each followed by a comma. Some may be stale.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.json
    }
}

/// Place of an introduction in the JSON of its page.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u64,
    start: u32,
    /// End of the object, without its comma.
    end: u32,
}

impl Entry {
    fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Returns the bytes of the object and its comma.
    fn len(self) -> usize {
        (self.end - self.start) as usize + 1
    }
}

/// A complete page.
#[derive(Debug)]
struct Page {
    shared: Rc<IntroductionPage>,
    entries: Vec<Entry>,
    /// Bytes of the entries.
    live: usize,
}

/// Introductions of a channel by id, each of a member that is present.
#[derive(Debug, Default)]
pub(super) struct Introductions {
    pages: Vec<Page>,
    /// JSON of the last page, which is not complete. Readers copy it.
    open: Vec<u8>,
    open_entries: Vec<Entry>,
}

/// Appends an object and its comma to a page.
fn push(json: &mut Vec<u8>, entries: &mut Vec<Entry>, id: u64, object: &[u8]) {
    let start = json.len() as u32;
    json.reserve(object.len() + 1);
    json.extend_from_slice(object);
    entries.push(Entry { id, start, end: json.len() as u32 });
    json.push(b',');
}

impl Introductions {
    /// Adds an introduction, whose id is above all others. Complete pages count for `total`.
    pub(super) fn push(&mut self, id: u64, object: &[u8], total: &Rc<Cell<usize>>) {
        push(&mut self.open, &mut self.open_entries, id, object);
        if self.open.len() >= PAGE_BYTES {
            let (json, entries) = (&mut self.open, &mut self.open_entries);
            self.pages.push(Page::new(std::mem::take(json), std::mem::take(entries), total));
        }
    }

    /// Returns the id of the newest introduction.
    pub(super) fn last_id(&self) -> Option<u64> {
        let in_page = || self.pages.last().and_then(|page| page.entries.last());
        self.open_entries.last().or_else(in_page).map(|entry| entry.id)
    }

    /// Removes an introduction, which must exist.
    pub(super) fn remove(&mut self, id: u64, total: &Rc<Cell<usize>>) {
        let Some(at) = self.page_of(id) else {
            let at = self.open_entries.binary_search_by_key(&id, |entry| entry.id);
            let entry = self.open_entries.remove(at.expect("the member has an introduction"));
            self.open.drain(entry.start as usize..entry.start as usize + entry.len());
            for later in self.open_entries.iter_mut().filter(|later| later.start > entry.start) {
                later.start -= entry.len() as u32;
                later.end -= entry.len() as u32;
            }
            if self.open.len() < self.open.capacity() / 4 {
                self.open.shrink_to(2 * self.open.len());
                self.open_entries.shrink_to(2 * self.open_entries.len());
            }
            return;
        };
        let page = &mut self.pages[at];
        let entry = page.entries.binary_search_by_key(&id, |entry| entry.id);
        let entry = page.entries.remove(entry.expect("the member has an introduction"));
        page.live -= entry.len();
        if page.live == 0 {
            self.pages.remove(at);
        } else if 2 * page.live < page.shared.json.len() {
            self.compact(at, total);
        }
    }

    /// Replaces an introduction, which must exist, by one that is not longer. Costs O(page).
    pub(super) fn replace(&mut self, id: u64, object: &[u8], total: &Rc<Cell<usize>>) {
        let at = self.page_of(id);
        let (old, old_entries) = self.page(at.unwrap_or(self.pages.len()));
        let (mut json, mut entries) = (Vec::new(), Vec::new());
        for entry in old_entries {
            let object = if entry.id == id { object } else { &old[entry.range()] };
            push(&mut json, &mut entries, entry.id, object);
        }
        if let Some(at) = at {
            self.pages[at] = Page::new(json, entries, total);
        } else {
            (self.open, self.open_entries) = (json, entries);
        }
    }

    /// Copies what is left of a page to a new one, together with the next page if both fit into
    /// half a page.
    fn compact(&mut self, at: usize, total: &Rc<Cell<usize>>) {
        let next = self.pages.get(at + 1).map_or(usize::MAX, |page| page.live);
        let last = at + usize::from(self.pages[at].live.saturating_add(next) <= PAGE_BYTES / 2);
        let (mut json, mut entries) = (Vec::new(), Vec::new());
        for page in &self.pages[at..=last] {
            for entry in &page.entries {
                push(&mut json, &mut entries, entry.id, &page.shared.json[entry.range()]);
            }
        }
        self.pages.splice(at..=last, [Page::new(json, entries, total)]);
    }

    /// Returns the index of the complete page that has an id.
    fn page_of(&self, id: u64) -> Option<usize> {
        let at = self.pages.partition_point(|page| page.last_id() < id);
        (at < self.pages.len()).then_some(at)
    }

    /// Returns the introduction with this id.
    pub(super) fn get(&self, id: u64) -> Option<&[u8]> {
        let (json, entries) = self.page(self.page_of(id).unwrap_or(self.pages.len()));
        let at = entries.binary_search_by_key(&id, |entry| entry.id).ok()?;
        Some(&json[entries[at].range()])
    }

    /// Returns the introductions with ids below `id`.
    pub(super) fn below(&self, id: u64) -> IntroductionSlice<'_> {
        let pages = self.pages.partition_point(|page| page.last_id() < id);
        let (_, rest) = self.page(pages);
        let rest = rest.partition_point(|entry| entry.id < id);
        IntroductionSlice { all: Some(self), pages, rest }
    }

    /// Returns the JSON and the entries of a complete page, or of the open one after them.
    fn page(&self, at: usize) -> (&[u8], &[Entry]) {
        match self.pages.get(at) {
            Some(page) => (&page.shared.json, &page.entries),
            None => (&self.open, &self.open_entries),
        }
    }

    /// Returns the memory, without the entries and the JSON of complete pages. Constant time.
    pub(super) fn memory(&self) -> usize {
        self.open.capacity() + self.pages.len() * PAGE_OVERHEAD_BYTES
    }
}

impl Page {
    fn new(json: Vec<u8>, entries: Vec<Entry>, total: &Rc<Cell<usize>>) -> Self {
        let live = json.len();
        let page = IntroductionPage { json: json.into(), _counted: Counted::new(live, total) };
        Self { shared: Rc::new(page), entries, live }
    }

    fn last_id(&self) -> u64 {
        self.entries.last().expect("a page without entries is removed").id
    }
}

/// The first introductions of a channel, by id.
#[derive(Clone, Copy, Debug, Default)]
pub struct IntroductionSlice<'h> {
    /// All introductions of the channel; `None` if the slice is empty.
    all: Option<&'h Introductions>,
    /// Number of complete pages.
    pages: usize,
    /// Number of introductions after these.
    rest: usize,
}

/// Introductions of a complete page that a reader gets.
pub struct PageSlice<'h> {
    page: &'h Page,
}

impl<'h> IntroductionSlice<'h> {
    /// Returns whether there are none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pages == 0 && self.rest == 0
    }

    /// Returns the number of introductions. O(pages).
    #[must_use]
    pub fn len(&self) -> usize {
        self.complete().iter().map(|page| page.entries.len()).sum::<usize>() + self.rest
    }

    /// Iterates over the introductions as JSON objects.
    pub fn iter(&self) -> impl Iterator<Item = &'h [u8]> + use<'h> {
        let pages = self.complete().iter().flat_map(|page| {
            page.entries.iter().map(move |entry| &page.shared.json[entry.range()])
        });
        pages.chain(self.rest())
    }

    /// Iterates over complete pages, whose introductions readers can share.
    #[must_use]
    pub fn pages(
        &self,
    ) -> impl ExactSizeIterator<Item = PageSlice<'h>> + DoubleEndedIterator + use<'h> {
        self.complete().iter().map(|page| PageSlice { page })
    }

    fn complete(&self) -> &'h [Page] {
        self.all.map_or(&[], |all| &all.pages[..self.pages])
    }

    /// Iterates over the introductions after the complete pages, as JSON objects.
    pub fn rest(&self) -> impl Iterator<Item = &'h [u8]> + use<'h> {
        let (json, entries) = self.all.map_or((&[][..], &[][..]), |all| all.page(self.pages));
        entries[..self.rest].iter().map(move |entry| &json[entry.range()])
    }
}

impl PageSlice<'_> {
    /// Returns the page.
    #[must_use]
    pub fn shared(&self) -> &Rc<IntroductionPage> {
        &self.page.shared
    }

    /// Returns the bytes of the introductions, with their commas.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.page.live
    }

    /// Iterates over the places of the introductions, without their commas.
    pub fn objects(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.page.entries.iter().map(|entry| entry.range())
    }

    /// Iterates over the places of introductions in a row, with their commas: one, unless some of
    /// the page are stale.
    pub fn runs(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut objects = self.objects().peekable();
        std::iter::from_fn(move || {
            let mut run = objects.next()?;
            while let Some(next) = objects.next_if(|next| next.start == run.end + 1) {
                run.end = next.end;
            }
            Some(run.start..run.end + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn json_of(slice: IntroductionSlice<'_>) -> Vec<u8> {
        let mut json = Vec::new();
        for page in slice.pages() {
            let runs: Vec<_> = page.runs().map(|run| &page.shared().json()[run]).collect();
            assert_eq!(runs.concat().len(), page.bytes());
            json.extend(runs.concat());
        }
        slice.rest().for_each(|object| json.extend([object, b","].concat()));
        json
    }

    fn expect(model: &BTreeMap<u64, Vec<u8>>, below: u64) -> Vec<u8> {
        model.range(..below).flat_map(|(_, json)| [json, b",".as_slice()].concat()).collect()
    }

    #[test]
    fn a_page_is_copied_when_one_byte_more_than_half_of_it_is_stale() {
        let (mut all, total) = (Introductions::default(), Rc::default());
        all.push(1, &vec![b'a'; PAGE_BYTES / 2], &total);
        all.push(2, &vec![b'b'; PAGE_BYTES / 2 + 1], &total);
        assert_eq!((all.pages.len(), total.get()), (1, PAGE_BYTES + 3));
        all.remove(2, &total);
        assert_eq!(total.get(), PAGE_BYTES / 2 + 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Each step adds an introduction of that length, or removes or shortens one.
        #[test]
        fn introductions_are_in_order_whatever_is_removed(
            steps in prop::collection::vec((0..8_000_usize, any::<u64>()), 1..100),
        ) {
            let total = Rc::default();
            let (mut all, mut model) = (Introductions::default(), BTreeMap::<_, Vec<u8>>::new());
            let mut held = Vec::new();
            for (id, (length, choice)) in (1..).zip(steps) {
                if choice % 3 == 0 && !model.is_empty() {
                    let at = (choice / 3) as usize % model.len();
                    let (&gone, _) = model.iter().nth(at).unwrap();
                    model.remove(&gone);
                    all.remove(gone, &total);
                    prop_assert!(all.get(gone).is_none());
                } else if choice % 3 == 1 && !model.is_empty() {
                    let at = (choice / 3) as usize % model.len();
                    let (&changed, json) = model.iter_mut().nth(at).unwrap();
                    json.truncate(length);
                    all.replace(changed, json, &total);
                } else {
                    let json = vec![b'a' + (id % 26) as u8; length];
                    all.push(id, &json, &total);
                    model.insert(id, json);
                }
                let below = choice % (id + 2);
                let slice = all.below(below);
                prop_assert_eq!(slice.len(), model.range(..below).count());
                prop_assert_eq!(slice.is_empty(), slice.iter().next().is_none());
                prop_assert!(slice.iter().eq(model.range(..below).map(|(_, json)| &**json)));
                prop_assert!(json_of(slice) == expect(&model, below));
                prop_assert!(model.iter().all(|(id, json)| all.get(*id) == Some(json)));
                let live: usize = all.pages.iter().map(|page| page.live).sum();
                let shared: usize = all.pages.iter().map(|page| page.shared.json.len()).sum();
                prop_assert!(shared <= 2 * live, "more than half is stale");
                if choice % 50 == 1 {
                    let pages = all.below(u64::MAX).pages().map(|it| Rc::clone(it.shared()));
                    held.push(pages.collect::<Vec<_>>());
                }
                if held.is_empty() {
                    prop_assert_eq!(total.get(), shared);
                }
            }
            drop((all, held));
            prop_assert_eq!(total.get(), 0);
        }
    }
}
