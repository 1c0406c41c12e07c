//! The journal of the simulated server on a disk that is slow, full for a while, and fails.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use speak::hub::{Config, Hub, Millis, Now};
use speak::log::{Log, Outcome};
use support::random::Random;

use crate::machine::{Contents, Crash, Entry, Machine};
use crate::plan::DiskPlan;
use crate::sectors::Faults;

pub(crate) type SharedDisk = Rc<RefCell<Disk>>;

/// Time for which a write may take without consequences for sessions, with some to spare.
const QUICK_MS: u64 = 500;

pub(crate) struct Disk {
    pub(crate) plan: DiskPlan,
    pub(crate) machine: Machine,
    random: Random,
    now: Now,
    /// Until then, there is no room.
    pub(crate) full_until: u64,
    /// Time at which the next job of the helper is done.
    due: Option<(u64, u64)>,
    /// Time until which the service delays the next record.
    record_delayed_until: Option<u64>,
    /// Time at which the record that is being written was appended.
    written_at: u64,
    /// The helper has woken the loop.
    is_signalled: bool,
    /// The last time at which a write took long, or was refused.
    pub(crate) trouble_at: Option<u64>,
    /// Position of the snapshot that is being written, and time of its last piece.
    snapshot: (u64, Now),
    /// Times of the last pieces of snapshots, by position. A snapshot that a crash cut off may have
    /// had the position of a complete one.
    snapshot_ends: BTreeMap<u64, Vec<Now>>,
}

/// The journal on such a disk, as the service drives it.
pub(crate) struct SimLog(pub(crate) SharedDisk);

impl Disk {
    /// Makes a disk with a new journal of this hub.
    pub(crate) fn new(
        plan: DiskPlan,
        config: Config,
        mut random: Random,
        hub: &Hub,
        now: Now,
    ) -> Self {
        let first = entry(now.mono.0, now.unix_ms, &hub.numbering(true));
        let machine_random = Random::new(random.next());
        let machine = Machine::new(plan.machine.clone(), config, machine_random, first);
        Self {
            plan,
            machine,
            random,
            now,
            full_until: 0,
            due: None,
            record_delayed_until: None,
            written_at: 0,
            is_signalled: false,
            trouble_at: None,
            snapshot: (0, now),
            snapshot_ends: BTreeMap::new(),
        }
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, ms: u64, unix_ms: u64) {
        self.now = Now { mono: self.now.mono.after(ms), unix_ms };
        self.do_jobs();
        if self.random.once_in(8) {
            self.machine.disk.write_back();
        }
        if self.machine.in_flight.is_some() && self.now.mono.0 >= self.written_at + QUICK_MS {
            self.trouble_at = Some(self.now.mono.0);
        }
    }

    /// Does the jobs of the helper that are due.
    fn do_jobs(&mut self) {
        let now = self.now.mono.0;
        self.set_faults();
        while self.machine.helper().has_job() {
            let delay = self.random.pick(&self.plan.delays);
            let (due, delay) = *self.due.get_or_insert((now + delay, delay));
            if due > now {
                return;
            }
            self.is_signalled |= self.machine.helper().step(Duration::from_millis(delay));
            self.due = None;
        }
    }

    fn set_faults(&self) {
        let is_full = self.now.mono.0 < self.full_until;
        self.machine.disk.set_faults(Faults { is_full, fails: self.machine.fails() });
    }

    /// Returns the time at which the helper has done its job.
    pub(crate) fn next_landing(&self) -> Option<u64> {
        let job = self.due.map(|(due, _)| due);
        job.into_iter().chain(self.record_delayed_until).min()
    }

    /// Notes that the next record is delayed.
    pub(crate) fn delay_record(&mut self, delay: Duration) {
        let ms = delay.as_micros().div_ceil(1000) as u64;
        self.record_delayed_until = Some(self.now.mono.0 + ms);
    }

    /// Returns whether the delay of the next record is over, once.
    pub(crate) fn ends_delay(&mut self) -> bool {
        self.record_delayed_until.take_if(|at| *at <= self.now.mono.0).is_some()
    }

    pub(crate) fn has_signal(&self) -> bool {
        self.is_signalled || self.record_delayed_until.is_some_and(|at| at <= self.now.mono.0)
    }

    pub(crate) fn take_signal(&mut self) -> bool {
        std::mem::take(&mut self.is_signalled)
    }

    /// The disk is quick, has room and does not fail from now on.
    pub(crate) fn heal(&mut self) {
        self.full_until = 0;
        self.plan.delays = vec![0];
        self.machine.heal();
    }

    /// The process ends, and another one reads the journal.
    pub(crate) fn crash(&mut self, crash: Crash) -> Contents {
        (self.due, self.is_signalled) = (None, false);
        self.record_delayed_until = None;
        self.trouble_at = Some(self.now.mono.0);
        self.set_faults();
        self.machine.crash(crash)
    }

    /// Another process takes over.
    pub(crate) fn hand_over(&mut self) {
        (self.due, self.is_signalled) = (None, false);
        self.record_delayed_until = None;
        self.machine.hand_over();
    }

    /// Begins a new epoch with a record.
    pub(crate) fn begin_epoch(&mut self, commands: &[u8]) {
        self.machine.begin_epoch(entry(self.now.mono.0, self.now.unix_ms, commands));
    }

    /// Returns all acknowledged records, without a snapshot.
    pub(crate) fn all_records(&self) -> Contents {
        let entries = self.machine.entries.clone();
        Contents { position: entries.len() as u64, entries, ..Contents::default() }
    }

    /// Recovers a hub, at the time `mono_ms`.
    pub(crate) fn recover(&self, contents: &Contents, config: &Config, mono_ms: u64) -> (Hub, Now) {
        let last = contents.entries.last();
        let last = last.map_or_else(Now::default, |last| Now {
            mono: Millis(last.mono_ms),
            unix_ms: last.unix_ms,
        });
        let ends = self.snapshot_ends.get(&contents.snapshot).into_iter().flatten();
        let later = ends.filter(|end| end.mono > last.mono).chain([&last]);
        let recovered = later.map(|last| {
            let unix_ms = last.unix_ms + mono_ms - last.mono.0;
            let recovered = contents.hub(config, unix_ms).expect("no damage");
            recovered.expect("the journal has begun")
        });
        let mut recovered = recovered.collect::<Vec<_>>();
        let place = recovered.iter().position(|(_, now)| now.mono.0 == mono_ms);
        recovered.swap_remove(place.expect("time goes on"))
    }
}

fn entry(mono_ms: u64, unix_ms: u64, commands: &[u8]) -> Entry {
    Entry { mono_ms, unix_ms, commands: commands.to_owned() }
}

impl Log for SimLog {
    fn is_ready(&self) -> bool {
        self.0.borrow().machine.journal().is_ready()
    }

    fn append(&mut self, mono_ms: u64, unix_ms: u64, commands: &[u8]) {
        let disk = &mut *self.0.borrow_mut();
        disk.written_at = disk.now.mono.0;
        disk.set_faults();
        disk.machine.append(entry(mono_ms, unix_ms, commands));
        disk.do_jobs();
    }

    /// The process that takes over opens the journal of the machine.
    fn close(self: Box<Self>) {}

    fn may_have_events(&self) -> bool {
        self.0.borrow().machine.journal().may_have_events()
    }

    fn take_outcome(&mut self) -> Option<Outcome> {
        let disk = &mut *self.0.borrow_mut();
        let outcome = disk.machine.take_outcome();
        if matches!(outcome, Some(Outcome::Full | Outcome::Failed)) {
            disk.trouble_at = Some(disk.now.mono.0);
        }
        outcome
    }

    fn bytes(&self) -> u64 {
        self.0.borrow().machine.journal().bytes()
    }

    fn is_snapshot_due(&self) -> bool {
        self.0.borrow().machine.journal().is_snapshot_due()
    }

    fn begin_snapshot(&mut self, position: u64) {
        let disk = &mut *self.0.borrow_mut();
        disk.snapshot.0 = position;
        disk.machine.begin_snapshot(position);
        disk.do_jobs();
    }

    fn has_snapshot(&self) -> bool {
        self.0.borrow().machine.has_snapshot()
    }

    fn wants_piece(&self) -> bool {
        self.0.borrow().machine.journal().wants_piece()
    }

    fn append_piece(&mut self, bytes: &[u8]) {
        let disk = &mut *self.0.borrow_mut();
        disk.snapshot.1 = disk.now;
        disk.machine.journal_mut().append_piece(bytes);
        disk.do_jobs();
    }

    fn finish_snapshot(&mut self) {
        let disk = &mut *self.0.borrow_mut();
        let (position, end) = disk.snapshot;
        disk.snapshot_ends.entry(position).or_default().push(end);
        disk.machine.journal_mut().finish_snapshot();
        disk.do_jobs();
    }

    fn abandon_snapshot(&mut self) {
        self.0.borrow_mut().machine.abandon_snapshot();
    }
}
