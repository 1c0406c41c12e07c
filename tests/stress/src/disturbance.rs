//! Disturbances of the server, and what may be lost by them.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::ensure;
use support::fault::{Checked, Fault};

use crate::user::{Sort, State};
use crate::world::World;

/// A server that is asked to stop ends within 5 seconds.
const STOP_MAX: Duration = Duration::from_secs(20);

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

const NAMES: [(&str, Disturbance); 5] = [
    ("kill", Disturbance::Kill),
    ("stop", Disturbance::Stop),
    ("state", Disturbance::State),
    ("kill-old", Disturbance::KillOld),
    ("kill-new", Disturbance::KillNew),
];

impl Disturbance {
    pub(crate) const ALL: [Self; 5] =
        [Self::Kill, Self::Stop, Self::State, Self::KillOld, Self::KillNew];

    pub(crate) fn parse(name: &str) -> Checked<Self> {
        let found = NAMES.iter().find(|(its, _)| *its == name).map(|(_, its)| *its);
        let names = || NAMES.map(|(name, _)| name).join(", ");
        found.ok_or_else(|| Fault::new(format!("no disturbance {name}; there are: {}", names())))
    }

    fn description(self) -> &'static str {
        match self {
            Self::Kill => "kills of the server",
            Self::Stop => "stops of the server",
            Self::State => "stops of the server that keep its state",
            Self::KillOld | Self::KillNew => "kills during an upgrade",
        }
    }
}

impl World {
    /// Disturbs the server. Afterwards it runs again, and each user finds back after a while.
    pub(crate) fn disturb(&mut self, disturbance: Disturbance) -> Checked {
        self.count(disturbance.description());
        self.note_cpu()?;
        // Until the server has ended, no goodbye may come that no client meant, in any case.
        let memory = match disturbance {
            Disturbance::Kill => {
                self.server.running.kill()?;
                self.see_the_end()?;
                self.start_again()?;
                Memory::Nothing
            }
            Disturbance::Stop | Disturbance::State => {
                self.is_disturbed = true;
                self.await_stop()?;
                self.see_the_end()?;
                let is_kept = disturbance == Disturbance::State;
                if let Some(file) = self.launcher.state_file.as_ref().filter(|_| !is_kept) {
                    let removed = fs::remove_file(file);
                    removed.map_err(|error| Fault::new(format!("no state was kept: {error}")))?;
                }
                self.start_again()?;
                if is_kept { Memory::All } else { Memory::Nothing }
            }
            Disturbance::KillOld => self.kill_old_during_upgrade()?,
            Disturbance::KillNew => self.kill_new_during_upgrade()?,
        };
        match memory {
            Memory::Nothing => self.lose_memory()?,
            Memory::All => {
                if disturbance == Disturbance::State {
                    self.lose_all_links();
                } else {
                    self.see_the_end()?;
                }
                self.find_all_back()?;
            }
            Memory::Untouched => {}
        }
        self.figures.answered_at = self.clock.update().0;
        Ok(())
    }

    /// Judges all that a server sent before it ended by the rules of before.
    fn see_the_end(&mut self) -> Checked {
        self.is_disturbed = true;
        self.look_at_all()?;
        self.is_disturbed = false;
        Ok(())
    }

    pub(crate) fn start_again(&mut self) -> Checked {
        self.server = self.launcher.start(self.server.address)?;
        self.figures.cpu_counted_ns = 0;
        Ok(())
    }

    /// The server has lost its memory.
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

    fn await_stop(&mut self) -> Checked {
        let guard = Instant::now() + STOP_MAX;
        self.server.running.signal(Signal::TERM);
        loop {
            self.turn()?;
            if let Some(is_success) = self.server.running.ended()? {
                ensure!(is_success, "the server was asked to stop, and failed");
                return Ok(());
            }
            ensure!(Instant::now() <= guard, "the server does not stop");
        }
    }
}
