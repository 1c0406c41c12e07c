//! Tests of the scan of a segment.

use super::super::file_header::{FileKind, SyncMode};
use super::*;

const FIRST: u64 = 41;
const PAYLOADS: [&[u8]; 4] = [b"one", b"two, which is longer", b"\0\0\0\0", b"four"];

fn header() -> FileHeader {
    FileHeader {
        kind: FileKind::Segment,
        journal_id: [1; 16],
        marker: *b"\x01\x82\x03\x84\x05\x86\x07\x88",
        position: FIRST,
        boot_id: [3; 16],
        sync: SyncMode::Always,
        epoch_due: 0,
    }
}

fn record(index: usize) -> Record<'static> {
    let position = FIRST + index as u64;
    Record { position, mono_ms: position * 10, unix_ms: position * 100, commands: PAYLOADS[index] }
}

/// A segment with records of these indices, and the offset of each.
fn segment(indices: &[usize]) -> (Vec<u8>, Vec<usize>) {
    let mut file = header().to_bytes().to_vec();
    let mut offsets = Vec::new();
    for index in indices {
        offsets.push(file.len());
        FrameCodec::new(&header()).push(&mut file, &record(*index).frame());
    }
    (file, offsets)
}

/// Reads a segment. Returns the number of records, each of which is as it was written.
fn scan(file: &[u8]) -> (usize, Tail) {
    let mut scan = SegmentScan::new(header(), file);
    let mut count = 0;
    for found in scan.by_ref() {
        assert!(found == record(count), "record {count} is another one");
        count += 1;
    }
    assert_eq!(scan.next_position(), FIRST + count as u64);
    (count, scan.tail())
}

#[test]
fn all_records_are_read_and_zeros_after_them_are_a_clean_end() {
    let (mut file, _) = segment(&[0, 1, 2, 3]);
    assert_eq!(scan(&file), (4, Tail::Clean));
    file.extend_from_slice(&[0; 5000]);
    assert_eq!(scan(&file), (4, Tail::Clean));
    assert_eq!(scan(&segment(&[]).0), (0, Tail::Clean));
}

#[test]
fn every_truncation_gives_the_whole_records_before_it() {
    let (file, offsets) = segment(&[0, 1, 2, 3]);
    for length in FILE_HEADER_BYTES..file.len() {
        let whole = offsets.iter().filter(|offset| **offset <= length).count() - 1;
        let zeros = file[..length].iter().rev().take_while(|byte| **byte == 0).count();
        let torn = length - offsets[whole] - zeros.min(length - offsets[whole]);
        let expected = if torn == 0 { Tail::Clean } else { Tail::Torn(torn as u64) };
        assert_eq!(scan(&file[..length]), (whole, expected), "{length}");
        // The same with reserved space after it, whose zeros may complete the record.
        let mut padded = file[..length].to_vec();
        padded.resize(file.len() + 100, 0);
        let next = offsets.get(whole + 1).copied().unwrap_or(file.len());
        let is_completed = padded[..next] == file[..next];
        let (count, tail) = scan(&padded);
        assert_eq!(count, whole + usize::from(is_completed), "{length}");
        assert!(matches!(tail, Tail::Clean | Tail::Torn(_)), "{length}: {tail:?}");
    }
}

#[test]
fn every_flipped_bit_is_damage_or_a_torn_tail_and_never_another_record() {
    let (file, offsets) = segment(&[0, 1, 2, 3]);
    for bit in FILE_HEADER_BYTES * 8..file.len() * 8 {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (count, tail) = scan(&damaged);
        let hit = offsets.iter().filter(|offset| **offset <= bit / 8).count() - 1;
        assert_eq!(count, hit, "bit {bit}");
        match tail {
            Tail::Damaged(Damage::BadFrame) => assert!(hit < 3, "bit {bit}"),
            Tail::Torn(_) => assert_eq!(hit, 3, "bit {bit}"),
            other => panic!("bit {bit}: {other:?}"),
        }
    }
}

#[test]
fn every_block_that_was_not_written_is_damage_or_a_torn_tail() {
    let (file, offsets) = segment(&[0, 1, 2, 3]);
    for start in FILE_HEADER_BYTES..file.len() {
        for end in start + 1..=file.len() {
            let mut damaged = file.clone();
            damaged[start..end].fill(0);
            let (count, tail) = scan(&damaged);
            if damaged == file {
                assert_eq!((count, tail), (4, Tail::Clean));
                continue;
            }
            assert!(count < 4, "{start}..{end}");
            let has_good = offsets.iter().enumerate().skip(count).any(|(index, offset)| {
                let next = offsets.get(index + 1).copied().unwrap_or(file.len());
                damaged[*offset..next] == file[*offset..next]
            });
            let is_damage = tail == Tail::Damaged(Damage::BadFrame);
            assert_eq!(is_damage, has_good, "{start}..{end}: {tail:?}");
        }
    }
}

#[test]
fn a_gap_in_the_positions_is_damage() {
    let (file, _) = segment(&[0, 2]);
    let gap = Damage::Gap { found: FIRST + 2, expected: FIRST + 1 };
    assert_eq!(scan(&file), (1, Tail::Damaged(gap)));
    assert_eq!(gap.to_string(), "record 43 where record 42 should be");
    let (file, _) = segment(&[0, 1, 1]);
    let gap = Damage::Gap { found: FIRST + 1, expected: FIRST + 2 };
    assert_eq!(scan(&file), (2, Tail::Damaged(gap)));
}

#[test]
fn a_piece_among_the_records_is_damage() {
    let (mut file, _) = segment(&[0]);
    FrameCodec::new(&header())
        .push(&mut file, &Frame { kind: FrameKind::Piece, ..record(1).frame() });
    assert_eq!(scan(&file), (1, Tail::Damaged(Damage::NoRecord)));
}

#[test]
fn records_of_another_file_in_the_reserved_space_are_no_records() {
    let (mut file, _) = segment(&[0]);
    let other = FileHeader { marker: [8; 8], ..header() };
    FrameCodec::new(&other).push(&mut file, &record(1).frame());
    FrameCodec::new(&other).push(&mut file, &record(2).frame());
    let (count, tail) = scan(&file);
    assert!(count == 1 && matches!(tail, Tail::Torn(_)), "{count} {tail:?}");
}

#[test]
fn a_record_inside_a_torn_record_is_no_good_frame_after_it() {
    let (inner, _) = segment(&[0, 1, 2, 3]);
    let outer = FileHeader { marker: *b"\xffabcdefg", ..header() };
    let mut file = outer.to_bytes().to_vec();
    FrameCodec::new(&outer).push(&mut file, &Record { commands: &inner, ..record(0) }.frame());
    file.pop();
    let mut scan = SegmentScan::new(outer, &file);
    assert!(scan.next().is_none());
    assert!(matches!(scan.tail(), Tail::Torn(_)), "{:?}", scan.tail());
}
