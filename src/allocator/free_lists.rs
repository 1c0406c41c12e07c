//! A few pieces of each small size, kept at hand: most of what a request takes, the one before it gave back.
//!
//! musl's allocator gives memory back well, which Speak wants, and comes by it slowly: it took a tenth of a write's
//! instructions. A spare piece is taken in ten of them and put back in as many. glibc keeps such lists itself.
//!
//! Each thread has spares of its own, so nothing is locked and nothing shared; those of a thread that ends are
//! lost, and Speak has one thread. They are 317 KiB at most, and go to musl when a crowd has gone ([`trim`]).

// Every piece with a shelf is aligned to a word.
#![allow(clippy::cast_ptr_alignment)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// musl's pieces are multiples of 16 bytes, of which it needs 4 itself: so nothing is lost by asking for all of one.
const SIZE_CLASS_STEP: usize = 16;
const MALLOC_HEADER_BYTES: usize = 4;
const SIZE_CLASSES: usize = 32;
/// So many of a size, and of the smallest sizes so many bytes: a thousand reads that are answered in one turn free what the
/// same thousand take a moment later. A larger burst, as of a crowd that leaves, goes on to musl.
const FREE_MAX: usize = 8;
const SMALL_CLASSES: usize = 8;
const SMALL_CLASS_BUDGET: usize = 32 * 1024;

/// musl's allocator behind the shelves of this thread.
pub struct FreeListAllocator;

/// A list through the pieces themselves: the first word of each tells the next.
struct FreeList {
    first: Cell<*mut u8>,
    count: Cell<u16>,
}

thread_local! {
    // Const and without a destructor: to come by it takes no allocation, and it can be used as long as the thread runs.
    static FREE_LISTS: [FreeList; SIZE_CLASSES] = const { [const { FreeList { first: Cell::new(ptr::null_mut()), count: Cell::new(0) } }; SIZE_CLASSES] };
}

/// Which shelf is for it, unless it is too large or aligned more than a word is.
fn list_for(layout: Layout) -> Option<usize> {
    let index = (layout.size() + MALLOC_HEADER_BYTES - 1) / SIZE_CLASS_STEP;
    (index < SIZE_CLASSES && layout.align() <= align_of::<*mut u8>()).then_some(index)
}

/// How many each shelf holds at most.
const CAPACITY: [u16; SIZE_CLASSES] = {
    let mut room = [FREE_MAX as u16; SIZE_CLASSES];
    let mut shelf = 0;
    while shelf < SMALL_CLASSES {
        room[shelf] = (SMALL_CLASS_BUDGET / ((shelf + 1) * SIZE_CLASS_STEP)) as u16;
        shelf += 1;
    }
    room
};

/// Empties the shelves of this thread. O(pieces on them).
pub fn trim() {
    FREE_LISTS.with(|shelves| {
        for (index, FreeList { first, count }) in shelves.iter().enumerate() {
            let mut piece = first.replace(ptr::null_mut());
            count.set(0);
            while !piece.is_null() {
                // SAFETY: a piece on a shelf is nobody else's, tells the next in its first word, and is of this layout.
                piece = unsafe {
                    let next = piece.cast::<*mut u8>().read();
                    System.dealloc(piece, layout_of(index));
                    next
                };
            }
        }
    });
}

/// What all pieces on a shelf were asked for as, and are freed as.
fn layout_of(shelf: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and the size far below the limit.
    unsafe {
        Layout::from_size_align_unchecked(
            (shelf + 1) * SIZE_CLASS_STEP - MALLOC_HEADER_BYTES,
            align_of::<*mut u8>(),
        )
    }
}

// SAFETY: the layout alone decides whether a piece has a shelf, and which: so `System` gets back what it gave out, with
// the layout with which it did, which is as large as was asked for and aligned to a word, or more. A piece on a shelf
// is nobody else's, and large enough for a pointer; it leaves the shelf before it is given out. Nothing here panics.
unsafe impl GlobalAlloc for FreeListAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(index) = list_for(layout) else { return unsafe { System.alloc(layout) } };
        FREE_LISTS.with(|shelves| {
            let FreeList { first, count } = &shelves[index];
            let piece = first.get();
            if piece.is_null() {
                return unsafe { System.alloc(layout_of(index)) };
            }
            first.set(unsafe { piece.cast::<*mut u8>().read() });
            count.set(count.get() - 1);
            piece
        })
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let Some(index) = list_for(layout) else { return unsafe { System.dealloc(piece, layout) } };
        FREE_LISTS.with(|shelves| {
            let FreeList { first, count } = &shelves[index];
            if count.get() == CAPACITY[index] {
                return unsafe { System.dealloc(piece, layout_of(index)) };
            }
            unsafe { piece.cast::<*mut u8>().write(first.get()) };
            first.set(piece);
            count.set(count.get() + 1);
        });
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if list_for(layout).is_none() {
            return unsafe { System.alloc_zeroed(layout) };
        }
        let piece = unsafe { self.alloc(layout) };
        if !piece.is_null() {
            unsafe { piece.write_bytes(0, layout.size()) };
        }
        piece
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (list_for(layout), list_for(new_layout)) {
            (None, None) => unsafe { System.realloc(piece, layout, size) },
            (old, new) if old == new => piece,
            _ => {
                let new = unsafe { self.alloc(new_layout) };
                if !new.is_null() {
                    unsafe {
                        ptr::copy_nonoverlapping(piece, new, layout.size().min(size));
                        self.dealloc(piece, layout);
                    }
                }
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn a_piece_that_was_freed_is_the_next_one_of_its_size() {
        // SAFETY: each piece is freed once, with its own layout, and not used afterwards.
        unsafe {
            let first = FreeListAllocator.alloc(layout(100, 8));
            FreeListAllocator.dealloc(first, layout(100, 8));
            let other = FreeListAllocator.alloc(layout(200, 8));
            let second = FreeListAllocator.alloc(layout(108, 4));
            assert_eq!((first, layout_of(list_for(layout(100, 8)).unwrap()).size()), (second, 108));
            FreeListAllocator.dealloc(other, layout(200, 8));
            FreeListAllocator.dealloc(second, layout(108, 4));
        }
    }

    #[test]
    fn shelves_hold_every_small_size_and_no_more_than_that_of_it() {
        for size in 1..1024 {
            match list_for(layout(size, 8)) {
                Some(index) => {
                    let whole = layout_of(index);
                    assert!(
                        whole.size() >= size.max(size_of::<*mut u8>())
                            && whole.size() < size + SIZE_CLASS_STEP
                    );
                    assert_eq!(list_for(whole), Some(index));
                }
                None => assert!(size > SIZE_CLASSES * SIZE_CLASS_STEP - MALLOC_HEADER_BYTES),
            }
            assert_eq!(list_for(layout(size, 16)), None);
        }
        let held: usize = (0..SIZE_CLASSES)
            .map(|index| (index + 1) * SIZE_CLASS_STEP * usize::from(CAPACITY[index]))
            .sum();
        assert_eq!(held / 1024, 317);
    }

    #[test]
    fn a_shelf_is_full_at_some_time_and_empty_when_all_is_given_back() {
        let few = layout(300, 8);
        let on_shelf =
            |layout| FREE_LISTS.with(|shelves| shelves[list_for(layout).unwrap()].count.get());
        // SAFETY: each piece is freed once, with its own layout.
        unsafe {
            let pieces: Vec<*mut u8> = (0..20).map(|_| FreeListAllocator.alloc(few)).collect();
            for piece in pieces {
                FreeListAllocator.dealloc(piece, few);
            }
            let single = FreeListAllocator.alloc(layout(40, 8));
            FreeListAllocator.dealloc(single, layout(40, 8));
        }
        assert_eq!((on_shelf(few), on_shelf(layout(40, 8))), (8, 1));
        trim();
        assert_eq!((on_shelf(few), on_shelf(layout(40, 8))), (0, 0));
    }

    #[test]
    fn no_two_pieces_share_a_byte_however_they_come_and_go() {
        /// What is held: a piece with all its bytes of one value.
        struct Held(*mut u8, Layout, u8);
        impl Held {
            fn check(&self) {
                // SAFETY: the piece is ours and was written whole.
                let bytes = unsafe { std::slice::from_raw_parts(self.0, self.1.size()) };
                assert!(bytes.iter().all(|&byte| byte == self.2));
            }
        }
        let mut held: Vec<Held> = Vec::new();
        let mut random = 1_u64;
        for step in 0..100_000_u32 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let draw = (random >> 33) as usize;
            let (size, value) = (1 + draw % 700, step as u8);
            // SAFETY: sizes are above 0; what is taken off the list is freed or replaced, and not used again.
            unsafe {
                match draw >> 10 & 3 {
                    0 if !held.is_empty() => {
                        let piece = held.swap_remove(draw % held.len());
                        piece.check();
                        FreeListAllocator.dealloc(piece.0, piece.1);
                    }
                    1 if !held.is_empty() => {
                        let index = draw % held.len();
                        let Held(piece, old, value) = &held[index];
                        let (piece, old, value) = (*piece, *old, *value);
                        let moved = Held(
                            FreeListAllocator.realloc(piece, old, size),
                            layout(size, old.align()),
                            value,
                        );
                        Held(moved.0, layout(size.min(old.size()), 1), value).check();
                        moved.0.write_bytes(value, size);
                        held[index] = moved;
                    }
                    2 if held.len() < 200 => {
                        let its = layout(size, 1 << (draw >> 12 & 5));
                        let piece = FreeListAllocator.alloc_zeroed(its);
                        assert!((piece as usize).is_multiple_of(its.align()));
                        Held(piece, its, 0).check();
                        held.push(Held(piece, its, 0));
                    }
                    _ if held.len() < 200 => {
                        let its = layout(size, 8);
                        let piece = FreeListAllocator.alloc(its);
                        piece.write_bytes(value, size);
                        held.push(Held(piece, its, value));
                    }
                    _ => {}
                }
            }
        }
        for piece in held {
            piece.check();
            // SAFETY: as above.
            unsafe { FreeListAllocator.dealloc(piece.0, piece.1) };
        }
    }
}
