//! The parts of Markdown that the tests need, as these pages use it: fenced blocks, inline code,
//! links, headings.

use std::fs;
use std::path::{Path, PathBuf};

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// Text after the opening fence.
    pub language: String,
    pub text: String,
    /// Page and line of the block, for failure messages.
    pub at: String,
}

/// Returns the path of a file of the repository.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn page(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Splits a page at its fences: every other part is a block, after its opening fence.
fn parts(name: &str) -> Vec<String> {
    let parts: Vec<String> = page(name).split("\n```").map(str::to_owned).collect();
    assert!(parts.len() % 2 == 1, "{name} ends in a block");
    parts
}

/// Returns the fenced blocks of a page, in order.
pub fn blocks(name: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut number = 1;
    for (place, part) in parts(name).iter().enumerate() {
        if place % 2 == 1 {
            let (language, text) = part.split_once('\n').expect("lines of a block");
            let at = format!("{name}:{number}");
            blocks.push(Block { language: language.to_owned(), text: format!("{text}\n"), at });
        }
        number += part.matches('\n').count() + 1;
    }
    blocks
}

/// Returns a page without its fenced blocks.
pub fn prose(name: &str) -> String {
    parts(name).into_iter().step_by(2).collect::<Vec<_>>().join("\n")
}

/// Returns the inline code of a page, on one line or across two.
pub fn code(prose: &str) -> Vec<String> {
    let mut found = Vec::new();
    for paragraph in prose.split("\n\n") {
        found.extend(paragraph.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " ")));
    }
    found
}

/// Returns the targets of a page's links, without those into the web.
pub fn links(name: &str) -> Vec<String> {
    let prose = prose(name);
    let targets =
        prose.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// Returns the anchors of a page's headings, as forges make them.
pub fn anchors(name: &str) -> Vec<String> {
    let prose = prose(name);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings.map(|heading| anchor(heading.trim_start_matches('#').trim())).collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter.to_ascii_lowercase() }).collect()
}
