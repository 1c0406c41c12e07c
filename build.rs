//! Prepares the web files that the binary contains: compressed once here, not for every request.
//!
//! Scripts are minified already: `make client` bundles the sources in the subfolders.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

const FOLDER: &str = "src/web";

fn main() {
    println!("cargo::rerun-if-changed={FOLDER}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    for entry in fs::read_dir(FOLDER).expect("the folder is part of the source") {
        let path = entry.expect("the folder can be listed").path();
        if path.extension().is_some_and(|extension| extension != "rs") {
            prepare(&path, &out);
        }
    }
}

/// Writes the file, compressed as a gzip file without optional fields (`NAME.gz`), and its tag
/// (`NAME.tag`), which identifies the content.
fn prepare(path: &Path, out: &Path) {
    let name = path.file_name().expect("a listed file has a name").to_str().expect("ASCII names");
    let bytes = fs::read(path).expect("a file of the source");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&bytes).expect("a Vec takes everything");
    let compressed = encoder.finish().expect("a Vec takes everything");
    let digest = Sha256::digest(&bytes);
    let tag = u64::from_be_bytes(digest[..8].try_into().expect("eight bytes"));
    let write = |name: String, bytes: &[u8]| {
        fs::write(out.join(name), bytes).expect("OUT_DIR is writable");
    };
    write(format!("{name}.gz"), &compressed);
    write(format!("{name}.tag"), format!("{tag:016x}").as_bytes());
}
