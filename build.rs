//! Prepares the files that the binary carries: packed once here, not at every request.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

const FOLDER: &str = "src/web";

fn main() {
    println!("cargo::rerun-if-changed={FOLDER}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where to"));
    for entry in fs::read_dir(FOLDER).expect("the folder is part of the source") {
        let path = entry.expect("a folder can be listed").path();
        if path.extension().is_some_and(|extension| extension != "rs") {
            prepare(&path, &out);
        }
    }
}

/// Writes the file as it is served, `NAME.gz`, the same packed, and `NAME.tag`, which names its content.
fn prepare(path: &Path, out: &Path) {
    let name =
        path.file_name().expect("it was listed by name").to_str().expect("our names are ASCII");
    let text = fs::read_to_string(path).expect("a file of the source");
    let text = if path.extension().is_some_and(|extension| extension == "js") {
        without_comments(&text)
    } else {
        text
    };
    let bytes = text.as_bytes();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("a Vec takes everything");
    let packed = encoder.finish().expect("a Vec takes everything");
    let digest = Sha256::digest(bytes);
    let tag = u64::from_be_bytes(digest[..8].try_into().expect("eight bytes"));
    fs::write(out.join(name), bytes).expect("cargo's folder can be written");
    fs::write(out.join(format!("{name}.gz")), packed).expect("cargo's folder can be written");
    fs::write(out.join(format!("{name}.tag")), format!("{tag:016x}"))
        .expect("cargo's folder can be written");
}

/// A script without comments and indentation: who reads the source wants them, a browser does not.
///
/// Knows no more of JavaScript than our own scripts need: a comment has its line, or its end, to itself.
fn without_comments(script: &str) -> String {
    let is_comment =
        |line: &str| line.starts_with("//") || (line.starts_with("/*") && line.ends_with("*/"));
    let lines = script.lines().map(str::trim).filter(|line| !is_comment(line));
    lines.flat_map(|line| [line.split_once(" // ").map_or(line, |(code, _)| code), "\n"]).collect()
}
