//! A snapshot becomes the newest one only if nothing has come in between.

use super::super::connection::Event;
use super::super::log_end::Seal;
use super::super::stream_id::StreamId;
use super::*;

/// A connection that keeps the commands.
#[derive(Default)]
struct Recorder(Vec<String>);

impl Connection for Recorder {
    fn send(&mut self, args: &[&[u8]]) {
        let args: Vec<_> = args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        self.0.push(args.join(" "));
    }

    fn poll(&mut self) -> Option<Event> {
        None
    }

    fn reset(&mut self) {}

    fn buffered_bytes(&self) -> usize {
        0
    }
}

struct World {
    writer: SnapshotWriter,
    keys: Keys,
    connection: Recorder,
    now_ms: u64,
    expected: Vec<(u64, SnapshotReply)>,
}

const NAME: u64 = 0xabc;

const END: LogEnd = LogEnd { last: seal(1), position: 9, bytes: 100 };

const fn seal(number: u64) -> Seal {
    Seal { id: StreamId { unix_ms: 70, number }, node: 3, sequence: 4 }
}

impl World {
    /// Begins a snapshot.
    fn new() -> Self {
        let mut world = Self {
            writer: SnapshotWriter::default(),
            keys: Keys::new("s"),
            connection: Recorder::default(),
            now_ms: 1_000,
            expected: Vec::new(),
        };
        world.run(|writer, sending| writer.begin(NAME, END, sending));
        assert_eq!(world.take(), ["SET {s}:lock 2748 NX PX 6000"]);
        world
    }

    fn run<T>(&mut self, act: impl FnOnce(&mut SnapshotWriter, &mut Sending<'_>) -> T) -> T {
        let mut sending = Sending {
            connection: &mut self.connection,
            keys: &self.keys,
            now_ms: self.now_ms,
            expected: Vec::new(),
        };
        let result = act(&mut self.writer, &mut sending);
        self.expected.append(&mut sending.expected);
        result
    }

    /// Returns the commands that were sent since the last call.
    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.connection.0)
    }

    /// Replies to the oldest commands that have no reply.
    fn reply(&mut self, values: &[Value]) -> Option<SnapshotEntry> {
        let mut published = None;
        for value in values {
            let (name, reply) = self.expected.remove(0);
            published = self.run(|writer, sending| writer.on_reply(name, reply, value, sending));
        }
        published
    }

    /// Gets the lock and writes a piece.
    fn write(&mut self) {
        assert!(!self.writer.wants_piece());
        self.reply(&[text("OK")]);
        assert!(self.writer.wants_piece());
        self.run(|writer, sending| writer.write(b"piece", sending));
        let commands = [
            "HSET {s}:snapshot:0000000000000abc 0 piece",
            "PEXPIRE {s}:snapshot:0000000000000abc 60000",
        ];
        assert_eq!(self.take(), [&commands[..], &["GET {s}:lock"]].concat());
        assert!(!self.writer.wants_piece());
        self.reply(&[Value::Int(1), Value::Int(1), text("2748")]);
        assert!(self.writer.wants_piece());
        assert_eq!(self.take(), ["PEXPIRE {s}:lock 6000"]);
        self.reply(&[Value::Int(1)]);
    }

    /// Asks whether the snapshot may become the newest one.
    fn finish(&mut self) {
        self.write();
        self.run(SnapshotWriter::finish);
        assert_eq!(self.take().len(), 4);
        self.reply(&[text("OK")]);
    }

    fn is_given_up(&mut self, commands: &[&str]) {
        assert!(!self.writer.is_open());
        assert_eq!(self.take(), commands);
        assert!(!self.writer.may_begin(self.now_ms));
        assert!(self.writer.may_begin(self.now_ms + RETRY_MS));
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().into())
}

/// The reply to the question for the newest snapshot.
fn newest(name: u64, pieces: u64, end: LogEnd) -> Value {
    let mut entry = SnapshotEntry::new(name, end);
    entry.pieces = pieces;
    let entry = entry.encode();
    let fields = Value::Array(vec![text("r"), Value::Text(entry.into())]);
    Value::Array(vec![Value::Array(vec![text("5-1"), fields])])
}

#[test]
fn a_transaction_makes_a_snapshot_the_newest_one_and_trims_the_log() {
    for (found, older) in [
        (Value::Array(Vec::new()), "UNLINK {s}:lock"),
        (newest(7, 1, LogEnd::default()), "UNLINK {s}:snapshot:0000000000000007"),
        // The log lacks all records up to this one.
        (newest(7, 0, END), "UNLINK {s}:snapshot:0000000000000007"),
    ] {
        let mut world = World::new();
        world.finish();
        world.reply(&[text("2748"), Value::Int(1), found]);
        let commands = world.take();
        assert_eq!(commands[..2], ["MULTI", "PERSIST {s}:snapshot:0000000000000abc"]);
        assert!(commands[2].starts_with("XADD {s}:snapshots MAXLEN 1 * r "));
        assert_eq!(commands[3..], ["XTRIM {s}:log MINID 70-1", older, "DEL {s}:lock", "EXEC"]);
        let queued = [&[text("OK")][..], &vec![text("QUEUED"); TRANSACTION_COMMANDS]].concat();
        assert_eq!(world.reply(&queued), None);
        let entry = world.reply(&[Value::Array(Vec::new())]).unwrap();
        assert_eq!((entry.name, entry.pieces, entry.bytes, entry.end), (NAME, 1, 5, END));
        assert!(!world.writer.is_open() && world.writer.may_begin(world.now_ms));
    }
}

#[test]
fn a_writer_without_the_lock_writes_nothing() {
    let mut world = World::new();
    world.reply(&[Value::Nil]);
    world.is_given_up(&[]);
}

#[test]
fn a_snapshot_that_may_not_become_the_newest_one_is_given_up() {
    let later = LogEnd { last: seal(2), ..END };
    let none = Value::Array(Vec::new());
    for replies in [
        [text("7"), Value::Int(1), none.clone()],
        [Value::Nil, Value::Int(1), none.clone()],
        [text("2748"), Value::Int(0), none],
        [text("2748"), Value::Int(1), newest(7, 1, later)],
        [text("2748"), Value::Int(1), newest(7, 1, END)],
        [text("2748"), Value::Int(1), Value::Error("WRONGTYPE".into())],
    ] {
        let mut world = World::new();
        world.finish();
        assert_eq!(world.reply(&replies), None);
        world.is_given_up(&["UNWATCH", "UNLINK {s}:snapshot:0000000000000abc"]);
    }
}

#[test]
fn a_transaction_that_had_no_effect_leaves_no_pieces() {
    for reply in [Value::Nil, Value::Error("EXECABORT".into())] {
        let mut world = World::new();
        world.finish();
        world.reply(&[text("2748"), Value::Int(1), Value::Array(Vec::new())]);
        world.take();
        let queued = [&[text("OK")][..], &vec![text("QUEUED"); TRANSACTION_COMMANDS]].concat();
        assert_eq!(world.reply(&queued), None);
        assert_eq!(world.reply(&[reply]), None);
        world.is_given_up(&["UNLINK {s}:snapshot:0000000000000abc"]);
    }
}

#[test]
fn a_piece_that_redis_does_not_take_ends_the_snapshot() {
    let mut world = World::new();
    world.reply(&[text("OK")]);
    world.run(|writer, sending| writer.write(b"piece", sending));
    world.take();
    world.reply(&[Value::Error("OOM".into())]);
    world.is_given_up(&["UNLINK {s}:snapshot:0000000000000abc"]);
    // The replies that were to come are of a snapshot that is no more.
    world.reply(&[Value::Int(0), text("2748"), Value::Int(0)]);
    assert!(!world.writer.is_open() && world.take().is_empty());
}

#[test]
fn a_writer_that_waits_keeps_the_lock() {
    let mut world = World::new();
    world.write();
    world.run(SnapshotWriter::renew);
    assert!(world.take().is_empty());
    world.now_ms += RENEW_MS;
    world.run(SnapshotWriter::renew);
    let pieces = "PEXPIRE {s}:snapshot:0000000000000abc 60000";
    assert_eq!(world.take(), [pieces, "GET {s}:lock"]);
    world.reply(&[Value::Int(1), text("7")]);
    world.is_given_up(&["UNLINK {s}:snapshot:0000000000000abc"]);
}

#[test]
fn a_connection_that_ends_ends_the_snapshot() {
    let mut world = World::new();
    world.write();
    world.writer.on_disconnected(world.now_ms);
    world.is_given_up(&[]);
}
