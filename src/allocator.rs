//! Where memory comes from: large pieces straight from the kernel, to which they return the moment they are freed.
//!
//! The C library's allocator keeps what a crowd needed: below one small piece that lives on, and from its second large
//! piece on also where it mapped the first one by itself. A server whose guests come in crowds gives their room back.
//!
//! The one place with `unsafe` in Speak, with the two files of its folder, which make a build for musl as fast as one
//! for glibc. That is why it stands in the binary: the library, where all input goes, forbids it.
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

/// The C library's allocator, with spares of small pieces where that is musl's, but for pieces from [`PAGE_BYTES`] on.
pub struct Allocator;

#[global_allocator]
static GLOBAL: Allocator = Allocator;

/// What every Linux aligns a mapping to, at least.
const ALIGNMENT: usize = 4096;

fn is_mapped(layout: Layout) -> bool {
    layout.size() >= PAGE_BYTES && layout.align() <= ALIGNMENT
}

// SAFETY: `is_mapped` depends on the layout alone, so a piece is freed and resized by whom it was given out;
// `Small` keeps the contract for its own, and a private anonymous mapping is memory that nothing else refers to,
// aligned, zeroed, of the size asked for, until it is unmapped. Nothing here panics or allocates.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) { map(layout.size()) } else { unsafe { Small.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout) { map(layout.size()) } else { unsafe { Small.alloc_zeroed(layout) } }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if is_mapped(layout) {
            // Fails only for what is no mapping.
            let _ = unsafe { munmap(piece.cast(), layout.size()) };
        } else {
            unsafe { Small.dealloc(piece, layout) }
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let new_layout = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (is_mapped(layout), is_mapped(new_layout)) {
            (false, false) => unsafe { Small.realloc(piece, layout, size) },
            (true, true) => {
                unsafe { mremap(piece.cast(), layout.size(), size, MremapFlags::MAYMOVE) }
                    .map_or(ptr::null_mut(), <*mut _>::cast)
            }
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

#[cfg(target_env = "musl")]
pub use free_lists::trim;

/// Has glibc give back the pages of its heap that hold nothing. O(heap).
#[cfg(target_env = "gnu")]
pub fn trim() {
    unsafe extern "C" {
        safe fn malloc_trim(kept_at_the_top: usize) -> c_int;
    }
    malloc_trim(0);
}

fn map(bytes: usize) -> *mut u8 {
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
    unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .map_or(ptr::null_mut(), <*mut _>::cast)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_piece_moves_with_it_from_one_source_to_the_other() {
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
            bytes.extend((bytes.len()..size).map(|place| place as u8));
            assert!(bytes.iter().enumerate().all(|(place, byte)| *byte == place as u8));
        }
        let zeroes = vec![0_u8; 3 * PAGE_BYTES];
        assert!(zeroes.iter().all(|byte| *byte == 0));
    }
}
