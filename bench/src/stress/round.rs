//! The course of a run: rounds of churn, each with a rest at its end in which nothing may be left.

use std::time::{Duration, Instant};

use super::call::What;
use super::disturbance::{Disturbance, Start};
use super::ledger::{Checked, Fault};
use super::link::{Close, ReadRate};
use super::user::State;
use super::world::{Phase, Who, World};
use super::{HISTORY, LOUD_BYTES, Options};

/// Nothing that is to come takes so long, however slow the machine.
const GUARD: Duration = Duration::from_secs(20);
/// A run has at least so many rounds: two with the first server, one for each disturbance.
const ROUNDS_MIN: u64 = 4;
const ROUND_SECONDS: u64 = 10;
/// From an upgrade to the next, and to or from a disturbance.
const STRETCH_MIN: Duration = Duration::from_millis(300);
/// What a round takes at its end until everybody is gone for sure.
const CLEARING: Duration = Duration::from_millis(2_500);
/// A server at rest holds no more than this many times what it held at an earlier rest, and some.
pub(super) const FLAT_FACTOR: f64 = 1.10;
pub(super) const FLAT_BYTES: u64 = 1 << 20;
/// So many words the house says at once.
const FILL_AT_ONCE: u64 = 8;
const FILLER: u32 = 150;

/// Resident memory of the server, in bytes.
#[derive(Default, Clone, Copy)]
pub(super) struct Memory {
    /// When histories were full, and nobody there.
    pub(super) before: u64,
    pub(super) peak: u64,
    /// At the last rest.
    pub(super) after: u64,
    /// By how much it grew at most from a rest to a later one of the same server.
    pub(super) growth: f64,
}

impl World {
    /// The whole run.
    pub(super) fn rounds(&mut self, options: &Options, start: &Start) -> Checked {
        for room in 0..self.observers.len() as u32 {
            self.observe(room, None)?;
        }
        let mut base = self.rest_memory()?;
        self.memory.before = base;
        for index in 0..options.users as u32 {
            self.act_in(index, 0, 1_500);
        }
        let rounds = (options.seconds / ROUND_SECONDS).max(ROUNDS_MIN);
        let length = Duration::from_secs(options.seconds) / rounds as u32;
        let churn = length.saturating_sub(CLEARING).max(Duration::from_secs(1));
        let is_disturbed = |round: &u64| *round >= 2 && round % 3 != 1;
        let disturbed = (0..rounds).filter(is_disturbed).count();
        // Each once at least.
        let at_once = options.disturbances.len().div_ceil(disturbed).max(1);
        let mut next = options.disturbances.iter().cycle().copied();
        let end = Instant::now() + Duration::from_secs(options.seconds);
        for round in 0..rounds {
            // On a slow machine a rest takes longer.
            let to_do = options.upgrades.saturating_sub(self.upgrades);
            if round >= ROUNDS_MIN && Instant::now() > end && to_do == 0 {
                break;
            }
            let disturbances: Vec<_> =
                next.by_ref().take(if is_disturbed(&round) { at_once } else { 0 }).collect();
            self.round(churn, to_do.div_ceil(rounds - round), &disturbances, start)?;
            let after = self.rest_memory()?;
            if !disturbances.is_empty() {
                // Another process.
                base = after;
            }
            self.memory.after = after;
            self.memory.growth = self.memory.growth.max(after as f64 / base as f64);
            eprintln!(
                "round {} of {rounds}: {} deliveries, resident {} KiB",
                round + 1,
                self.deliveries(),
                after / 1024
            );
            if after as f64 > base as f64 * FLAT_FACTOR + FLAT_BYTES as f64 {
                return Err(Fault::new(format!(
                    "resident memory went from {base} to {after} bytes, with nobody there"
                )));
            }
        }
        self.note_cpu()?;
        for room in 0..self.observers.len() {
            let observer = self.observers[room].take();
            self.close(
                observer,
                if room.is_multiple_of(2) { Close::Orderly } else { Close::Reset },
            );
        }
        self.await_quiet_rooms()
    }

    /// Upgrades are a part of the churn, disturbances a cut in it.
    fn round(
        &mut self,
        churn: Duration,
        upgrades: u64,
        disturbances: &[Disturbance],
        start: &Start,
    ) -> Checked {
        self.phase = Phase::Churn;
        let mut disturbances = disturbances.iter();
        let stretch = churn / (upgrades as u32 + disturbances.len() as u32 + 1);
        for at in 0..=upgrades.max(disturbances.len() as u64) {
            if at < upgrades {
                self.upgrade()?;
            }
            if let Some(disturbance) = disturbances.next() {
                self.disturb(*disturbance, start)?;
            }
            self.run_for(stretch.max(STRETCH_MIN))?;
        }
        self.phase = Phase::Pause;
        self.run_until(|world| world.unfinished(true))?;
        self.await_quiet_rooms()?;
        self.phase = Phase::Clear;
        self.run_until(|world| world.unfinished(false))?;
        for room in 0..self.observers.len() as u32 {
            let present = self.scene.ledger.present(room);
            if present > 0 && !self.scene.ledger.is_uncertain(room) {
                return Err(Fault::within(
                    room,
                    format!("everybody left, and {present} are there"),
                ));
            }
            self.scene.ledger.clear_up(room);
        }
        self.await_quiet_rooms()?;
        self.scene.ledger.forget_senders();
        Ok(())
    }

    fn run_for(&mut self, time: Duration) -> Checked {
        let end = Instant::now() + time;
        let mut next_look = Instant::now();
        while Instant::now() < end {
            self.turn()?;
            if next_look <= Instant::now() {
                next_look += Duration::from_millis(500);
                let here =
                    self.users.iter().filter(|user| user.state == State::Here).count() as u64;
                self.here_most = self.here_most.max(here);
                self.clients_most = self.clients_most.max(self.links.len() as u64);
                self.look_at_memory()?;
            }
        }
        Ok(())
    }

    /// Goes on until nothing is said to be unfinished.
    fn run_until(&mut self, unfinished: impl Fn(&mut Self) -> Option<Fault>) -> Checked {
        let guard = Instant::now() + GUARD;
        loop {
            self.turn()?;
            match unfinished(self) {
                None => return Ok(()),
                Some(fault) if Instant::now() > guard => {
                    return Err(Fault {
                        what: format!("not even after a long wait: {}", fault.what),
                        ..fault
                    });
                }
                Some(_) => {}
            }
        }
    }

    /// What somebody is still at. In a pause users may stay, and those may be there who will be said goodbye to.
    fn unfinished(&mut self, is_pause: bool) -> Option<Fault> {
        let at_it = self.users.iter().position(|user| match user.state {
            State::Away => false,
            State::Here => !is_pause,
            State::Arriving | State::Leaving(..) | State::Adrift => true,
        });
        if let Some(index) = at_it {
            let user = &self.users[index];
            let what = format!(
                "user {index}, {:?}, with {:?}, is still {:?}",
                user.sort, user.identity, user.state
            );
            return Some(Fault::new(what));
        }
        if self.has_suspects() {
            return Some(Fault::new("a goodbye that is looked into"));
        }
        let is_calling = |owned: &super::world::Owned| !owned.calls.is_empty();
        let calling = self
            .links
            .find(is_calling)
            .map(|owned| format!("a call of {:?} is not answered", owned.who));
        let stray = self.links.find(|owned| matches!(owned.who, Who::Brief(_) | Who::FormerEar(_)));
        let stray = stray.map(|owned| format!("{:?} is not answered, or not closed", owned.who));
        let open = calling.or(stray).map(Fault::new);
        if is_pause {
            open.or_else(|| self.scene.ledger.unseen())
        } else {
            open.or_else(|| self.scene.ledger.owed())
        }
    }

    /// Asks for the members of each room until they are who they must be.
    fn await_quiet_rooms(&mut self) -> Checked {
        let guard = Instant::now() + GUARD;
        loop {
            self.members_differ = None;
            let house = self.open(Who::House, ReadRate::Fast)?;
            for room in 0..self.observers.len() as u32 {
                self.members(house, room, What::Members(room));
            }
            self.run_until(|world| {
                let is_waiting =
                    world.links.get(house).is_some_and(|(_, owned)| !owned.calls.is_empty());
                is_waiting.then(|| Fault::new("/members is not answered"))
            })?;
            self.close(Some(house), Close::Orderly);
            match self.members_differ.take() {
                None => {
                    self.count("times that members and readers were compared");
                    return Ok(());
                }
                Some(fault) if Instant::now() > guard => return Err(fault),
                Some(_) => self.run_for(Duration::from_millis(20))?,
            }
        }
    }

    /// Fills all histories.
    fn fill(&mut self) -> Checked {
        for _ in 0..HISTORY / FILL_AT_ONCE {
            for room in 0..self.observers.len() as u32 {
                for _ in 0..FILL_AT_ONCE {
                    let filler = if room < self.scene.loud { LOUD_BYTES } else { FILLER };
                    self.harness_writes(room, filler)?;
                }
                if room < self.scene.loud {
                    self.run_until(|world| world.unfinished(true))?;
                }
            }
            self.run_until(|world| world.unfinished(true))?;
        }
        Ok(())
    }

    /// What the server holds once it rests: always the same histories, so that no more and no less can be compared.
    fn rest_memory(&mut self) -> Checked<u64> {
        self.fill()?;
        self.run_for(Duration::from_millis(50))?;
        self.look_at_memory()
    }

    fn look_at_memory(&mut self) -> Checked<u64> {
        let process = self.server.target.process;
        let total = process.and_then(|process| process.memory().ok()).map(|memory| memory.total);
        let total = total.ok_or_else(|| Fault::new("the server is gone"))?;
        self.memory.peak = self.memory.peak.max(total);
        Ok(total)
    }

    /// Adds to the figures what the server used since.
    pub(super) fn note_cpu(&mut self) -> Checked {
        let process = self.server.target.process;
        let used = process
            .and_then(|process| process.cpu_ns().ok())
            .ok_or_else(|| Fault::new("the server is gone"))?;
        self.cpu_ns += used.saturating_sub(self.cpu_counted_ns);
        self.cpu_counted_ns = used;
        Ok(())
    }
}
