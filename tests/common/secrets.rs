//! Secrets of the tests, which no log may contain.
//!
//! `make test` names a folder in `SPEAK_TEST_LOGS`. Each server of the tests logs there at `debug`,
//! and the tests write their secrets next to it; `tests/secrets.py` compares them at the end.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use serde_json::Value;

/// Characters of a secret that are enough to find it.
const CHARS_KEPT: usize = 80;

/// Names under which responses and frames contain secrets.
const SECRET_KEYS: [&str; 5] = ["channel", "message", "auth", "read", "write"];

struct Kept {
    file: File,
    known: HashSet<String>,
}

/// Returns the folder of the logs, if they are to be searched.
pub fn folder() -> Option<PathBuf> {
    std::env::var_os("SPEAK_TEST_LOGS").filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Opens a file there to append to.
pub fn open(name: &str) -> Option<File> {
    let path = folder()?.join(name);
    Some(OpenOptions::new().create(true).append(true).open(path).expect("a file for logs"))
}

/// Keeps the secrets of a request: its query, its body, and the values in them.
pub fn keep_request(bytes: &[u8]) {
    if folder().is_none() {
        return;
    }
    let text = String::from_utf8_lossy(bytes);
    for request in text.split(" HTTP/1.") {
        if let Some((_, query)) = request.rsplit_once('?') {
            keep_form(query);
        }
    }
    if let Some((_, body)) = text.split_once("\r\n\r\n") {
        keep_form(body);
    }
}

/// Keeps the secrets of a response or a frame.
pub fn keep_json(bytes: &[u8]) {
    if folder().is_none() {
        return;
    }
    if let Ok(value) = serde_json::from_slice(bytes) {
        keep_value(&value, false);
    }
}

fn keep_value(value: &Value, is_secret: bool) {
    match value {
        Value::String(text) if is_secret => keep(text),
        Value::Array(values) => values.iter().for_each(|value| keep_value(value, is_secret)),
        Value::Object(fields) => {
            fields
                .iter()
                .for_each(|(key, value)| keep_value(value, SECRET_KEYS.contains(&key.as_str())));
        }
        _ => {}
    }
}

fn keep_form(form: &str) {
    let form = form.lines().next().unwrap_or_default();
    keep(form);
    for pair in form.split('&') {
        let value = pair.split_once('=').map_or(pair, |(_, value)| value);
        keep(value);
        keep(&decoded(value));
    }
}

/// Decodes a value, as far as a test needs it: all that is not percent-encoded stays.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.as_bytes();
    while let [first, others @ ..] = rest {
        let byte = others
            .get(..2)
            .and_then(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        if let (b'%', Some(byte)) = (first, byte) {
            bytes.push(byte);
            rest = &others[2..];
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
            rest = others;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn keep(secret: &str) {
    static KEPT: OnceLock<Option<Mutex<Kept>>> = OnceLock::new();
    let open = || {
        let file = open(&format!("{}.secrets", std::process::id()))?;
        Some(Mutex::new(Kept { file, known: HashSet::new() }))
    };
    let Some(kept) = KEPT.get_or_init(open) else { return };
    let secret: String = secret.chars().take(CHARS_KEPT).collect();
    let mut kept = kept.lock().expect("no panic while keeping");
    if !secret.is_empty() && kept.known.insert(secret.clone()) {
        // As JSON, so that each takes one line.
        writeln!(kept.file, "{}", Value::from(secret)).expect("room for what is kept");
    }
}
