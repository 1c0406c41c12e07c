//! The process dies, and another one recovers the hub from the log.

use speak::hub::{Config, Epoch, Hub, Now, Proposals, Recovery};

use super::command::Applied;
use super::log::{Checkpoint, applied, decode, entry, position};
use super::machine::{Contents, Crash, Machine};
use super::shared_state::SharedState;
use super::world::World;

impl World {
    /// Compares the hub with what others recover from its log, and goes on with one of those.
    pub(crate) fn crash(&mut self) {
        if self.log.is_none() {
            return;
        }
        self.record.step(|| "crash".to_owned());
        self.check_recovery();
        self.check_prefix();
        self.check_clock_set_back();
        if self.random.once_in(2) {
            self.continue_recovered();
        }
    }

    fn config(&self) -> Config {
        self.plan.limits.config("anything", [9; 16])
    }

    pub(crate) fn machine(&mut self) -> Option<&mut Machine> {
        self.log.as_mut()?.machine.as_mut()
    }

    /// Recovers a hub from the first `records` records.
    fn recover(&self, checkpoint: Option<&Checkpoint>, records: usize, unix_ms: u64) -> (Hub, Now) {
        let log = self.log.as_ref().expect("there is a log");
        let mut recovery = Recovery::new(self.config());
        let from = checkpoint.map_or(0, |checkpoint| checkpoint.from);
        for piece in checkpoint.iter().flat_map(|checkpoint| &checkpoint.pieces) {
            recovery.load_piece(piece).expect("a piece");
        }
        for (index, record) in log.records.iter().enumerate().take(records).skip(from) {
            let at = |command| position(index, command);
            recovery.apply_record(record.now, &record.commands, at).expect("a record");
        }
        recovery.finish(unix_ms).expect("the log has begun")
    }

    /// Returns the wall clock of a process that starts now, if that is `away_ms` after the present.
    fn unix_ms_after(&self, away_ms: u64) -> u64 {
        let last = self.last_record();
        last.unix_ms + (self.now.mono.0 - last.mono.0) + away_ms
    }

    fn last_record(&self) -> Now {
        let log = self.log.as_ref().expect("there is a log");
        log.records.last().expect("the first record").now
    }

    fn state_of(&self, hub: &Hub) -> SharedState {
        let limits = &self.plan.limits;
        SharedState::of(hub, self.now.mono, limits.history, limits.retention_ms)
    }

    /// Claims that the log has the state of the hub, with a checkpoint and without one.
    fn check_recovery(&mut self) {
        let log = self.log.as_ref().expect("there is a log");
        let (records, unix_ms) = (log.records.len(), self.unix_ms_after(0));
        let (hub, now) = self.recover(None, records, unix_ms);
        assert_eq!(now.mono, self.now.mono, "time goes on");
        let state = self.state_of(&hub);
        let (again, _) = self.recover(None, records, unix_ms);
        assert_eq!(self.state_of(&again), state, "a second recovery equals the first");
        assert_eq!(again.applied_hash(), hub.applied_hash());
        assert_eq!(again.position(), hub.position());
        let hash = log.records[records - 1].hash;
        assert!(hash.is_none_or(|hash| hash == hub.applied_hash()), "the hash of all records");
        if !self.hub.has_undelivered() {
            assert_eq!(state, self.state_of(&self.hub), "what was recovered, and what was there");
        }
        self.record.tally.count("recovered without a checkpoint");
        if let Some(machine) = &log.machine {
            let contents = machine.contents();
            let recovered = contents.hub(&self.config(), unix_ms).expect("no damage");
            let (from_disk, now) = recovered.expect("the journal has begun");
            assert_eq!(now.mono, self.now.mono, "time goes on");
            assert_eq!(self.state_of(&from_disk), state, "the disk has the records of the log");
            assert_eq!(from_disk.position(), hub.position());
            assert!(hash.is_none_or(|hash| hash == from_disk.applied_hash()), "the hash");
            let what = "recovered from a disk with a snapshot";
            self.record.tally.count_if(contents.snapshot > 0, what);
            self.record.tally.count("recovered from a disk");
        }
        let Some(checkpoint) = &log.complete else { return };
        let (with, now) = self.recover(Some(checkpoint), records, unix_ms);
        assert_eq!(now.mono, self.now.mono, "time goes on");
        assert_eq!(self.state_of(&with), state, "with and without a checkpoint");
        assert_eq!(with.position(), hub.position());
        assert!(hash.is_none_or(|hash| hash == with.applied_hash()), "the hash with a checkpoint");
        self.record.tally.count("recovered with a checkpoint");
    }

    /// Claims that any prefix of the log is recovered, as far as its hash says.
    fn check_prefix(&mut self) {
        let log = self.log.as_ref().expect("there is a log");
        let checkpoint = log.complete.as_ref().filter(|_| self.random.once_in(2));
        let least = checkpoint.map_or(1, |checkpoint| checkpoint.until);
        let records = least + self.random.index(log.records.len() - least + 1);
        let (hub, _) = self.recover(checkpoint, records, 0);
        let hash = log.records[records - 1].hash;
        assert!(hash.is_none_or(|hash| hash == hub.applied_hash()), "the hash of a prefix");
        assert_eq!(hub.gauges().readers, 0);
        self.record.tally.count("prefix recovered");
    }

    /// Claims that no time has passed for a process whose clock was set back.
    fn check_clock_set_back(&mut self) {
        let last = self.last_record();
        let records = self.log.as_ref().map_or(0, |log| log.records.len());
        let (_, now) = self.recover(None, records, last.unix_ms - 1);
        assert_eq!(now.mono, last.mono, "the clock does not go back");
    }

    /// Goes on with a hub that another process recovers. Proposals may be in the log, though no
    /// process has applied them.
    fn continue_recovered(&mut self) {
        let mut proposals = Proposals::default();
        self.hub.swap_proposals(&mut proposals);
        let expected = self.model.take_proposals();
        assert_eq!(proposals.count() as usize, expected.len());
        self.restart(&proposals, false);
    }

    /// The process ends, and another one recovers the hub. The proposals are in the log or not:
    /// they may have been written, with an outcome that is unknown.
    pub(crate) fn restart(&mut self, proposals: &Proposals, are_written: bool) {
        let away_ms = self.random.pick(&[0, 0, 30, 2_000, 80_000]);
        let contents = self.crash_machine(proposals, are_written);
        let log = self.log.as_ref().expect("there is a log");
        let is_kept = match &log.machine {
            Some(machine) => machine.entries.len() > log.records.len(),
            None => proposals.count() > 0 && self.random.once_in(2),
        };
        if is_kept {
            self.apply_unseen(proposals);
            self.record.tally.count("record in the log that no process applied");
        } else {
            self.record.tally.count_if(proposals.count() > 0, "proposals lost");
        }
        let unix_ms = self.unix_ms_after(away_ms);
        let log = self.log.as_mut().expect("there is a log");
        self.record.tally.count_if(log.begun.is_some(), "checkpoint lost in a crash");
        log.begun = None;
        let checkpoint = log.complete.clone();
        let records = log.records.len();
        let (hub, now) = match contents {
            Some(contents) => {
                let recovered = contents.hub(&self.config(), unix_ms).expect("no damage");
                recovered.expect("the journal has begun")
            }
            None => self.recover(checkpoint.as_ref(), records, unix_ms),
        };
        assert_eq!(now.mono, self.now.mono.after(away_ms), "the clock continues");
        self.hub = hub;
        self.now = now;
        self.forget_readers();
        self.model.recover(now);
        self.model.begin_turn(now);
        self.record.note(|| format!("recovered, away for {away_ms} ms: {now:?}"));
        self.record.tally.count("went on after a crash");
        self.record.tally.count_if(!self.model.living().is_empty(), "session recovered");
    }

    /// Crashes the machine, if there is one. Returns what it then reads.
    fn crash_machine(&mut self, proposals: &Proposals, are_written: bool) -> Option<Contents> {
        let log = self.log.as_mut().expect("there is a log");
        let machine = log.machine.as_mut()?;
        let crash = machine.draw_crash();
        let begins = !are_written && proposals.count() > 0 && self.random.once_in(2);
        let contents = if begins {
            machine.crash_in_append(entry(self.now, proposals.bytes()), crash)
        } else {
            machine.crash(crash)
        };
        Some(contents)
    }

    /// The power fails, and the journal was not synchronized: it has a prefix of the records, and
    /// begins a new epoch. The run ends, since the model cannot forget.
    pub(crate) fn lose_records(&mut self) {
        let config = self.config();
        let Some(log) = &mut self.log else { return };
        let Some(machine) = &mut log.machine else { return };
        self.record.step(|| "the power fails".to_owned());
        let contents = machine.crash(Crash::PowerLoss);
        let records = contents.position as usize;
        let recovered = contents.hub(&config, 0).expect("no damage");
        let is_whole = log.complete.as_ref().is_none_or(|its| its.until <= records);
        let Some((mut hub, _)) = recovered else {
            return self.record.tally.count("all records lost");
        };
        if is_whole && let Some(record) = records.checked_sub(1).map(|last| &log.records[last]) {
            assert!(record.hash.is_none_or(|hash| hash == hub.applied_hash()), "a prefix");
        }
        hub.set_epoch(Epoch::new(*b"newepoch"));
        machine.begin_epoch(entry(self.now, &hub.numbering(false)));
        let contents = machine.contents();
        let again = contents.hub(&config, 0).expect("no damage");
        let (again, _) = again.expect("the journal has begun");
        assert_eq!(self.state_of(&again), self.state_of(&hub), "what was there, in a new epoch");
        self.record.tally.count("new epoch after a loss of power");
    }

    /// Appends a record that no process applied before the crash.
    fn apply_unseen(&mut self, proposals: &Proposals) {
        let records = self.log.as_ref().map_or(0, |log| log.records.len());
        let (mut hub, _) = self.recover(None, records, self.unix_ms_after(0));
        let now = self.now;
        let record = self.push_record(now, proposals.bytes());
        for (index, command) in (0..).zip(decode(proposals.bytes())) {
            let got = hub.apply(now, now.mono, position(record, index), &command).map(applied);
            let owned = self.owned(&command);
            let expected = self.model.apply(&owned, got.as_ref().ok().and_then(Applied::id));
            assert_eq!(got, expected, "{owned:?}");
        }
    }

    fn forget_readers(&mut self) {
        self.resumed = Default::default();
        self.waits.clear();
        self.reads.clear();
        self.followers.iter_mut().for_each(|follower| follower.client = None);
        self.restored = self.hub.gauges().messages as u64;
    }
}
