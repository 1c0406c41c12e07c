//! What the kernel knows of this process: `process_*`, as all who are watched by Prometheus call it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::{Resource, getrlimit};

use super::log_writer;
use crate::metrics::{ProcessStats, ProcessUsage};

/// `/proc/self/stat` has 52 numbers and a name.
const STAT_BYTES_MAX: usize = 2048;

/// What has to be open from the start: once the process has changed its user, or shut itself in, `/proc/self` can no
/// more be opened, but what was opened before can still be read. What is not there is left out of the page.
pub(super) struct Process {
    /// Since 1970.
    started: Duration,
    stat: Option<File>,
    open_fds: Option<Dir>,
}

/// What `/proc/self/stat` says, as far as it is told.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Of the processor: its own, and the kernel's for it.
    ticks: u64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Process {
    /// This process, which began just now.
    pub(super) fn current() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let files = rustix::fs::open("/proc/self/fd", flags, Mode::empty());
        Self {
            started: since_1970,
            stat: File::open("/proc/self/stat").ok(),
            open_fds: files.and_then(Dir::new).ok(),
        }
    }

    /// Reads the current values. Costs three system calls, and one for each open file where the kernel is older than 6.2.
    pub(super) fn stats(&mut self) -> ProcessStats {
        let stat = self.stat.as_ref().and_then(|stat| Stat::read(stat).ok());
        ProcessStats {
            started: self.started,
            max_fds: getrlimit(Resource::Nofile).current,
            open_fds: self.open_fds.as_mut().and_then(|files| count(files).ok()),
            usage: stat.map(|stat| ProcessUsage {
                cpu: Duration::from_millis(
                    1000 * stat.ticks / rustix::param::clock_ticks_per_second(),
                ),
                resident_bytes: stat.resident_pages * rustix::param::page_size() as u64,
                virtual_bytes: stat.virtual_bytes,
                threads: stat.threads,
            }),
            dropped_log_lines: log_writer::dropped(),
        }
    }
}

/// How many files are in this folder of open ones.
fn count(files: &mut Dir) -> io::Result<usize> {
    match usize::try_from(rustix::fs::fstat(files.fd()?)?.st_size) {
        Ok(told) if told > 0 => Ok(told),
        _ => count_entries(files),
    }
}

/// The same, entry by entry.
fn count_entries(files: &mut Dir) -> io::Result<usize> {
    files.rewind();
    let mut count = 0;
    while let Some(entry) = files.read() {
        count += usize::from(entry?.file_name().to_bytes().first() != Some(&b'.'));
    }
    Ok(count)
}

impl Stat {
    fn read(stat: &File) -> io::Result<Self> {
        let mut bytes = [0; STAT_BYTES_MAX];
        let length = stat.read_at(&mut bytes, 0)?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// `proc_pid_stat(5)`. The program's name stands in brackets, and may hold others.
    fn parse(text: &str) -> Option<Self> {
        let (_, behind_name) = text.rsplit_once(')')?;
        // The first of these is the third of the manual's.
        let fields: Vec<_> = behind_name.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            ticks: field(14)? + field(15)?,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read_behind_whatever_name() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 500 0 3 0 25 12 0 0 20 0 3 0 4711 9000000 321 18446744073709551615 1";
        let expected =
            Stat { ticks: 37, threads: 3, virtual_bytes: 9_000_000, resident_pages: 321 };
        assert_eq!(Stat::parse(stat), Some(expected));
        for broken in [
            "",
            "17 (a",
            "17 (a) S 1",
            "17 (a) S 1 17 17 0 -1 4194560 500 0 3 0 25 12 0 0 20 0 x 0 1 2 3",
        ] {
            assert_eq!(Stat::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn this_process_tells_of_itself() {
        let mut process = Process::current();
        let _held: Vec<_> = (0..100).map(|_| File::open("/dev/null").unwrap()).collect();
        let files = process.open_fds.as_mut().unwrap();
        assert!(count_entries(files).unwrap() > 100);
        let stats = process.stats();
        assert!(stats.started > Duration::from_secs(1_700_000_000));
        let open_fds = stats.open_fds.unwrap() as u64;
        assert!((100..stats.max_fds.unwrap()).contains(&open_fds), "{stats:?}");
        let usage = stats.usage.unwrap();
        assert!(usage.cpu < Duration::from_secs(86_400));
        assert!(usage.resident_bytes > 100_000);
        assert!(usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.threads >= 1);
    }
}
