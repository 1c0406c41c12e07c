//! The course of a run: rounds of churn, each with a rest at its end in which nothing may be left.

use std::time::{Duration, Instant};

use support::ensure;
use support::fault::{Checked, Fault};

use crate::client::{Client, Owner, What};
use crate::disturbance::Disturbance;
use crate::link::{Close, ReadRate};
use crate::run::Options;
use crate::server::{CONNECTION_TIMEOUT_MS, HISTORY};
use crate::user::{Phase, State};
use crate::world::{LARGE_BYTES, World};

/// Nothing that is to come takes so long, however slow the machine.
const GUARD: Duration = Duration::from_secs(20);
/// Numbers of readers are up to two seconds old.
const READERS_MAX: Duration = Duration::from_secs(5);
/// Least number of rounds: two with the first server, and some with a disturbance.
const ROUNDS_MIN: u64 = 4;
const ROUND_SECONDS: u64 = 10;
/// Least time from an upgrade to the next, and to or from a disturbance.
const STRETCH_MIN: Duration = Duration::from_millis(300);
/// Longest time from a kill to the next in a round in which a server with a journal is disturbed.
const KILL_INTERVAL_MOST_MS: u64 = 2_000;
/// Time at the end of a round until all users are certainly gone.
const CLEARING: Duration = Duration::from_millis(2_500);
/// Limits of the growth of a server from one rest to a later one.
const GROWTH_FACTOR: f64 = 1.10;
const GROWTH_BYTES: f64 = (1 << 20) as f64;
/// Each node of a cluster keeps 8 MiB of the last records for a Redis that loses them. The list of
/// their places grows by doubling.
const TAIL_BYTES: f64 = (12 << 20) as f64;
/// Messages that the run itself writes at once, and their bytes.
const FILL_AT_ONCE: u64 = 8;
const FILL_BYTES: u32 = 150;

impl World {
    pub(crate) fn rounds(&mut self, options: &Options) -> Checked {
        for channel in 0..self.observers.len() {
            self.observe(channel, None)?;
        }
        let mut base = self.rest()?;
        self.figures.memory.before = base;
        for index in 0..options.users as u32 {
            self.act_in(index, 0, 1_500);
        }
        let rounds = (options.seconds / ROUND_SECONDS).max(ROUNDS_MIN);
        let length = Duration::from_secs(options.seconds) / rounds as u32;
        let churn = length.saturating_sub(CLEARING).max(Duration::from_secs(1));
        let is_killed_often = self.launcher.journal.is_some() || self.cluster.is_some();
        let is_disturbed = |round: &u64| {
            if is_killed_often { *round >= 1 } else { *round >= 2 && round % 3 != 1 }
        };
        let disturbed = (0..rounds).filter(is_disturbed).count();
        // Each once at least.
        let at_once = options.disturbances.len().div_ceil(disturbed).max(1);
        let mut next = options.disturbances.iter().cycle().copied();
        let end = Instant::now() + Duration::from_secs(options.seconds);
        for round in 0..rounds {
            // On a slow machine a rest takes longer.
            let upgrades = options.upgrades.saturating_sub(self.takeover.upgrades);
            if round >= ROUNDS_MIN && Instant::now() > end && upgrades == 0 {
                break;
            }
            let count = if is_disturbed(&round) { at_once } else { 0 };
            let disturbances: Vec<_> = next.by_ref().take(count).collect();
            self.round(churn, upgrades.div_ceil(rounds - round), &disturbances)?;
            let after = self.rest()?;
            if !disturbances.is_empty() {
                // Another process.
                base = after;
            }
            let memory = &mut self.figures.memory;
            memory.after = after;
            memory.growth = memory.growth.max(after as f64 / base as f64);
            let (deliveries, kib) = (self.ledger.sights, after / 1024);
            let (round, nodes) = (round + 1, self.nodes().count());
            let tails = if nodes > 1 { nodes as f64 * TAIL_BYTES } else { 0.0 };
            eprintln!("round {round} of {rounds}: {deliveries} deliveries, resident {kib} KiB");
            ensure!(
                after as f64 <= base as f64 * GROWTH_FACTOR + GROWTH_BYTES + tails,
                "resident memory went from {base} to {after} bytes, without any user"
            );
        }
        self.note_cpu()?;
        for channel in 0..self.observers.len() {
            let observer = self.observers[channel].take();
            self.close(observer, if channel % 2 == 0 { Close::Orderly } else { Close::Reset });
        }
        self.await_quiet_channels()
    }

    /// Upgrades are a part of the churn, disturbances interrupt it.
    fn round(&mut self, churn: Duration, upgrades: u64, disturbances: &[Disturbance]) -> Checked {
        self.phase = Phase::Churn;
        let count = disturbances.len();
        let mut next_kill = self.next_kill().filter(|_| count > 0);
        let stretch = churn / (upgrades as u32 + count as u32 + 1);
        for at in 0..=count.max(upgrades as usize) {
            if (at as u64) < upgrades {
                self.upgrade()?;
            }
            if let Some(disturbance) = disturbances.get(at) {
                self.disturb(*disturbance)?;
            }
            self.churn_for(stretch.max(STRETCH_MIN), &mut next_kill)?;
        }
        self.phase = Phase::Pause;
        self.run_until(|world| world.unfinished(true))?;
        self.await_quiet_channels()?;
        self.phase = Phase::Clear;
        if next_kill.is_some() {
            // While all leave.
            let pause = Duration::from_millis(self.random.below(KILL_INTERVAL_MOST_MS));
            self.run_for(pause)?;
            self.disturb(Disturbance::Kill)?;
        }
        self.run_until(|world| world.unfinished(false))?;
        if self.ledger.channels.iter().any(|its| its.has_gaps) {
            // Members that no reader has seen may say goodbye still.
            self.run_for(Duration::from_millis(CONNECTION_TIMEOUT_MS + 1_000))?;
        }
        for channel in 0..self.observers.len() {
            let its = &self.ledger.channels[channel];
            let (members, is_clear) = (its.members.len(), its.members.is_empty() || its.has_gaps);
            ensure!(is_clear, "all left, and channel {channel} has {members} members");
            self.ledger.forget_members(channel, false);
        }
        self.await_quiet_channels()?;
        self.ledger.forget_past();
        Ok(())
    }

    /// Users come and go, and the server is killed when that is due.
    fn churn_for(&mut self, time: Duration, next_kill: &mut Option<Instant>) -> Checked {
        let end = Instant::now() + time;
        while let Some(at) = next_kill.filter(|at| *at < end) {
            self.run_for(at.saturating_duration_since(Instant::now()))?;
            self.disturb(Disturbance::Kill)?;
            *next_kill = self.next_kill();
        }
        self.run_for(end.saturating_duration_since(Instant::now()))
    }

    /// Chooses the time of the next kill. `None` without a journal.
    fn next_kill(&mut self) -> Option<Instant> {
        self.launcher.journal.as_ref()?;
        Some(Instant::now() + Duration::from_millis(self.random.below(KILL_INTERVAL_MOST_MS)))
    }

    pub(crate) fn run_for(&mut self, time: Duration) -> Checked {
        let end = Instant::now() + time;
        let mut next_look = Instant::now();
        while Instant::now() < end {
            self.turn()?;
            if next_look <= Instant::now() {
                next_look += Duration::from_millis(500);
                let users = self.users.iter().filter(|user| user.state == State::Here).count();
                let figures = &mut self.figures;
                figures.users_most = figures.users_most.max(users as u64);
                figures.clients_most =
                    figures.clients_most.max(self.links.clients().count() as u64);
                self.look_at_memory()?;
            }
        }
        Ok(())
    }

    /// Continues until nothing is unfinished.
    pub(crate) fn run_until(&mut self, unfinished: impl Fn(&mut Self) -> Option<Fault>) -> Checked {
        let guard = Instant::now() + GUARD;
        loop {
            self.turn()?;
            let Some(fault) = unfinished(self) else { return Ok(()) };
            if Instant::now() > guard {
                let what = format!("not even after a long wait: {}", fault.what);
                return Err(Fault { what, ..fault });
            }
        }
    }

    /// Returns something that is not finished.
    /// In a pause users may stay, and sessions may be members that will say goodbye.
    fn unfinished(&mut self, is_pause: bool) -> Option<Fault> {
        let is_busy = |state| match state {
            State::Away => false,
            State::Here => !is_pause,
            State::Arriving | State::Leaving(..) | State::Adrift => true,
        };
        if let Some(index) = self.users.iter().position(|user| is_busy(user.state)) {
            let user = &self.users[index];
            let (sort, identity, state) = (user.sort, &user.identity, user.state);
            let what = format!("user {index}, {sort:?}, with {identity:?}, is still {state:?}");
            return Some(Fault::new(what));
        }
        if !self.possible_violations.is_empty() {
            return Some(Fault::new("a possible violation is not decided"));
        }
        let is_brief =
            |owner| matches!(owner, Owner::Brief(_) | Owner::ReplacedConn(_) | Owner::Auditor);
        let is_open = |client: &&Client| !client.calls.is_empty() || is_brief(client.owner);
        if let Some(client) = self.links.clients().find(is_open) {
            let what = format!("{:?} is not answered, or not closed", client.owner);
            return Some(Fault::new(what));
        }
        if is_pause { self.ledger.unseen() } else { self.ledger.owed() }
    }

    /// Asks for the members of each channel until they are those that must be.
    fn await_quiet_channels(&mut self) -> Checked {
        let began = Instant::now();
        loop {
            self.members_differ = None;
            let harness = self.open(Owner::Harness, ReadRate::Fast)?;
            for channel in 0..self.observers.len() {
                self.members(harness, channel, What::Members(channel));
            }
            self.run_until(|world| {
                let is_waiting = world.links.client(harness).is_some_and(|it| !it.calls.is_empty());
                is_waiting.then(|| Fault::new("/members is not answered"))
            })?;
            self.close(Some(harness), Close::Orderly);
            match self.members_differ.take() {
                None => {
                    self.count("times that members and readers were compared");
                    return Ok(());
                }
                Some(fault)
                    if began.elapsed() > GUARD
                        || (began.elapsed() > READERS_MAX && !self.clock.was_slow()) =>
                {
                    return Err(fault);
                }
                Some(_) => self.run_for(Duration::from_millis(20))?,
            }
        }
    }

    /// Fills all histories, always the same, and returns the server's memory at rest.
    fn rest(&mut self) -> Checked<u64> {
        for _ in 0..HISTORY / FILL_AT_ONCE {
            for channel in 0..self.observers.len() {
                let is_large = channel < self.large;
                for _ in 0..FILL_AT_ONCE {
                    self.harness_writes(channel, if is_large { LARGE_BYTES } else { FILL_BYTES })?;
                }
                if is_large {
                    self.run_until(|world| world.unfinished(true))?;
                }
            }
            self.run_until(|world| world.unfinished(true))?;
        }
        self.run_for(Duration::from_millis(50))?;
        self.look_at_memory()
    }

    fn look_at_memory(&mut self) -> Checked<u64> {
        let mut total = 0;
        for node in self.living_nodes() {
            total += node.running.process().memory()?.total;
        }
        self.figures.memory.peak = self.figures.memory.peak.max(total);
        Ok(total)
    }

    /// Adds the CPU time that the server used since.
    pub(crate) fn note_cpu(&mut self) -> Checked {
        if self.cluster.is_some() {
            return Ok(());
        }
        let used = self.server.running.process().cpu_ns()?;
        self.figures.cpu_ns += used.saturating_sub(self.figures.cpu_counted_ns);
        self.figures.cpu_counted_ns = used;
        Ok(())
    }
}
