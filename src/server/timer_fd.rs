//! Wakes the loop when something is due, without a time-out for every wait.
//!
//! A wait with a time-out starts and stops a timer of the kernel each time it sleeps, which on a virtual machine
//! traps to the host: measured, 10 % of a delivery in a quiet chat. Deadlines here are lazy and hardly ever move to
//! an earlier time, so one timer that stays set serves thousands of waits.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::clock::Clock;
use crate::hub::Millis;

pub(super) struct TimerFd {
    timer: OwnedFd,
    armed_for: Option<Millis>,
}

impl TimerFd {
    /// An alarm that is not set, watched by the poll under this token.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        // Edge-triggered: the count of expirations need not be read for the next one to be told.
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, armed_for: None })
    }

    /// Sees to it that the poll is woken at `deadline`, or earlier: one that was set before is left as it is.
    pub(super) fn set(&mut self, deadline: Millis, clock: &Clock) {
        if self.armed_for.is_some_and(|set_for| set_for <= deadline) {
            return;
        }
        // A time of zero would unset it.
        let wait = clock.until(deadline).max(Duration::from_nanos(1));
        let time = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)
            .expect("a timer of ours takes any time");
        self.armed_for = Some(deadline);
    }

    /// It woke the poll.
    pub(super) fn fired(&mut self) {
        self.armed_for = None;
    }
}
