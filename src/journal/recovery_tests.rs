//! Tests of reading journals that crashes or damage have left.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::super::segment_writer::{SegmentWriter, create_segment};
use super::super::snapshot_file::SnapshotWriter;
use super::super::storage::tests::{Fault, FaultyDisk, TestDirectory};
use super::*;

const SEGMENT_BYTES: u64 = 1100;
const ID: [u8; 16] = [4; 16];

fn commands(position: u64) -> Vec<u8> {
    vec![position as u8; 200]
}

fn origin(sync: SyncMode, boot_id: [u8; 16]) -> FileOrigin {
    FileOrigin { journal_id: ID, boot_id, sync }
}

/// Writes records 1 to `last`, four in a segment.
fn write(path: &Path, origin: FileOrigin, last: u64) {
    let directory = Directory::new(path.to_owned());
    directory.prepare().unwrap();
    let header = origin.header(FileKind::Segment, 1, 0);
    let segment = create_segment(&directory, &header, SEGMENT_BYTES, &[], false).unwrap();
    let storage = Arc::new(directory);
    let mut writer = SegmentWriter::new(storage, origin, SEGMENT_BYTES, 0, Some(segment));
    for position in 1..=last {
        let commands = commands(position);
        let record = Record { position, mono_ms: position, unix_ms: 9, commands: &commands };
        writer.append(&record).unwrap();
    }
}

fn write_snapshot(path: &Path, origin: FileOrigin, position: u64) -> String {
    let header = origin.header(FileKind::Snapshot, position, 0);
    let storage = Arc::new(Directory::new(path.to_owned()));
    let mut writer = SnapshotWriter::begin(storage, header).unwrap();
    writer.append(b"piece").unwrap();
    writer.finish().unwrap();
    snapshot_name(position)
}

/// Positions of the records. Each is as it was written.
fn recover(path: &Path, sync: SyncMode) -> Result<(Recovered, Vec<u64>), JournalError> {
    let opened = Opened::open(Config::new(path.to_owned(), sync)).unwrap();
    let mut positions = Vec::new();
    let recovered = opened.recover(&mut |item| {
        if let Item::Record(record) = item {
            assert!(record.commands == commands(record.position), "record {}", record.position);
            positions.push(record.position);
        }
        Ok(())
    })?;
    Ok((recovered, positions))
}

fn change(path: &Path, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = path.join(name);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A journal with nine records in three segments.
fn journal(sync: SyncMode, boot_id: [u8; 16]) -> TestDirectory {
    let test = TestDirectory::new();
    write(&test.journal(), origin(sync, boot_id), 9);
    let listing = Directory::new(test.journal()).files().list().unwrap();
    assert_eq!(listing.segments, [1, 5, 9]);
    test
}

/// Expects an error that names the file and the offset.
fn assert_damage(path: &Path, name: &str, offset: u64, reason: &str) {
    let error = recover(path, SyncMode::Always).unwrap_err().0;
    for part in [name, &format!("at offset {offset}:"), reason, "--repair"] {
        assert!(error.contains(part), "no {part} in: {error}");
    }
    assert!(!error.contains('\n'), "{error}");
}

const RECORD_BYTES: u64 = 244;
const HEADER_BYTES: u64 = 80;

#[test]
fn a_torn_last_record_is_cut_and_all_others_are_there() {
    let test = journal(SyncMode::Always, [1; 16]);
    let path = test.journal();
    let segment = File::options().write(true).open(path.join(segment_name(9))).unwrap();
    for cut in 1..RECORD_BYTES {
        segment.set_len(HEADER_BYTES + RECORD_BYTES - cut).unwrap();
        let (recovered, positions) = recover(&path, SyncMode::Always).unwrap();
        assert_eq!(positions, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(recovered.position == 8 && !recovered.needs_new_epoch);
        assert_eq!(recovered.last_times, Some((8, 9)));
    }
}

#[test]
fn damage_before_the_tail_stops_the_start() {
    let record_2 = HEADER_BYTES + RECORD_BYTES;
    let record_4 = HEADER_BYTES + 3 * RECORD_BYTES;
    for (offset, at) in [(record_2, record_2 + 50), (record_4, record_4 + 50)] {
        let test = journal(SyncMode::Always, [1; 16]);
        change(&test.journal(), &segment_name(5), |bytes| bytes[at as usize] ^= 1);
        assert_damage(&test.journal(), &segment_name(5), offset, "damaged record");
    }
}

#[test]
fn a_missing_segment_stops_the_start() {
    for (missing, named, reason) in
        [(1, 5, "record 5 where record 1 should be"), (5, 9, "record 9 where record 5 should be")]
    {
        let test = journal(SyncMode::Always, [1; 16]);
        fs::remove_file(test.journal().join(segment_name(missing))).unwrap();
        assert_damage(&test.journal(), &segment_name(named), 0, reason);
    }
    let test = journal(SyncMode::Always, [1; 16]);
    let name = write_snapshot(&test.journal(), origin(SyncMode::Always, [1; 16]), 9);
    for first in [1, 5, 9] {
        fs::remove_file(test.journal().join(segment_name(first))).unwrap();
    }
    assert_damage(&test.journal(), &name, 0, "the segment after this snapshot is missing");
}

#[test]
fn a_file_of_another_journal_or_with_another_name_stops_the_start() {
    let test = journal(SyncMode::Always, [1; 16]);
    let path = test.journal();
    fs::rename(path.join(segment_name(9)), path.join(segment_name(10))).unwrap();
    assert_damage(&path, &segment_name(10), 0, "the header of another file");
    let other = TestDirectory::new();
    let origin = FileOrigin { journal_id: [9; 16], ..origin(SyncMode::Always, [1; 16]) };
    write(&other.journal(), origin, 9);
    fs::remove_file(path.join(segment_name(10))).unwrap();
    fs::copy(other.journal().join(segment_name(9)), path.join(segment_name(9))).unwrap();
    assert_damage(&path, &segment_name(9), 0, "a file of another journal");
}

#[test]
fn a_damaged_snapshot_is_no_loss_while_the_records_before_it_are_there() {
    let test = journal(SyncMode::Always, [1; 16]);
    let path = test.journal();
    let name = write_snapshot(&path, origin(SyncMode::Always, [1; 16]), 6);
    let (_, positions) = recover(&path, SyncMode::Always).unwrap();
    assert_eq!(positions, [7, 8, 9]);
    change(&path, &name, |bytes| bytes[100] ^= 1);
    let (recovered, positions) = recover(&path, SyncMode::Always).unwrap();
    assert_eq!(positions, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert!(!recovered.needs_new_epoch && recovered.plan.obsolete == [name.clone()]);
    drop(recovered);
    fs::remove_file(path.join(segment_name(1))).unwrap();
    assert_damage(&path, &name, HEADER_BYTES, "damaged piece");
}

#[test]
fn every_loss_of_a_machine_that_stopped_gives_a_prefix_and_a_new_epoch() {
    // Each segment lost at each record, or not at all; other segments may be complete.
    for first in [1, 5, 9] {
        for kept in 0..4 {
            let test = journal(SyncMode::Os, [1; 16]);
            let path = test.journal();
            change(&path, &segment_name(first), |bytes| {
                let start = (HEADER_BYTES + kept * RECORD_BYTES) as usize;
                let end = (start + RECORD_BYTES as usize).min(bytes.len());
                if start < end {
                    bytes[start..end].fill(0);
                }
            });
            let (recovered, positions) = recover(&path, SyncMode::Os).unwrap();
            let expected = if first == 9 && kept > 0 { 9 } else { first + kept - 1 };
            assert!(positions.iter().copied().eq(1..=expected), "{first} {kept}: {positions:?}");
            assert!(recovered.needs_new_epoch && recovered.position == expected);
        }
    }
}

#[test]
fn a_segment_that_the_disk_never_had_is_a_loss_only_if_the_machine_stopped() {
    let own_boot = boot_id();
    assert_ne!(own_boot, [0; 16]);
    for (boot_id, is_loss) in [([1; 16], true), (own_boot, false)] {
        let test = journal(SyncMode::Os, boot_id);
        change(&test.journal(), &segment_name(9), |bytes| bytes.fill(0));
        match recover(&test.journal(), SyncMode::Os) {
            Ok((recovered, positions)) => {
                assert!(is_loss && recovered.needs_new_epoch);
                assert_eq!(positions, [1, 2, 3, 4, 5, 6, 7, 8]);
                assert_eq!(recovered.plan.obsolete, [segment_name(9)]);
            }
            Err(error) => assert!(!is_loss, "{error}"),
        }
    }
}

#[test]
fn a_snapshot_outlives_the_records_that_the_machine_lost() {
    let test = journal(SyncMode::Os, [1; 16]);
    let path = test.journal();
    write_snapshot(&path, origin(SyncMode::Os, [1; 16]), 9);
    fs::remove_file(path.join(segment_name(1))).unwrap();
    for name in [segment_name(5), segment_name(9)] {
        change(&path, &name, |bytes| bytes[HEADER_BYTES as usize..].fill(0));
    }
    let (recovered, positions) = recover(&path, SyncMode::Os).unwrap();
    assert!(recovered.position == 9 && recovered.needs_new_epoch && positions.is_empty());
    assert!(recovered.plan.segments.is_empty());
}

#[test]
fn a_new_epoch_is_needed_until_its_record_is_in_the_log() {
    let start = |recovered: Recovered| {
        let poll = mio::Poll::new().unwrap();
        let waker = mio::Waker::new(poll.registry(), mio::Token(1)).unwrap();
        recovered.start(waker.into()).unwrap()
    };
    let test = journal(SyncMode::Os, [1; 16]);
    let path = test.journal();
    for _ in 0..2 {
        let (recovered, _) = recover(&path, SyncMode::Always).unwrap();
        assert!(recovered.needs_new_epoch);
        let _ = start(recovered).close();
    }
    let (recovered, _) = recover(&path, SyncMode::Os).unwrap();
    let mut journal = start(recovered);
    crate::log::Log::append(&mut journal, 0, 0, &commands(10));
    drop(journal);
    let (recovered, positions) = recover(&path, SyncMode::Always).unwrap();
    assert!(!recovered.needs_new_epoch && positions.len() == 10);
}

#[test]
fn an_error_of_the_caller_stops_the_recovery() {
    let test = journal(SyncMode::Always, [1; 16]);
    let opened = Opened::open(Config::new(test.journal(), SyncMode::Always)).unwrap();
    let mut calls = 0;
    let result = opened.recover(&mut |_| {
        calls += 1;
        Err("the hub rejects it".into())
    });
    assert_eq!((result.unwrap_err().0.as_str(), calls), ("the hub rejects it", 1));
}

#[test]
fn a_flipped_bit_anywhere_gives_all_acknowledged_records_or_an_error() {
    let test = journal(SyncMode::Always, [1; 16]);
    let path = test.journal();
    let directory = Directory::new(path.clone());
    for first in [1, 5, 9] {
        let file = File::options().read(true).write(true).open(path.join(segment_name(first)));
        let file = file.unwrap();
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes).unwrap();
        for index in 0..bytes.len() {
            let flipped = [bytes[index] ^ 1 << (index % 8)];
            file.write_all_at(&flipped, index as u64).unwrap();
            let mut positions = Vec::new();
            let result = read_journal(&directory.files(), [1; 16], &mut |item| {
                let Item::Record(record) = item else { panic!("there is no snapshot") };
                assert!(record.commands == commands(record.position), "byte {index} of {first}");
                positions.push(record.position);
                Ok(())
            });
            assert!(positions.iter().copied().eq(1..=positions.len() as u64));
            let is_reserved = index as u64 >= HEADER_BYTES + 4 * RECORD_BYTES;
            // The last record may have been interrupted.
            let is_last = first == 9 && index as u64 >= HEADER_BYTES;
            match result {
                Ok(_) if is_last => assert!(positions.len() >= 8, "byte {index} of {first}"),
                Ok(_) => assert!(is_reserved && positions.len() == 9, "byte {index} of {first}"),
                Err(_) => assert!(!is_reserved && !is_last, "byte {index} of {first}"),
            }
            file.write_all_at(&bytes[index..=index], index as u64).unwrap();
        }
    }
}

#[test]
fn a_start_on_a_full_disk_keeps_all_records_and_later_ones_follow() {
    for calls in 0.. {
        let test = journal(SyncMode::Always, [1; 16]);
        let path = test.journal();
        let newest = File::options().write(true).open(path.join(segment_name(9))).unwrap();
        newest.set_len(HEADER_BYTES + 100).unwrap();
        let (mut recovered, positions) = recover(&path, SyncMode::Always).unwrap();
        assert!(positions.into_iter().eq(1..=8));
        let fault = Fault::new(calls, Errno::NOSPC);
        let directory = Directory::new(path.clone());
        let disk = FaultyDisk { directory: directory.clone(), fault: Arc::clone(&fault) };
        let prepared = recovered.prepare(&disk);
        let was_full = fault.has_happened();
        drop(recovered);
        let mut expected = 8;
        if let Ok((origin, segment)) = prepared {
            // A disk with some space, but less than a segment, is not full.
            assert!(segment.is_some() || was_full);
            let storage = Arc::new(directory);
            let mut writer = SegmentWriter::new(storage, origin, SEGMENT_BYTES, 0, segment);
            let commands = commands(9);
            let record = Record { position: 9, mono_ms: 0, unix_ms: 0, commands: &commands };
            // The disk may be full now, once.
            writer.append(&record).or_else(|_| writer.append(&record)).unwrap();
            expected = 9;
        }
        let (_, positions) = recover(&path, SyncMode::Always).unwrap();
        assert!(positions.into_iter().eq(1..=expected), "{calls}");
        if !was_full {
            assert!(calls > 6 && expected == 9, "{calls} system calls");
            return;
        }
    }
}
