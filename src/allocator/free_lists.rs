//! Free lists: a few freed blocks of each small size, for the next allocations. Most blocks that a
//! request needs were freed by the one before it.
//!
//! musl's allocator returns memory well, which Speak wants, and allocates slowly: it took a tenth
//! of a write's instructions. Taking a block from a free list costs ten instructions, and putting
//! it back as many. glibc has such lists itself.
//!
//! Each thread has its own lists, so nothing is locked or shared. The blocks of a thread that ends
//! are leaked: only the helper thread of a journal ends before the process. The lists have 317 KiB
//! at most, which return to musl when a crowd has left ([`trim`]).

// Every block of a free list is aligned to a word.
#![allow(clippy::cast_ptr_alignment)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// musl's blocks are multiples of 16 bytes, of which it uses 4 itself. So a size class costs
/// nothing extra.
const SIZE_CLASS_STEP: usize = 16;
const MALLOC_HEADER_BYTES: usize = 4;
const SIZE_CLASSES: usize = 32;
/// Blocks of one free list at most. Further ones go to musl.
const FREE_MAX: usize = 8;
/// The smallest classes have a limit in bytes instead: a thousand reads that are completed in one
/// turn free the blocks that the next thousand take a moment later. A larger burst, as of a crowd
/// that leaves, goes to musl.
const SMALL_CLASSES: usize = 8;
const SMALL_CLASS_BUDGET: usize = 32 * 1024;

/// musl's allocator with the free lists of this thread before it.
pub struct FreeListAllocator;

/// List that is linked through the blocks themselves: the first word of each points to the next.
struct FreeList {
    first: Cell<*mut u8>,
    count: Cell<u16>,
}

thread_local! {
    // Const and without a destructor: access needs no allocation and works as long as the thread
    // runs.
    static FREE_LISTS: [FreeList; SIZE_CLASSES] =
        const { [const { FreeList::new() }; SIZE_CLASSES] };
}

impl FreeList {
    const fn new() -> Self {
        Self { first: Cell::new(ptr::null_mut()), count: Cell::new(0) }
    }
}

/// Index of the free list for a layout. `None` if it is too large, or aligned to more than a word.
fn list_for(layout: Layout) -> Option<usize> {
    let index = (layout.size() + MALLOC_HEADER_BYTES - 1) / SIZE_CLASS_STEP;
    (index < SIZE_CLASSES && layout.align() <= align_of::<*mut u8>()).then_some(index)
}

/// Capacity of each free list, in blocks.
const CAPACITY: [u16; SIZE_CLASSES] = {
    let mut capacity = [FREE_MAX as u16; SIZE_CLASSES];
    let mut index = 0;
    while index < SMALL_CLASSES {
        capacity[index] = (SMALL_CLASS_BUDGET / ((index + 1) * SIZE_CLASS_STEP)) as u16;
        index += 1;
    }
    capacity
};

/// Returns all blocks of this thread's free lists to musl. O(blocks).
pub fn trim() {
    FREE_LISTS.with(|lists| {
        for (index, FreeList { first, count }) in lists.iter().enumerate() {
            let mut block = first.replace(ptr::null_mut());
            count.set(0);
            while !block.is_null() {
                // SAFETY: a block of a free list has no other owner, its first word points to the
                // next, and it has this layout.
                block = unsafe {
                    let next = block.cast::<*mut u8>().read();
                    System.dealloc(block, layout_of(index));
                    next
                };
            }
        }
    });
}

/// Layout with which all blocks of a free list are allocated and freed.
fn layout_of(index: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and the size far below the limit.
    unsafe {
        Layout::from_size_align_unchecked(
            (index + 1) * SIZE_CLASS_STEP - MALLOC_HEADER_BYTES,
            align_of::<*mut u8>(),
        )
    }
}

// SAFETY: the layout alone decides on the free list of a block. So `System` gets each block back
// with the layout that it was allocated with, which is at least as large as requested and aligned
// to a word. A block of a free list has no other owner, and is large enough for a pointer. It
// leaves the list before it is handed out. Nothing here panics.
unsafe impl GlobalAlloc for FreeListAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(index) = list_for(layout) else { return unsafe { System.alloc(layout) } };
        FREE_LISTS.with(|lists| {
            let FreeList { first, count } = &lists[index];
            let block = first.get();
            if block.is_null() {
                return unsafe { System.alloc(layout_of(index)) };
            }
            first.set(unsafe { block.cast::<*mut u8>().read() });
            count.set(count.get() - 1);
            block
        })
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(index) = list_for(layout) else { return unsafe { System.dealloc(block, layout) } };
        FREE_LISTS.with(|lists| {
            let FreeList { first, count } = &lists[index];
            if count.get() == CAPACITY[index] {
                return unsafe { System.dealloc(block, layout_of(index)) };
            }
            unsafe { block.cast::<*mut u8>().write(first.get()) };
            first.set(block);
            count.set(count.get() + 1);
        });
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if list_for(layout).is_none() {
            return unsafe { System.alloc_zeroed(layout) };
        }
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() {
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (list_for(layout), list_for(new_layout)) {
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (old, new) if old == new => block,
            _ => {
                let new = unsafe { self.alloc(new_layout) };
                if !new.is_null() {
                    unsafe {
                        ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                        self.dealloc(block, layout);
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

    const WORD: usize = align_of::<*mut u8>();

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn a_freed_block_is_the_next_one_of_its_size() {
        // SAFETY: each block is freed once, with its own layout, and not used afterwards.
        unsafe {
            let first = FreeListAllocator.alloc(layout(100, WORD));
            FreeListAllocator.dealloc(first, layout(100, WORD));
            let other = FreeListAllocator.alloc(layout(200, WORD));
            let second = FreeListAllocator.alloc(layout(108, 4));
            assert_eq!(
                (first, layout_of(list_for(layout(100, WORD)).unwrap()).size()),
                (second, 108)
            );
            FreeListAllocator.dealloc(other, layout(200, WORD));
            FreeListAllocator.dealloc(second, layout(108, 4));
        }
    }

    #[test]
    fn every_small_size_has_a_free_list_and_wastes_less_than_a_step() {
        for size in 1..1024 {
            match list_for(layout(size, WORD)) {
                Some(index) => {
                    let class = layout_of(index);
                    assert!(
                        class.size() >= size.max(size_of::<*mut u8>())
                            && class.size() < size + SIZE_CLASS_STEP
                    );
                    assert_eq!(list_for(class), Some(index));
                }
                None => assert!(size > SIZE_CLASSES * SIZE_CLASS_STEP - MALLOC_HEADER_BYTES),
            }
            assert_eq!(list_for(layout(size, 2 * WORD)), None);
        }
        let most: usize = (0..SIZE_CLASSES)
            .map(|index| (index + 1) * SIZE_CLASS_STEP * usize::from(CAPACITY[index]))
            .sum();
        assert_eq!(most / 1024, 317);
    }

    #[test]
    fn a_free_list_has_a_capacity_and_is_empty_after_a_trim() {
        let large = layout(300, WORD);
        let small = layout(40, WORD);
        let length = |layout| FREE_LISTS.with(|lists| lists[list_for(layout).unwrap()].count.get());
        // SAFETY: each block is freed once, with its own layout.
        unsafe {
            let blocks: Vec<*mut u8> = (0..20).map(|_| FreeListAllocator.alloc(large)).collect();
            for block in blocks {
                FreeListAllocator.dealloc(block, large);
            }
            let single = FreeListAllocator.alloc(small);
            FreeListAllocator.dealloc(single, small);
        }
        assert_eq!((length(large), length(small)), (8, 1));
        trim();
        assert_eq!((length(large), length(small)), (0, 0));
    }

    #[test]
    fn no_two_blocks_share_a_byte() {
        /// Allocated block with all its bytes of one value.
        struct Filled(*mut u8, Layout, u8);
        impl Filled {
            fn check(&self) {
                // SAFETY: the block is allocated and was written completely.
                let bytes = unsafe { std::slice::from_raw_parts(self.0, self.1.size()) };
                assert!(bytes.iter().all(|&byte| byte == self.2));
            }
        }
        let mut blocks: Vec<Filled> = Vec::new();
        let mut random = 1_u64;
        for step in 0..100_000_u32 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let draw = (random >> 33) as usize;
            let (size, value) = (1 + draw % 700, step as u8);
            // SAFETY: sizes are above 0. A block taken off the vector is freed or replaced, and not
            // used again.
            unsafe {
                match draw >> 10 & 3 {
                    0 if !blocks.is_empty() => {
                        let block = blocks.swap_remove(draw % blocks.len());
                        block.check();
                        FreeListAllocator.dealloc(block.0, block.1);
                    }
                    1 if !blocks.is_empty() => {
                        let index = draw % blocks.len();
                        let Filled(block, old, value) = &blocks[index];
                        let (block, old, value) = (*block, *old, *value);
                        let moved = Filled(
                            FreeListAllocator.realloc(block, old, size),
                            layout(size, old.align()),
                            value,
                        );
                        Filled(moved.0, layout(size.min(old.size()), 1), value).check();
                        moved.0.write_bytes(value, size);
                        blocks[index] = moved;
                    }
                    2 if blocks.len() < 200 => {
                        let layout = layout(size, 1 << (draw >> 12 & 5));
                        let block = FreeListAllocator.alloc_zeroed(layout);
                        assert!((block as usize).is_multiple_of(layout.align()));
                        Filled(block, layout, 0).check();
                        blocks.push(Filled(block, layout, 0));
                    }
                    _ if blocks.len() < 200 => {
                        let layout = layout(size, WORD);
                        let block = FreeListAllocator.alloc(layout);
                        block.write_bytes(value, size);
                        blocks.push(Filled(block, layout, value));
                    }
                    _ => {}
                }
            }
        }
        for block in blocks {
            block.check();
            // SAFETY: as above.
            unsafe { FreeListAllocator.dealloc(block.0, block.1) };
        }
    }
}
