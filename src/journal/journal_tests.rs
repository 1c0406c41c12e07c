//! Tests of the journal with its thread, as a loop drives it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};

use super::super::recovery::{Config, Item, Opened, Recovered};
use super::super::storage::tests::TestDirectory;
use super::*;

const SEGMENT_BYTES: u64 = 8 << 10;
const SNAPSHOT_MIN_BYTES: u64 = 16 << 20;
const TOKEN: Token = Token(7);

/// A journal and the poll that its thread wakes.
struct Loop {
    poll: Poll,
    journal: Journal,
}

fn config(path: &Path, sync: SyncMode) -> Config {
    Config { segment_bytes: SEGMENT_BYTES, ..Config::new(path.to_owned(), sync) }
}

/// What a journal holds: pieces, and records with their positions.
type Contents = (Vec<Vec<u8>>, Vec<(u64, Vec<u8>)>);

fn recover(opened: Opened) -> (Recovered, Contents) {
    let mut contents = Contents::default();
    let recovered = opened.recover(&mut |item| {
        match item {
            Item::Piece(piece) => contents.0.push(piece.to_vec()),
            Item::Record(it) => contents.1.push((it.position, it.commands.to_vec())),
        }
        Ok(())
    });
    (recovered.unwrap(), contents)
}

impl Loop {
    fn open(path: &Path, sync: SyncMode) -> (Self, Contents) {
        let (recovered, contents) = recover(Opened::open(config(path, sync)).unwrap());
        (Self::start(recovered), contents)
    }

    fn start(recovered: Recovered) -> Self {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), TOKEN).unwrap();
        Self { journal: recovered.start(waker.into()).unwrap(), poll }
    }

    /// Waits until `condition` gives a value, and looks at it after each event.
    fn wait<T>(&mut self, mut condition: impl FnMut(&mut Journal) -> Option<T>) -> T {
        let mut events = Events::with_capacity(8);
        loop {
            if let Some(value) = condition(&mut self.journal) {
                return value;
            }
            self.poll.poll(&mut events, Some(Duration::from_mins(1))).unwrap();
            assert!(events.iter().any(|event| event.token() == TOKEN), "no event in a minute");
        }
    }

    fn append(&mut self, commands: &[u8]) -> Outcome {
        assert!(self.journal.is_ready());
        self.journal.append(1, 2, commands);
        assert!(!self.journal.is_ready());
        let outcome = self.wait(Journal::take_outcome);
        assert!(self.journal.is_ready() && self.journal.take_outcome().is_none());
        outcome
    }

    fn wait_for_snapshot(&mut self) {
        self.wait(|journal| {
            assert!(journal.take_outcome().is_none());
            (journal.wants_piece() || !journal.has_snapshot()).then_some(())
        });
    }

    fn snapshot(&mut self, position: u64, pieces: &[&[u8]]) {
        self.journal.begin_snapshot(position);
        for piece in pieces {
            self.wait_for_snapshot();
            self.journal.append_piece(piece);
        }
        self.wait_for_snapshot();
        self.journal.finish_snapshot();
        self.wait_for_snapshot();
        assert!(!self.journal.has_snapshot());
    }
}

fn record(position: u64) -> (u64, Vec<u8>) {
    (position, vec![position as u8; 1000])
}

/// Returns the position of a record that is in the log.
fn position_of(outcome: Option<Outcome>) -> Option<u64> {
    match outcome {
        Some(Outcome::Durable { position, .. }) => Some(position),
        _ => None,
    }
}

fn append_records(journal: &mut Loop, positions: std::ops::RangeInclusive<u64>) {
    for position in positions {
        let outcome = journal.append(&record(position).1);
        assert_eq!(position_of(Some(outcome)), Some(position));
    }
}

fn files(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn new_journal(sync: SyncMode) -> (TestDirectory, PathBuf, Loop) {
    let test = TestDirectory::new();
    let path = test.journal();
    let (journal, contents) = Loop::open(&path, sync);
    assert_eq!(contents, Contents::default());
    (test, path, journal)
}

#[test]
fn records_come_back_in_order_and_a_second_recovery_equals_the_first() {
    for sync in [SyncMode::Always, SyncMode::Os] {
        let (_test, path, mut journal) = new_journal(sync);
        append_records(&mut journal, 1..=30);
        assert!(journal.journal.stats().segments > 3);
        drop(journal);
        let expected: Vec<_> = (1..=30).map(record).collect();
        for _ in 0..2 {
            let (journal, (pieces, records)) = Loop::open(&path, sync);
            assert!(pieces.is_empty() && records == expected);
            assert_eq!(journal.journal.stats().position, 30);
        }
        let (mut journal, _) = Loop::open(&path, sync);
        append_records(&mut journal, 31..=32);
        drop(journal);
        assert_eq!(Loop::open(&path, sync).1.1.len(), 32);
    }
}

#[test]
fn many_starts_without_a_record_leave_one_segment() {
    let (_test, path, journal) = new_journal(SyncMode::Always);
    drop(journal);
    for _ in 0..3 {
        drop(Loop::open(&path, SyncMode::Always));
    }
    assert_eq!(files(&path), ["lock", "segment-00000000000000000001"]);
}

#[test]
fn a_snapshot_replaces_the_records_before_it() {
    for sync in [SyncMode::Always, SyncMode::Os] {
        let (_test, path, mut journal) = new_journal(sync);
        append_records(&mut journal, 1..=40);
        let before = files(&path).len();
        let log_bytes = journal.journal.stats().log_bytes;
        journal.snapshot(40, &[b"one", b"two"]);
        append_records(&mut journal, 41..=45);
        assert!(files(&path).len() < before);
        assert!(journal.journal.stats().log_bytes < log_bytes);
        drop(journal);
        let (mut journal, (pieces, records)) = Loop::open(&path, sync);
        assert_eq!(pieces, [b"one", b"two"]);
        assert_eq!(records, (41..=45).map(record).collect::<Vec<_>>());
        journal.snapshot(45, &[b"three"]);
        drop(journal);
        let (_, contents) = Loop::open(&path, sync);
        assert_eq!(contents, (vec![b"three".to_vec()], vec![]));
        assert_eq!(files(&path).iter().filter(|name| name.starts_with("snapshot")).count(), 1);
    }
}

#[test]
fn records_are_appended_while_a_snapshot_is_written() {
    let (_test, path, mut journal) = new_journal(SyncMode::Always);
    append_records(&mut journal, 1..=9);
    journal.journal.begin_snapshot(9);
    append_records(&mut journal, 10..=18);
    journal.wait_for_snapshot();
    journal.journal.append_piece(b"piece");
    append_records(&mut journal, 19..=27);
    journal.wait_for_snapshot();
    journal.journal.finish_snapshot();
    append_records(&mut journal, 28..=30);
    journal.wait_for_snapshot();
    drop(journal);
    let (_, (pieces, records)) = Loop::open(&path, SyncMode::Always);
    assert_eq!(pieces, [b"piece"]);
    assert_eq!(records, (10..=30).map(record).collect::<Vec<_>>());
}

#[test]
fn a_snapshot_that_is_given_up_leaves_nothing() {
    let (_test, path, mut journal) = new_journal(SyncMode::Os);
    append_records(&mut journal, 1..=9);
    for _ in 0..3 {
        journal.journal.begin_snapshot(9);
        journal.journal.abandon_snapshot();
        assert!(!journal.journal.has_snapshot() && !journal.journal.wants_piece());
    }
    journal.snapshot(9, &[b"piece"]);
    journal.journal.begin_snapshot(9);
    journal.wait_for_snapshot();
    journal.journal.append_piece(b"of another one");
    drop(journal);
    let (_journal, (pieces, _)) = Loop::open(&path, SyncMode::Os);
    assert_eq!(pieces, [b"piece"]);
    assert!(!files(&path).concat().contains(".new"), "{:?}", files(&path));
}

#[test]
fn a_second_process_gets_a_clear_error() {
    let (_test, path, _journal) = new_journal(SyncMode::Always);
    let error = Opened::open(config(&path, SyncMode::Always)).err().expect("it is locked");
    assert!(error.0.contains("in use by another process"), "{error}");
}

#[test]
fn the_process_that_gets_the_lock_continues_the_journal() {
    let (_test, path, mut journal) = new_journal(SyncMode::Always);
    append_records(&mut journal, 1..=9);
    journal.journal.append(1, 2, &record(10).1);
    let (lock, outcome) = journal.journal.close();
    assert_eq!(position_of(outcome), Some(10));
    assert!(Opened::open(config(&path, SyncMode::Always)).is_err(), "the lock is still held");
    let lock = lock.expect("a directory has a lock");
    let opened = Opened::open_with_lock(config(&path, SyncMode::Always), lock).unwrap();
    let mut journal = Loop::start(opened.resume(10).unwrap());
    append_records(&mut journal, 11..=20);
    let (lock, _) = journal.journal.close();
    let lock = lock.expect("a directory has a lock");
    let opened = Opened::open_with_lock(config(&path, SyncMode::Always), lock).unwrap();
    assert!(opened.resume(19).is_err(), "it ends at 20");
    let (_, (_, records)) = Loop::open(&path, SyncMode::Always);
    assert_eq!(records, (1..=20).map(record).collect::<Vec<_>>());
}

#[test]
fn only_the_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let (_test, path, mut journal) = new_journal(SyncMode::Always);
    append_records(&mut journal, 1..=1);
    journal.snapshot(1, &[b"piece"]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for name in files(&path) {
        assert_eq!(mode(&path.join(&name)), 0o600, "{name}");
    }
    drop(journal);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o750)).unwrap();
    let error = Opened::open(config(&path, SyncMode::Always)).err().expect("others have access");
    assert!(error.0.contains("chmod 700"), "{error}");
    for name in files(&path) {
        std::fs::remove_file(path.join(name)).unwrap();
    }
    Opened::open(config(&path, SyncMode::Always)).expect("nothing is in it");
    assert_eq!(mode(&path), 0o700, "others lose their access");
}

#[test]
fn a_stopped_journal_has_the_bytes_of_its_records_alone() {
    for sync in [SyncMode::Always, SyncMode::Os] {
        let (_test, path, mut journal) = new_journal(sync);
        let length = || std::fs::metadata(path.join(segment_name(1))).unwrap().len();
        append_records(&mut journal, 1..=2);
        assert_eq!(length(), SEGMENT_BYTES, "the space of the next ones");
        let _ = journal.journal.close();
        assert!(length() < SEGMENT_BYTES, "{} bytes", length());
        let (_, (_, records)) = Loop::open(&path, sync);
        assert_eq!(records, (1..=2).map(record).collect::<Vec<_>>());
    }
}

#[test]
fn a_snapshot_is_due_when_the_log_is_large_and_twice_the_last_one() {
    let (_test, _path, mut journal) = new_journal(SyncMode::Os);
    let state = &mut journal.journal.state;
    state.log_bytes = SNAPSHOT_MIN_BYTES;
    assert!(!journal.journal.is_snapshot_due());
    journal.journal.state.log_bytes += 1;
    assert!(journal.journal.is_snapshot_due());
    journal.journal.state.snapshot = Some((1, SNAPSHOT_MIN_BYTES));
    assert!(!journal.journal.is_snapshot_due());
    journal.journal.state.log_bytes = 2 * SNAPSHOT_MIN_BYTES + 1;
    assert!(journal.journal.is_snapshot_due());
    journal.journal.give_up_snapshot(std::io::Error::other("a test").into());
    assert!(!journal.journal.is_snapshot_due());
    journal.journal.state.log_bytes += SNAPSHOT_MIN_BYTES / SNAPSHOT_RETRY_PART;
    assert!(journal.journal.is_snapshot_due());
}
