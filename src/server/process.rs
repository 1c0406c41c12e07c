//! Values of this process from `/proc/self` and the kernel, for the `process_*` metrics.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::{Resource, getrlimit};

use super::log_writer;
use crate::metrics::{ProcessStats, ProcessUsage};

/// Size of the buffer for `/proc/self/stat`, which has 52 numbers and a name.
const STAT_BYTES_MAX: usize = 2048;

/// Files of `/proc/self`, opened at the start. Once the process has changed its user or entered the
/// sandbox, `/proc/self` cannot be opened any more, but open files can still be read. Values of a
/// file that could not be opened are missing on the page.
struct Process {
    /// Start time, since 1970.
    started: Duration,
    stat: Option<File>,
    open_fds: Option<Dir>,
}

/// Values of `/proc/self/stat` that the metrics show.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Processor time in clock ticks, in user and kernel mode.
    ticks: u64,
    threads: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

/// Returns a function that reads the present values of this process. To be called at the start.
pub(super) fn stats_reader() -> impl FnMut() -> ProcessStats {
    let mut process = Process::current();
    move || process.stats()
}

impl Process {
    /// Opens the files of this process, which started just now.
    fn current() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open_fds = rustix::fs::open("/proc/self/fd", flags, Mode::empty());
        Self {
            started: since_1970,
            stat: File::open("/proc/self/stat").ok(),
            open_fds: open_fds.and_then(Dir::new).ok(),
        }
    }

    /// Reads the present values. Costs three system calls, and with a kernel before 6.2 some more
    /// to list the open files.
    fn stats(&mut self) -> ProcessStats {
        let stat = self.stat.as_ref().and_then(|stat| Stat::read(stat).ok());
        ProcessStats {
            started: self.started,
            max_fds: getrlimit(Resource::Nofile).current,
            open_fds: self.open_fds.as_mut().and_then(|folder| count(folder).ok()),
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

/// Counts the entries of `/proc/self/fd`. The kernel gives their number as the size since 6.2.
fn count(folder: &mut Dir) -> io::Result<usize> {
    match usize::try_from(rustix::fs::fstat(folder.fd()?)?.st_size) {
        Ok(size) if size > 0 => Ok(size),
        _ => count_entries(folder),
    }
}

/// Counts the entries of `/proc/self/fd` one by one, for older kernels.
fn count_entries(folder: &mut Dir) -> io::Result<usize> {
    folder.rewind();
    let mut count = 0;
    while let Some(entry) = folder.read() {
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

    /// Parses the text by `proc_pid_stat(5)`. The program's name is in brackets and may contain
    /// brackets.
    fn parse(text: &str) -> Option<Self> {
        let (_, after_name) = text.rsplit_once(')')?;
        // The first of these fields is number 3 in the manual.
        let fields: Vec<_> = after_name.split_ascii_whitespace().collect();
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
    fn a_stat_is_parsed_after_any_name() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 500 0 3 0 25 12 0 0 20 0 3 0 4711 9000000 \
            321 18446744073709551615 1";
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
    fn this_process_has_plausible_values() {
        let mut process = Process::current();
        let _files: Vec<_> = (0..100).map(|_| File::open("/dev/null").unwrap()).collect();
        let folder = process.open_fds.as_mut().unwrap();
        assert!(count_entries(folder).unwrap() > 100);
        let stats = process.stats();
        assert!(stats.started > Duration::from_secs(1_700_000_000));
        let open_fds = stats.open_fds.unwrap() as u64;
        assert!((100..stats.max_fds.unwrap()).contains(&open_fds), "{stats:?}");
        let usage = stats.usage.unwrap();
        assert!(usage.cpu < Duration::from_hours(24));
        assert!(usage.resident_bytes > 100_000);
        assert!(usage.virtual_bytes >= usage.resident_bytes);
        assert!(usage.threads >= 1);
    }
}
