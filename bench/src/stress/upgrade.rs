//! Another process takes over from the server in the middle of things, or one of the two is killed at that.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::disturbance::{Memory, Start};
use super::ledger::{Checked, Fault};
use super::link::ReadRate;
use super::world::World;
use crate::process::Process;

/// No upgrade takes so long, however slow the machine.
const UPGRADE_MAX: Duration = Duration::from_secs(40);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A process is killed so soon after it was started, or its successor was. The new one takes some of that to begin.
const OLD_KILLED_WITHIN_MS: u64 = 40;
const NEW_KILLED_WITHIN_MS: u64 = 15;

/// What the server says of an upgrade, at the end of a line or in one.
const BEGINS: &str = " upgrade started successor=";
const IS_OVER: &str = " upgrade finished";
const FAILED: &str = " upgrade failed";
const STARTED: &str = " started max_clients=";
const HAS_NOTHING: &str = " starting empty";

/// Which of the two processes is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum KillTarget {
    Old,
    New,
}

impl World {
    /// An upgrade under way: nobody loses anything by it, and polls and calls go on over their TCP connections.
    pub(super) fn upgrade(&mut self) -> Checked {
        let began = Instant::now();
        let since = self.begin_handing();
        let starved_before = self.starved(None);
        let (mut heir, mut next_look, mut starved) = (None, began, Duration::ZERO);
        loop {
            self.turn()?;
            if self.now < next_look {
                continue;
            }
            next_look = self.now + LOOK_EVERY;
            // Its time is gone with it.
            let _ = self.note_cpu();
            let said = self.server.log().split_off(since);
            heir = heir.or_else(|| heir_in(&said));
            starved = starved.max(self.starved(heir).saturating_sub(starved_before));
            if said.contains(FAILED) {
                return Err(Fault::new("an upgrade failed"));
            }
            match self.server.ended().map_err(|error| Fault::new(error.to_string()))? {
                Some(true) if said.contains(IS_OVER) => break,
                Some(false) => {
                    return Err(Fault::new("the process that was taken over from ended badly"));
                }
                _ if began.elapsed() > UPGRADE_MAX => {
                    return Err(Fault::new(format!("an upgrade takes too long: {said}")));
                }
                _ => {}
            }
        }
        let heir = heir.ok_or_else(|| Fault::new("an upgrade without another process"))?;
        self.adopt(heir);
        self.look_at_all()?;
        self.end_handing();
        // That an answer takes long is no excuse amid an upgrade; that there is no core for the server is one.
        self.notice_lag(starved);
        self.upgrades += 1;
        self.upgrade_most = self.upgrade_most.max(began.elapsed());
        Ok(())
    }

    /// One of the two is killed amid an upgrade. Tells what is left of what the server knew.
    pub(super) fn kill_amid_upgrade(
        &mut self,
        victim: KillTarget,
        start: &Start,
    ) -> Checked<Memory> {
        let since = self.begin_handing();
        let begun = self.await_said(|said| heir_in(&said[since..]), true)?;
        let within_ms =
            if victim == KillTarget::Old { OLD_KILLED_WITHIN_MS } else { NEW_KILLED_WITHIN_MS };
        let end = Instant::now() + Duration::from_millis(self.random.below(within_ms));
        while Instant::now() < end {
            self.turn()?;
        }
        let memory = match victim {
            KillTarget::Old => {
                self.server.kill().map_err(|error| Fault::new(error.to_string()))?;
                self.adopt(begun);
                // What comes until then may be of either numbering.
                let said = self.await_said(
                    |said| said[since..].contains(STARTED).then(|| said.to_owned()),
                    false,
                )?;
                if said[since..].contains(HAS_NOTHING) { Memory::Nothing } else { Memory::All }
            }
            KillTarget::New => {
                // Fails only where it was given up already.
                let _ = kill_process(begun, Signal::KILL);
                let serves_on = self.await_either(since)?;
                if serves_on {
                    Memory::Untouched
                } else {
                    // It served already, and has taken all with it.
                    self.start_again(start)?;
                    Memory::Nothing
                }
            }
        };
        self.count(match (victim, memory) {
            (KillTarget::Old, Memory::Nothing) => {
                "kills of the old process, before it had given everything away"
            }
            (KillTarget::Old, _) => "kills of the old process, after it had given everything away",
            (KillTarget::New, Memory::Untouched) => "kills of the new process, before it served",
            (KillTarget::New, _) => "kills of the new process, when it served",
        });
        self.end_handing();
        Ok(memory)
    }

    /// Asks for an upgrade. Gives how long the log was.
    fn begin_handing(&mut self) -> usize {
        let length = self.server.log().len();
        self.scene.ledger.unsettle_closings();
        self.is_handing = true;
        self.server.signal(Signal::USR2);
        length
    }

    /// For how long the server, and who takes over from it, had no core. Nothing of one that has ended.
    fn starved(&self, heir: Option<Pid>) -> Duration {
        let heir = heir.map(|heir| Process::new(heir.as_raw_pid().cast_unsigned()));
        let both = [self.server.target.process, heir];
        both.into_iter().flatten().filter_map(|process| process.starved().ok()).sum()
    }

    fn end_handing(&mut self) {
        self.scene.ledger.unsettle_closings();
        self.exact_ms();
        (self.is_handing, self.handed_at) = (false, Some(self.now));
    }

    /// Another process is the server.
    fn adopt(&mut self, heir: Pid) {
        self.server.succeeded_by(heir);
        super::watch(&self.server);
        self.cpu_counted_ns = 0;
    }

    /// All that came is looked at: also that the server ended a link.
    pub(super) fn look_at_all(&mut self) -> Checked {
        // An end is seen only behind all that was sent before it.
        for token in [self.links.tokens(), self.links.tokens()].concat() {
            if self.links.get(token).is_some_and(|(link, _)| link.thirst == ReadRate::Fast) {
                self.look(token)?;
            }
        }
        Ok(())
    }

    /// Waits for something in the log; the users go on meanwhile, or stand still.
    fn await_said<T>(&mut self, find: impl Fn(&str) -> Option<T>, goes_on: bool) -> Checked<T> {
        let guard = Instant::now() + UPGRADE_MAX;
        loop {
            if let Some(found) = find(&self.server.log()) {
                return Ok(found);
            }
            if Instant::now() > guard {
                return Err(Fault::new("an upgrade does not go on"));
            }
            if goes_on { self.turn()? } else { thread::sleep(Duration::from_millis(1)) }
        }
    }

    /// Whether the old process serves on, whose successor was killed; else it leaves.
    fn await_either(&mut self, since: usize) -> Checked<bool> {
        let guard = Instant::now() + UPGRADE_MAX;
        loop {
            if self.server.ended().map_err(|error| Fault::new(error.to_string()))?.is_some() {
                return Ok(false);
            }
            if self.server.log()[since..].contains(FAILED) {
                return Ok(true);
            }
            if Instant::now() > guard {
                return Err(Fault::new(
                    "the new process was killed, and the old one neither serves nor leaves",
                ));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The process that is to take over, as the log tells.
fn heir_in(said: &str) -> Option<Pid> {
    let (_, id) = said.lines().find_map(|line| line.split_once(BEGINS))?;
    Pid::from_raw(id.parse().ok()?)
}
