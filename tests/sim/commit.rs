//! From proposals to records, and from records to the hub and the model.

use std::time::Duration;

use speak::hub::{
    Command as HubCommand, Introducing as HubIntroducing, LogHealth, Now, Proposal, ProposalCursor,
    Proposals,
};
use speak::log::{Log as _, Outcome};
use support::random::Random;

use super::command::{Applied, Command, Introducer, Introducing};
use super::log::{Checkpoint, Log, LogRecord, Logging, applied, decode, entry, position};
use super::machine::Machine;
use super::pending::Identity;
use super::sectors::Faults;
use super::world::World;

impl World {
    /// Begins the log with its first record.
    pub(crate) fn begin_log(&mut self) {
        self.hub.begin_logging();
        self.model.begin_logging();
        let numbering = self.hub.numbering(true);
        let machine = self.plan.machine.clone().map(|plan| {
            let config = self.plan.limits.config("anything", [9; 16]);
            let random = Random::new(self.random.next());
            Machine::new(plan, config, random, entry(self.now, &numbering))
        });
        self.log = Some(Log { is_hashed: true, machine, ..Log::default() });
        self.append_bytes(&numbering);
    }

    /// Applies the commands of the last call, if this run does so at once.
    pub(crate) fn settle(&mut self) {
        if self.plan.logging == Logging::AtOnce {
            assert!(self.commit(), "the disk of such a run does not fail");
        }
    }

    /// Appends a record with the proposals and applies it, or the disk is full. Returns false if
    /// the disk has failed, and another process has started.
    pub(crate) fn commit(&mut self) -> bool {
        if self.log.is_none() {
            return true;
        }
        let mut proposals = Proposals::default();
        self.hub.swap_proposals(&mut proposals);
        assert_eq!(self.hub.proposed(), 0, "they were taken");
        let expected = self.model.take_proposals();
        let got: Vec<_> = decode(proposals.bytes()).iter().map(|it| self.owned(it)).collect();
        assert_eq!(got.len(), proposals.count() as usize, "the number of proposals");
        assert_same(&got, &expected);
        if got.is_empty() {
            return true;
        }
        if self.plan.has_others && self.random.once_in(8) {
            self.append_foreign();
        }
        let outcome = self.write_to_disk(proposals.bytes());
        if outcome == Outcome::Failed {
            self.record.step(|| format!("unknown: {got:?}"));
            self.record.tally.count("record of unknown outcome");
            self.restart(&proposals, true);
            return false;
        }
        if outcome == Outcome::Full {
            self.record.step(|| format!("refused: {got:?}"));
            self.record.tally.count("record refused: disk full");
            for (command, owned) in decode(proposals.bytes()).iter().zip(&got) {
                self.hub.refuse(self.now, command);
                self.model.refuse(owned);
            }
            return true;
        }
        self.append_record(&proposals);
        true
    }

    /// Writes a record to the disk. Without one, only the outcome is made up.
    fn write_to_disk(&mut self, commands: &[u8]) -> Outcome {
        let is_full = self.plan.disk_fills && self.random.once_in(5);
        let log = self.log.as_mut().expect("there is a log");
        let Some(machine) = &mut log.machine else {
            let position = log.records.len() as u64 + 1;
            return if is_full {
                Outcome::Full
            } else {
                Outcome::Durable { position, flush: Duration::ZERO }
            };
        };
        let fails = machine.fails();
        machine.disk.set_faults(Faults { is_full, fails });
        machine.disk.write_back();
        machine.append(entry(self.now, commands));
        loop {
            if let Some(outcome) = machine.take_outcome() {
                return outcome;
            }
            let _ = machine.helper().step(Duration::ZERO);
        }
    }

    /// Another process that shares the log comes before this one, with a message.
    fn append_foreign(&mut self) {
        let channel = self.random.index(self.plan.channels);
        let name = self.names[channel].given.clone();
        let (from, text, is_owner) = (None, "foreign", None);
        let command = HubCommand::Write { channel: &name, from, text, is_owner };
        let mut commands = Vec::new();
        minicbor::encode(command, &mut commands).expect("a Vec takes all bytes");
        self.probe(channel);
        self.append_bytes(&commands);
    }

    /// Appends a record of commands that this process has not proposed.
    fn append_bytes(&mut self, commands: &[u8]) {
        let mut proposals = Proposals::default();
        proposals.fill(commands);
        self.append_record(&proposals);
    }

    /// Appends a record and applies it as the process does that has proposed it: a recovery, which
    /// decodes its commands, has to come to the same state.
    fn append_record(&mut self, commands: &Proposals) {
        let now = self.now;
        let record = self.push_record(now, commands.bytes());
        let mut at = ProposalCursor::default();
        while let Some(proposal) = commands.next(&mut at).expect("the hub has encoded it") {
            if self.random.once_in(8) {
                self.take_piece();
            }
            self.apply_one(now, position(record, at.index() - 1), &proposal);
        }
        let log = self.log.as_mut().expect("there is a log");
        log.records[record].hash = log.is_hashed.then(|| self.hub.applied_hash());
    }

    /// Appends a record to the log, and returns its index.
    pub(crate) fn push_record(&mut self, now: Now, commands: &[u8]) -> usize {
        let log = self.log.as_mut().expect("there is a log");
        log.records.push(LogRecord { now, commands: commands.to_owned(), hash: None });
        log.records.len() - 1
    }

    fn apply_one(&mut self, now: Now, position: u64, proposal: &Proposal<'_>) {
        let got = self.hub.apply_proposal(now, now.mono, position, proposal).map(applied);
        assert_eq!(self.hub.position(), position, "it was applied");
        let owned = self.owned(&proposal.command);
        self.tally_checkpoint(&owned);
        let expected = self.model.apply(&owned, got.as_ref().ok().and_then(Applied::id));
        self.record.note(|| format!("    applied {owned:?}: {got:?}"));
        assert_eq!(got, expected, "{owned:?}");
        if let Err(error) = &got {
            self.record.tally.count(&format!("command failed: {error:?}"));
        }
        if let (
            Ok(Applied::Introduced { session, auth, .. }),
            Command::Introduce { session: Introducing::New(_), .. },
        ) = (got, owned)
        {
            self.identities.push(Identity { session, auth });
        }
    }

    /// Returns a command of the hub as one of the model.
    pub(crate) fn owned(&self, command: &HubCommand<'_>) -> Command {
        let find = |name: &str| {
            let place = self.names.iter().position(|names| names.given == name);
            place.expect("a channel of this run")
        };
        let text = |text: Option<&str>| text.map(str::to_owned);
        match *command {
            HubCommand::Begin { .. } => Command::Begin,
            HubCommand::Write { channel, from, text, is_owner } => {
                let is_owner = is_owner == Some(true);
                Command::Write { channel: find(channel), from, is_owner, text: text.to_owned() }
            }
            HubCommand::Introduce { channel, session, text, is_owner, address } => {
                let session = match session {
                    HubIntroducing::New(auth) => {
                        Introducing::New(String::from_utf8(auth.into()).expect("ASCII"))
                    }
                    HubIntroducing::Existing(number) => Introducing::Existing(number),
                };
                let by = Introducer { is_owner: is_owner == Some(true), address };
                Command::Introduce { channel: find(channel), session, by, text: text.to_owned() }
            }
            HubCommand::Leave { channel, session, text: its } => {
                Command::Leave { channel: find(channel), session, text: text(its) }
            }
            HubCommand::End { session, reason, text: its } => {
                Command::End { session, reason, text: text(its) }
            }
            HubCommand::DropChannel { channel, next_id } => {
                Command::Drop { channel: find(channel), next_id }
            }
            HubCommand::Remove { channel, id } => Command::Remove { channel: find(channel), id },
            HubCommand::Kick { channel, session, seconds, text: its } => {
                Command::Kick { channel: find(channel), session, seconds, text: text(its) }
            }
            _ => unreachable!("there is no cluster"),
        }
    }

    /// The log is slow, or no more.
    pub(crate) fn change_health(&mut self) {
        let health = self.random.pick(&[LogHealth::Good, LogHealth::Slow, LogHealth::Stalled]);
        self.set_health(health);
    }

    pub(crate) fn set_health(&mut self, health: LogHealth) {
        self.record.step(|| format!("the log is {health:?}"));
        self.hub.set_log_health(self.now.mono, health);
        self.model.set_health(health);
    }
}

/// Checkpoints.
impl World {
    /// Begins a checkpoint, or continues with the one that was begun.
    pub(crate) fn continue_checkpoint(&mut self) {
        let Some(log) = &mut self.log else { return };
        match &log.begun {
            None => self.begin_checkpoint(),
            Some(_) if self.random.once_in(20) => {
                self.hub.abandon_checkpoint();
                log.begun = None;
                if let Some(machine) = &mut log.machine {
                    machine.abandon_snapshot();
                }
                self.record.tally.count("checkpoint abandoned");
            }
            Some(_) => self.take_piece(),
        }
    }

    fn begin_checkpoint(&mut self) {
        // A process that was handed the hub knows no position before its first record.
        let Some(log) = self.log.as_mut().filter(|_| self.hub.position() > 0) else { return };
        if let Some(machine) = &mut log.machine {
            if machine.has_snapshot() {
                let _ = machine.helper().step(Duration::ZERO);
                return machine.poll();
            }
            let is_due = machine.journal_mut().is_snapshot_due();
            if !is_due && !self.random.once_in(8) {
                return;
            }
            machine.begin_snapshot(log.records.len() as u64);
        }
        self.record.step(|| "checkpoint begins".to_owned());
        self.record.tally.count("checkpoint begun");
        self.hub.set_piece_bytes(self.random.pick(&[1, 40, 200, 2_000]));
        self.hub.begin_checkpoint();
        log.begun = Some(Checkpoint { from: log.records.len(), ..Checkpoint::default() });
        log.dropped.clear();
    }

    pub(crate) fn take_piece(&mut self) {
        let Some(log) = &mut self.log else { return };
        let Some(checkpoint) = &mut log.begun else { return };
        if let Some(machine) = &mut log.machine {
            machine.poll();
            if !machine.has_snapshot() {
                // The disk is full, or fails.
                self.hub.abandon_checkpoint();
                log.begun = None;
                return;
            }
            if !machine.journal_mut().wants_piece() {
                let _ = machine.helper().step(Duration::ZERO);
                return;
            }
        }
        let last = log.records.last().expect("the first record").now;
        if let Some(piece) = self.hub.next_piece(last) {
            self.record.note(|| format!("    piece of {} bytes", piece.len()));
            if let Some(machine) = &mut log.machine {
                machine.journal_mut().append_piece(&piece);
            }
            checkpoint.pieces.push(piece);
            return;
        }
        self.record.note(|| "    checkpoint complete".to_owned());
        self.record.tally.count("checkpoint complete");
        checkpoint.until = log.records.len();
        if let Some(machine) = &mut log.machine {
            machine.journal_mut().finish_snapshot();
        }
        log.complete = log.begun.take();
    }

    /// Notes what happens to parts while a checkpoint is being saved.
    fn tally_checkpoint(&mut self, command: &Command) {
        let Some(log) = self.log.as_mut().filter(|log| log.begun.is_some()) else { return };
        let is_unshared = |channel: &usize| !self.model.is_shared(*channel);
        let is_again = match command {
            Command::Drop { channel, next_id } => {
                let is_dropped =
                    self.model.is_shared(*channel) && self.model.next_id(*channel) == *next_id;
                if is_dropped {
                    log.dropped.insert(*channel);
                }
                self.record.tally.count_if(is_dropped, "channel dropped during a checkpoint");
                false
            }
            Command::End { session, .. } => {
                let lives = self.model.living().contains(session);
                self.record.tally.count_if(lives, "session ended during a checkpoint");
                false
            }
            Command::Write { channel, .. }
            | Command::Introduce { channel, .. }
            | Command::Remove { channel, .. } => {
                is_unshared(channel) && log.dropped.contains(channel)
            }
            Command::Leave { .. } | Command::Kick { .. } | Command::Begin => false,
        };
        let what = "channel dropped and created again during a checkpoint";
        self.record.tally.count_if(is_again, what);
    }
}

/// Claims that the hub proposed what the model did: calls in their order, and others in any.
fn assert_same(got: &[Command], expected: &[Command]) {
    let is_call =
        |it: &&Command| !matches!(it, Command::Drop { .. } | Command::End { text: None, .. });
    let calls = |of: &'_ [Command]| of.iter().filter(is_call).cloned().collect::<Vec<_>>();
    assert_eq!(calls(got), calls(expected), "calls");
    let mut left: Vec<_> = expected.iter().collect();
    for command in got {
        let place = left.iter().position(|it| *it == command);
        let place = place.unwrap_or_else(|| panic!("{command:?} is not one of {expected:#?}"));
        left.swap_remove(place);
    }
    assert!(left.is_empty(), "not proposed: {left:#?}");
}
