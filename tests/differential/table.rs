//! The cases: tables in Markdown, for people and for the test. The `README.md` of the folder
//! explains the notation.

use std::fs;
use std::path::{Path, PathBuf};

/// Placeholder in a case's bytes for a second request, which writes to the case's own channel. 57
/// bytes, or 39 hexadecimal.
const SMUGGLED: &str = r"GET /write?channel={c}&message=x HTTP/1.1\r\nHost: a\r\n\r\n";

/// One row of a table.
pub struct Case {
    pub name: String,
    /// The bytes of the row in their notation, and with the section's template around them.
    cell: String,
    notation: String,
    /// Recorded verdicts of nginx and Speak. Empty if not recorded yet.
    pub nginx: String,
    pub speak: String,
    /// Reason of a difference. Empty if there is none.
    pub why: String,
}

/// One file of tables.
pub struct Table {
    path: PathBuf,
    /// Each line as it was read, and the case of a row.
    lines: Vec<(String, Option<Case>)>,
}

/// Returns all tables, in the order of their names.
pub fn read_tables() -> Vec<Table> {
    let files = fs::read_dir(folder()).expect("the folder of the tables");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| {
        path.extension().is_some_and(|it| it == "md") && !path.ends_with("README.md")
    });
    paths.sort();
    paths.into_iter().map(Table::read).collect()
}

/// Returns the folder of the tables.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential")
}

impl Table {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).expect("a table");
        let mut template = String::new();
        let mut was_template = false;
        let lines = text.lines().map(|line| {
            let of_template = line.strip_prefix("    ");
            match of_template {
                Some(piece) if was_template => template.push_str(piece),
                Some(piece) => piece.clone_into(&mut template),
                None => {}
            }
            was_template = of_template.is_some();
            (line.to_owned(), row(line, &template))
        });
        let lines = lines.collect();
        Self { path, lines }
    }

    pub fn cases(&self) -> impl Iterator<Item = &Case> {
        self.lines.iter().filter_map(|(_, case)| case.as_ref())
    }

    pub fn cases_mut(&mut self) -> impl Iterator<Item = &mut Case> {
        self.lines.iter_mut().filter_map(|(_, case)| case.as_mut())
    }

    /// Writes the file again, with the current verdicts of its cases.
    pub fn write(&self) {
        let line = |(line, case): &(String, Option<Case>)| {
            let Some(Case { name, cell, nginx, speak, why, .. }) = case else {
                return line.clone();
            };
            let row = format!("| {name} | {cell} | {nginx} | {speak} | {why}");
            format!("{} |", row.trim_end())
        };
        let lines: Vec<_> = self.lines.iter().map(line).collect();
        fs::write(&self.path, lines.join("\n") + "\n").expect("writing a table");
    }
}

/// Parses a row: name, bytes, nginx, Speak, why. The head of a table has no bytes.
fn row(line: &str, template: &str) -> Option<Case> {
    let cells: Vec<_> =
        line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let [name, cell, nginx, speak, why] = cells[..] else { panic!("a row has five cells: {line}") };
    let bytes = cell.strip_prefix('`')?.strip_suffix('`').expect("a closing backtick");
    let notation = template.replace("{}", bytes);
    let [name, cell, nginx, speak, why] = [name, cell, nginx, speak, why].map(str::to_owned);
    Some(Case { name, cell, notation, nginx, speak, why })
}

impl Case {
    /// Returns the bytes of the case. `channel` (six letters) is the channel to write to.
    pub fn bytes(&self, channel: &str) -> Vec<u8> {
        assert_eq!(channel.len(), 6, "lengths in the tables count on it");
        let without_length = expand(&self.notation, channel, 0);
        let head = memchr::memmem::find(&without_length, b"\r\n\r\n");
        let body_bytes = head.map_or(0, |head| without_length.len() - head - 4);
        expand(&self.notation, channel, body_bytes)
    }
}

/// Converts the notation to bytes.
fn expand(notation: &str, channel: &str, body_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = notation;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\\' => {
                let (byte, length) = escape(rest);
                bytes.push(byte);
                rest = &rest[length..];
            }
            '{' => {
                let (inner, after) = rest.split_once('}').expect("a closing brace");
                bytes.extend(insert(inner, channel, body_bytes));
                rest = after;
            }
            _ => bytes.extend_from_slice(first.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// Returns the byte after a backslash, and how many characters spell it.
fn escape(text: &str) -> (u8, usize) {
    let byte = match text.as_bytes().first().expect("something after a backslash") {
        b'r' => b'\r',
        b'n' => b'\n',
        b't' => b'\t',
        b's' => b' ',
        b'0' => 0,
        b'\\' => b'\\',
        b'x' => return (u8::from_str_radix(&text[1..3], 16).expect("two hexadecimal digits"), 3),
        other => panic!("no escape: {}", char::from(*other)),
    };
    (byte, 1)
}

/// Returns the text for an expression in braces.
fn insert(inner: &str, channel: &str, body_bytes: usize) -> Vec<u8> {
    if let Some((count, text)) = inner.split_once('*') {
        return expand(text, channel, body_bytes).repeat(count.parse().expect("how often"));
    }
    if let Some(more) = inner.strip_prefix("length") {
        let more: isize =
            if more.is_empty() { 0 } else { more.parse().expect("a sign and a number") };
        // Not below 0 while the length is not known yet.
        return body_bytes.saturating_add_signed(more).to_string().into_bytes();
    }
    match inner {
        "c" => channel.as_bytes().to_vec(),
        "smuggled" => expand(SMUGGLED, channel, body_bytes),
        other => panic!("nothing is called {other}"),
    }
}
