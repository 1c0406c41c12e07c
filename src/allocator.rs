//! Global allocator: large blocks come from the kernel, and return to it as soon as they are freed.
//!
//! The C library's allocator keeps the memory of a crowd: all that is free below one small block
//! that is still in use. That includes large blocks: the allocator maps the first one by itself,
//! but takes later ones from its heap. The clients of a chat come in crowds, so their memory is to
//! be returned.
//!
//! With the two files of its folder, which make a build for musl as fast as one for glibc, this is
//! the one place with much `unsafe`. So it is part of the binary: the library, which handles all
//! input, forbids `unsafe`.
#![allow(unsafe_code)]

#[cfg(any(target_env = "musl", test))]
mod free_lists;
#[cfg(all(target_arch = "x86_64", any(test, all(target_env = "musl", not(debug_assertions)))))]
mod memcpy;

#[cfg(not(target_env = "musl"))]
use std::alloc::System as Small;
use std::alloc::{GlobalAlloc, Layout};
#[cfg(target_env = "gnu")]
use std::ffi::c_int;
use std::ptr;

#[cfg(target_env = "musl")]
use free_lists::FreeListAllocator as Small;

use rustix::mm::{MapFlags, MremapFlags, ProtFlags, mmap_anonymous, mremap, munmap};
use speak::hub::PAGE_BYTES;

/// Blocks from [`PAGE_BYTES`] on are mapped. Smaller ones come from the C library's allocator, with
/// free lists before it if that is musl's.
pub struct Allocator;

#[global_allocator]
static GLOBAL: Allocator = Allocator;

/// Alignment of a mapping, at least, on every Linux.
const ALIGNMENT: usize = 4096;

fn is_mapped(layout: Layout) -> bool {
    layout.size() >= PAGE_BYTES && layout.align() <= ALIGNMENT
}

// SAFETY: `is_mapped` depends on the layout alone, so the same source allocates, resizes and frees
// a block. `Small` keeps the contract for its own blocks. A private anonymous mapping is memory
// that nothing else refers to, aligned, zeroed and of the requested size, until it is unmapped.
// Nothing here panics or allocates.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) { map(layout.size()) } else { unsafe { Small.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) { map(layout.size()) } else { unsafe { Small.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_mapped(layout) {
            // Fails only for an address that is no mapping.
            let _ = unsafe { munmap(block.cast(), layout.size()) };
        } else {
            unsafe { Small.dealloc(block, layout) }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_mapped(layout), is_mapped(new_layout)) {
            (false, false) => unsafe { Small.realloc(block, layout, size) },
            (true, true) => {
                unsafe { mremap(block.cast(), layout.size(), size, MremapFlags::MAYMOVE) }
                    .map_or(ptr::null_mut(), <*mut _>::cast)
            }
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

#[cfg(target_env = "musl")]
pub use free_lists::trim;

/// Makes glibc return the free pages of its heap to the kernel. O(heap).
#[cfg(target_env = "gnu")]
pub fn trim() {
    unsafe extern "C" {
        safe fn malloc_trim(top_pad_bytes: usize) -> c_int;
    }
    malloc_trim(0);
}

/// Makes glibc merge each small block with its free neighbours as soon as it is freed.
///
/// By default it merges those of up to 128 bytes all at once, in the first request for a larger
/// block that finds many of them: after half a million goodbyes, 30 ms in one turn of the loop.
#[cfg(target_env = "gnu")]
pub fn merge_at_once() {
    const M_MXFAST: c_int = 1;
    unsafe extern "C" {
        safe fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    mallopt(M_MXFAST, 0);
}

fn map(bytes: usize) -> *mut u8 {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
    unsafe { mmap_anonymous(ptr::null_mut(), bytes, protection, MapFlags::PRIVATE) }
        .map_or(ptr::null_mut(), <*mut _>::cast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_keeps_its_content_when_it_moves_between_the_two_sources() {
        let mut bytes: Vec<u8> = Vec::new();
        let sizes = [
            10,
            PAGE_BYTES - 1,
            PAGE_BYTES,
            5 * PAGE_BYTES + 1,
            100 * PAGE_BYTES,
            PAGE_BYTES,
            PAGE_BYTES - 1,
            3,
        ];
        for size in sizes {
            bytes.truncate(size);
            bytes.shrink_to_fit();
            bytes.reserve_exact(size - bytes.len());
            bytes.extend((bytes.len()..size).map(|index| index as u8));
            assert!(bytes.iter().enumerate().all(|(index, byte)| *byte == index as u8));
        }
        let zeroes = vec![0_u8; 3 * PAGE_BYTES];
        assert!(zeroes.iter().all(|byte| *byte == 0));
    }

    /// Returns the bytes in free blocks that glibc has not merged yet.
    #[cfg(target_env = "gnu")]
    fn unmerged_bytes() -> c_int {
        /// `struct mallinfo`, which every version of glibc has. The value is its seventh.
        #[repr(C)]
        struct MallInfo([c_int; 10]);
        unsafe extern "C" {
            safe fn mallinfo() -> MallInfo;
        }
        mallinfo().0[6]
    }

    #[cfg(target_env = "gnu")]
    #[test]
    fn freed_blocks_are_merged_at_once() {
        merge_at_once();
        let before = unmerged_bytes();
        let blocks: Vec<_> = (0..10_000_u64).map(|number| Box::new([number; 5])).collect();
        assert_eq!(blocks[7][4], 7);
        drop(blocks);
        assert!(unmerged_bytes() <= before, "{} bytes of {before}", unmerged_bytes());
    }
}
