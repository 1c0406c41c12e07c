//! `speak journal`: what a journal holds, and its repair.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use minicbor::Decoder;

use super::cli_options::CliOptions;
use super::exit_status::{ExitStatus, Failure};
use super::format::printable_json;
use super::output::print;
use crate::hub::{Command, Introducing, push_string};
use crate::journal::{self, FileState, FileSummary, JournalError, Summary};
use crate::log::Record;

/// Names of the kinds of commands. The last are those that this version does not know.
const KINDS: [&str; 9] =
    ["write", "introduce", "leave", "end", "drop_channel", "begin", "remove", "kick", "unknown"];
const UNKNOWN: usize = KINDS.len() - 1;
/// Lines of commands are printed together when they are longer than this.
const PRINTED_BYTES: usize = 64 * 1024;

pub(super) fn run(options: &CliOptions, operands: &[OsString]) -> Result<ExitStatus, Failure> {
    let directory = Path::new(&operands[0]);
    let failure = |JournalError(line)| Failure::Error(line);
    if options.repair || options.restored {
        let cuts = journal::repair(directory, options.restored).map_err(failure)?;
        let mut text = String::new();
        for cut in &cuts {
            let kept = cut.kept_bytes;
            let _ = writeln!(text, "{}: kept {kept} bytes, saved as {}", cut.name, cut.saved_as);
        }
        if options.restored {
            text.push_str("the next start begins a new epoch\n");
        } else if cuts.is_empty() {
            text.push_str("nothing to repair\n");
        }
        print(&text)?;
        return Ok(ExitStatus::Success);
    }
    let mut counts = [0_u64; KINDS.len()];
    let mut lines = String::new();
    let mut result = Ok(());
    let summary = journal::inspect(directory, &mut |record| {
        let mut on_command = |kind: usize, command: Option<&Command>| {
            counts[kind] += 1;
            if options.secrets && result.is_ok() {
                push_command(&mut lines, record, command);
                if lines.len() > PRINTED_BYTES {
                    result = print(&lines);
                    lines.clear();
                }
            }
        };
        each_command(record, &mut on_command);
    });
    let result = result.and_then(|()| print(&lines));
    let summary = summary.map_err(failure)?;
    result?;
    let (text, is_damaged) = describe(&summary, &counts);
    print(&text)?;
    Ok(if is_damaged { ExitStatus::FoundFailures } else { ExitStatus::Success })
}

/// Calls `visit` with the kind of each command of a record, up to the first that this version does
/// not know.
fn each_command(record: &Record, visit: &mut dyn FnMut(usize, Option<&Command>)) {
    let mut decoder = Decoder::new(record.commands);
    while decoder.position() < record.commands.len() {
        let Ok(command) = decoder.decode::<Command>() else { return visit(UNKNOWN, None) };
        let kind = match command {
            Command::Write { .. } => 0,
            Command::Introduce { .. } => 1,
            Command::Leave { .. } => 2,
            Command::End { .. } => 3,
            Command::DropChannel { .. } => 4,
            Command::Begin { .. } => 5,
            Command::Remove { .. } => 6,
            Command::Kick { .. } => 7,
            // Commands of a cluster, which has no journal.
            _ => UNKNOWN,
        };
        visit(kind, Some(&command));
    }
}

/// Returns the report, and whether there is damage.
fn describe(summary: &Summary, counts: &[u64]) -> (String, bool) {
    let mut text = String::new();
    for file in &summary.files {
        push_file(&mut text, file);
    }
    for name in &summary.saved {
        let _ = writeln!(text, "{name}: saved by a repair, not used");
    }
    let mut separator = "commands in the segments: ";
    for (name, count) in KINDS.iter().zip(counts).filter(|(_, count)| **count > 0) {
        let _ = write!(text, "{separator}{name} {count}");
        separator = ", ";
    }
    text.push_str(if separator == ", " { "\n" } else { "no commands\n" });
    let is_file_damaged =
        summary.files.iter().any(|file| matches!(file.state, FileState::Damaged { .. }));
    match &summary.recovery {
        None => {
            text.push_str("in use: the last record may seem incomplete while it is written\n");
            (text, is_file_damaged)
        }
        Some(Ok(position)) => {
            let _ = writeln!(text, "a start continues after record {position}");
            (text, false)
        }
        Some(Err(JournalError(line))) => {
            let _ = writeln!(text, "a start fails: {line}");
            (text, true)
        }
    }
}

fn push_file(text: &mut String, file: &FileSummary) {
    let FileSummary { name, bytes, position, count, .. } = file;
    let _ = write!(text, "{name}: {bytes} bytes, ");
    let _ = match (name.starts_with("snapshot"), count) {
        (true, _) => write!(text, "{count} pieces of the state after record {position}"),
        (false, 0) => write!(text, "no records"),
        (false, _) => write!(text, "records {position} to {}", position + count - 1),
    };
    if let Some(unix_ms) = file.last_unix_ms {
        // A clock may have been wrong. The date of a later year has no format.
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(unix_ms));
        let latest = SystemTime::UNIX_EPOCH + Duration::from_secs(253_402_300_799);
        if let Some(time) = time.filter(|time| *time <= latest) {
            let _ = write!(text, ", the last of {}", httpdate::fmt_http_date(time));
        }
    }
    text.push('\n');
    let _ = match &file.state {
        FileState::Good => Ok(()),
        FileState::Torn { offset, bytes } => {
            writeln!(text, "  at offset {offset}: {bytes} bytes of an incomplete record")
        }
        FileState::Damaged { offset, reason } => {
            writeln!(text, "  damaged at offset {offset}: {reason}")
        }
    };
}

/// Appends a command as a line of JSON, safe to print on a terminal.
fn push_command(line: &mut String, record: &Record, command: Option<&Command>) {
    let mut json = Vec::new();
    let head = format!("{{\"position\":{},\"time\":{}", record.position, record.unix_ms);
    json.extend_from_slice(head.as_bytes());
    let mut fields = Fields { json };
    match command {
        Some(Command::Write { channel, from, text, is_owner }) => {
            fields.text("command", "write");
            fields.text("channel", channel);
            fields.number("from", *from);
            fields.owner(*is_owner);
            fields.text("message", text);
        }
        Some(Command::Introduce { channel, session, text, is_owner, address: _ }) => {
            fields.text("command", "introduce");
            fields.text("channel", channel);
            match session {
                Introducing::New(auth) => fields.text("auth", &String::from_utf8_lossy(auth)),
                Introducing::Existing(session) => fields.number("connection", Some(*session)),
            }
            fields.owner(*is_owner);
            fields.text("message", text);
        }
        Some(Command::Leave { channel, session, text }) => {
            fields.text("command", "leave");
            fields.text("channel", channel);
            fields.number("connection", Some(*session));
            fields.optional_text("message", *text);
        }
        Some(Command::End { session, reason, text }) => {
            fields.text("command", "end");
            fields.number("connection", Some(*session));
            fields.text("reason", reason.as_str());
            fields.optional_text("message", *text);
        }
        // The key stays secret: it tells when channels were dropped.
        Some(Command::Begin { epoch, watermark_hash_key: _ }) => {
            fields.text("command", "begin");
            fields.text("epoch", &String::from_utf8_lossy(epoch));
        }
        Some(Command::DropChannel { channel, next_id }) => {
            fields.text("command", "drop_channel");
            fields.text("channel", channel);
            fields.number("next_id", Some(*next_id));
        }
        Some(Command::Remove { channel, id }) => {
            fields.text("command", "remove");
            fields.text("channel", channel);
            fields.number("id", Some(*id));
        }
        Some(Command::Kick { channel, session, seconds, text }) => {
            fields.text("command", "kick");
            fields.text("channel", channel);
            fields.number("connection", Some(*session));
            fields.number("seconds", Some(u64::from(*seconds)));
            fields.optional_text("message", *text);
        }
        _ => fields.text("command", "unknown"),
    }
    line.push_str(&printable_json(&String::from_utf8_lossy(&fields.json)));
    line.push_str("}\n");
}

/// An object of JSON that begins with a field.
struct Fields {
    json: Vec<u8>,
}

impl Fields {
    fn name(&mut self, name: &str) {
        self.json.extend_from_slice(b",\"");
        self.json.extend_from_slice(name.as_bytes());
        self.json.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        push_string(&mut self.json, text);
    }

    fn optional_text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    fn owner(&mut self, is_owner: Option<bool>) {
        if is_owner == Some(true) {
            self.name("owner");
            self.json.extend_from_slice(b"true");
        }
    }

    fn number(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.name(name);
            self.json.extend_from_slice(number.to_string().as_bytes());
        }
    }
}
