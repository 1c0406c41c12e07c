//! Another process takes over from the server in the middle of things, or one of the two is killed.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::ensure;
use support::fault::Checked;
use support::process::Process;
use support::upgrade_log::UpgradeLog;

use crate::disturbance::Memory;
use crate::link::ReadRate;
use crate::world::World;

/// No upgrade takes so long, however slow the machine.
const UPGRADE_MAX: Duration = Duration::from_secs(40);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// Time within which a process is killed after the new one was started, which takes some of it to
/// begin.
const OLD_KILLED_WITHIN_MS: u64 = 40;
const NEW_KILLED_WITHIN_MS: u64 = 15;

/// Words of the server's log.
const FAILED: &str = " upgrade failed";

impl World {
    /// Upgrades the server: nothing is lost, and long polls and calls continue over their
    /// connections.
    pub(crate) fn upgrade(&mut self) -> Checked {
        let began = Instant::now();
        let since = self.begin_takeover();
        let starved_before = self.starved(None);
        let (mut next_look, mut starved) = (began, Duration::ZERO);
        let successor = loop {
            self.turn()?;
            if self.clock.now < next_look {
                continue;
            }
            next_look = self.clock.now + LOOK_INTERVAL;
            // The CPU time of a process is gone with it.
            let _ = self.note_cpu();
            let log = self.server.running.log().split_off(since);
            let upgrade = UpgradeLog::find(&log);
            let successor = upgrade.map(|upgrade| upgrade.successor);
            starved = starved.max(self.starved(successor).saturating_sub(starved_before));
            ensure!(!log.contains(FAILED), "an upgrade failed");
            let ended = self.server.running.ended()?;
            ensure!(ended != Some(false), "the predecessor ended badly");
            if let Some(upgrade) = upgrade
                && ended.is_some()
                && upgrade.is_over()
            {
                break upgrade.successor;
            }
            ensure!(began.elapsed() <= UPGRADE_MAX, "an upgrade takes too long: {log}");
        };
        self.adopt(successor);
        self.look_at_all()?;
        self.end_takeover();
        // A slow response is no excuse during an upgrade; that the server had no core is one.
        self.clock.note_lag(starved);
        self.takeover.upgrades += 1;
        self.takeover.longest = self.takeover.longest.max(began.elapsed());
        Ok(())
    }

    /// Kills the predecessor during an upgrade, and returns the memory that is left.
    pub(crate) fn kill_old_during_upgrade(&mut self) -> Checked<Memory> {
        let (since, successor) = self.begin_upgrade(OLD_KILLED_WITHIN_MS)?;
        self.server.running.kill()?;
        self.adopt(successor);
        let (_, killed_ms) = self.clock.update();
        // A message until then may be of either numbering.
        let find = |log: &str| UpgradeLog::find(log)?.has_state();
        let has_state = self.await_log(since, false, |_, log| Ok(find(log)))?;
        self.end_takeover();
        if has_state {
            self.count("kills of the old process, after it had transferred its state");
            self.see_the_end()?;
            return Ok(Memory::All);
        }
        self.count("kills of the old process, before it had transferred its state");
        if self.launcher.journal.is_none() {
            return Ok(Memory::Nothing);
        }
        self.see_the_end()?;
        self.ledger.recovered(killed_ms);
        Ok(Memory::All)
    }

    /// Kills the successor during an upgrade, and returns the memory that is left.
    pub(crate) fn kill_new_during_upgrade(&mut self) -> Checked<Memory> {
        let (since, successor) = self.begin_upgrade(NEW_KILLED_WITHIN_MS)?;
        // Fails only if it was given up already.
        let _ = kill_process(successor, Signal::KILL);
        let has_left = self.await_log(since, false, |world, log| {
            let has_left = world.server.running.ended()?.is_some();
            Ok((has_left || log.contains(FAILED)).then_some(has_left))
        })?;
        let memory = if has_left {
            // The successor served already, and its memory is lost, unless it kept a journal.
            self.count("kills of the new process, when it served");
            if self.launcher.journal.is_some() {
                self.see_the_end()?;
            }
            self.start_again()?
        } else {
            self.count("kills of the new process, before it served");
            Memory::Untouched
        };
        self.end_takeover();
        Ok(memory)
    }

    /// Begins an upgrade, and returns some time after the new process was started.
    /// Returns also how long the log was before.
    fn begin_upgrade(&mut self, within_ms: u64) -> Checked<(usize, Pid)> {
        let since = self.begin_takeover();
        let find = |log: &str| UpgradeLog::find(log).map(|upgrade| upgrade.successor);
        let successor = self.await_log(since, true, |_, log| Ok(find(log)))?;
        let end = Instant::now() + Duration::from_millis(self.random.below(within_ms));
        while Instant::now() < end {
            self.turn()?;
        }
        Ok((since, successor))
    }

    /// Asks for an upgrade, and returns how long the log was.
    fn begin_takeover(&mut self) -> usize {
        let length = self.server.running.log().len();
        self.ledger.unsettle_closings();
        self.takeover.is_under_way = true;
        self.server.running.signal(Signal::USR2);
        length
    }

    fn end_takeover(&mut self) {
        self.ledger.unsettle_closings();
        let (now, _) = self.clock.update();
        (self.takeover.is_under_way, self.takeover.ended) = (false, Some(now));
    }

    /// Returns the time during which server and successor had no core; of a process that ended,
    /// none.
    fn starved(&self, successor: Option<Pid>) -> Duration {
        let successor = successor.map(|pid| Process(pid.as_raw_pid().cast_unsigned()));
        let both = [Some(self.server.running.process()), successor];
        both.into_iter().flatten().filter_map(|process| process.starved().ok()).sum()
    }

    fn adopt(&mut self, successor: Pid) {
        self.server.running.succeeded_by(successor);
        self.figures.cpu_counted_ns = 0;
    }

    /// Takes all that came, and notices links that the server closed.
    pub(crate) fn look_at_all(&mut self) -> Checked {
        // An end is seen only after all that was sent before it.
        for token in [self.links.tokens(), self.links.tokens()].concat() {
            if self.links.get(token).is_some_and(|(link, _)| link.rate == ReadRate::Fast) {
                self.look(token)?;
            }
        }
        Ok(())
    }

    /// Waits for something in the log since then, while the users continue or pause.
    fn await_log<T>(
        &mut self,
        since: usize,
        continues: bool,
        find: impl Fn(&mut Self, &str) -> Checked<Option<T>>,
    ) -> Checked<T> {
        let guard = Instant::now() + UPGRADE_MAX;
        loop {
            let log = self.server.running.log().split_off(since);
            if let Some(found) = find(self, &log)? {
                return Ok(found);
            }
            ensure!(Instant::now() <= guard, "an upgrade neither continues nor fails");
            if continues { self.turn()? } else { thread::sleep(Duration::from_millis(1)) }
        }
    }
}
