//! `memcpy`, `memmove` and `memcmp` for musl on x86-64. musl's own are several times slower than
//! glibc's for few bytes: a `rep movsq` takes some 30 ns to begin, and `memcmp` goes byte by byte.
//!
//! The whole binary is linked with these symbols: they are in the program, so the linker does not
//! look for those of the C library. Nothing here may be compiled into a call of itself. Each load
//! and store has a fixed size, which the optimizer turns into one instruction. The loops move
//! several vectors per step between pointers that may overlap, so the optimizer does not recognize
//! a `memcpy`. If it did, the program would not reach its first line. Without optimization a load
//! *is* a call of `memcpy`, so such builds keep musl's.
//!
//! Every x86-64 has SSE2. For other processors, musl has functions written for the processor.

// A copy is a handful of instructions, fewer than a call. The tests, without optimization, do not
// measure this.
#![allow(clippy::inline_always)]

use std::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_storeu_si128,
};
use std::cmp::Ordering;

/// Bytes of one vector.
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

// SAFETY of all below: each access is at the start of the area, right after the one before it, or
// at the end of the area; and the area is at least as large as the access.

/// Copies `count` bytes between areas that do not overlap, or are the same. Returns `to`.
///
/// # Safety
///
/// `from` must be readable and `to` writable for `count` bytes.
#[inline(always)]
unsafe fn copy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    unsafe { if count <= 256 { copy_short(to, from, count) } else { copy_long(to, from, count) } }
}

/// Copies `count` bytes between areas that may overlap. Returns `to`.
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
            move_long(to, from, count)
        }
    }
}

/// Copies up to 256 bytes. All bytes are read before any is written, so the areas may overlap.
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

/// Copies more than 256 bytes that do not overlap: 128 per step, then the last 128, some of which
/// the steps may have copied already.
unsafe fn copy_long(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    let mut left = count;
    let (mut source, mut target) = (from, to);
    unsafe {
        while left > 128 {
            store::<8>(target, load(source));
            (source, target) = (source.add(128), target.add(128));
            left -= 128;
        }
        store::<8>(to.add(count - 128), load(from.add(count - 128)));
    }
    to
}

/// Copies more than 256 bytes that overlap.
///
/// Goes forwards if `to` is below `from`, else backwards: no step overwrites bytes that a later
/// step reads. The bytes of the last store are read first, since the steps overwrite them.
unsafe fn move_long(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
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

/// Copies `VECTORS` vectors at the start, and as many at the end.
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

/// Compares the bytes at `one` with those at `other`, by the first that differ.
///
/// # Safety
///
/// Both must be readable for `count` bytes.
#[inline(always)]
unsafe fn compare(one: *const u8, other: *const u8, count: usize) -> Ordering {
    unsafe {
        // Big-endian numbers compare as their bytes do.
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

/// Returns whether any bytes at `one` and at `other` differ. For few bytes it does not search the
/// first difference.
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
        // SAFETY: `at` is at most 16 bytes before the end, where the last vector is. It may overlap
        // the one before.
        let differ = unsafe {
            !_mm_movemask_epi8(_mm_cmpeq_epi8(
                load::<1>(one.add(at))[0],
                load::<1>(other.add(at))[0],
            )) & 0xFFFF
        };
        if differ != 0 {
            at += differ.trailing_zeros() as usize;
            // SAFETY: the difference is among the 16 bytes that were read.
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

    /// Includes all lengths at which the code takes another branch.
    const LONGEST: usize = 300;

    fn noise(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at * 131 + at / 7 + 1) as u8).collect()
    }

    /// Compares `copy` and `memmove_impl` with `slice::copy_within`, in a buffer with other bytes
    /// around, which must not change.
    fn check_copy(all: &[u8], from: usize, to: usize, count: usize) {
        let mut expected = all.to_vec();
        expected.copy_within(from..from + count, to);
        let check = |function: unsafe fn(*mut u8, *const u8, usize) -> *mut u8| {
            let mut copied = all.to_vec();
            let start = copied.as_mut_ptr();
            // SAFETY: `copy_within` above has checked the bounds.
            unsafe { assert_eq!(function(start.add(to), start.add(from), count), start.add(to)) };
            assert!(copied == expected, "{count} bytes from {from} to {to}");
        };
        check(memmove_impl);
        if from.abs_diff(to) >= count {
            check(copy);
        }
    }

    #[test]
    fn every_short_length_is_copied_at_every_alignment() {
        for count in 0..=LONGEST {
            let all = noise(2 * count + 64);
            for (from, to) in (0..16).map(|from| (from, from * 7 % 16)) {
                check_copy(&all, from, count + 16 + to, count);
                check_copy(&all, count + 16 + to, from, count);
            }
        }
    }

    #[test]
    fn areas_that_overlap_by_any_distance_are_moved_completely() {
        for count in 0..=LONGEST {
            let all = noise(2 * count + 2);
            for distance in 0..=count {
                check_copy(&all, 1, 1 + distance, count);
                check_copy(&all, 1 + distance, 1, count);
            }
        }
    }

    #[test]
    fn one_different_byte_anywhere_decides_a_comparison() {
        // Up to three steps of the loop, and a rest.
        for count in 0..=4 * VECTOR {
            let one = noise(count + 1);
            let mut other = vec![0_u8; count + 17];
            for shift in 0..16 {
                let other = &mut other[shift..=shift + count];
                other.copy_from_slice(&one);
                // A byte after the area must not count.
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
        fn any_area_is_moved_as_by_core(
            all in prop::collection::vec(any::<u8>(), 0..5000),
            a: usize,
            b: usize,
            c: usize,
        ) {
            let count = c % (all.len() + 1);
            let starts = all.len() - count + 1;
            check_copy(&all, a % starts, b % starts, count);
        }

        #[test]
        fn any_two_areas_compare_as_by_core(
            one in prop::collection::vec(0_u8..3, 0..600),
            mut other in prop::collection::vec(0_u8..3, 0..600),
            same: usize,
        ) {
            let count = one.len().min(other.len());
            // An equal beginning, since random bytes differ at once.
            let same = same % (count + 1);
            other[..same].copy_from_slice(&one[..same]);
            // SAFETY: both have `count` bytes.
            let order = unsafe { compare(one.as_ptr(), other.as_ptr(), count) };
            prop_assert_eq!(order, one[..count].cmp(&other[..count]));
        }
    }
}
