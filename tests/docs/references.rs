//! References to files, in comments and in Markdown: pages, Rust sources and scripts with a folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::markdown::path;

/// Places whose text is searched.
const PLACES: [&str; 14] = [
    "src",
    "tests",
    "bench",
    "dist",
    "docs",
    ".ci",
    "Makefile",
    "Cargo.toml",
    "build.rs",
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
];

/// Folders without text of the project.
const SKIPPED: [&str; 7] =
    ["target", "node_modules", "results", "corpus", "regressions", "found", "artifacts"];

const COMMENT_MARKS: [&str; 4] = ["//", "# ", "* ", "-- "];

/// Returns `FILE:LINE: NAME` for each reference to a file that does not exist.
pub fn dead() -> Vec<String> {
    let mut files = Vec::new();
    for place in PLACES {
        collect(&path(place), &mut files);
    }
    let root = path("");
    let mut dead = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let name = file.strip_prefix(&root).expect("a file of the repository");
        let is_page = name.extension().is_some_and(|it| it == "md");
        for (number, line) in text.lines().enumerate() {
            let Some(prose) = (if is_page { Some(line) } else { comment(line) }) else { continue };
            let missing = references(prose).filter(|reference| !exists(name, reference));
            dead.extend(missing.map(|it| format!("{}:{}: {it}", name.display(), number + 1)));
        }
    }
    dead
}

fn collect(place: &Path, files: &mut Vec<PathBuf>) {
    let name = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !place.is_dir() {
        files.push(place.to_owned());
    } else if !SKIPPED.contains(&name) {
        for entry in fs::read_dir(place).expect("a folder that can be read") {
            collect(&entry.expect("an entry of a folder").path(), files);
        }
    }
}

/// Returns the comment of a line of code: from its first mark on.
fn comment(line: &str) -> Option<&str> {
    COMMENT_MARKS.iter().filter_map(|mark| line.find(mark)).min().map(|start| &line[start..])
}

/// Returns the relative paths in a text that name a page, a source file or a script.
fn references(text: &str) -> impl Iterator<Item = &str> {
    let words =
        text.split(|letter: char| !letter.is_ascii_alphanumeric() && !"_./-".contains(letter));
    words.map(|word| word.trim_end_matches('.').trim_start_matches("../")).filter(|word| {
        let extension = Path::new(word).extension().and_then(|it| it.to_str()).unwrap_or_default();
        let is_file =
            extension == "md" || (["rs", "sh"].contains(&extension) && word.contains('/'));
        is_file && !word.starts_with(['/', '.'])
    })
}

/// Returns whether a path exists, relative to `src` or to a folder above the file that names it.
fn exists(file: &Path, reference: &str) -> bool {
    let mut folders = file.ancestors().skip(1).chain([Path::new("src")]);
    folders.any(|folder| path("").join(folder).join(reference).exists())
}
