//! Log on standard error, one line each: `TIME LEVEL text`.
//!
//! The log must not block the server: its reader may be slow or stopped, and a write to a full pipe
//! waits forever. So the kernel is asked first whether standard error is writable. If not, the line
//! is dropped and counted. Non-blocking mode is no way out: it would apply to all programs that
//! share the descriptor, such as the shell.

use std::any::Any;
use std::fmt::Arguments;
use std::io::{self, Write};
use std::panic::{self, Location};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clock::unix_ms;

/// Logger on standard error.
struct StandardError;

/// Log lines dropped since the start. Atomic since a logger is shared by all threads.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Dropped lines that the log has reported.
static DROPPED_REPORTED: AtomicU64 = AtomicU64::new(0);

/// Lines that [`HeldLines`] holds back. `None` if lines are written at once.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Holds back the lines of a start until it is dropped: the addresses are to come first, and what
/// is loaded before they are bound is logged too. At most a few lines.
pub(super) struct HeldLines(());

impl HeldLines {
    /// Begins to hold back lines.
    pub(super) fn begin() -> Self {
        *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        Self(())
    }
}

impl Drop for HeldLines {
    fn drop(&mut self) {
        write_held();
    }
}

/// Writes the lines that were held back, if there are any. From then on, lines are written at once.
fn write_held() {
    // A panic may have come while a line was added.
    let held = HELD.try_lock().ok().and_then(|mut held| held.take());
    held.into_iter().flatten().for_each(|line| write(&line));
}

/// Starts to log lines up to this level, and panics as one line each. To be called once.
pub fn start(level: LevelFilter) {
    if log::set_logger(&StandardError).is_ok() {
        log::set_max_level(level);
    }
    // In a debug build the default output says more, and no secrets are at stake.
    if !cfg!(debug_assertions) {
        panic::set_hook(Box::new(|info| {
            let text = panic_text(info.payload(), info.location());
            write_held();
            write_line(Level::Error, format_args!("{text}"));
        }));
    }
}

/// Log lines dropped since the start.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

impl Log for StandardError {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        write_line(record.level(), *record.args());
    }

    fn flush(&self) {}
}

fn write_line(level: Level, text: Arguments<'_>) {
    let line = format!("{} {level} {text}\n", rfc_3339(unix_ms()));
    match HELD.try_lock().as_deref_mut() {
        Ok(Some(held)) => held.push(line),
        _ => write(&line),
    }
}

/// Writes a whole line, or counts it as dropped.
fn write(line: &str) {
    if !is_writable() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    let dropped = dropped();
    let unreported = dropped - DROPPED_REPORTED.load(Ordering::Relaxed);
    let gap = if unreported == 0 {
        String::new()
    } else {
        format!("{} WARN {unreported} log lines dropped\n", rfc_3339(unix_ms()))
    };
    // One write, so that lines are not torn.
    match io::stderr().write_all(format!("{gap}{line}").as_bytes()) {
        Ok(()) => DROPPED_REPORTED.store(dropped, Ordering::Relaxed),
        Err(_) => {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Returns whether standard error takes a line without blocking. A writable pipe takes at least
/// 4 KiB, and no line is that long. If the kernel cannot tell, the write is tried.
fn is_writable() -> bool {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
    !matches!(poll(&mut fds, Some(&no_wait)), Ok(0))
}

/// Text of a panic: its place, and its message if that is a constant. A formatted message is left
/// out, since it may quote what a client sent.
fn panic_text(payload: &dyn Any, location: Option<&Location<'_>>) -> String {
    let message = payload.downcast_ref::<&'static str>();
    let message = message.map_or(String::new(), |message| format!(": {message}"));
    let place = location.map_or(String::new(), |at| format!(" at {}:{}", at.file(), at.line()));
    format!("panicked{place}{message}")
}

/// Milliseconds since 1970 as `2026-11-22T10:43:04.123Z`.
fn rfc_3339(unix_ms: u64) -> String {
    let (days, ms_of_day) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil_from_days(days);
    let (seconds, ms) = (ms_of_day / 1000, ms_of_day % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of a day since 1970, by Howard Hinnant's algorithm. It counts years from
/// March, so that the leap day comes last.
fn civil_from_days(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // 0000-03-01 is 719,468 days before 1970-01-01.
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let leap_days = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / (DAYS_IN_400_YEARS - 1);
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March on, months repeat every 153 days: 31 30 31 30 31.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let (month, next_year) =
        if month_from_march < 10 { (month_from_march + 3, 0) } else { (month_from_march - 9, 1) };
    (era * 400 + year_of_era + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_a_formatted_message() {
        let at = Location::caller();
        let place = format!("panicked at src/server/log_writer.rs:{}", at.line());
        assert_eq!(panic_text(&"a client is gone", Some(at)), format!("{place}: a client is gone"));
        assert_eq!(panic_text(&String::from("no boundary in `secret`"), Some(at)), place);
        assert_eq!(panic_text(&7, None), "panicked");
    }

    #[test]
    fn times_equal_those_of_the_date_program() {
        // date -u -d @SECONDS +%FT%TZ
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_763_802_330_123, "2025-11-22T09:05:30.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (unix_ms, text) in cases {
            assert_eq!(rfc_3339(unix_ms), text);
        }
    }
}
