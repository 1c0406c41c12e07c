//! Waiting for something to become true, and the time.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest wait for anything. It only has to be longer than a loaded machine is slow.
pub const GUARD: Duration = Duration::from_secs(15);

/// Says whether the large sizes were asked for, as `make overload` does.
/// Only sizes and the longest wait depend on it.
pub fn is_full() -> bool {
    std::env::var_os("SPEAK_OVERLOAD").is_some()
}

/// Returns the longest wait for a crowd: tens of thousands of clients take a while on a busy
/// machine.
pub fn crowd_guard() -> Duration {
    GUARD * if is_full() { 8 } else { 1 }
}

/// Asks again and again until `done`; panics with `what` after [`crowd_guard`].
#[track_caller]
pub fn until(what: &str, done: impl FnMut() -> bool) {
    until_within(crowd_guard(), what, done);
}

/// Asks again and again until `done`; panics with `what` after `guard`.
#[track_caller]
pub fn until_within(guard: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < guard, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Returns milliseconds since 1970, as a message's `time` counts them.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.expect("a clock after 1970").as_millis()).expect("a sane clock")
}
