//! A simulated disk with the journal: slow, full for a while, failing, and cut off by a crash.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use speak::hub::{Config, Hub, Millis, Now, Recovery};
use speak::log::{Log, Outcome};
use speak::service::command_position;
use support::random::Random;

use crate::plan::DiskPlan;

pub(crate) type SharedDisk = Rc<RefCell<Disk>>;

pub(crate) struct Disk {
    pub(crate) plan: DiskPlan,
    random: Random,
    now: u64,
    unix_ms: u64,
    /// Until then, there is no room.
    pub(crate) full_until: u64,
    records: Vec<Record>,
    writing: Option<Writing>,
    snapshot: Option<Snapshot>,
    /// Snapshot that is being written, and the time at which its last piece is on the disk.
    begun: Option<(Snapshot, u64)>,
    has_failed: bool,
    /// The helper thread has woken the loop.
    is_signalled: bool,
    /// The last time at which a write took long, or was refused.
    pub(crate) trouble_at: Option<u64>,
    pub(crate) snapshots: u64,
    pub(crate) refusals: u64,
}

#[derive(Clone)]
struct Record {
    now: Now,
    commands: Vec<u8>,
}

struct Writing {
    record: Record,
    due: u64,
    outcome: Option<Outcome>,
}

#[derive(Clone, Default)]
struct Snapshot {
    /// Number of the records before it.
    records: usize,
    pieces: Vec<Vec<u8>>,
    /// Time of the last piece.
    end: Now,
}

/// The journal on such a disk, as the service drives it.
pub(crate) struct SimLog(pub(crate) SharedDisk);

impl Disk {
    /// Makes a disk with a new journal of this hub.
    pub(crate) fn new(plan: DiskPlan, random: Random, hub: &Hub, now: Now) -> Self {
        Self {
            plan,
            random,
            now: now.mono.0,
            unix_ms: now.unix_ms,
            full_until: 0,
            records: vec![Record { now, commands: hub.numbering(true) }],
            writing: None,
            snapshot: None,
            begun: None,
            has_failed: false,
            is_signalled: false,
            trouble_at: None,
            snapshots: 0,
            refusals: 0,
        }
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, ms: u64, unix_ms: u64) {
        let next = self.next_landing();
        self.now += ms;
        self.unix_ms = unix_ms;
        self.is_signalled |= next.is_some_and(|at| at <= self.now);
        let is_slow =
            self.writing.as_ref().is_some_and(|it| self.now >= it.record.now.mono.0 + 500);
        if is_slow {
            self.trouble_at = Some(self.now);
        }
    }

    /// Returns the time at which the helper thread wakes the loop next.
    pub(crate) fn next_landing(&self) -> Option<u64> {
        let write = self.writing.as_ref().map(|writing| writing.due);
        let piece = self.begun.as_ref().map(|(_, due)| *due);
        [write, piece].into_iter().flatten().filter(|at| *at > self.now).min()
    }

    pub(crate) fn has_signal(&self) -> bool {
        self.is_signalled
    }

    pub(crate) fn take_signal(&mut self) -> bool {
        std::mem::take(&mut self.is_signalled)
    }

    /// The disk is quick and has room from now on.
    pub(crate) fn heal(&mut self) {
        self.full_until = 0;
        self.plan.delays = vec![0];
        (self.plan.fails, self.plan.fills) = (0, false);
        if let Some(writing) = &mut self.writing {
            writing.outcome = None;
        }
    }

    /// The process dies. What was being written is there or not. Returns whether it is.
    pub(crate) fn crash(&mut self) -> bool {
        self.begun = None;
        self.has_failed = false;
        self.is_signalled = false;
        self.trouble_at = Some(self.now);
        let writing = self.writing.take().filter(|_| self.random.once_in(2));
        let is_kept = writing.is_some();
        self.records.extend(writing.map(|writing| writing.record));
        is_kept
    }

    /// Recovers the hub, at the time `mono_ms`.
    pub(crate) fn recover(&self, config: &Config, mono_ms: u64, uses_snapshot: bool) -> (Hub, Now) {
        let mut recovery = Recovery::new(config.clone());
        let snapshot = self.snapshot.as_ref().filter(|_| uses_snapshot);
        for piece in snapshot.iter().flat_map(|snapshot| &snapshot.pieces) {
            recovery.load_piece(piece).expect("a piece");
        }
        let from = snapshot.map_or(0, |snapshot| snapshot.records);
        for (at, record) in self.records.iter().enumerate().skip(from) {
            let position = |index| command_position(at as u64 + 1, index);
            recovery.apply_record(record.now, &record.commands, position).expect("a record");
        }
        let mut last = self.records.last().expect("the first record").now;
        if let Some(snapshot) = snapshot.filter(|snapshot| snapshot.end.mono > last.mono) {
            last = snapshot.end;
        }
        let unix_ms = last.unix_ms + mono_ms - last.mono.0;
        recovery.finish(unix_ms).expect("the journal has begun")
    }

    /// Returns whether a record is being written.
    pub(crate) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Returns the number of records.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }
}

impl Log for SimLog {
    fn is_ready(&self) -> bool {
        let disk = self.0.borrow();
        disk.writing.is_none() && !disk.has_failed
    }

    fn append(&mut self, mono_ms: u64, unix_ms: u64, commands: &[u8]) {
        assert!(self.is_ready(), "one record at a time, and none after a failure");
        assert!(!commands.is_empty());
        let mut disk = self.0.borrow_mut();
        let last = disk.records.last().expect("the first record").now;
        assert!(mono_ms >= last.mono.0, "time does not go back");
        let delays = disk.plan.delays.clone();
        let due = disk.now + disk.random.pick(&delays);
        let fails = disk.plan.fails;
        let outcome = if disk.now < disk.full_until {
            Some(Outcome::Full)
        } else if fails > 0 && disk.random.once_in(fails) {
            Some(Outcome::Failed)
        } else {
            None
        };
        let now = Now { mono: Millis(mono_ms), unix_ms };
        let record = Record { now, commands: commands.to_owned() };
        disk.writing = Some(Writing { record, due, outcome });
    }

    fn close(self: Box<Self>) {}

    fn take_outcome(&mut self) -> Option<Outcome> {
        let mut disk = self.0.borrow_mut();
        let now = disk.now;
        let writing = disk.writing.take_if(|writing| writing.due <= now)?;
        match writing.outcome {
            None => disk.records.push(writing.record),
            Some(Outcome::Failed) => {
                disk.has_failed = true;
                // It may be on the disk all the same.
                if disk.random.once_in(2) {
                    disk.records.push(writing.record);
                }
            }
            Some(_) => disk.refusals += 1,
        }
        if writing.outcome.is_some() {
            disk.trouble_at = Some(now);
            if disk.has_failed || disk.random.once_in(2) {
                disk.begun = None;
            }
        }
        let position = disk.records.len() as u64;
        Some(writing.outcome.unwrap_or(Outcome::Durable { position, flush: Duration::ZERO }))
    }

    fn bytes(&self) -> u64 {
        self.0.borrow().records.iter().map(|record| record.commands.len() as u64).sum()
    }

    fn is_snapshot_due(&self) -> bool {
        let disk = self.0.borrow();
        let since = disk.snapshot.as_ref().map_or(0, |snapshot| snapshot.records);
        !disk.has_failed
            && disk.begun.is_none()
            && disk.records.len() >= since + disk.plan.snapshot_records
    }

    fn begin_snapshot(&mut self, position: u64) {
        let mut disk = self.0.borrow_mut();
        assert_eq!(position, disk.records.len() as u64, "all records are applied");
        let records = position as usize;
        let now = disk.now;
        disk.begun = Some((Snapshot { records, ..Snapshot::default() }, now));
        disk.is_signalled = true;
    }

    fn has_snapshot(&self) -> bool {
        self.0.borrow().begun.is_some()
    }

    fn wants_piece(&self) -> bool {
        let disk = self.0.borrow();
        disk.begun.as_ref().is_some_and(|(_, due)| *due <= disk.now)
    }

    fn append_piece(&mut self, bytes: &[u8]) {
        assert!(self.wants_piece());
        let mut disk = self.0.borrow_mut();
        let delays = disk.plan.delays.clone();
        let due = disk.now + disk.random.pick(&delays);
        disk.is_signalled |= due == disk.now;
        let end = Now { mono: Millis(disk.now), unix_ms: disk.unix_ms };
        let (snapshot, at) = disk.begun.as_mut().expect("one was begun");
        snapshot.pieces.push(bytes.to_owned());
        snapshot.end = end;
        *at = due;
    }

    fn finish_snapshot(&mut self) {
        assert!(self.wants_piece());
        let mut disk = self.0.borrow_mut();
        disk.snapshot = disk.begun.take().map(|(snapshot, _)| snapshot);
        disk.snapshots += 1;
    }

    fn abandon_snapshot(&mut self) {
        self.0.borrow_mut().begun = None;
    }
}
