//! Timer that wakes the loop at a deadline, without a timeout for every poll.
//!
//! A poll with a timeout starts and stops a kernel timer each time it sleeps. On a virtual machine
//! that traps to the host: measured, 10 % of a delivery in a quiet chat. Deadlines of the server
//! are lazy and hardly ever move to an earlier time, so one timer that stays armed serves thousands
//! of polls.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::clock::Clock;
use super::event_source::EventSource;
use crate::hub::Millis;

/// Timer file (`timerfd_create(2)`) that the poll watches.
pub(super) struct TimerFd {
    timer: OwnedFd,
    /// `None` if the timer is not armed.
    armed_for: Option<Millis>,
}

impl TimerFd {
    /// Creates a timer that is not armed, and registers it with the poll.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub(super) fn new(registry: &Registry, source: EventSource) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        // Edge-triggered: the next expiration is reported although the count of this one is not
        // read.
        let mut file = SourceFd(&timer.as_raw_fd());
        registry.register(&mut file, source.token(), Interest::READABLE)?;
        Ok(Self { timer, armed_for: None })
    }

    /// Makes sure that the poll wakes at `deadline` or earlier. A timer that is armed for an
    /// earlier time stays as it is.
    pub(super) fn arm(&mut self, deadline: Millis, clock: &Clock) {
        if self.armed_for.is_some_and(|armed_for| armed_for <= deadline) {
            return;
        }
        self.arm_in(clock.until(deadline));
        self.armed_for = Some(deadline);
    }

    /// Makes the poll wake after this time, instead of the time for which the timer is armed.
    pub(super) fn arm_in(&mut self, wait: Duration) {
        // A time of zero would disarm the timer.
        let wait = wait.max(Duration::from_nanos(1));
        let time = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)
            .expect("the timer accepts any time");
        self.armed_for = None;
    }

    /// Notes that the timer has fired.
    pub(super) fn on_fired(&mut self) {
        self.armed_for = None;
    }
}
