//! A machine with a journal on a simulated disk: it crashes at any moment, and starts again.
//!
//! It keeps all records that were acknowledged, and compares them with what each start reads.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use speak::hub::{Config as HubConfig, Corrupt, Hub, Millis, Now, Recovery};
use speak::journal::{Config, Item, Journal, JournalError, Opened, Recovered, SteppedHelper};
use speak::log::{FILE_HEADER_BYTES, FRAME_HEAD_BYTES, Log, Outcome, SyncMode};
use speak::service::command_position;
use support::random::Random;

use crate::sectors::{Disk, Faults, Traits};

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) mono_ms: u64,
    pub(crate) unix_ms: u64,
    pub(crate) commands: Vec<u8>,
}

/// Way in which a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process alone.
    Kill,
    /// The machine loses its power.
    PowerLoss,
}

/// What a start reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) pieces: Vec<Vec<u8>>,
    /// Position of the snapshot, or 0.
    pub(crate) snapshot: u64,
    /// Records after it.
    pub(crate) entries: Vec<Entry>,
    /// Position of the last record.
    pub(crate) position: u64,
    pub(crate) needs_new_epoch: bool,
}

/// Settings of a machine.
#[derive(Clone, Debug)]
pub(crate) struct MachinePlan {
    traits: Traits,
    pub(crate) sync: SyncMode,
    segment_bytes: u64,
    snapshot_min_bytes: u64,
    /// A call of the disk fails once in so many times; 0 for never.
    pub(crate) fails: u64,
    /// A start is interrupted once in so many times.
    interrupts: u64,
    flips_bits: bool,
}

pub(crate) struct Machine {
    plan: MachinePlan,
    config: HubConfig,
    pub(crate) disk: Disk,
    random: Random,
    boots: u8,
    /// The running process.
    journal: Option<(Journal, SteppedHelper)>,
    /// Records that were acknowledged.
    pub(crate) entries: Vec<Entry>,
    /// Record that is being written, or whose outcome is unknown.
    pub(crate) in_flight: Option<Entry>,
    /// Records that were refused and may come back with a loss of power.
    refused: Vec<Entry>,
    /// Position of the newest snapshot that was complete.
    snapshot: u64,
    /// Position of the snapshot that is being written.
    begun: Option<u64>,
    pub(crate) tally: Vec<&'static str>,
    /// The power failed, and not all records were synchronized.
    is_lossy: bool,
}

impl MachinePlan {
    pub(crate) fn draw(random: &mut Random) -> Self {
        Self {
            traits: Traits::draw(random),
            sync: if random.once_in(3) { SyncMode::Os } else { SyncMode::Always },
            segment_bytes: random.pick(&[100, 700, 3_000, 20_000]),
            snapshot_min_bytes: random.pick(&[300, 2_000, 100_000]),
            fails: random.pick(&[0, 0, 300, 60]),
            interrupts: random.pick(&[0, 2, 5]),
            flips_bits: random.once_in(2),
        }
    }
}

impl Machine {
    /// Makes a machine with an empty journal, of which this is the first record.
    pub(crate) fn new(
        plan: MachinePlan,
        config: HubConfig,
        mut random: Random,
        first: Entry,
    ) -> Self {
        let disk = Disk::new(plan.traits, Random::new(random.next()));
        let mut machine = Self {
            plan,
            config,
            disk,
            random,
            boots: 1,
            journal: None,
            entries: Vec::new(),
            in_flight: None,
            refused: Vec::new(),
            snapshot: 0,
            begun: None,
            tally: Vec::new(),
            is_lossy: false,
        };
        let journal = machine.start(&machine.disk, &Contents::default()).expect("an empty disk");
        machine.journal = Some(journal);
        machine.append(first);
        machine.do_jobs();
        assert!(matches!(machine.take_outcome(), Some(Outcome::Durable { position: 1, .. })));
        machine
    }

    fn config(&self) -> Config {
        Config {
            segment_bytes: self.plan.segment_bytes,
            snapshot_min_bytes: self.plan.snapshot_min_bytes,
            ..Config::new(PathBuf::from("journal"), self.plan.sync)
        }
    }

    fn open(&self, disk: &Disk) -> Opened {
        Opened::open_on(Arc::new(disk.clone()), self.config(), [self.boots; 16])
    }

    fn count(&mut self, what: &'static str) {
        self.tally.push(what);
    }

    /// Reads a disk as a start does, which changes nothing.
    fn recover(&self, disk: &Disk) -> Result<(Recovered, Contents), JournalError> {
        let mut contents = Contents::default();
        let recovered = self.open(disk).recover(&mut |item| {
            match item {
                Item::Piece(piece) => contents.pieces.push(piece.to_owned()),
                Item::Record(record) => contents.entries.push(Entry {
                    mono_ms: record.mono_ms,
                    unix_ms: record.unix_ms,
                    commands: record.commands.to_owned(),
                }),
            }
            Ok(())
        })?;
        contents.position = recovered.position;
        contents.snapshot = recovered.position - contents.entries.len() as u64;
        contents.needs_new_epoch = recovered.needs_new_epoch;
        assert_eq!(recovered.records, contents.entries.len() as u64);
        assert!(contents.snapshot == 0 || !contents.pieces.is_empty(), "records from the first on");
        Ok((recovered, contents))
    }

    /// Starts on a disk that holds `expected`.
    fn start(
        &self,
        disk: &Disk,
        expected: &Contents,
    ) -> Result<(Journal, SteppedHelper), JournalError> {
        let (recovered, contents) = self.recover(disk)?;
        assert!(contents == *expected, "another recovery equals the first");
        recovered.start_stepped()
    }

    /// Returns what a start would read now.
    pub(crate) fn contents(&self) -> Contents {
        match self.recover(&self.disk) {
            Ok((_, contents)) => contents,
            Err(JournalError(line)) => {
                let (files, events) = (self.disk.list(), &self.tally);
                panic!("a crash leaves no damage: {line} {:?} {files:?} {events:?}", self.plan);
            }
        }
    }
}

/// The running process.
impl Machine {
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal.as_ref().expect("the process runs").0
    }

    pub(crate) fn journal_mut(&mut self) -> &mut Journal {
        &mut self.journal.as_mut().expect("the process runs").0
    }

    pub(crate) fn helper(&self) -> &SteppedHelper {
        &self.journal.as_ref().expect("the process runs").1
    }

    fn do_jobs(&self) {
        while self.helper().has_job() {
            let _ = self.helper().step(Duration::ZERO);
        }
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert!(self.in_flight.is_none(), "one record at a time");
        let last = self.entries.last().map_or(0, |last| last.mono_ms);
        assert!(entry.mono_ms >= last, "time does not go back");
        self.journal_mut().append(entry.mono_ms, entry.unix_ms, &entry.commands);
        self.in_flight = Some(entry);
    }

    pub(crate) fn take_outcome(&mut self) -> Option<Outcome> {
        let outcome = self.journal_mut().take_outcome();
        self.note_snapshot();
        match outcome? {
            Outcome::Durable { position, .. } => {
                self.entries.extend(self.in_flight.take());
                assert_eq!(position, self.entries.len() as u64, "positions rise by one");
            }
            // It is not in the log, and never will be.
            Outcome::Full => {
                let refused = self.in_flight.take();
                self.refused.extend(refused.filter(|_| self.plan.sync == SyncMode::Os));
            }
            Outcome::Failed => {}
        }
        outcome
    }

    /// Notes the end of a snapshot.
    fn note_snapshot(&mut self) {
        let Some(position) = self.begun.filter(|_| !self.journal().has_snapshot()) else { return };
        self.begun = None;
        // If it was given up, the older one stays.
        if self.journal().stats().snapshot_position == position {
            self.snapshot = position;
            self.count("snapshot complete");
        } else {
            self.count("snapshot given up");
        }
    }

    /// Notes the progress of a snapshot while no record is being written.
    pub(crate) fn poll(&mut self) {
        assert!(self.take_outcome().is_none(), "no record is being written");
    }

    pub(crate) fn has_snapshot(&self) -> bool {
        self.journal().has_snapshot()
    }

    pub(crate) fn abandon_snapshot(&mut self) {
        self.journal_mut().abandon_snapshot();
        self.note_snapshot();
    }

    /// Another process takes over the journal, as in an upgrade.
    pub(crate) fn hand_over(&mut self) {
        self.disk.set_faults(Faults::default());
        let (journal, _) = self.journal.take().expect("the process runs");
        let (_, outcome) = journal.close();
        assert!(outcome.is_none(), "no record is being written");
        self.begun = None;
        let contents = self.contents();
        assert_eq!(contents.position, self.entries.len() as u64);
        self.snapshot = contents.snapshot;
        let opened = self.open(&self.disk);
        let recovered = if self.random.once_in(2) {
            opened.resume(contents.position)
        } else {
            opened.recover(&mut |_| Ok(()))
        };
        let started = recovered.and_then(Recovered::start_stepped);
        self.journal = Some(started.expect("a disk without faults"));
        assert!(self.contents() == contents, "the same after the start");
        self.count("journal handed over");
    }

    pub(crate) fn begin_snapshot(&mut self, position: u64) {
        assert_eq!(position, self.entries.len() as u64, "all records are applied");
        self.begun = Some(position);
        self.journal_mut().begin_snapshot(position);
    }
}

/// Crashes, and the next start.
impl Machine {
    /// The process ends in the middle of what it does, and so does the next start perhaps. Returns
    /// what the start after that reads, which holds all acknowledged records.
    pub(crate) fn crash(&mut self, crash: Crash) -> Contents {
        self.end_process(crash);
        let mut contents = self.check_contents();
        self.check_flips(&contents);
        loop {
            let is_interrupted =
                self.plan.interrupts > 0 && self.random.once_in(self.plan.interrupts);
            if is_interrupted {
                self.disk.die_after(1 + self.random.below(25));
            }
            let faults = self.disk.faults();
            if is_interrupted {
                self.disk.set_faults(Faults { fails: 20, ..faults });
            }
            let started = self.start(&self.disk, &contents);
            self.disk.set_faults(faults);
            match started {
                Ok(journal) if !self.disk.is_dead() => {
                    self.disk.survive();
                    self.journal = Some(journal);
                    break;
                }
                started => {
                    drop(started);
                    self.count("start interrupted");
                    self.disk.set_faults(Faults::default());
                    let crash = self.draw_crash();
                    self.lose(crash);
                    contents = self.check_contents();
                }
            }
        }
        let again = self.contents();
        assert!(again == contents, "a recovery after the start equals the first");
        self.settle(&contents);
        contents
    }

    /// Appends a record, and crashes before its outcome is known.
    pub(crate) fn crash_in_append(&mut self, entry: Entry, crash: Crash) -> Contents {
        if self.plan.sync == SyncMode::Os {
            // The record is written before `append` returns.
            self.disk.die_after(self.random.below(12));
        }
        self.append(entry);
        self.crash(crash)
    }

    /// Returns a way to crash that records survive.
    pub(crate) fn draw_crash(&mut self) -> Crash {
        if !self.may_lose_records() && self.random.once_in(2) {
            Crash::PowerLoss
        } else {
            Crash::Kill
        }
    }

    /// Jobs may be under way, and none, some or all of their calls had an effect.
    fn end_process(&mut self, crash: Crash) {
        let (journal, helper) = self.journal.take().expect("the process runs");
        self.count(match crash {
            Crash::Kill => "killed",
            Crash::PowerLoss => "power lost",
        });
        if !self.disk.is_dead() {
            let calls = if self.random.once_in(4) { 0 } else { self.random.below(12) };
            self.disk.die_after(calls);
        }
        while helper.has_job() {
            let _ = helper.step(Duration::ZERO);
        }
        drop(journal);
        self.begun = None;
        self.lose(crash);
    }

    fn lose(&mut self, crash: Crash) {
        match crash {
            Crash::Kill => self.disk.survive(),
            Crash::PowerLoss => {
                self.disk.lose_power();
                self.boots = self.boots.checked_add(1).expect("few boots");
                self.is_lossy |= self.may_lose_records();
            }
        }
    }

    /// Returns a record that was written.
    fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.iter().chain(&self.in_flight).nth(index)
    }

    /// Claims that the disk has all acknowledged records, and only those that were written.
    fn check_contents(&self) -> Contents {
        let contents = self.contents();
        let from = contents.snapshot as usize;
        for (index, entry) in contents.entries.iter().enumerate() {
            let expected = self.entry(from + index);
            let is_refused = self.is_lossy && self.refused.contains(entry);
            let position = from + index + 1;
            assert!(Some(entry) == expected || is_refused, "record {position} is another");
        }
        let (acknowledged, end) = (self.entries.len(), contents.position as usize);
        assert!(end <= acknowledged + usize::from(self.in_flight.is_some()), "{end} is too many");
        if self.is_lossy {
            assert!(contents.needs_new_epoch, "records may be lost");
        } else {
            assert!(!contents.needs_new_epoch, "nothing is lost");
            assert!(end >= acknowledged, "{end} of {acknowledged} records are there");
            assert!(contents.snapshot >= self.snapshot, "the complete snapshot is there");
        }
        contents
    }

    /// Notes what a process has read that serves now: it has told others.
    fn settle(&mut self, contents: &Contents) {
        let (acknowledged, end) = (self.entries.len(), contents.position as usize);
        self.snapshot = contents.snapshot;
        if end > acknowledged {
            self.entries.extend(self.in_flight.take());
            self.count("record kept that was being written");
        } else if self.in_flight.take().is_some() {
            self.count("record lost that was being written");
        }
        self.count(if end < acknowledged { "record lost with the power" } else { "nothing lost" });
        self.entries.truncate(end);
    }

    /// The machine loses its power, and the next start begins a new epoch with this record. Claims
    /// that another one does not, and has the same.
    pub(crate) fn begin_epoch(&mut self, entry: Entry) {
        self.disk.set_faults(Faults::default());
        self.append(entry);
        self.do_jobs();
        assert!(matches!(self.take_outcome(), Some(Outcome::Durable { .. })));
        self.is_lossy = false;
        let contents = self.crash(Crash::Kill);
        assert!(!contents.needs_new_epoch, "it was begun");
        assert_eq!(contents.position as usize, self.entries.len());
    }

    /// The disk has no faults from now on.
    pub(crate) fn heal(&mut self) {
        self.plan.fails = 0;
        self.disk.set_faults(Faults::default());
    }

    /// A call of the disk fails once in so many times; 0 for never.
    pub(crate) fn fails(&self) -> u64 {
        self.plan.fails
    }

    /// Returns whether a loss of power may lose acknowledged records.
    pub(crate) fn may_lose_records(&self) -> bool {
        self.plan.sync == SyncMode::Os
    }
}

/// Damage.
impl Machine {
    /// Flips a bit on copies of the disk. Claims that a start finds it or has all records, and that
    /// a repair keeps those before the damage.
    fn check_flips(&mut self, contents: &Contents) {
        if !self.plan.flips_bits || contents.needs_new_epoch {
            return;
        }
        for _ in 0..3 {
            let disk = self.disk.copy();
            let Some((name, offset)) = disk.flip_bit(&mut self.random) else { return };
            match self.recover(&disk) {
                Ok((_, found)) if found == *contents => self.count("bit flipped in unused space"),
                Ok((_, found)) if found.position == contents.position => {
                    assert!(name.starts_with("snapshot"), "records are missing: {name}");
                    assert!(found.snapshot < contents.snapshot);
                    let from = (contents.snapshot - found.snapshot) as usize;
                    assert!(found.entries[from..] == contents.entries);
                    self.count("older records replace a damaged snapshot");
                }
                Ok((_, found)) if self.is_last_record(&disk, (&name, offset), contents) => {
                    // It may have been interrupted.
                    assert_eq!(found.position + 1, contents.position);
                    let kept = &contents.entries[..contents.entries.len() - 1];
                    assert!(found.entries == kept && found.pieces == contents.pieces);
                    self.count("bit flipped in the last record");
                }
                Ok((_, found)) => {
                    // The machine may have stopped before the disk had all of this file.
                    let is_newest = disk.list().iter().rfind(|it| is_segment(it)) == Some(&name);
                    let is_header = offset < FILE_HEADER_BYTES;
                    let is_unsynced = self.may_lose_records();
                    assert!(is_newest && is_header && is_unsynced, "{name} at {offset}");
                    assert!(found.needs_new_epoch, "records are lost: {name} at {offset}");
                    self.count("bit flipped in the newest header");
                }
                Err(JournalError(line)) => {
                    self.check_repair(&disk, (&name, offset), &line, contents);
                }
            }
        }
    }

    /// Says whether an offset is one of the last record of the newest segment.
    fn is_last_record(
        &self,
        disk: &Disk,
        (name, offset): (&str, usize),
        contents: &Contents,
    ) -> bool {
        let newest = disk.list().into_iter().rfind(|name| is_segment(name));
        let ends = self.ends_in(name, contents);
        let [.., start, end] = ends[..] else { return false };
        newest.as_deref() == Some(name) && (start..end).contains(&offset)
    }

    /// Returns the offsets between the records of a segment, from the end of its header on.
    fn ends_in(&self, segment: &str, contents: &Contents) -> Vec<usize> {
        let mut end = FILE_HEADER_BYTES;
        let mut ends = vec![end];
        let first = first_position(segment) as usize;
        for index in first - 1..contents.position as usize {
            let entry = self.entry(index).expect("it was written");
            end += FRAME_HEAD_BYTES + entry.commands.len();
            ends.push(end);
        }
        ends
    }

    fn check_repair(
        &mut self,
        disk: &Disk,
        (name, offset): (&str, usize),
        line: &str,
        contents: &Contents,
    ) {
        let place = format!("journal/{name} at offset ");
        let told = line.split_once(&place).map(|(_, rest)| rest.split(':').next());
        let told: usize = told.flatten().and_then(|it| it.parse().ok()).expect(line);
        assert!(told <= offset, "the damage is at {offset}: {line}");
        let cuts = self.open(disk).repair(1, false).expect("it can be repaired");
        assert!(!cuts.is_empty());
        let (_, kept) = self.recover(disk).expect("it was repaired");
        assert!(kept.needs_new_epoch);
        for (index, entry) in (kept.snapshot as usize..).zip(&kept.entries) {
            assert!(Some(entry) == self.entry(index), "the records are the same");
        }
        if is_segment(name) {
            let ends = self.ends_in(name, contents);
            let whole = ends.iter().skip(1).take_while(|end| **end <= offset).count() as u64;
            let least = (first_position(name) - 1 + whole).max(contents.snapshot);
            assert!(kept.position >= least, "{} of {least} records before it", kept.position);
        }
        if let Err(Corrupt(fault)) = kept.hub(&self.config, 0) {
            panic!("a hub does not recover after a repair: {fault}; {line}");
        }
        let started = self.start(disk, &kept);
        drop(started.map_err(|error| error.0).expect("it was repaired"));
        self.count("damage repaired");
    }
}

fn is_segment(name: &str) -> bool {
    name.starts_with("segment-") && name.len() == "segment-".len() + 20
}

/// Position in the name of a segment.
fn first_position(segment: &str) -> u64 {
    segment["segment-".len()..].parse().expect("a position")
}

impl Contents {
    /// Recovers a hub. `None` for an empty journal.
    pub(crate) fn hub(
        &self,
        config: &HubConfig,
        unix_ms: u64,
    ) -> Result<Option<(Hub, Now)>, Corrupt> {
        let mut recovery = Recovery::new(config.clone());
        for piece in &self.pieces {
            recovery.load_piece(piece)?;
        }
        for (record, entry) in (self.snapshot + 1..).zip(&self.entries) {
            let now = Now { mono: Millis(entry.mono_ms), unix_ms: entry.unix_ms };
            let position = |index| command_position(record, index);
            recovery.apply_record(now, &entry.commands, position)?;
        }
        Ok(recovery.finish(unix_ms))
    }
}
