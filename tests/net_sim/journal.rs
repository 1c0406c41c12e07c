//! The journal of the simulated server: its crashes, and what a slow disk excuses.

use speak::hub::{Epoch, Hub, Now};
use speak::service::{AcceptLimits, InitialHub, NextWake, Service};
use speak::snapshot;

use crate::machine::{Contents, Crash};
use support::reader::Reader;

use crate::peer::Request;
use crate::plan::{DiskPlan, Numbers, Step};
use crate::process::{config, start};
use crate::shared_state::SharedState;
use crate::world::World;

/// Time for which an upgrade waits for the disk.
const DRAIN_MS_MAX: u64 = 2_000;

/// Time for which a call waits for the disk at most, and some for the turn after.
const DISK_PATIENCE_MS: u64 = 5_000 + 1_000;

impl World {
    /// Says whether calls may wait for the disk for longer than a turn.
    pub(crate) fn has_lag(&self) -> bool {
        self.plan.disk.as_ref().is_some_and(DiskPlan::has_lag)
    }

    /// Says whether something waits for the disk, in a run in which that may take long.
    pub(crate) fn awaits_disk(&self) -> bool {
        self.has_lag() && (!self.service.is_log_idle() || self.service.has_log_failed())
    }

    /// Says whether a call of this client may wait for the disk.
    pub(crate) fn has_call_at_disk(&self, place: usize) -> bool {
        let mut calls = self.peers[place].outstanding.iter();
        self.awaits_disk() && calls.any(|it| it.may_wait_for_disk() && it.has_arrived())
    }

    /// Checks a client whose call waits for the disk: it gets a response in time, whatever the disk
    /// does.
    pub(crate) fn rest_at_disk(&mut self, place: usize, is_full: bool) {
        let now = self.now.mono.0;
        let peer = &mut self.peers[place];
        let Some(front) = peer.outstanding.front().filter(|it| it.kind.is_logged()) else { return };
        let front = front.end;
        // If no turn came for long, a record is appended late.
        let is_late = now > self.model.slept_at + 1_000;
        if is_full || is_late || peer.front_since.0 != front {
            peer.front_since = (front, now);
        }
        let since = peer.front_since.1;
        assert!(now < since + DISK_PATIENCE_MS, "client {place} waits for the disk since {since}");
    }

    /// Notes the clients whose calls wait for the disk at the beginning of a turn.
    pub(crate) fn note_waits(&mut self) {
        // A turn may have time for a part of a record.
        self.model.may_end |= self.disk.is_some() && !self.service.is_log_idle();
        if self.awaits_disk() {
            self.model.awaited_disk_at = self.now.mono.0;
        }
        if self.disk.is_none() {
            return;
        }
        for at in 0..self.present.len() {
            let place = self.present[at];
            // Frames are held until the turn after the responses to those before them.
            let was_answered = std::mem::take(&mut self.peers[place].was_answered);
            let peer = &self.peers[place];
            let is_held = peer.following.as_ref().is_some_and(|following| following.is_frames)
                && peer.outstanding.front().is_some_and(Request::has_arrived);
            if is_held || was_answered || self.has_call_at_disk(place) {
                self.peers[place].awaited_disk_at = self.now.mono.0;
            }
        }
    }

    pub(crate) fn fill_disk(&mut self) {
        let ms = self.random.pick(&[1, 300, 4_000]);
        if let Some(disk) = &self.disk {
            let mut disk = disk.borrow_mut();
            disk.full_until = self.now.mono.0 + ms;
        }
    }

    /// Notes that the disk takes long or refuses: then sessions may live on, without a
    /// goodbye.
    pub(crate) fn note_trouble(&mut self) {
        let Some(disk) = &self.disk else { return };
        let now = self.now.mono.0;
        let has_failed = self.service.has_log_failed();
        if !has_failed && disk.borrow().trouble_at != Some(now) {
            return;
        }
        for known in self.model.known.values_mut() {
            (known.must_have_ended, known.closed) = (None, None);
        }
        for session in self.model.ledger.sessions.values_mut() {
            session.alive_most_ms = now;
        }
    }

    /// The process dies at once, and another one starts with what is on the disk.
    pub(crate) fn crash(&mut self) {
        let Some(disk) = self.disk.clone() else { return };
        self.tally("crash");
        self.check_disk();
        let reader = self.end_process();
        let contents = {
            let mut disk = disk.borrow_mut();
            let crash = disk.machine.draw_crash();
            disk.crash(crash)
        };
        let initial = self.recover(&contents);
        self.start_process(initial, reader);
    }

    /// Another process takes over, as after SIGUSR2: it gets the state, then the journal, and no
    /// client here. If the disk takes too long, this process goes on.
    pub(crate) fn upgrade(&mut self) {
        let Some(disk) = self.disk.clone() else { return };
        if self.service.has_log_failed() || !self.drain() {
            return self.tally("upgrade given up");
        }
        self.tally("upgrade");
        self.check_disk();
        let (hub, now) = self.service.hub();
        let before = self.state_of(hub);
        let mut bytes = Vec::new();
        snapshot::write(hub, now, 0, &mut bytes).expect("a Vec takes all bytes");
        self.service.release_log();
        disk.borrow_mut().hand_over();
        let away_ms = self.now.mono.0 - now.mono.0;
        let config = config(&self.plan, *b"anything");
        let (hub, now) =
            snapshot::read(&config, now.unix_ms + away_ms, &mut bytes.as_slice()).expect("a state");
        assert_eq!(now.mono, self.now.mono, "time goes on");
        assert_eq!(self.state_of(&hub), before, "the state of the predecessor");
        let reader = self.end_process();
        let now = Now { unix_ms: self.now.unix_ms, ..now };
        self.start_process(InitialHub { hub, now }, reader);
    }

    /// Turns until the journal has all that was proposed. Returns false if that takes too long, or
    /// the disk fails. The server makes no turns meanwhile, which would excuse much here.
    fn drain(&mut self) -> bool {
        for _ in 0..DRAIN_MS_MAX {
            self.service.refuse_while_full();
            if self.service.is_log_idle() && self.service.advance_log() {
                self.after_turn();
                return !self.service.has_log_failed();
            }
            self.pass(1);
            self.turn(usize::MAX);
        }
        false
    }

    /// Ends the process and all its connections. Returns the observer's reader.
    fn end_process(&mut self) -> Option<Reader> {
        let following = self.observer.and_then(|place| self.peers[place].following.as_ref());
        let reader = following.map(|following| following.reader.clone());
        let mut spare = Service::new(
            &self.plan.options,
            Vec::new(),
            AcceptLimits::new(1, usize::MAX),
            crate::world::fill,
        );
        std::mem::swap(&mut self.service, &mut spare);
        drop(spare);
        self.net.borrow_mut().forget_clients();
        reader
    }

    /// Starts a process with this hub. The observer continues its stream.
    fn start_process(&mut self, initial: InitialHub, reader: Option<Reader>) {
        let disk = self.disk.clone().expect("there is a journal");
        self.service = start(&self.plan, &self.net, &disk, initial, crate::world::fill);
        self.lose_clients();
        (self.wait, self.spins) = (NextWake::Never, 0);
        self.record.note(|| format!("    recovered at {:?}", self.now));
        if let Some(reader) = reader {
            self.observe_again(&reader);
        } else {
            self.turn(usize::MAX);
        }
    }

    /// Recovers the hub from what the disk has. It has the state of all records.
    fn recover(&self, contents: &Contents) -> InitialHub {
        let disk = self.disk.as_ref().expect("there is a journal").borrow();
        let config = config(&self.plan, *b"anything");
        let (hub, now) = disk.recover(contents, &config, self.now.mono.0);
        assert_eq!(now.mono, self.now.mono, "time goes on");
        let (other, _) = disk.recover(&disk.all_records(), &config, self.now.mono.0);
        assert_eq!(self.state_of(&hub), self.state_of(&other), "with and without a snapshot");
        InitialHub { hub, now: Now { unix_ms: self.now.unix_ms, ..now } }
    }

    /// Draws whether the run ends with a loss of power that may lose records.
    pub(crate) fn loses_records(&mut self) -> bool {
        let disk = self.disk.as_ref().filter(|_| !self.service.has_log_failed());
        disk.is_some_and(|disk| disk.borrow().machine.may_lose_records()) && self.random.once_in(3)
    }

    /// The power fails, and the journal was not synchronized: it has the first records, and begins
    /// a new epoch. The run ends, since the ledger of its readers cannot forget.
    pub(crate) fn lose_records(&mut self) {
        self.record.step(|| "the power fails".to_owned());
        let config = config(&self.plan, *b"anything");
        let disk = self.disk.clone().expect("there is a journal");
        let mut disk = disk.borrow_mut();
        disk.heal();
        let contents = disk.crash(Crash::PowerLoss);
        let Ok(Some((mut hub, _))) = contents.hub(&config, 0) else {
            assert_eq!(contents.position, 0, "no damage");
            return self.tally("all records lost");
        };
        let first = disk.all_records().hub(&config, 0).expect("no damage");
        let (first, _) = first.expect("the journal has begun");
        if !self.plan.numbers.is_tight {
            assert_eq!(
                self.state_of(&first),
                self.state_of(&hub),
                "the state of the first records"
            );
        }
        hub.set_epoch(Epoch::new(*b"newepoch"));
        let numbering = hub.numbering(false);
        disk.begin_epoch(&numbering);
        let again = disk.machine.contents().hub(&config, 0).expect("no damage");
        let (again, _) = again.expect("the journal has begun");
        assert_eq!(self.state_of(&again), self.state_of(&hub), "what was there, in a new epoch");
        self.tally("new epoch after a loss of power");
    }

    fn state_of(&self, hub: &Hub) -> SharedState {
        let Numbers { history, .. } = self.plan.numbers;
        SharedState::of(hub, self.now.mono, history as u64, self.plan.retention_ms)
    }

    /// Claims that the disk has the state of the hub, unless a record is half applied.
    fn check_disk(&mut self) {
        let hub = self.service.hub().0;
        let disk = self.disk.as_ref().expect("there is a journal").borrow();
        let applied = (hub.position() >> 20).max(1);
        let records = disk.machine.entries.len() as u64;
        let is_writing = disk.machine.in_flight.is_some();
        let is_half = applied != records || !(self.service.is_log_idle() || is_writing);
        if is_half || hub.has_undelivered() || self.plan.numbers.is_tight {
            return;
        }
        let contents = disk.machine.contents();
        if contents.position != records {
            // The outcome of the last one was not taken yet.
            assert!(is_writing && contents.position == records + 1);
            return;
        }
        let config = config(&self.plan, *b"anything");
        let (recovered, _) = disk.recover(&contents, &config, self.now.mono.0);
        assert_eq!(self.state_of(&recovered), self.state_of(hub), "the disk has the hub's state");
        self.record.tally.count("disk compared with the hub");
    }

    /// No client has a connection any more. Calls under way may have had an effect.
    fn lose_clients(&mut self) {
        let now = self.now.mono.0;
        for place in std::mem::take(&mut self.present) {
            let peer = &mut self.peers[place];
            (peer.is_over, peer.following) = (true, None);
            peer.outstanding.clear();
            peer.rest = None;
        }
        for known in self.model.known.values_mut() {
            (known.must_have_ended, known.closed) = (None, None);
        }
        for session in self.model.ledger.sessions.values_mut() {
            session.alive_most_ms = now;
        }
    }

    /// The process stops because its disk has failed.
    pub(crate) fn restart_after_failure(&mut self) {
        if self.service.has_log_failed() && self.random.once_in(3) {
            self.tally("restart after a failed write");
            self.step(Step::Crash);
        }
    }
}
