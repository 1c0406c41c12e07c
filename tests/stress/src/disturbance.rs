//! Disturbances of the server, and what may be lost by them.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use support::ensure;
use support::fault::{Checked, Fault};

use crate::user::{Sort, State};
use crate::world::World;

/// Users who call just before a server with a journal is killed.
const CALLERS_AT_KILL: usize = 60;
/// Time after these calls within which it is killed: some records are written in it.
const KILLED_WITHIN_US: u64 = 3_000;

/// Share of starts of which the first attempt is killed, while it reads or writes the journal.
const STARTS_KILLED_PERCENT: u64 = 40;
const START_KILLED_WITHIN_US: u64 = 60_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disturbance {
    /// The server is killed, and started again.
    Kill,
    /// The server is asked to stop, and started again.
    Stop,
    /// The server is asked to stop, and started again with its `--state`.
    State,
    /// The server is upgraded, and one of the two processes is killed.
    KillOld,
    KillNew,
    /// A node of a cluster is killed, and started again.
    KillNode,
    /// A node stands still for so many seconds.
    PauseNode1,
    PauseNode4,
    PauseNode10,
    /// So does Redis.
    PauseRedis1,
    PauseRedis4,
    /// Redis is killed, and started again with what is on its disk.
    KillRedis,
    /// Another process takes over from that of a node.
    UpgradeNode,
}

/// Memory of the server that is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Memory {
    /// None: ids begin with 1 in another epoch, readers by id get `reset`, sessions have ended.
    Nothing,
    /// All: ids, epoch and sessions continue. Only links broke.
    All,
    /// All, and links continue, too.
    Untouched,
}

/// Names on the command line, and descriptions, in the order of the type.
const TABLE: [(Disturbance, &str, &str); 13] = [
    (Disturbance::Kill, "kill", "kills of the server"),
    (Disturbance::Stop, "stop", "stops of the server"),
    (Disturbance::State, "state", "stops of the server that keep its state"),
    (Disturbance::KillOld, "kill-old", "kills during an upgrade"),
    (Disturbance::KillNew, "kill-new", "kills during an upgrade"),
    (Disturbance::KillNode, "kill-node", "kills of a node"),
    (Disturbance::PauseNode1, "pause-node-1", "pauses of a node"),
    (Disturbance::PauseNode4, "pause-node-4", "pauses of a node"),
    (Disturbance::PauseNode10, "pause-node-10", "pauses of a node"),
    (Disturbance::PauseRedis1, "pause-redis-1", "pauses of Redis"),
    (Disturbance::PauseRedis4, "pause-redis-4", "pauses of Redis"),
    (Disturbance::KillRedis, "kill-redis", "kills of Redis"),
    (Disturbance::UpgradeNode, "upgrade-node", "upgrades of a node"),
];

impl Disturbance {
    /// Returns all that can happen to one server.
    pub(crate) fn all() -> Vec<Self> {
        TABLE[..Self::KillNode as usize].iter().map(|(its, ..)| *its).collect()
    }

    /// Returns all that can happen to several nodes.
    pub(crate) fn of_cluster() -> Vec<Self> {
        TABLE[Self::KillNode as usize..].iter().map(|(its, ..)| *its).collect()
    }

    pub(crate) fn parse(name: &str) -> Checked<Self> {
        let found = TABLE.iter().find(|(_, its, _)| *its == name).map(|(its, ..)| *its);
        let names = || TABLE.map(|(_, name, _)| name).join(", ");
        found.ok_or_else(|| Fault::new(format!("no disturbance {name}; there are: {}", names())))
    }
}

impl World {
    /// Disturbs the server. Afterwards it runs again, and each user finds back after a while.
    pub(crate) fn disturb(&mut self, disturbance: Disturbance) -> Checked {
        self.count(TABLE[disturbance as usize].2);
        self.note_cpu()?;
        self.set_disturbed(true);
        // Until the server has ended, no goodbye may come that no client meant, in any case.
        let memory = match disturbance {
            Disturbance::Kill => {
                if self.launcher.journal.is_some() {
                    self.kill_under_load()?;
                } else {
                    self.server.running.kill()?;
                }
                self.see_the_end()?;
                self.start_again()?
            }
            Disturbance::Stop | Disturbance::State => {
                self.is_disturbed = true;
                self.server.running.signal(Signal::TERM);
                self.run_until(|world| match world.server.running.ended() {
                    Ok(Some(_)) => None,
                    ended => Some(Fault::new(format!("the server does not stop: {ended:?}"))),
                })?;
                let ended = self.server.running.ended()?;
                ensure!(ended == Some(true), "the server was asked to stop, and failed");
                self.see_the_end()?;
                let is_state_kept = disturbance == Disturbance::State;
                if let Some(file) = self.launcher.state_file.as_ref().filter(|_| !is_state_kept) {
                    let removed = fs::remove_file(file);
                    removed.map_err(|error| Fault::new(format!("no state was kept: {error}")))?;
                }
                let memory = self.start_again()?;
                if is_state_kept {
                    self.lose_all_links();
                    Memory::All
                } else {
                    memory
                }
            }
            Disturbance::KillOld => self.kill_old_during_upgrade()?,
            Disturbance::KillNew => self.kill_new_during_upgrade()?,
            Disturbance::KillNode => self.kill_node().map(|()| Memory::Untouched)?,
            Disturbance::PauseNode1 => self.stay(Self::pause_node, 1)?,
            Disturbance::PauseNode4 => self.stay(Self::pause_node, 4)?,
            Disturbance::PauseNode10 => self.stay(Self::pause_node, 10)?,
            Disturbance::PauseRedis1 => self.stay(Self::pause_redis, 1)?,
            Disturbance::PauseRedis4 => self.stay(Self::pause_redis, 4)?,
            Disturbance::KillRedis => self.kill_redis().map(|()| Memory::Untouched)?,
            Disturbance::UpgradeNode => self.upgrade().map(|()| Memory::Untouched)?,
        };
        self.set_disturbed(false);
        match memory {
            Memory::Nothing => self.lose_memory()?,
            Memory::All => {
                self.find_all_back()?;
                if self.launcher.journal.is_some() {
                    self.audit()?;
                }
            }
            Memory::Untouched => {}
        }
        self.clock.answered_at = self.clock.update().0;
        Ok(())
    }

    fn stay(&mut self, pause: fn(&mut Self, Duration) -> Checked, seconds: u64) -> Checked<Memory> {
        pause(self, Duration::from_secs(seconds))?;
        Ok(Memory::Untouched)
    }

    /// Judges all that a server sent before it ended by the rules of before.
    pub(crate) fn see_the_end(&mut self) -> Checked {
        self.is_disturbed = true;
        self.look_at_all()?;
        self.is_disturbed = false;
        Ok(())
    }

    /// Starts a server whose predecessor has ended, and returns the memory that it has without
    /// `--state`.
    pub(crate) fn start_again(&mut self) -> Checked<Memory> {
        if self.launcher.journal.is_some() && self.random.percent(STARTS_KILLED_PERCENT) {
            let mut starting = self.launcher.spawn(self.server.address)?;
            thread::sleep(Duration::from_micros(self.random.below(START_KILLED_WITHIN_US)));
            starting.kill()?;
            self.count("kills of a server that starts");
        }
        let (began, began_ms) = self.clock.update();
        self.server = self.launcher.start(self.server.address)?;
        self.figures.cpu_counted_ns = 0;
        if self.launcher.journal.is_none() {
            return Ok(Memory::Nothing);
        }
        self.figures.longest_recovery = self.figures.longest_recovery.max(began.elapsed());
        self.ledger.recovered(began_ms);
        self.lose_all_links();
        Ok(Memory::All)
    }

    /// Kills the server at any moment while it handles calls of several users.
    fn kill_under_load(&mut self) -> Checked {
        self.have_many_call();
        self.turn()?;
        thread::sleep(Duration::from_micros(self.random.below(KILLED_WITHIN_US)));
        self.server.running.kill()?;
        Ok(())
    }

    /// Has many users act in the next turn.
    pub(crate) fn have_many_call(&mut self) {
        for _ in 0..CALLERS_AT_KILL {
            let index = self.random.index(self.users.len()) as u32;
            if self.user(index).state == State::Here {
                self.act_in(index, 0, 0);
            }
        }
    }

    fn lose_memory(&mut self) -> Checked {
        self.lose_all_links();
        self.ledger.forget_all();
        self.possible_violations.clear();
        for (channel, read) in self.keep_reads().into_iter().enumerate() {
            self.observe(channel, read)?;
        }
        for index in 0..self.users.len() as u32 {
            let user = self.user(index);
            (user.write_conn, user.read_conn) = (None, None);
            // A user who was leaving channel by channel has no channel to come back to.
            let is_known = user.identity.is_some() && !user.channels.is_empty();
            if is_known && user.sort == Sort::Resident && user.state != State::Away {
                (user.state, user.is_stale) = (State::Adrift, true);
                self.act_in(index, 0, 800);
            } else {
                self.be_gone(index);
            }
        }
        Ok(())
    }
}
