//! Gives back the pages of the program that only its start needs.
//!
//! A page of the program's file counts as resident from its first use on, with its neighbors: the
//! kernel maps 64 KiB at once. The start reads options, certificates and a state, and enters the
//! sandbox. An idle server needs a third of that code.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_void};

use rustix::mm::{Advice, madvise};

/// `PT_LOAD`: the segment is mapped.
const LOAD: u32 = 1;
/// `PF_W`: the segment is writable.
const WRITABLE: u32 = 2;

/// Beginning of an ELF file with 64 bits, as in elf(5).
#[repr(C)]
struct FileHeader {
    before_program_headers: [u8; 32],
    program_headers_offset: u64,
    between: [u8; 16],
    program_header_count: u16,
}

/// Description of a segment in an ELF file with 64 bits, as in elf(5).
#[repr(C)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    physical_address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    alignment: u64,
}

unsafe extern "C" {
    /// The mapped beginning of the program. The linker defines it.
    #[link_name = "__ehdr_start"]
    static FILE_HEADER: FileHeader;

    /// Function of the C library. rustix's `page_size` also reads the vDSO, which valgrind has
    /// unmapped.
    safe fn sysconf(name: c_int) -> c_long;
}

/// `_SC_PAGESIZE` on Linux, of glibc and of musl.
const PAGE_SIZE: c_int = 30;

/// Unmaps the code and the constants of the program. The next use of a page maps it again, from the
/// page cache: a minor page fault, for 16 pages.
pub fn release() {
    let header = &raw const FILE_HEADER;
    // SAFETY: the kernel has mapped the file's beginning, with its program headers, to read them.
    let segments = unsafe {
        let first = header.byte_add((*header).program_headers_offset as usize);
        std::slice::from_raw_parts(
            first.cast::<ProgramHeader>(),
            usize::from((*header).program_header_count),
        )
    };
    let mapped = || segments.iter().filter(|segment| segment.kind == LOAD);
    // The linker's addresses begin at zero, unless the program is for a fixed address.
    let Some(first) = mapped().find(|segment| segment.offset == 0) else { return };
    let Ok(page_bytes @ 1..) = usize::try_from(sysconf(PAGE_SIZE)) else { return };
    for segment in mapped().filter(|segment| segment.flags & WRITABLE == 0) {
        let start = (segment.address - first.address) as usize / page_bytes * page_bytes;
        let end = (segment.address - first.address + segment.memory_bytes) as usize;
        let address = header.cast::<c_void>().cast_mut().wrapping_byte_add(start);
        // SAFETY: nothing writes to the segment, so its pages are those of the file.
        // Failing, it leaves the pages mapped, which does no harm.
        let _ = unsafe { madvise(address, end - start, Advice::LinuxDontNeed) };
    }
}
