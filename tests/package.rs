//! The Debian package: what its pages link to is in it, and its upgrade hands over.

#[allow(dead_code, reason = "the tests of the documentation use all of it")]
#[path = "docs/markdown.rs"]
mod markdown;

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Finished, Folder, run, text};

/// Folder of the pages in the package.
const DOC: &str = "usr/share/doc/speak/";

/// Returns the files of the package, with their sources, from the assets of Cargo.toml.
fn installed() -> BTreeMap<PathBuf, PathBuf> {
    let manifest = markdown::page("Cargo.toml");
    let (_, assets) = manifest.split_once("\nassets = [\n").expect("assets");
    let (assets, _) = assets.split_once("\n]\n").expect("their end");
    let mut files = BTreeMap::new();
    for line in assets.lines().map(str::trim).filter(|line| line.starts_with('[')) {
        let [source, target, _mode] =
            serde_json::from_str::<[String; 3]>(line.trim_end_matches(','))
                .expect("source, target and mode");
        for source in matching(&source) {
            let is_folder = target.ends_with('/');
            let name = source.file_name().filter(|_| is_folder).unwrap_or_default();
            let target = if is_folder { Path::new(&target).join(name) } else { (&target).into() };
            assert!(files.insert(target, source).is_none(), "{line} twice");
        }
    }
    files
}

/// Returns the files that match a pattern with `*` in the name, relative to the repository.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![pattern.into()] };
    let (folder, before) = before.rsplit_once('/').expect("a folder");
    let names = fs::read_dir(markdown::path(folder)).expect("a folder of the repository");
    let names = names.flatten().filter(|entry| entry.path().is_file());
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let parts: Vec<_> = after.split('*').collect();
    let matches = |name: &String| {
        let end = parts.last().expect("at least one");
        name.starts_with(before) && name.ends_with(end) && parts.iter().all(|it| name.contains(it))
    };
    let found: Vec<_> = names.filter(matches).map(|name| Path::new(folder).join(name)).collect();
    assert!(!found.is_empty(), "no file matches {pattern}");
    found
}

/// Returns a path without `..`.
fn normal(path: &Path) -> PathBuf {
    path.iter().fold(PathBuf::new(), |mut path, part| {
        if part == ".." {
            path.pop();
        } else {
            path.push(part);
        }
        path
    })
}

#[test]
fn every_link_of_an_installed_page_leads_to_an_installed_file() {
    let files = installed();
    let pages = files.iter().filter(|(target, _)| target.extension().is_some_and(|it| it == "md"));
    let mut count = 0;
    for (target, source) in pages {
        for link in markdown::links(text(source)) {
            let file = link.split('#').next().expect("a first part");
            let leads_to = normal(&target.parent().expect("a folder").join(file));
            let is_there = file.is_empty() || files.keys().any(|it| it.starts_with(&leads_to));
            assert!(is_there, "{} links to {link}, which is not in the package", source.display());
            count += 1;
        }
    }
    assert!(count > 50, "links are written otherwise now: {count}");
}

#[test]
fn what_an_operator_needs_is_in_the_package_as_it_is_in_the_repository() {
    let files = installed();
    for name in [
        "SECURITY.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "docs/debian.md",
        "dist/alerts.yml",
        "dist/grafana-dashboard.json",
        "dist/proxies/nginx.conf",
        "dist/proxies/haproxy.cfg",
        "dist/proxies/Caddyfile",
        "dist/sockets/speak.socket",
    ] {
        let target = Path::new(DOC).join(name);
        assert_eq!(files.get(&target).map(PathBuf::as_path), Some(Path::new(name)));
    }
}

/// A machine with systemd, whose programs write down how they are called.
struct Machine(Folder);

impl Machine {
    /// Makes the programs. `active` are the units that run.
    fn new(active: &str) -> Self {
        let folder = Folder::new("package");
        let calls = folder.file("calls");
        let note = format!("#!/bin/sh\necho \"${{0##*/}} $*\" >>{}\n", text(&calls));
        let list = format!("case \"$*\" in *list-units*) printf '%b' '{active}' ;; esac\n");
        for (name, more) in [("systemctl", &*list), ("deb-systemd-invoke", "exit 1\n")] {
            let program = folder.file(name);
            fs::write(&program, format!("{note}{more}")).expect("a file");
            fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("its rights");
        }
        fs::write(calls, "").expect("a file");
        Self(folder)
    }

    /// Runs the maintainer script of the package with these arguments, without the part that
    /// debhelper would put in: where systemd has started the machine, or not.
    fn configure(&self, arguments: &[&str], has_systemd: bool) -> Finished {
        let run_folder = if has_systemd { "mkdir -p /run/systemd/system && " } else { "" };
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--map-root-user", "sh", "-c"]);
        unshare.arg(format!("mount -t tmpfs none /run && {run_folder} exec sh \"$@\""));
        unshare.arg("sh").arg(markdown::path("dist/postinst")).args(arguments);
        let path = std::env::var("PATH").expect("a PATH");
        unshare.env("PATH", format!("{}:{path}", text(self.0.path())));
        run(unshare)
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.0.file("calls")).expect("a file");
        calls.lines().map(str::to_owned).filter(|call| !call.contains("list-units")).collect()
    }
}

#[test]
fn an_upgrade_of_the_package_reloads_what_runs_and_restarts_nothing() {
    let active = "speak.service loaded active running Speak\\nspeak@8081.service loaded active\\n";
    let machine = Machine::new(active);
    // The reload fails: then the old process serves on, and the package is configured all the same.
    machine.configure(&["configure", "0.1.0-1"], true).prints("");
    let reload = |unit: &str| format!("deb-systemd-invoke reload {unit}");
    assert_eq!(machine.calls(), [reload("speak.service"), reload("speak@8081.service")]);
}

#[test]
fn nothing_is_reloaded_where_nothing_runs() {
    for (active, arguments, has_systemd) in [
        // The first installation: the part of debhelper starts the service.
        ("speak.service loaded active running Speak\\n", &["configure", ""][..], true),
        ("speak.service loaded active running Speak\\n", &["configure"], true),
        ("speak.service loaded active running Speak\\n", &["abort-upgrade", "0.1.0-1"], true),
        // A service that the operator has stopped; a container.
        ("", &["configure", "0.1.0-1"], true),
        ("speak.service loaded active running Speak\\n", &["configure", "0.1.0-1"], false),
    ] {
        let machine = Machine::new(active);
        machine.configure(arguments, has_systemd).prints("");
        assert_eq!(machine.calls(), [""; 0], "{arguments:?} {has_systemd}");
    }
}

#[test]
fn debhelper_neither_stops_nor_restarts_the_service_in_an_upgrade() {
    let manifest = markdown::page("Cargo.toml");
    let line = manifest.lines().find(|line| line.starts_with("systemd-units = "));
    let line = line.expect("the unit of the package");
    for setting in ["restart-after-upgrade = false", "stop-on-upgrade = false"] {
        assert!(line.contains(setting), "{line}");
    }
}
