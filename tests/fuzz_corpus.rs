//! Kept inputs of the fuzzer, and inputs that once were faults, as plain tests.

#[path = "fuzz/src/lib.rs"]
mod fuzz;

use std::path::{Path, PathBuf};
use std::{fs, thread};

/// Names the input when it fails.
struct Replay<'a>(&'a Path);

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the input: {}", self.0.display());
        }
    }
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

#[test]
fn every_target_accepts_its_kept_inputs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    for (name, run) in fuzz::TARGETS {
        let corpus = files_in(&root.join("corpus").join(name));
        assert!(!corpus.is_empty(), "no corpus of {name}");
        for file in corpus.into_iter().chain(files_in(&root.join("regressions").join(name))) {
            let _replay = Replay(&file);
            run(&fs::read(&file).expect("the input"));
        }
        run(b"");
    }
}
