//! Tests of snapshots as files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::super::directory::Directory;
use super::super::storage::tests::TestDirectory;
use super::*;
use crate::log::SyncMode;

const POSITION: u64 = 9;

fn write(path: &Path, pieces: &[&[u8]]) -> String {
    let directory = Directory::new(path.to_owned());
    directory.prepare().unwrap();
    let header = FileHeader {
        kind: FileKind::Snapshot,
        journal_id: [1; 16],
        marker: [2; 8],
        position: POSITION,
        boot_id: [3; 16],
        sync: SyncMode::Always,
        epoch_due: 0,
    };
    let mut writer = SnapshotWriter::begin(Arc::new(directory), header).unwrap();
    for piece in pieces {
        writer.append(piece).unwrap();
    }
    let bytes = writer.finish().unwrap();
    let name = snapshot_name(POSITION);
    assert_eq!(fs::metadata(path.join(&name)).unwrap().len(), bytes);
    name
}

/// Pieces of a file, up to its damage. `Err` with the offset of the damage.
fn read(path: &Path, name: &str) -> (Vec<Vec<u8>>, Result<u64, u64>) {
    let mut pieces = Vec::new();
    let mut file = File::open(path.join(name)).unwrap();
    let result = read_snapshot(&mut file, name, &mut |piece| {
        pieces.push(piece.to_vec());
        Ok(())
    });
    match result {
        Ok(contents) => (pieces, Ok(contents.pieces)),
        Err(ReadError::Damaged(damage)) => (pieces, Err(damage.offset)),
        Err(ReadError::Io(_) | ReadError::Caller(_)) => panic!("the disk and the caller work"),
    }
}

#[test]
fn a_snapshot_is_read_as_it_was_written() {
    let test = TestDirectory::new();
    let large = vec![5; 300_000];
    let pieces: [&[u8]; 4] = [b"one", b"", &large, b"four"];
    let name = write(&test.journal(), &pieces);
    let (found, result) = read(&test.journal(), &name);
    assert_eq!(found, pieces);
    assert_eq!(result, Ok(4));
}

#[test]
fn every_flipped_bit_and_every_missing_byte_of_a_snapshot_is_damage() {
    let test = TestDirectory::new();
    let path = test.journal();
    let pieces: [&[u8]; 3] = [b"one", b"two", b"three"];
    let name = write(&path, &pieces);
    let bytes = fs::read(path.join(&name)).unwrap();
    let file = File::options().write(true).open(path.join(&name)).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        file.write_all_at(&damaged, 0).unwrap();
        let (found, result) = read(&path, &name);
        assert!(result.is_err_and(|offset| offset <= bit as u64 / 8), "bit {bit}: {result:?}");
        assert_eq!(found, pieces[..found.len()], "bit {bit}");
    }
    file.write_all_at(&bytes, 0).unwrap();
    for length in (0..bytes.len()).rev() {
        file.set_len(length as u64).unwrap();
        let (found, result) = read(&path, &name);
        assert!(result.is_err_and(|offset| offset <= length as u64), "{length}: {result:?}");
        assert_eq!(found, pieces[..found.len()], "{length}");
    }
}
