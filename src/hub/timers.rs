//! Timers of channels and sessions.

use super::timer_wheel::TimerWheel;

/// Owner of a timer, by index.
#[derive(Clone, Copy, Debug)]
pub(super) enum TimerKey {
    /// The session may have ended.
    Session(u32),
    /// The channel has messages to expire, or is idle.
    Channel(u32),
}

/// All timers of a hub. One wheel, so that timers of one deadline fire in the order of arming.
pub(super) type Timers = TimerWheel<TimerKey>;
