//! `memcpy`, `memmove` and `memcmp` for musl on x86-64, whose own are several times slower than glibc's where there is
//! little to copy: a `rep movsq` takes some 30 ns to begin, and `memcmp` goes byte by byte.
//!
//! These are the symbols that the whole binary is linked with: they stand in the program, so the linker never looks for
//! those of the C library. Nothing here may be compiled into a call of itself: each load and store is of a fixed size,
//! which the optimizer turns into one instruction; and the loops, which move several vectors a step between pointers
//! that for all it knows overlap, it does not take for a `memcpy`. A build in which it did would not reach its
//! first line. Without optimization a load *is* a call of `memcpy`, so such builds keep musl's.
//!
//! SSE2 is what every x86-64 has. On others musl's are written for the processor.

// What is copied is a handful of instructions, fewer than a call; and the tests, without optimization, are no measure.
#![allow(clippy::inline_always)]

use std::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_storeu_si128,
};
use std::cmp::Ordering;

/// What one vector holds.
const VECTOR: usize = 16;

#[cfg(all(target_env = "musl", not(debug_assertions)))]
mod symbols {
    /// SAFETY: the contract of C's `memcpy` is that of `copy`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        unsafe { super::copy(to, from, count) }
    }

    /// SAFETY: the contract of C's `memmove` is that of `memmove_impl`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        unsafe { super::memmove_impl(to, from, count) }
    }

    /// SAFETY: the contract of C's `memcmp` is that of `compare`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        unsafe { super::compare(one, other, count) as i32 }
    }

    /// SAFETY: the contract of C's `bcmp` is that of `differ`.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        unsafe { i32::from(super::differ(one, other, count)) }
    }
}

// SAFETY of all below: a piece is read or written at 0, after others that stand before it, or so that it ends with the
// whole; and the whole is at least as large as the piece.

/// Copies `count` bytes between places that do not overlap, or are the same, and gives `to`.
///
/// # Safety
///
/// `from` can be read and `to` be written for `count` bytes.
#[inline(always)]
unsafe fn copy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    unsafe { if count <= 256 { copy_short(to, from, count) } else { copy_long(to, from, count) } }
}

/// Copies `count` bytes between places that may overlap, and gives `to`.
///
/// # Safety
///
/// As for [`copy`].
#[inline(always)]
unsafe fn memmove_impl(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    unsafe {
        if count <= 256 {
            copy_short(to, from, count)
        } else if (to as usize).abs_diff(from as usize) >= count {
            copy_long(to, from, count)
        } else {
            shift_long(to, from, count)
        }
    }
}

/// Copies up to 256 bytes. Everything is read before anything is written, so overlaps do no harm.
#[inline(always)]
unsafe fn copy_short(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    unsafe {
        if count >= VECTOR {
            if count <= 32 {
                copy_ends::<1>(to, from, count);
            } else if count <= 64 {
                copy_ends::<2>(to, from, count);
            } else if count <= 128 {
                copy_ends::<4>(to, from, count);
            } else {
                copy_ends::<8>(to, from, count);
            }
        } else if count >= 8 {
            copy_bytes::<8>(to, from, count);
        } else if count >= 4 {
            copy_bytes::<4>(to, from, count);
        } else if count >= 2 {
            copy_bytes::<2>(to, from, count);
        } else if count == 1 {
            *to = *from;
        }
    }
    to
}

/// Copies more than 256 bytes that do not overlap: so many a step, and then the last of them, also where the steps
/// have copied some of those.
unsafe fn copy_long(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    let mut left = count;
    let (mut from_here, mut to_here) = (from, to);
    unsafe {
        while left > 128 {
            store::<8>(to_here, load(from_here));
            (from_here, to_here) = (from_here.add(128), to_here.add(128));
            left -= 128;
        }
        store::<8>(to.add(count - 128), load(from.add(count - 128)));
    }
    to
}

/// Copies more than 256 bytes that overlap.
///
/// What a step writes lies behind all that later steps read: so forwards if `to` is before `from`, and else backwards.
/// The last piece was read first of all, since the steps write over it.
unsafe fn shift_long(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    const STEP: usize = 4 * VECTOR;
    unsafe {
        if (to as usize) < from as usize {
            let last = load::<4>(from.add(count - STEP));
            let mut done = 0;
            while done < count - STEP {
                store::<4>(to.add(done), load(from.add(done)));
                done += STEP;
            }
            store(to.add(count - STEP), last);
        } else {
            let first = load::<4>(from);
            let mut left = count;
            while left > STEP {
                left -= STEP;
                store::<4>(to.add(left), load(from.add(left)));
            }
            store(to, first);
        }
    }
    to
}

/// Copies as many vectors from the start, and as many up to the end.
#[inline(always)]
unsafe fn copy_ends<const VECTORS: usize>(to: *mut u8, from: *const u8, count: usize) {
    unsafe {
        let end = count - VECTORS * VECTOR;
        let (head, tail) = (load::<VECTORS>(from), load::<VECTORS>(from.add(end)));
        store(to, head);
        store(to.add(end), tail);
    }
}

/// Copies `SIZE` to twice `SIZE` bytes: the first `SIZE` and the last.
#[inline(always)]
unsafe fn copy_bytes<const SIZE: usize>(to: *mut u8, from: *const u8, count: usize) {
    unsafe {
        let (head, tail) = (bytes::<SIZE>(from), bytes::<SIZE>(from.add(count - SIZE)));
        to.cast::<[u8; SIZE]>().write(head);
        to.add(count - SIZE).cast::<[u8; SIZE]>().write(tail);
    }
}

/// How the bytes at `one` stand to those at `other`, by the first that differ.
///
/// # Safety
///
/// Both can be read for `count` bytes.
#[inline(always)]
unsafe fn compare(one: *const u8, other: *const u8, count: usize) -> Ordering {
    unsafe {
        // Read with the first byte on top, numbers stand to each other as their bytes do.
        let wide = |at: usize| {
            u64::from_be_bytes(bytes(one.add(at))).cmp(&u64::from_be_bytes(bytes(other.add(at))))
        };
        let half = |at: usize| {
            u32::from_be_bytes(bytes(one.add(at))).cmp(&u32::from_be_bytes(bytes(other.add(at))))
        };
        let short = |at: usize| {
            u16::from_be_bytes(bytes(one.add(at))).cmp(&u16::from_be_bytes(bytes(other.add(at))))
        };
        if count > VECTOR {
            compare_long(one, other, count)
        } else if count >= 8 {
            wide(0).then_with(|| wide(count - 8))
        } else if count >= 4 {
            half(0).then_with(|| half(count - 4))
        } else if count >= 2 {
            short(0).then_with(|| short(count - 2))
        } else if count == 1 {
            (*one).cmp(&*other)
        } else {
            Ordering::Equal
        }
    }
}

/// Whether any of the bytes at `one` and at `other` differ: in a short piece without a look for the first that does.
///
/// # Safety
///
/// As for [`compare`].
#[inline(always)]
unsafe fn differ(one: *const u8, other: *const u8, count: usize) -> bool {
    unsafe {
        let wide = |at: usize| {
            u64::from_ne_bytes(bytes(one.add(at))) ^ u64::from_ne_bytes(bytes(other.add(at)))
        };
        let half = |at: usize| {
            u32::from_ne_bytes(bytes(one.add(at))) ^ u32::from_ne_bytes(bytes(other.add(at)))
        };
        if count > VECTOR {
            compare_long(one, other, count) != Ordering::Equal
        } else if count >= 8 {
            wide(0) | wide(count - 8) != 0
        } else if count >= 4 {
            half(0) | half(count - 4) != 0
        } else {
            compare(one, other, count) != Ordering::Equal
        }
    }
}

/// Compares more than 16 bytes.
unsafe fn compare_long(one: *const u8, other: *const u8, count: usize) -> Ordering {
    let mut at = 0;
    loop {
        // SAFETY: `at` is at most 16 before the end, where the last look is, whatever of it was seen before.
        let differ = unsafe {
            !_mm_movemask_epi8(_mm_cmpeq_epi8(
                load::<1>(one.add(at))[0],
                load::<1>(other.add(at))[0],
            )) & 0xFFFF
        };
        if differ != 0 {
            at += differ.trailing_zeros() as usize;
            // SAFETY: the difference is among the 16 that were read.
            return unsafe { (*one.add(at)).cmp(&*other.add(at)) };
        }
        if at == count - VECTOR {
            return Ordering::Equal;
        }
        at = (at + VECTOR).min(count - VECTOR);
    }
}

#[inline(always)]
unsafe fn bytes<const SIZE: usize>(from: *const u8) -> [u8; SIZE] {
    unsafe { from.cast::<[u8; SIZE]>().read() }
}

#[inline(always)]
unsafe fn load<const VECTORS: usize>(from: *const u8) -> [__m128i; VECTORS] {
    std::array::from_fn(|index| unsafe { _mm_loadu_si128(from.add(index * VECTOR).cast()) })
}

#[inline(always)]
unsafe fn store<const VECTORS: usize>(to: *mut u8, vectors: [__m128i; VECTORS]) {
    for (index, vector) in vectors.into_iter().enumerate() {
        unsafe { _mm_storeu_si128(to.add(index * VECTOR).cast(), vector) };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All lengths at which another way is taken, and some beyond.
    const LONGEST: usize = 300;

    fn noise(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at * 131 + at / 7 + 1) as u8).collect()
    }

    /// As `copy` and `shift` do it, and as `slice::copy_within` does, in a buffer with bytes around that must stay.
    fn check_copy(all: &[u8], from: usize, to: usize, count: usize) {
        let mut expected = all.to_vec();
        expected.copy_within(from..from + count, to);
        let check = |way: unsafe fn(*mut u8, *const u8, usize) -> *mut u8| {
            let mut copied = all.to_vec();
            let start = copied.as_mut_ptr();
            // SAFETY: `copy_within` above has checked the bounds.
            unsafe { assert_eq!(way(start.add(to), start.add(from), count), start.add(to)) };
            assert!(copied == expected, "{count} bytes from {from} to {to}");
        };
        check(memmove_impl);
        if from.abs_diff(to) >= count {
            check(copy);
        }
    }

    #[test]
    fn every_short_length_is_copied_from_and_to_every_alignment_and_nothing_around_it() {
        for count in 0..=LONGEST {
            let all = noise(2 * count + 64);
            for (from, to) in (0..16).map(|from| (from, from * 7 % 16)) {
                check_copy(&all, from, count + 16 + to, count);
                check_copy(&all, count + 16 + to, from, count);
            }
        }
    }

    #[test]
    fn pieces_that_overlap_by_any_distance_are_moved_whole() {
        for count in 0..=LONGEST {
            let all = noise(2 * count + 2);
            for distance in 0..=count {
                check_copy(&all, 1, 1 + distance, count);
                check_copy(&all, 1 + distance, 1, count);
            }
        }
    }

    #[test]
    fn one_byte_that_differs_anywhere_decides_a_comparison() {
        // Three rounds of its loop, and a rest.
        for count in 0..=4 * VECTOR {
            let one = noise(count + 1);
            let mut other = vec![0_u8; count + 17];
            for shift in 0..16 {
                let other = &mut other[shift..=shift + count];
                other.copy_from_slice(&one);
                // What stands behind must not count.
                other[count] ^= 0x80;
                for at in 0..count {
                    for change in [1, 0x80] {
                        other[at] ^= change;
                        // SAFETY: both have `count` bytes and one more.
                        let order = unsafe { compare(one.as_ptr(), other.as_ptr(), count) };
                        assert_eq!(
                            order,
                            one[..count].cmp(&other[..count]),
                            "{count} bytes, {at} differs"
                        );
                        // SAFETY: as above.
                        assert!(
                            unsafe { differ(one.as_ptr(), other.as_ptr(), count) },
                            "{count} bytes, {at} differs"
                        );
                        other[at] ^= change;
                    }
                }
                // SAFETY: as above.
                assert_eq!(
                    unsafe { compare(one.as_ptr(), other.as_ptr(), count) },
                    Ordering::Equal
                );
                // SAFETY: as above.
                assert!(!unsafe { differ(one.as_ptr(), other.as_ptr(), count) }, "{count} bytes");
            }
        }
    }

    proptest! {
        #[test]
        fn any_piece_is_moved_as_by_core(all in prop::collection::vec(any::<u8>(), 0..5000), a: usize, b: usize, c: usize) {
            let count = c % (all.len() + 1);
            let room = all.len() - count + 1;
            check_copy(&all, a % room, b % room, count);
        }

        #[test]
        fn any_two_pieces_compare_as_by_core(one in prop::collection::vec(0_u8..3, 0..600), other in prop::collection::vec(0_u8..3, 0..600), same: usize) {
            let mut other = other;
            let count = one.len().min(other.len());
            // Two that begin alike, for random ones differ at once.
            let same = same % (count + 1);
            other[..same].copy_from_slice(&one[..same]);
            // SAFETY: both have `count` bytes.
            let order = unsafe { compare(one.as_ptr(), other.as_ptr(), count) };
            prop_assert_eq!(order, one[..count].cmp(&other[..count]));
        }
    }
}
