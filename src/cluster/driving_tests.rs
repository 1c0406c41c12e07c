use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use support::random::Random;

use super::super::connection::{Connection, Event, Failure, ServerInfo};
use super::super::entry::{self, NO_NODE};
use super::super::keys::Keys;
use super::super::log_end::{LogEnd, POSITION_MAX, Seal};
use super::super::snapshot_entry::SnapshotEntry;
use super::super::stream_id::StreamId;
use super::super::value::Value;
use super::ClusterLog;
use crate::log::{self, Log};

/// Events that a connection gives, which a test adds.
type Script = Rc<RefCell<VecDeque<Event>>>;

/// Names of the commands that were sent by a connection.
type Sent = Rc<RefCell<Vec<String>>>;

/// A connection whose commands go nowhere.
struct Scripted(Script, Sent);

impl Connection for Scripted {
    fn send(&mut self, args: &[&[u8]]) {
        self.1.borrow_mut().push(String::from_utf8_lossy(args[0]).into_owned());
    }

    fn poll(&mut self) -> Option<Event> {
        self.0.borrow_mut().pop_front()
    }

    fn reset(&mut self) {}

    fn buffered_bytes(&self) -> usize {
        0
    }
}

fn server_info() -> ServerInfo {
    ServerInfo {
        run_id: "4f1".into(),
        version: (7, 0, 15),
        unix_ms: 1_700_000_000_000,
        evicts: false,
        is_writable: true,
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().into())
}

/// Returns the replies to a vouch: to `MULTI`, to four questions, and to `EXEC` with what the hash
/// of vouches and three empty streams have.
fn vouched<const N: usize>(hash: [&str; N]) -> impl Iterator<Item = Event> {
    let queued = ["OK", "QUEUED", "QUEUED", "QUEUED", "QUEUED"].map(text);
    let hash = Value::Array(hash.map(text).into());
    let found = [hash].into_iter().chain([0; 3].map(|_| Value::Array(Vec::new())));
    queued.into_iter().chain([Value::Array(found.collect())]).map(Event::Reply)
}

/// Connects to a Redis that has no records, and trusts it.
fn begin(log: &mut ClusterLog, commands: &Script, follower: &Script) {
    for script in [commands, follower] {
        script.borrow_mut().push_back(Event::Connected(server_info()));
    }
    assert!(log.poll().is_none() && log.wants_members());
    log.set_members(Vec::new(), Vec::new());
    commands.borrow_mut().extend(vouched(["done", "0-0"]));
    assert!(log.poll().is_none() && !log.wants_members());
    follower.borrow_mut().push_back(Event::Reply(Value::Array(Vec::new())));
    assert!(log.poll().is_none());
}

#[test]
fn a_record_that_waits_for_the_end_of_a_round_does_not_hide_the_time_of_the_next_vouch() {
    let (commands, follower) = (Script::default(), Script::default());
    let ends =
        [&commands, &follower].map(|script| Box::new(Scripted(Rc::clone(script), Sent::default())));
    let [ours, theirs] = ends;
    let mut log = ClusterLog::new(ours, theirs, Keys::new("speak"), |bytes| bytes.fill(7));
    log.begin_turn(1_000);
    commands.borrow_mut().push_back(Event::Connected(server_info()));
    assert!(log.poll().is_none() && log.wants_members());
    log.append(1_000, 0, b"commands");
    log.set_members(Vec::new(), Vec::new());
    commands.borrow_mut().extend(vouched([]));
    log.begin_turn(1_010);
    assert!(log.poll().is_none());
    assert_eq!(log.next_deadline_ms(), Some(1_110));
}

/// A process without a state begins a log at an empty Redis, unless another one has done so since.
#[test]
fn a_decision_is_taken_only_if_the_log_is_as_it_was() {
    let [none, entry] = [vec![], vec![Value::Array(vec![text("5-1"), Value::Nil])]];
    let [none, entry] = [none, entry].map(Value::Array);
    let began = ["MULTI", "DEL", "HSET", "EXEC"];
    for (stream, snapshots, expected) in [
        (none.clone(), none.clone(), &began[..]),
        (entry.clone(), none.clone(), &["UNWATCH"]),
        (none.clone(), entry, &["UNWATCH"]),
        (none.clone(), Value::Error("OOM".into()), &["UNWATCH"]),
        // The connection ends: no reply to a further command would come.
        (Value::Error("LOADING".into()), none, &[]),
    ] {
        let (commands, follower, sent) = (Script::default(), Script::default(), Sent::default());
        let ours = Box::new(Scripted(Rc::clone(&commands), Rc::clone(&sent)));
        let theirs = Box::new(Scripted(follower, Sent::default()));
        let mut log = ClusterLog::new(ours, theirs, Keys::new("speak"), |bytes| bytes.fill(7));
        commands.borrow_mut().push_back(Event::Connected(server_info()));
        assert!(log.poll().is_none() && log.wants_members());
        log.set_members(Vec::new(), Vec::new());
        log.begin_turn(4_000);
        commands.borrow_mut().extend(vouched([]));
        sent.borrow_mut().clear();
        assert!(log.poll().is_none());
        assert_eq!(*sent.borrow(), ["WATCH", "XREVRANGE", "XREVRANGE"]);
        // Nothing comes between: it would end the watch.
        log.begin_turn(5_000);
        assert!(log.poll().is_none() && log.next_deadline_ms().is_none());
        sent.borrow_mut().clear();
        commands.borrow_mut().extend([text("OK"), stream, snapshots].map(Event::Reply));
        assert!(log.poll().is_none());
        assert_eq!(*sent.borrow(), expected);
        assert_eq!(log.expected.is_empty(), expected.is_empty());
        assert_eq!(log.next_deadline_ms(), (!expected.is_empty()).then_some(5_100));
    }
}

/// Returns the reply to `XREAD` with records of another node, each with its time and its number.
fn page<const N: usize>(records: [(u64, u64); N]) -> Event {
    let record = |(unix_ms, sequence): (u64, u64)| {
        let value = entry::encode(1, sequence, b"commands");
        let fields = Value::Array(vec![text("r"), Value::Text(value.into())]);
        Value::Array(vec![text(&format!("{unix_ms}-0")), fields])
    };
    let records = Value::Array(records.map(record).into());
    let stream = Value::Array(vec![text("{speak}:log"), records]);
    Event::Reply(Value::Array(vec![stream]))
}

/// Takes the times of the records that were read.
fn times_ms(log: &mut ClusterLog) -> Vec<u64> {
    let events = std::iter::from_fn(|| log.poll());
    let time_ms = |event| match event {
        log::Event::Record(record) => Some(record.mono_ms),
        _ => None,
    };
    events.filter_map(time_ms).collect()
}

/// Else a node that loads its state again keeps messages, and sends addresses away, from then on.
#[test]
fn records_that_are_read_again_have_the_times_that_they_had() {
    let (commands, follower) = (Script::default(), Script::default());
    let ends =
        [&commands, &follower].map(|script| Box::new(Scripted(Rc::clone(script), Sent::default())));
    let [ours, theirs] = ends;
    let mut log = ClusterLog::new(ours, theirs, Keys::new("speak"), |bytes| bytes.fill(7));
    let start_ms = server_info().unix_ms;
    log.begin_turn(50_000);
    begin(&mut log, &commands, &follower);
    log.begin_turn(60_000);
    let records = [(start_ms + 1_000, 1), (start_ms + 9_000, 2)];
    follower.borrow_mut().push_back(page(records));
    assert_eq!(times_ms(&mut log), [51_000, 59_000]);
    log.reload();
    assert!(times_ms(&mut log).is_empty());
    follower.borrow_mut().push_back(Event::Connected(server_info()));
    assert!(times_ms(&mut log).is_empty());
    follower.borrow_mut().push_back(Event::Reply(Value::Array(Vec::new())));
    assert!(times_ms(&mut log).is_empty());
    follower.borrow_mut().push_back(page(records));
    assert_eq!(times_ms(&mut log), [51_000, 59_000]);
}

/// Replies of a server that is no Redis, or one that another program has written to.
struct Hostile(Random);

impl Hostile {
    fn number(&mut self) -> u64 {
        match self.0.below(8) {
            0 => u64::MAX - self.0.below(2),
            1 => POSITION_MAX + self.0.below(2),
            _ => self.0.below(5),
        }
    }

    fn id(&mut self) -> StreamId {
        StreamId { unix_ms: self.number(), number: self.number() }
    }

    fn entry(&mut self, node: u64) -> Value {
        let (id, number) = (self.id().to_string(), self.number());
        let node = self.0.pick(&[node, node, NO_NODE, 1, 2]);
        let end = LogEnd {
            last: Seal { id: self.id(), node, sequence: number },
            position: self.number(),
            bytes: self.number(),
        };
        let mut snapshot = SnapshotEntry::new(number, end);
        snapshot.pieces = self.0.below(3);
        let field = match self.0.below(6) {
            0 => vec![],
            1 | 2 => snapshot.encode(),
            _ => entry::encode(node, number, b"commands"),
        };
        let fields = vec![text("r"), Value::Text(field.into())];
        Value::Array(vec![text(&id), Value::Array(fields)])
    }

    fn vouch(&mut self, node: u64) -> [Value; 2] {
        let node = self.0.pick(&[node, 1, 2]).to_string();
        let name = self.0.pick(&["done", &*node, &*node, "x"]);
        let id = self.id();
        let value = if name == "done" { id.to_string() } else { format!("{} {id}", self.number()) };
        [text(name), text(&value)]
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Value) -> Value {
        Value::Array((0..self.0.below(4)).map(|_| item(self)).collect())
    }

    fn value(&mut self, node: u64) -> Value {
        match self.0.below(14) {
            0 => Value::Nil,
            1 => Value::Int(self.number().cast_signed()),
            2 => text(self.0.pick(&["OK", "QUEUED", "", "5-1", "x"])),
            3 => text(&self.id().to_string()),
            4 => text(&self.number().to_string()),
            5 => Value::Error(self.0.pick(&["READONLY", "OOM", "NOPERM x", ""]).into()),
            6 | 7 => self.list(|its| its.entry(node)),
            8 | 9 => {
                let page = |its: &mut Self, key| {
                    Value::Array(vec![text(key), its.list(|its| its.entry(node))])
                };
                let keys = ["{speak}:log", "{speak}:snapshots"];
                Value::Array(keys.map(|key| page(self, key)).into())
            }
            10 | 11 => {
                let vouches = (0..self.0.below(3)).flat_map(|_| self.vouch(node)).collect();
                let lists = [0; 3].map(|_| self.list(|its| its.entry(node)));
                Value::Array([Value::Array(vouches)].into_iter().chain(lists).collect())
            }
            _ => self.list(|its| Value::Int(its.number().cast_signed())),
        }
    }

    fn event(&mut self, node: u64) -> Event {
        match self.0.below(12) {
            0 => Event::Connected(ServerInfo {
                run_id: self.0.pick(&["4f1", "4f1", "b"]).into(),
                version: (7, 0, 15),
                unix_ms: self.number(),
                evicts: self.0.once_in(9),
                is_writable: !self.0.once_in(9),
            }),
            1 if self.0.once_in(3) => {
                let needs_operator = self.0.once_in(4);
                Event::Disconnected(Failure { reason: String::new(), needs_operator })
            }
            _ => Event::Reply(self.value(node)),
        }
    }
}

#[test]
fn no_reply_makes_the_log_panic() {
    let mut records = 0;
    for seed in 0..2_000 {
        println!("seed {seed}");
        let mut hostile = Hostile(Random::new(seed));
        let (commands, follower) = (Script::default(), Script::default());
        let ends = [&commands, &follower]
            .map(|script| Box::new(Scripted(Rc::clone(script), Sent::default())));
        let [ours, theirs] = ends;
        let mut log = ClusterLog::new(ours, theirs, Keys::new("speak"), |bytes| bytes.fill(7));
        log.set_sizes(1, 8 << 20);
        let (mut now_ms, mut position) = (0, 0);
        if !hostile.0.once_in(4) {
            begin(&mut log, &commands, &follower);
        }
        for _ in 0..200 {
            now_ms += hostile.0.pick(&[0, 1, 100, 3_000]);
            log.begin_turn(now_ms);
            let script = hostile.0.pick(&[&commands, &follower]);
            script.borrow_mut().push_back(hostile.event(log.node()));
            while let Some(event) = log.poll() {
                match event {
                    log::Event::Record(record) => {
                        assert!(record.position > position);
                        (position, records) = (record.position, records + 1);
                    }
                    log::Event::SnapshotBegins { .. } => {
                        log.abandon_snapshot();
                        log.renew_node();
                    }
                    log::Event::SnapshotEnds { position: end } => position = end,
                    _ => {}
                }
            }
            if log.wants_members() {
                log.set_members(vec![1, log.node()], vec![9]);
            }
            match hostile.0.below(8) {
                0 if log.is_ready() => log.append(now_ms, 0, b"commands"),
                1 => _ = log.begin_barrier(),
                2 => _ = log.withdraw(),
                3 if log.is_snapshot_due() => log.begin_snapshot(position),
                4 if log.wants_piece() => log.append_piece(b"piece"),
                5 if log.wants_piece() => log.finish_snapshot(),
                6 if hostile.0.once_in(20) => log.reload(),
                _ => {}
            }
            assert!(log.next_deadline_ms().is_none_or(|at| at > now_ms));
            assert!(log.state().is_some() && log.memory() < 1 << 20);
        }
    }
    assert!(records > 1_000, "{records} records");
}
