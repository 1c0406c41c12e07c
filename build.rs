//! Prepares the web files that the binary contains: compressed once here, not for every request.

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

/// Writes the file as it is served, the same compressed (`NAME.gz`), and its tag (`NAME.tag`),
/// which identifies the content.
fn prepare(path: &Path, out: &Path) {
    let name = path.file_name().expect("a listed file has a name").to_str().expect("ASCII names");
    let text = fs::read_to_string(path).expect("a file of the source");
    let is_script = path.extension().is_some_and(|extension| extension == "js");
    let text = if is_script { compact(&text) } else { text };
    let bytes = text.as_bytes();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("a Vec takes everything");
    let compressed = encoder.finish().expect("a Vec takes everything");
    let digest = Sha256::digest(bytes);
    let tag = u64::from_be_bytes(digest[..8].try_into().expect("eight bytes"));
    let write = |name: String, bytes: &[u8]| {
        fs::write(out.join(name), bytes).expect("OUT_DIR is writable");
    };
    write(name.to_owned(), bytes);
    write(format!("{name}.gz"), &compressed);
    write(format!("{name}.tag"), format!("{tag:016x}").as_bytes());
}

/// Removes comments and blank space from a script: a browser does not need them.
///
/// Understands only the JavaScript of our own scripts: a comment has a line to itself, or ends a
/// line.
fn compact(script: &str) -> String {
    let is_comment =
        |line: &str| line.starts_with("//") || (line.starts_with("/*") && line.ends_with("*/"));
    let mut compacted = String::new();
    let mut in_template = false; // of several lines
    for line in script.lines().map(str::trim).filter(|line| !is_comment(line)) {
        let line = line.split_once(" // ").map_or(line, |(code, _)| code);
        let was_in_template = in_template;
        in_template ^= line.matches('`').count() % 2 == 1;
        if was_in_template || in_template {
            compacted += line;
        } else {
            compacted += &squeeze(line);
        }
        // After these characters, a line break has no meaning.
        if in_template || !(line.is_empty() || line.ends_with([';', '{', ',', '('])) {
            compacted.push('\n');
        }
    }
    compacted
}

/// Removes spaces next to punctuation, but not in a string.
///
/// Leaves a line alone if it may contain a template, a regular expression, an escaped character or
/// a string in single quotes.
fn squeeze(line: &str) -> String {
    if line.contains(['`', '/', '\\', '\'']) {
        return line.to_owned();
    }
    let is_mark = |character| "=<>?:;,(){}[]&|!*".contains(character);
    let mut squeezed = String::new();
    let mut in_string = false;
    let mut previous = ' ';
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        in_string ^= character == '"';
        let is_needless = character == ' '
            && !in_string
            && (is_mark(previous) || characters.peek().is_some_and(|next| is_mark(*next)));
        if !is_needless {
            squeezed.push(character);
        }
        previous = character;
    }
    squeezed
}
