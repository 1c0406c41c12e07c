//! `--check`: the findings and errors of a start, without a start and without a trace.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use common::{Finished, Folder, Pair, Server, command, free_address, run, run_with, text, until};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Signal, geteuid};

/// Runs `speak --check` with these options.
fn check(options: &[&str]) -> Finished {
    run_with(&[&["--check"], options].concat())
}

/// Returns the lines of standard error that are no log lines.
fn errors(finished: &Finished) -> Vec<&str> {
    finished.stderr.lines().filter(|line| line.starts_with("speak: ")).collect()
}

/// Claims a check without an error, whose findings have all of these words in one line.
#[track_caller]
fn passes(finished: &Finished, findings: &[&[&str]]) {
    assert_eq!((finished.code, errors(finished)), (Some(0), Vec::new()), "{finished:?}");
    let lines: Vec<_> = finished.stdout.lines().collect();
    assert!(lines.iter().all(|line| line.starts_with("ok    ")), "{finished:?}");
    for words in findings {
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(lines.iter().any(|line| has_all(line)), "no {words:?} in {finished:?}");
    }
}

/// Claims that a check fails as a start with the same options does.
#[track_caller]
fn fails_as_a_start(options: &[&str], cause: &str) {
    let (checked, started) = (check(options), run_with(options));
    assert_eq!((checked.code, errors(&checked)), (started.code, errors(&started)), "{options:?}");
    let [line] = errors(&checked)[..] else { panic!("{checked:?}") };
    assert!(line.contains(cause), "no {cause:?} in {line:?}");
}

/// Returns all that a change of a folder would change: by path, the kind, inode, owner, rights,
/// time of change and content.
fn contents(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let about = fs::symlink_metadata(folder).expect("it exists");
    let times = (about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec());
    let text = format!("{:o} {} {} {times:?}", about.mode(), about.ino(), about.uid());
    if about.is_dir() {
        for entry in fs::read_dir(folder).expect("a folder") {
            all.append(&mut contents(&entry.expect("an entry").path()));
        }
    }
    let bytes = if about.is_file() { fs::read(folder).expect("a file") } else { Vec::new() };
    all.insert(folder.to_owned(), format!("{text} {bytes:?}"));
    all
}

#[test]
fn each_part_of_a_good_configuration_is_ok_and_no_trace_is_left() {
    let folder = Folder::new("check");
    let path = |name: &str| text(&folder.file(name)).to_owned();
    fs::create_dir(path("challenges")).expect("a folder");
    // A journal with a message in it.
    let journal = path("journal");
    let mut server = Server::with(&["--journal", &journal]);
    server.write("room", "howdy");
    server.stop();
    // A socket that no process has any more.
    drop(UnixListener::bind(path("stale")).expect("a socket"));
    let pair = Pair::usual(&folder, "server");
    let address = free_address().to_string();
    let tls = format!("tls:{}", free_address());
    let sockets = ["stale", "socket"].map(|name| format!("unix:{}", path(name)));
    let challenges = path("challenges");
    let options = [
        &["--listen", &address, "--listen", &tls, "--listen", &sockets[0]][..],
        &["--admin-listen", &sockets[1], "--journal", &journal, "--acme-challenges", &challenges],
        &pair.options(),
    ]
    .concat();
    let before = contents(folder.path());
    let findings: &[&[&str]] = &[
        &["options"],
        &["journal", &journal, " records"],
        &["tls", text(&pair.certificate)],
        &["listen", &address, "free"],
        &["listen", &tls, "free"],
        &["listen", &sockets[0], "free"],
        &["listen", &sockets[1], "free"],
        &["limits", "clients"],
        &["sandbox", "user "],
        &["challenges", &challenges],
    ];
    passes(&check(&options), findings);
    assert_eq!(contents(folder.path()), before);
    let state = path("state");
    let new = path("new");
    passes(&check(&["--listen", &address, "--state", &state]), &[&["state", "begins empty"]]);
    passes(&check(&["--listen", &address, "--journal", &new]), &[&[&new, "to be created"]]);
    assert_eq!(contents(folder.path()), before);
    // The address is free again, and the start works with what was checked.
    let mut server = Server::on(&[&address], &["--journal", &journal]);
    assert_eq!(server.read("room", "0").texts(), ["howdy"]);
    server.stop();
}

#[test]
fn the_variable_asks_for_a_check_too() {
    let mut command = command();
    command.env("SPEAK_CHECK", "yes").env("SPEAK_LISTEN", "127.0.0.1:0");
    passes(&run(command), &[&["listen", "127.0.0.1:0", "free"]]);
}

#[test]
fn a_state_file_is_read_and_stays() {
    let folder = Folder::new("check");
    let state = folder.file("state");
    let options = ["--listen", "127.0.0.1:0", "--state", text(&state)];
    let mut server = Server::with(&options[2..]);
    server.write("room", "howdy");
    server.stop();
    let before = contents(folder.path());
    passes(&check(&options), &[&["state", "channels=1 connections=0"]]);
    assert_eq!(contents(folder.path()), before);
    // A start without it is no failure, and the start renames the file.
    fs::write(&state, "nonsense").expect("a file");
    let before = contents(folder.path());
    let checked = check(&options);
    assert_eq!((checked.code, errors(&checked)), (Some(0), Vec::new()), "{checked:?}");
    let warns = |line: &str| line.starts_with("warn  state ") && line.contains("begins empty");
    assert!(checked.stdout.lines().any(warns), "{checked:?}");
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn an_error_is_that_of_the_start() {
    let folder = Folder::new("check");
    let path = |name: &str| text(&folder.file(name)).to_owned();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().map(|it| (it.to_string(), taken)).expect("its address");
    let [good, other] = ["good", "other"].map(|name| Pair::usual(&folder, name));
    let (certificate, key) = (text(&good.certificate), text(&good.key));
    fs::write(path("file"), "").expect("a file");
    fs::create_dir(path("open")).expect("a folder");
    fs::write(path("open/file"), "").expect("a file");
    fs::set_permissions(path("open"), PermissionsExt::from_mode(0o755)).expect("its rights");
    let unix = |name: &str| format!("unix:{}", path(name));
    let _live = UnixListener::bind(path("live")).expect("a socket");
    let address = ["--listen", "127.0.0.1:0"];
    let cases: &[(&[&str], &str)] = &[
        (&["--nonsense"], "--nonsense"),
        (&["--history", "many"], "--history"),
        (&["--state", "/a", "--journal", "/b"], "--journal"),
        (&["--listen", &taken.0], "in use"),
        (&["--admin-listen", &taken.0], "in use"),
        // TEST-NET-1 of RFC 5737.
        (&["--listen", "192.0.2.1:0"], "no such address"),
        (&["--listen", &unix("missing/socket")], "has to be there"),
        (&["--listen", &unix("file/socket")], "is no folder"),
        (&["--listen", &unix("file")], "another server listens there"),
        (&["--listen", &unix("live")], "another server listens there"),
        (&["--listen", &unix(&"long".repeat(30))], "cannot listen on"),
        (&["--state", &path("missing/state")], "has to be there"),
        (&["--state", &path("file/state")], "is no folder"),
        (&["--state", &path("open")], "cannot read the state file"),
        (&["--journal", &path("missing/journal")], "create the directory"),
        (&["--journal", &path("file/journal")], "choose another --journal"),
        (&["--journal", &path("file")], "is no directory"),
        (&["--journal", &path("open")], "chmod 700"),
        (&["--tls-cert", &path("missing"), "--tls-key", key], "cannot read the certificate"),
        (&["--tls-cert", certificate, "--tls-key", text(&other.key)], "key"),
        (&["--tls-cert", certificate, "--tls-key", key], "no listener speaks TLS"),
        (&["--acme-challenges", &path("missing")], "--acme-challenges"),
        (&["--user", "no-one"], "no such user"),
        (&["--cluster", "http://localhost"], "--cluster"),
    ];
    for (options, cause) in cases {
        fails_as_a_start(&[&address, *options].concat(), cause);
    }
}

#[test]
fn a_journal_that_is_damaged_or_in_use_is_the_error_of_the_start() {
    let folder = Folder::new("check");
    let journal = folder.file("journal");
    let options = ["--listen", "127.0.0.1:0", "--journal", text(&journal)];
    let mut server = Server::with(&options[2..]);
    server.fill("room", "howdy", 3);
    server.stop();
    let lock = File::open(journal.join("lock")).expect("a lock");
    flock(&lock, FlockOperation::NonBlockingLockExclusive).expect("no other process has it");
    fails_as_a_start(&options, "in use by another process");
    drop(lock);
    let segment = fs::read_dir(&journal).expect("a folder").flatten().map(|entry| entry.path());
    let segment = segment.filter(|it| text(it).contains("segment-")).max().expect("a segment");
    let mut bytes = fs::read(&segment).expect("a file");
    bytes[8] ^= 1;
    fs::write(&segment, bytes).expect("a file");
    let before = contents(folder.path());
    fails_as_a_start(&options, "the journal is damaged");
    // The start makes a lock, which was there. Neither changes anything else.
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn a_running_server_is_no_error_and_is_not_disturbed() {
    let folder = Folder::new("check");
    let journal = folder.file("journal");
    let unix = format!("unix:{}", text(&folder.file("socket")));
    let mut server = Server::on(&["127.0.0.1:0", &unix], &["--journal", text(&journal)]);
    server.write("room", "howdy");
    let address = server.address_of(0).to_string();
    let before = contents(folder.path());
    let options = ["--listen", &address, "--listen", &unix, "--journal", text(&journal)];
    let owner = format!("in use by speak (process {}): an upgrade takes it over", server.id());
    let owner = owner.replace("speak (", &format!("{} (", program()));
    let findings: &[&[&str]] = &[
        &["listen", &address, &owner],
        &["listen", &unix, &owner],
        &["journal", text(&journal), "in use by the running server"],
    ];
    passes(&check(&options), findings);
    assert_eq!(contents(folder.path()), before);
    // What has nothing to do with that server is still checked.
    let missing = text(&folder.file("missing")).to_owned();
    let missing = [&options[..], &["--acme-challenges", &missing]].concat();
    let finished = check(&missing);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(errors(&finished)[0].contains("--acme-challenges"), "{finished:?}");
    // Its journal belongs to another server, if no address does.
    let finished = check(&["--listen", "127.0.0.1:0", "--journal", text(&journal)]);
    assert!(errors(&finished)[0].contains("in use by another process"), "{finished:?}");
    server.upgrade();
    passes(&check(&options), &[&["listen", &address, "in use by"]]);
    assert_eq!(server.read("room", "0").texts(), ["howdy"]);
    server.signal(Signal::TERM);
    until("the server is gone", || TcpStream::connect(&address).is_err());
    until("its journal is free", || check(&options).stdout.contains(" records "));
}

/// Returns the name of the program, as the kernel cuts it.
fn program() -> String {
    let path = PathBuf::from(command().get_program());
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    name.chars().take(15).collect()
}

#[test]
fn files_are_checked_as_the_user_that_will_use_them() {
    // Only root can switch users.
    if !geteuid().is_root() {
        println!("not tried, since only root can");
        return;
    }
    let folder = Folder::new("check");
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("its rights");
    let user = ["--listen", "127.0.0.1:0", "--user", "65533:65532"];
    let path = |name: &str| text(&folder.file(name)).to_owned();
    let [state, closed] = ["state", "closed"].map(path);
    fails_as_a_start(&[&user[..], &["--state", &state]].concat(), "cannot write the state file");
    fs::create_dir(&closed).expect("a folder");
    fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).expect("its rights");
    let challenges = ["--acme-challenges", &closed];
    fails_as_a_start(&[&user[..], &challenges].concat(), "--acme-challenges");
    // A journal of a third user, which root can read.
    chown(&closed, Some(65531), Some(65531)).expect("an owner");
    let options = [&user[..], &["--journal", &closed]].concat();
    fails_as_a_start(&options, "cannot write the journal");
    // A start would give that of root to the user.
    let own = path("own");
    fs::create_dir(&own).expect("a folder");
    fs::set_permissions(&own, PermissionsExt::from_mode(0o700)).expect("its rights");
    let before = contents(folder.path());
    passes(
        &check(&[&user[..], &["--journal", &own]].concat()),
        &[&["sandbox", "user 65533:65532"]],
    );
    assert_eq!(contents(folder.path()), before);
}
