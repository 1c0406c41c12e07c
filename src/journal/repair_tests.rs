//! Tests of describing and repairing damaged journals.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;

use mio::{Poll, Token, Waker};

use super::super::directory::Directory;
use super::super::inspect::{FileState, inspect};
use super::super::recovery::{Item, Recovered};
use super::super::segment_writer::{FileOrigin, SegmentWriter};
use super::super::snapshot_file::SnapshotWriter;
use super::super::storage::tests::TestDirectory;
use super::*;
use crate::log::{Log, Outcome, Record};

const SEGMENT_BYTES: u64 = 1100;
const RECORD_BYTES: u64 = 244;
const HEADER_BYTES: u64 = FILE_HEADER_BYTES as u64;
const BOOT: [u8; 16] = [2; 16];

/// A journal with nine records in three segments, which begin with 1, 5 and 9.
fn journal() -> (TestDirectory, PathBuf) {
    let test = TestDirectory::new();
    let path = test.journal();
    drop(Opened::open(Config::new(path.clone(), SyncMode::Os)).unwrap());
    let origin = FileOrigin { journal_id: [1; 16], boot_id: BOOT, sync: SyncMode::Always };
    let storage = Arc::new(Directory::new(path.clone()));
    let mut writer = SegmentWriter::new(storage, origin, SEGMENT_BYTES, 0, None);
    for position in 1..=9 {
        let record = Record { position, mono_ms: 0, unix_ms: 7 * position, commands: &[9; 200] };
        writer.append(&record).unwrap();
    }
    (test, path)
}

fn add_snapshot(path: &Path, position: u64) -> String {
    let origin = FileOrigin { journal_id: [1; 16], boot_id: BOOT, sync: SyncMode::Always };
    let header = origin.header(FileKind::Snapshot, position, 0);
    let storage = Arc::new(Directory::new(path.to_owned()));
    let mut writer = SnapshotWriter::begin(storage, header).unwrap();
    for piece in [&b"one"[..], b"two", b"three"] {
        writer.append(piece).unwrap();
    }
    writer.finish().unwrap();
    super::super::files::snapshot_name(position)
}

fn flip(path: &Path, name: &str, offset: u64) {
    let path = path.join(name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[offset as usize] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Number of pieces, and positions of the records.
fn recover(path: &Path) -> (Recovered, usize, Vec<u64>) {
    let opened = Opened::open(Config::new(path.to_owned(), SyncMode::Always)).unwrap();
    let (mut pieces, mut positions) = (0, Vec::new());
    let recovered = opened.recover(&mut |item| {
        match item {
            Item::Piece(_) => pieces += 1,
            Item::Record(record) => positions.push(record.position),
        }
        Ok(())
    });
    (recovered.unwrap(), pieces, positions)
}

/// Repairs a journal. Checks that all bytes of the files were saved, that the journal then begins
/// a new epoch, and that new records follow the old ones.
fn check_repair(path: &Path, pieces: usize, positions: &[u64]) {
    let before: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path)))
        .collect();
    let cuts = repair(path, false).unwrap();
    assert!(!cuts.is_empty());
    for cut in &cuts {
        let (_, bytes) = before.iter().find(|(name, _)| *name == cut.name).unwrap();
        assert!(fs::read(path.join(&cut.saved_as)).unwrap() == *bytes.as_ref().unwrap());
    }
    assert_eq!(repair(path, false).unwrap(), [], "a second repair finds nothing");
    let (recovered, found_pieces, found) = recover(path);
    assert_eq!((found_pieces, &found[..]), (pieces, positions));
    assert!(recovered.needs_new_epoch);
    let next = recovered.position + 1;
    let poll = Poll::new().unwrap();
    let waker = Waker::new(poll.registry(), Token(0)).unwrap();
    let mut journal = recovered.start(waker.into()).unwrap();
    journal.append(0, 0, b"commands");
    let (_, outcome) = journal.close();
    assert!(matches!(outcome, Some(Outcome::Durable { position, .. }) if position == next));
    let (recovered, _, _) = recover(path);
    assert!(!recovered.needs_new_epoch && recovered.position == next);
    let summary = inspect(path, &mut |_| {}).unwrap();
    assert_eq!(summary.saved.len(), cuts.len());
}

#[test]
fn a_journal_without_damage_stays_as_it_is() {
    let (_test, path) = journal();
    let name = segment_name(9);
    let torn = HEADER_BYTES + RECORD_BYTES - 5;
    File::options().write(true).open(path.join(&name)).unwrap().set_len(torn).unwrap();
    assert_eq!(repair(&path, false).unwrap(), []);
    assert_eq!(fs::metadata(path.join(&name)).unwrap().len(), torn);
}

#[test]
fn every_segment_can_be_cut_at_every_record() {
    for first in [1, 5] {
        for index in 0..4 {
            let (_test, path) = journal();
            flip(&path, &segment_name(first), HEADER_BYTES + index * RECORD_BYTES + 60);
            let kept: Vec<_> = (1..first + index).collect();
            check_repair(&path, 0, &kept);
        }
    }
}

#[test]
fn a_damaged_header_or_a_missing_segment_cuts_before_it() {
    let (_test, path) = journal();
    flip(&path, &segment_name(5), 20);
    check_repair(&path, 0, &[1, 2, 3, 4]);
    let (_test, path) = journal();
    fs::remove_file(path.join(segment_name(5))).unwrap();
    check_repair(&path, 0, &[1, 2, 3, 4]);
    let (_test, path) = journal();
    fs::remove_file(path.join(segment_name(1))).unwrap();
    check_repair(&path, 0, &[]);
}

#[test]
fn a_damaged_snapshot_and_the_records_after_it_are_saved_and_not_used() {
    let piece = |index: u64| HEADER_BYTES + 44 * index + 3 * index;
    for offset in [3, piece(0) + 20, piece(1) + 20, piece(2) + 20] {
        let (_test, path) = journal();
        let name = add_snapshot(&path, 6);
        fs::remove_file(path.join(segment_name(1))).unwrap();
        flip(&path, &name, offset);
        check_repair(&path, 0, &[]);
    }
}

#[test]
fn a_snapshot_without_segments_gets_one() {
    let (_test, path) = journal();
    add_snapshot(&path, 9);
    for first in [1, 5, 9] {
        fs::remove_file(path.join(segment_name(first))).unwrap();
    }
    assert_eq!(repair(&path, false).unwrap(), []);
    let (recovered, pieces, positions) = recover(&path);
    assert!(recovered.needs_new_epoch && recovered.position == 9);
    assert!(pieces == 3 && positions.is_empty());
}

#[test]
fn a_journal_in_use_is_described_and_not_repaired() {
    let (_test, path) = journal();
    let opened = Opened::open(Config::new(path.clone(), SyncMode::Always)).unwrap();
    let summary = inspect(&path, &mut |_| {}).unwrap();
    assert!(summary.is_in_use && summary.recovery.is_none() && summary.files.len() == 3);
    assert!(repair(&path, false).unwrap_err().0.contains("in use"));
    drop(opened);
    assert!(repair(&path, false).is_ok());
}

#[test]
fn a_description_has_the_records_and_the_end_of_each_file() {
    let (_test, path) = journal();
    add_snapshot(&path, 3);
    flip(&path, &segment_name(5), HEADER_BYTES + RECORD_BYTES + 60);
    let torn = HEADER_BYTES + 100;
    let newest = File::options().write(true).open(path.join(segment_name(9))).unwrap();
    newest.set_len(torn).unwrap();
    let mut positions = Vec::new();
    let summary = inspect(&path, &mut |record| positions.push(record.position)).unwrap();
    assert_eq!(positions, [1, 2, 3, 4, 5]);
    let files: Vec<_> =
        summary.files.iter().map(|it| (it.position, it.count, it.last_unix_ms)).collect();
    assert_eq!(files, [(3, 3, None), (1, 4, Some(28)), (5, 1, Some(35)), (9, 0, None)]);
    let offset = HEADER_BYTES + RECORD_BYTES;
    let states: Vec<_> = summary.files.iter().map(|file| &file.state).collect();
    assert!(matches!(states[..2], [FileState::Good, FileState::Good]), "{states:?}");
    assert!(matches!(states[2], FileState::Damaged { offset: at, .. } if *at == offset));
    assert_eq!(*states[3], FileState::Torn { offset: HEADER_BYTES, bytes: 100 });
    let error = summary.recovery.unwrap().unwrap_err();
    assert!(error.0.contains("--repair"), "{error}");
}
