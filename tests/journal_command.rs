//! `speak journal`, as an operator uses it.

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{Finished, Folder, run_with};
use serde_json::Value;
use speak::hub::{Command, Introducing, Reason};
use speak::journal::{Config, Item, Journal, Opened};
use speak::log::{Log, Outcome, SyncMode};

/// Secrets that the journal holds.
const SECRETS: [&str; 3] = ["a-channel-of-ours", "the first text", "AUTHauthAUTHauthAUTHau"];

fn open(path: &Path) -> Journal {
    let mut config = Config::new(path.to_owned(), SyncMode::Os);
    config.segment_bytes = 400;
    let recovered = Opened::open(config).expect("a lock").recover(&mut |_| Ok(()));
    let poll = mio::Poll::new().expect("a poll");
    let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("a waker");
    recovered.expect("no damage").start(waker.into()).expect("space")
}

fn append(journal: &mut Journal, commands: &[Command]) {
    let mut bytes = Vec::new();
    for command in commands {
        minicbor::encode(command, &mut bytes).expect("memory");
    }
    journal.append(5, 1_700_000_000_000, &bytes);
    assert!(matches!(journal.take_outcome(), Some(Outcome::Durable { .. })));
}

/// A journal with three records in three segments.
fn journal(folder: &Folder) -> (PathBuf, Journal) {
    let path = folder.file("journal");
    let mut journal = open(&path);
    let channel = SECRETS[0];
    let auth = *SECRETS[2].as_bytes().first_chunk().expect("a token");
    let session = Introducing::New(auth);
    append(
        &mut journal,
        &[Command::Introduce {
            channel,
            session,
            text: "\u{1b}[2J\u{9b}",
            is_owner: None,
            address: Some(7),
        }],
    );
    let text = SECRETS[1];
    let long = "-".repeat(300);
    append(
        &mut journal,
        &[
            Command::Write { channel, from: Some(1), text, is_owner: Some(true) },
            Command::Write { channel, from: None, text: &long, is_owner: None },
        ],
    );
    append(
        &mut journal,
        &[
            Command::Leave { channel, session: 1, text: Some("bye") },
            Command::End { session: 1, reason: Reason::Left, text: None },
            Command::DropChannel { channel, next_id: 5 },
            Command::Remove { channel, id: 2 },
            Command::Kick { channel, session: 1, seconds: 60, text: Some("bye") },
        ],
    );
    (path, journal)
}

fn speak(path: &Path, options: &[&str]) -> Finished {
    let path = path.to_str().expect("UTF-8");
    run_with(&[&["journal", path], options].concat())
}

/// Output of a command that finds no damage.
fn output(path: &Path, options: &[&str]) -> String {
    let finished = speak(path, options);
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    finished.stdout
}

fn flip(path: &Path, name: &str, offset: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path.join(name)).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("a byte");
}

#[test]
fn the_report_has_every_file_and_the_commands_by_kind_and_no_secret() {
    let folder = Folder::new("report");
    let (path, journal) = journal(&folder);
    drop(journal);
    let text = output(&path, &[]);
    for part in [
        "segment-00000000000000000001: ",
        "records 1 to 1, the last of Tue, 14 Nov 2023 22:13:20 GMT\n",
        "segment-00000000000000000003: ",
        "commands in the segments: write 2, introduce 1, leave 1, end 1, drop_channel 1, \
         remove 1, kick 1\n",
        "a start continues after record 3\n",
    ] {
        assert!(text.contains(part), "no {part} in:\n{text}");
    }
    assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "{text}");
}

#[test]
fn with_secrets_each_command_is_a_line_of_json_that_cannot_control_a_terminal() {
    let folder = Folder::new("secrets");
    let (path, journal) = journal(&folder);
    drop(journal);
    let text = output(&path, &["--secrets"]);
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with('{')).collect();
    let parse = |line: &&str| serde_json::from_str::<Value>(line).expect("JSON");
    let commands: Vec<_> = lines.iter().map(parse).collect();
    let names: Vec<_> = commands.iter().filter_map(|it| it["command"].as_str()).collect();
    let expected =
        ["introduce", "write", "write", "leave", "end", "drop_channel", "remove", "kick"];
    assert_eq!(names, expected);
    assert!(commands[0].get("owner").is_none());
    assert_eq!((&commands[6]["id"], &commands[7]["seconds"]), (&2.into(), &60.into()));
    assert!(!text.contains("address"), "addresses are those of people: {text}");
    assert_eq!(commands[0]["auth"], SECRETS[2]);
    assert_eq!(commands[0]["message"], "\u{1b}[2J\u{9b}");
    assert_eq!(
        commands[1],
        serde_json::json!({
            "position": 2, "time": 1_700_000_000_000_u64, "command": "write",
            "channel": SECRETS[0], "from": 1, "owner": true, "message": SECRETS[1]
        })
    );
    assert!(commands[2].get("from").is_none());
    assert_eq!((&commands[4]["reason"], &commands[5]["next_id"]), (&"left".into(), &5.into()));
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
}

#[test]
fn a_journal_in_use_is_shown_and_not_repaired() {
    let folder = Folder::new("use");
    let (path, _journal) = journal(&folder);
    let text = output(&path, &[]);
    assert!(text.contains("in use") && text.contains("records 1 to 1"), "{text}");
    speak(&path, &["--repair"]).fails_with(1, &["in use by another process"]);
}

#[test]
fn damage_is_reported_and_repaired_and_the_damaged_file_is_saved() {
    let folder = Folder::new("damage");
    let (path, journal) = journal(&folder);
    drop(journal);
    let damaged = "segment-00000000000000000002";
    flip(&path, damaged, 150);
    let bytes = fs::read(path.join(damaged)).expect("a file");
    let found = speak(&path, &[]);
    assert_eq!(found.code, Some(1), "{found:?}");
    for part in ["a start fails", damaged, "at offset 80", "--repair"] {
        assert!(found.stdout.contains(part), "no {part} in {found:?}");
    }
    let text = output(&path, &["--repair"]);
    assert!(text.contains(&format!("{damaged}: kept 80 bytes, saved as {damaged}.damaged-")));
    assert!(text.contains("segment-00000000000000000003: kept 0 bytes"), "{text}");
    let saved = text.lines().filter_map(|line| line.split(" saved as ").nth(1));
    let saved: Vec<_> = saved.map(|name| fs::read(path.join(name)).expect("the file")).collect();
    assert!(saved.len() == 2 && saved.contains(&bytes));
    assert_eq!(output(&path, &["--repair"]), "nothing to repair\n");
    let text = output(&path, &[]);
    assert!(text.contains("after record 1\n") && text.contains("saved by a repair"), "{text}");
    let mut positions = Vec::new();
    let opened = Opened::open(Config::new(path, SyncMode::Always)).expect("a lock");
    let recovered = opened.recover(&mut |item| {
        let Item::Record(record) = item else { panic!("there is no snapshot") };
        positions.push(record.position);
        Ok(())
    });
    assert!(recovered.expect("no damage").needs_new_epoch && positions == [1]);
}

#[test]
fn an_incomplete_last_record_is_no_damage() {
    let folder = Folder::new("torn");
    let (path, journal) = journal(&folder);
    drop(journal);
    let newest = "segment-00000000000000000003";
    flip(&path, newest, 140);
    let text = output(&path, &[]);
    assert!(text.contains("at offset 80: ") && text.contains("of an incomplete record"), "{text}");
    assert!(text.contains("a start continues after record 2\n"), "{text}");
}

#[test]
fn another_directory_is_an_error_and_is_not_changed() {
    let folder = Folder::new("other");
    let missing = folder.file("missing");
    for options in [&[][..], &["--repair"]] {
        speak(&missing, options).fails_with(1, &["missing"]);
        assert!(!missing.exists());
    }
}
