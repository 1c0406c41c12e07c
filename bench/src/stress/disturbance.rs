//! What is done to the server in the middle of things, and what may be lost by it.

use std::fs;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::ledger::{Checked, Fault};
use super::upgrade::KillTarget;
use super::user::{Sort, State};
use super::world::World;
use crate::Result;
use crate::server::Server;

/// A server that is asked to stop ends within 5 seconds.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Starts a server on an address.
pub(super) type Start<'a> = dyn Fn(SocketAddrV4) -> Result<Server> + 'a;

/// What is done to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disturbance {
    /// It is killed, and started again.
    Kill,
    /// It is asked to stop, and started again.
    Stop,
    /// The same, with `--state`.
    State,
    /// Another process is to take over, and one of the two is killed.
    KillOld,
    KillNew,
}

/// What is left of what the server knew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Memory {
    /// Ids begin anew in another epoch, whoever reads on by id is told so, and nobody is introduced any more.
    Nothing,
    /// Only links broke: ids, epoch and connections go on.
    All,
    /// Links go on, too.
    Untouched,
}

impl Disturbance {
    pub(crate) const ALL: [Self; 5] =
        [Self::Kill, Self::Stop, Self::State, Self::KillOld, Self::KillNew];
    const NAMES: [&'static str; 5] = ["kill", "stop", "state", "kill-old", "kill-new"];

    pub(crate) fn parse(name: &str) -> Result<Self> {
        let place = Self::NAMES.iter().position(|other| *other == name);
        let found = place.map(|place| Self::ALL[place]);
        found.ok_or_else(|| {
            format!("no such disturbance: {name}; there are: {}", Self::NAMES.join(", ")).into()
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kills of the server",
            Self::Stop => "stops of the server",
            Self::State => "stops of the server that keep its state",
            Self::KillOld | Self::KillNew => "kills amid an upgrade",
        }
    }
}

impl World {
    /// Disturbs the server. Afterwards it runs again, and everybody finds back in his own time.
    pub(super) fn disturb(&mut self, disturbance: Disturbance, start: &Start) -> Checked {
        self.count(disturbance.name());
        self.note_cpu()?;
        // The rule of what may be lost. In between no goodbye may be said that nobody meant, whatever the rule.
        let memory = match disturbance {
            Disturbance::Kill => {
                self.server.kill().map_err(|error| Fault::new(error.to_string()))?;
                self.see_the_end()?;
                self.start_again(start)?;
                Memory::Nothing
            }
            Disturbance::Stop | Disturbance::State => {
                self.is_disturbed = true;
                self.await_stop()?;
                self.see_the_end()?;
                if disturbance == Disturbance::Stop
                    && let Some(file) = &self.state_file
                {
                    fs::remove_file(file)
                        .map_err(|error| Fault::new(format!("no state was kept: {error}")))?;
                }
                self.start_again(start)?;
                if disturbance == Disturbance::Stop { Memory::Nothing } else { Memory::All }
            }
            Disturbance::KillOld => self.kill_amid_upgrade(KillTarget::Old, start)?,
            Disturbance::KillNew => self.kill_amid_upgrade(KillTarget::New, start)?,
        };
        match memory {
            Memory::Nothing => self.begin_anew()?,
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
        self.exact_ms();
        self.answered_at = self.now;
        Ok(())
    }

    /// What a server sent before it ended is judged by what held then.
    fn see_the_end(&mut self) -> Checked {
        self.is_disturbed = true;
        self.look_at_all()?;
        self.is_disturbed = false;
        Ok(())
    }

    pub(super) fn start_again(&mut self, start: &Start) -> Checked {
        let address = self.server.target.address;
        self.server = start(address).map_err(|error| Fault::new(error.to_string()))?;
        super::watch(&self.server);
        self.cpu_counted_ns = 0;
        Ok(())
    }

    /// The server knows nothing of what was.
    fn begin_anew(&mut self) -> Checked {
        self.lose_all_links();
        self.scene.ledger.forget_all();
        self.scene.epochs.renew();
        self.forget_suspects();
        for (room, reading) in (0..).zip(self.keep_readings()) {
            self.observe(room, reading)?;
        }
        self.set_adrift();
        Ok(())
    }

    fn await_stop(&mut self) -> Checked {
        let guard = Instant::now() + STOP_MAX;
        self.server.terminate();
        loop {
            self.turn()?;
            match self.server.ended().map_err(|error| Fault::new(error.to_string()))? {
                Some(true) => return Ok(()),
                Some(false) => return Err(Fault::new("the server was asked to stop, and failed")),
                None if Instant::now() > guard => {
                    return Err(Fault::new("the server does not stop"));
                }
                None => {}
            }
        }
    }

    fn set_adrift(&mut self) {
        for index in 0..self.users.len() as u32 {
            let user = &mut self.users[index as usize];
            (user.mouth, user.ear) = (None, None);
            // One who was leaving room by room has nowhere to come back to.
            let is_known =
                user.sort == Sort::Resident && user.identity.is_some() && !user.rooms.is_empty();
            if is_known && user.state != State::Away {
                user.state = State::Adrift;
                user.is_stale = true;
                self.act_in(index, 0, 800);
            } else {
                self.be_gone(index);
            }
        }
    }
}
