//! The documentation, checked against the server: tables equal those of the code, links have a
//! target, and every example is run with `curl` and `node`, as a reader would.
//!
//! `SPEAK_DOCS=renew cargo test --test docs` writes the tables again.

mod common;
#[path = "docs/examples.rs"]
mod examples;
#[path = "docs/markdown.rs"]
mod markdown;
#[path = "docs/references.rs"]
mod references;
#[path = "docs/tables.rs"]
mod tables;

use std::collections::BTreeSet;

use examples::Session;

const PAGES: [&str; 29] = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "bench/README.md",
    "docs/README.md",
    "docs/api.md",
    "docs/capacity.md",
    "docs/client.md",
    "docs/cluster.md",
    "docs/debian.md",
    "docs/doctor.md",
    "docs/element.md",
    "docs/examples/README.md",
    "docs/internals/build.md",
    "docs/internals/claims.md",
    "docs/internals/decisions.md",
    "docs/internals/glossary.md",
    "docs/internals/testing.md",
    "docs/load-tests.md",
    "docs/operating.md",
    "docs/proxies.md",
    "docs/recipes.md",
    "docs/service.md",
    "docs/tls.md",
    "docs/troubleshooting.md",
    "tests/differential/README.md",
    "tests/stress/README.md",
];

#[test]
fn the_table_of_options_is_that_of_the_code() {
    tables::is_current("docs/operating.md", "options", &tables::options());
}

#[test]
fn the_table_of_metrics_is_what_a_server_tells() {
    let page = Session::start().metrics_after_a_call();
    tables::is_current("docs/operating.md", "metrics", &tables::metrics(&page));
}

#[test]
fn every_error_is_told_with_its_status() {
    let page = markdown::page("docs/api.md");
    let (_, section) = page.split_once("\n## Errors\n").expect("a section on errors");
    let section = section.split("\n## ").next().expect("it is there");
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`').to_owned();
        Some((name, cells.next()?.parse().ok()?))
    });
    assert_eq!(rows.collect::<BTreeSet<_>>(), tables::errors());
}

#[test]
fn the_page_for_machines_knows_every_error_with_its_status() {
    let page = markdown::page("docs/openapi.yaml");
    let rows = page.split("error: {enum: [").skip(1).flat_map(|rest| {
        let (names, rest) = rest.split_once(']').expect("an end of the names");
        let (_, rest) = rest.split_once("status: {const: ").expect("a status");
        let (status, _) = rest.split_once('}').expect("an end of the status");
        let status = status.parse().expect("a number");
        names.split(", ").map(move |name| (name.to_owned(), status))
    });
    assert_eq!(rows.collect::<BTreeSet<_>>(), tables::errors());
}

#[test]
fn every_option_that_is_told_of_is_there() {
    let commands = speak::cli::COMMANDS.iter().flat_map(|command| command.specs);
    let names = commands.map(|spec| spec.name).chain(["help", "version"]);
    let names = names.chain(speak::options::SPECS.iter().map(|spec| spec.name));
    let options: BTreeSet<String> = names.map(|name| format!("--{name}")).collect();
    for page in [
        "README.md",
        "docs/operating.md",
        "docs/capacity.md",
        "docs/tls.md",
        "docs/troubleshooting.md",
        "docs/api.md",
    ] {
        let prose = markdown::prose(page);
        for code in markdown::code(&prose).iter().filter(|code| code.starts_with("--")) {
            let name = code.split([' ', '=']).next().expect("a first word");
            assert!(options.contains(name), "{page}: {code}");
        }
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    let root = markdown::path("").canonicalize().expect("the repository");
    for page in PAGES {
        for link in markdown::links(page) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let page_path = markdown::path(page);
            let target = if file.is_empty() { page_path } else { page_path.with_file_name(file) };
            let target = target.canonicalize();
            let target =
                target.unwrap_or_else(|_| panic!("{page} links to {link}, which is not there"));
            assert!(target.starts_with(&root), "{page}: {link} leads out");
            count += 1;
            let has_anchor = || {
                let target = target.to_str().expect("a path in UTF-8");
                markdown::anchors(target).iter().any(|it| it == anchor)
            };
            assert!(
                anchor.is_empty() || has_anchor(),
                "{page}: no {anchor} in {}",
                target.display()
            );
        }
    }
    assert!(count > 20, "links are written otherwise now: {count}");
}

#[test]
fn every_file_that_a_comment_or_a_page_names_exists() {
    let dead = references::dead();
    assert!(dead.is_empty(), "these name files that do not exist:\n{}", dead.join("\n"));
}

#[test]
fn the_readme_is_true() {
    let mut session = Session::start();
    session.follow("README.md");
    session.run_code("README.md");
    session.run_scripts("README.md");
}

#[test]
fn the_examples_of_the_calls_are_true() {
    let mut session = Session::start();
    session.follow("docs/api.md");
    session.run_code("docs/api.md");
    Session::start().run_scripts("docs/api.md");
}

#[test]
fn the_commands_of_the_other_pages_are_true() {
    for page in ["docs/debian.md", "docs/operating.md", "docs/troubleshooting.md"] {
        let mut session = Session::start();
        session.follow(page);
        session.run_code(page);
    }
}
