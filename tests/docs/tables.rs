//! Tables generated from the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::sync::{Mutex, PoisonError};

use speak::options::{Arity, SPECS, Spec};

use super::markdown::{page, path};

/// Two tests may renew the same page.
static PAGES: Mutex<()> = Mutex::new(());

/// Asserts that `fresh` is in a page between the marks of this name. Writes it there if
/// `SPEAK_DOCS=renew`.
#[track_caller]
pub fn is_current(name: &str, mark: &str, fresh: &str) {
    let _one = PAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let text = page(name);
    let (begin, end) =
        (format!("<!-- {mark}: from the code -->\n"), format!("<!-- {mark}: end -->\n"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{name} has no {begin}"));
    let (found, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{name} has no {end}"));
    if std::env::var("SPEAK_DOCS").is_ok_and(|what| what == "renew") {
        fs::write(path(name), [before, &begin, fresh, &end, after].concat())
            .expect("a page that can be written");
        return;
    }
    assert_eq!(
        found, fresh,
        "{mark} in {name}: `SPEAK_DOCS=renew cargo test --test docs` writes them again"
    );
}

/// Returns all options as a table.
pub fn options() -> String {
    let mut table = String::from(
        "| option | default | what it sets | in the environment |\n| --- | --- | --- | --- |\n",
    );
    for spec in SPECS {
        let Spec { name, help, default, .. } = spec;
        let (value, note) = match spec.takes {
            Arity::Nothing => (String::new(), ""),
            Arity::One(value) => (format!(" {value}"), ""),
            Arity::Several(value) => (format!(" {value}"), "; may be repeated"),
        };
        let default = if default.is_empty() { "none" } else { default };
        let variable = spec.variable();
        writeln!(table, "| `--{name}{value}` | {default} | {help}{note} | `{variable}` |")
            .expect("a String takes it");
    }
    table
}

/// Returns the metrics of a page as a table.
pub fn metrics(exposition: &str) -> String {
    let mut table =
        String::from("| metric | kind | labels | what it tells |\n| --- | --- | --- | --- |\n");
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, rest) in exposition.lines().filter_map(|line| line.split_once('{')) {
        // No value of a label has a quote or a comma in it.
        let of_sample =
            rest.split(['{', ',']).filter_map(|pair| pair.split_once('=')).map(|(label, _)| label);
        labels.entry(name).or_default().extend(of_sample);
    }
    let mut helps =
        exposition.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '));
    let kinds = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    for (name, kind) in kinds {
        let (helped, help) = helps.next().expect("a HELP for each TYPE");
        assert_eq!(helped, name);
        let labels = labels.get(name).into_iter().flatten().map(|label| format!("`{label}`"));
        let labels = labels.collect::<Vec<_>>().join(", ");
        writeln!(table, "| `{name}` | {kind} | {labels} | {help} |").expect("a String takes it");
    }
    table
}

/// Returns name and status of every error, from the table in the sources.
pub fn errors() -> BTreeSet<(String, u16)> {
    let source = page("src/api/error.rs");
    let (_, table) = source.split_once("pub fn name_and_status(self)").expect("the table");
    let (table, _) = table.split_once("\n    }\n").expect("its end");
    let rows = table.lines().filter_map(|line| line.split_once("=> (")).map(|(_, row)| {
        let (name, status) =
            row.trim_end_matches("),").split_once(", ").expect("a name and a status");
        (name.trim_matches('"').to_owned(), status.parse().expect("a status"))
    });
    let rows: BTreeSet<_> = rows.collect();
    assert!(rows.len() > 15, "the table looks otherwise: {rows:?}");
    rows
}
