//! What is done to the server in the middle of things, and what may be lost by it.

use std::mem;
use std::time::{Duration, Instant};

use super::ledger::{Checked, Fault};
use super::link::{Close, Thirst};
use super::reading::Reading;
use super::user::{Sort, State};
use super::world::{Who, World};
use crate::Result;

/// A server that is asked to stop ends within 5 seconds.
const STOP_MAX: Duration = Duration::from_secs(20);

/// What is done to the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disturbance {
    /// It is killed, and started again.
    Kill,
    /// It is asked to stop, and started again.
    Stop,
}

/// What is left of what the server knew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Memory {
    /// Ids begin anew in another epoch, whoever reads on by id is told so, and nobody is introduced any more.
    Nothing,
}

impl Disturbance {
    const NAMES: &'static str = "kill, stop";

    pub(crate) fn parse(name: &str) -> Result<Self> {
        match name {
            "kill" => Ok(Self::Kill),
            "stop" => Ok(Self::Stop),
            _ => Err(format!("no such disturbance: {name}; there are: {}", Self::NAMES).into()),
        }
    }

    /// The rule of what may be lost. In between no goodbye may be said that nobody meant, whatever the rule.
    fn memory(self) -> Memory {
        match self {
            Self::Kill | Self::Stop => Memory::Nothing,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kills of the server",
            Self::Stop => "stops of the server",
        }
    }
}

impl World {
    /// Disturbs the server. Afterwards it runs again, and everybody finds back in his own time.
    pub(super) fn disturb(
        &mut self,
        disturbance: Disturbance,
        start: &dyn Fn(u16) -> Result<crate::server::Server>,
    ) -> Checked {
        let failed = |error: Box<dyn std::error::Error>| Fault::new(error.to_string());
        self.count(disturbance.name());
        self.note_cpu()?;
        self.is_disturbed = true;
        match disturbance {
            Disturbance::Kill => self.server.kill().map_err(failed)?,
            Disturbance::Stop => self.await_stop()?,
        }
        // What it sent before it ended is judged by what held then.
        for token in self.links.tokens() {
            if self.links.get(token).is_some_and(|(link, _)| link.thirst == Thirst::Gulps) {
                self.look(token)?;
            }
        }
        let readings = self.lose_all_links();
        match disturbance.memory() {
            Memory::Nothing => {
                self.scene.ledger.forget_all();
                self.scene.epochs.renew();
                self.forget_suspects();
            }
        }
        let port = self.server.target.address.port();
        self.server = start(port).map_err(failed)?;
        super::watch(&self.server);
        self.cpu_counted_ns = 0;
        self.is_disturbed = false;
        for (room, reading) in (0..).zip(readings) {
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
                None if Instant::now() > guard => return Err(Fault::new("the server does not stop")),
                None => {}
            }
        }
    }

    /// Drops all links, and keeps what goes on with others: what the observers and the users read.
    fn lose_all_links(&mut self) -> Vec<Option<Reading>> {
        let mut observed = vec![None; self.observers.len()];
        self.observers.fill(None);
        self.house = None;
        self.sippers.clear();
        for token in self.links.tokens() {
            let Some((link, owned)) = self.links.remove(token) else { continue };
            link.close(Close::Orderly);
            match owned.who {
                Who::Observer(room) => observed[room as usize] = owned.reading,
                Who::Ear(user) => self.users[user as usize].resumes = owned.reading,
                _ => {}
            }
        }
        for (who, reading) in mem::take(&mut self.last_readings) {
            match who {
                Who::Observer(room) => observed[room as usize] = Some(reading),
                Who::Ear(user) => self.users[user as usize].resumes = Some(reading),
                _ => {}
            }
        }
        observed
    }

    fn set_adrift(&mut self) {
        for index in 0..self.users.len() as u32 {
            let user = &mut self.users[index as usize];
            (user.mouth, user.ear) = (None, None);
            // One who was leaving room by room has nowhere to come back to.
            let is_known = user.sort == Sort::Resident && user.identity.is_some() && !user.rooms.is_empty();
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
