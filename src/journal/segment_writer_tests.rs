//! Tests of writing, with system calls that fail.

use std::path::Path;

use rustix::io::Errno;

use super::super::directory::Directory;
use super::super::recovery::{Config, Item, Opened};
use super::super::snapshot_file::SnapshotWriter;
use super::super::storage::tests::{Fault, FaultyDisk, TestDirectory};
use super::*;

const SEGMENT_BYTES: u64 = 8 << 10;
const RECORDS: u64 = 12;

fn commands(position: u64) -> Vec<u8> {
    vec![position as u8; 1500 + 37 * position as usize]
}

fn writer(path: &Path, fault: &Arc<Fault>, sync: SyncMode) -> SegmentWriter {
    let directory = Directory::new(path.to_owned());
    directory.prepare().unwrap();
    let storage = Arc::new(FaultyDisk { directory, fault: Arc::clone(fault) });
    let origin = FileOrigin { journal_id: [5; 16], boot_id: [6; 16], sync };
    SegmentWriter::new(storage, origin, SEGMENT_BYTES, 0, None)
}

/// Positions of all records, each of which is as it was written.
fn recovered(path: &Path, sync: SyncMode) -> Vec<u64> {
    let opened = Opened::open(Config::new(path.to_owned(), sync)).unwrap();
    let mut positions = Vec::new();
    let result = opened.recover(&mut |item| {
        let Item::Record(record) = item else { panic!("there is no snapshot") };
        assert!(record.commands == commands(record.position), "record {}", record.position);
        positions.push(record.position);
        Ok(())
    });
    assert_eq!(result.unwrap().position, positions.len() as u64);
    positions
}

/// Writes all records, up to the first failure. A record for which the disk is full is written
/// again. Returns how many were written, and how often the disk was full.
fn write_all(writer: &mut SegmentWriter) -> (u64, usize) {
    let mut full_count = 0;
    for position in 1..=RECORDS {
        let commands = commands(position);
        let record = Record { position, mono_ms: 1, unix_ms: 2, commands: &commands };
        loop {
            match writer.append(&record) {
                Ok(_) => break,
                Err(WriteError::Full(_)) => full_count += 1,
                Err(WriteError::Failed(_)) => {
                    let again = writer.append(&record);
                    assert!(matches!(again, Err(WriteError::Failed(_))), "{again:?}");
                    return (position - 1, full_count);
                }
            }
        }
    }
    (RECORDS, full_count)
}

/// Runs `check` once for each system call, which fails with `errno`.
fn with_each_fault(errno: Errno, mut check: impl FnMut(&Path, &Arc<Fault>)) {
    for calls in 0.. {
        let test = TestDirectory::new();
        let fault = Fault::new(calls, errno);
        check(&test.journal(), &fault);
        if !fault.has_happened() {
            assert!(calls > 2 * RECORDS as usize, "{calls} system calls");
            return;
        }
    }
}

#[test]
fn after_a_failure_of_any_system_call_every_record_that_was_written_is_there() {
    with_each_fault(Errno::IO, |path, fault| {
        let (written, full_count) = write_all(&mut writer(path, fault, SyncMode::Always));
        assert_eq!(full_count, 0);
        assert_eq!(written == RECORDS, !fault.has_happened());
        let found = recovered(path, SyncMode::Always);
        // Whether the record that failed is there is unknown.
        let count = found.len() as u64;
        assert!(count == written || count == written + 1, "{written} written, found {found:?}");
        assert!(found.iter().copied().eq(1..=count), "{found:?}");
    });
}

#[test]
fn a_full_disk_refuses_one_record_and_leaves_nothing_of_it() {
    with_each_fault(Errno::NOSPC, |path, fault| {
        let mut writer = writer(path, fault, SyncMode::Always);
        let (written, full_count) = write_all(&mut writer);
        assert_eq!(written, RECORDS);
        // Space that cannot be reserved refuses none.
        assert!(full_count <= usize::from(fault.has_happened()), "{full_count} times");
        assert!(recovered(path, SyncMode::Always).into_iter().eq(1..=RECORDS));
    });
}

#[test]
fn a_disk_without_space_for_a_segment_gets_records_as_long_as_they_fit() {
    let test = TestDirectory::new();
    let path = test.journal();
    // The second system call is that which reserves the space.
    let fault = Fault::new(1, Errno::NOSPC);
    let mut writer = writer(&path, &fault, SyncMode::Always);
    let commands = commands(1);
    let record = Record { position: 1, mono_ms: 1, unix_ms: 2, commands: &commands };
    let written = writer.append(&record).expect("no record is refused");
    assert!(fault.has_happened());
    let length = std::fs::metadata(path.join(segment_name(1))).unwrap().len();
    assert_eq!(length, FILE_HEADER_BYTES as u64 + written.bytes);
    assert_eq!(recovered(&path, SyncMode::Always), [1]);
}

#[test]
fn nothing_of_a_refused_record_is_read_later() {
    with_each_fault(Errno::DQUOT, |path, fault| {
        let mut writer = writer(path, fault, SyncMode::Always);
        for position in 1..=RECORDS {
            let commands = commands(position);
            let record = Record { position, mono_ms: 1, unix_ms: 2, commands: &commands };
            if let Err(error) = writer.append(&record) {
                assert!(matches!(error, WriteError::Full(_)), "{error:?}");
                assert!(recovered(path, SyncMode::Always).into_iter().eq(1..position));
                return;
            }
        }
    });
}

#[test]
fn a_snapshot_that_fails_leaves_a_journal_with_every_record() {
    for errno in [Errno::IO, Errno::NOSPC] {
        for calls in 0.. {
            let test = TestDirectory::new();
            let path = test.journal();
            let healthy = Fault::new(usize::MAX, Errno::IO);
            let mut writer = writer(&path, &healthy, SyncMode::Always);
            assert_eq!(write_all(&mut writer), (RECORDS, 0));
            let fault = Fault::new(calls, errno);
            let directory = Directory::new(path.clone());
            let storage: Arc<dyn Storage> =
                Arc::new(FaultyDisk { directory, fault: Arc::clone(&fault) });
            let position = RECORDS / 2;
            let result = snapshot(&storage, &writer.origin, position);
            assert_eq!(result.is_err(), fault.has_happened());
            let listing = Directory::new(path.clone()).files().list().unwrap();
            assert!(listing.leftovers.is_empty(), "{:?}", listing.leftovers);
            let opened = Opened::open(Config::new(path, SyncMode::Always)).unwrap();
            let (mut pieces, mut positions) = (0, Vec::new());
            let recovered = opened.recover(&mut |item| {
                match item {
                    Item::Piece(_) => pieces += 1,
                    Item::Record(record) => positions.push(record.position),
                }
                Ok(())
            });
            assert_eq!(recovered.unwrap().position, RECORDS);
            // Only the synchronization of names may fail for a snapshot that is complete.
            assert!(result.is_err() || pieces == 2);
            let first = if pieces == 2 { position + 1 } else { 1 };
            assert!(positions.into_iter().eq(first..=RECORDS));
            if !fault.has_happened() {
                assert!(calls > 8, "{calls} system calls");
                break;
            }
        }
    }
}

fn snapshot(
    storage: &Arc<dyn Storage>,
    origin: &FileOrigin,
    position: u64,
) -> Result<u64, WriteError> {
    let header = origin.header(FileKind::Snapshot, position, 0);
    let mut snapshot = SnapshotWriter::begin(Arc::clone(storage), header)?;
    for piece in [&b"one"[..], b"two"] {
        if let Err(error) = snapshot.append(piece) {
            snapshot.abandon();
            return Err(error);
        }
    }
    snapshot.finish()
}

#[test]
fn a_record_larger_than_a_segment_has_one_of_its_own() {
    let test = TestDirectory::new();
    let path = test.journal();
    let fault = Fault::new(usize::MAX, Errno::IO);
    let mut writer = writer(&path, &fault, SyncMode::Os);
    let large = vec![7; 3 * SEGMENT_BYTES as usize];
    let mut firsts = Vec::new();
    for (position, commands) in [(1, &b"a"[..]), (2, &large), (3, b"b"), (4, b"c")] {
        let written =
            writer.append(&Record { position, mono_ms: 0, unix_ms: 0, commands }).unwrap();
        firsts.extend(written.is_first.then_some(position));
    }
    assert_eq!(firsts, [1, 2, 3]);
    assert_eq!(Directory::new(path).files().list().unwrap().segments, firsts);
}
