//! What the kernel knows of this process: `process_*`, as all who are watched by Prometheus call it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Dir, Mode, OFlags};
use rustix::process::{Resource, getrlimit};

use super::exposition::Exposition;

/// `/proc/self/stat` has 52 numbers and a name.
const STAT_BYTES_MAX: usize = 2048;

/// What has to be open from the start: once the process has changed its user, or shut itself in, `/proc/self` can no
/// more be opened, but what was opened before can still be read. What is not there is left out of the page.
pub(super) struct Process {
    started_unix_seconds: f64,
    stat: Option<File>,
    files: Option<Dir>,
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
    pub(super) fn this() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let files = rustix::fs::open("/proc/self/fd", flags, Mode::empty());
        Self {
            started_unix_seconds: since_1970.as_secs_f64(),
            stat: File::open("/proc/self/stat").ok(),
            files: files.and_then(Dir::new).ok(),
        }
    }

    /// Appends what is known. Costs three system calls, and a look at each open file where the kernel is older than 6.2.
    pub(super) fn write(&mut self, page: &mut Exposition<'_>) {
        let started = self.started_unix_seconds;
        page.gauge("process_start_time_seconds", "When it was started, in seconds since 1970.", started);
        if let Some(files) = getrlimit(Resource::Nofile).current {
            page.gauge("process_max_fds", "How many files it may have open.", files);
        }
        if let Some(files) = self.files.as_mut().and_then(|files| count(files).ok()) {
            page.gauge("process_open_fds", "Files that are open, clients among them.", files);
        }
        if let Some(stat) = self.stat.as_ref().and_then(|stat| Stat::read(stat).ok()) {
            let cpu = Duration::from_millis(1000 * stat.ticks / rustix::param::clock_ticks_per_second());
            page.counter("process_cpu_seconds_total", "Processor time, the kernel's for it too.", cpu.as_secs_f64());
            let resident_bytes = stat.resident_pages * rustix::param::page_size() as u64;
            page.gauge("process_resident_memory_bytes", "Memory that it really takes.", resident_bytes);
            page.gauge("process_virtual_memory_bytes", "Addresses that it has.", stat.virtual_bytes);
            page.gauge("process_threads", "Threads of it.", stat.threads);
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
        let stat =
            "17 (a) b (c) S 1 17 17 0 -1 4194560 500 0 3 0 25 12 0 0 20 0 3 0 4711 9000000 321 18446744073709551615 1";
        let expected = Stat { ticks: 37, threads: 3, virtual_bytes: 9_000_000, resident_pages: 321 };
        assert_eq!(Stat::parse(stat), Some(expected));
        for broken in ["", "17 (a", "17 (a) S 1", "17 (a) S 1 17 17 0 -1 4194560 500 0 3 0 25 12 0 0 20 0 x 0 1 2 3"] {
            assert_eq!(Stat::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn this_process_tells_of_itself() {
        let mut text = Vec::new();
        let mut process = Process::this();
        let _held: Vec<_> = (0..100).map(|_| File::open("/dev/null").unwrap()).collect();
        let files = process.files.as_mut().unwrap();
        assert!(count_entries(files).unwrap() > 100);
        process.write(&mut Exposition(&mut text));
        let text = String::from_utf8(text).unwrap();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.split(' ').next() == Some(name));
            let (_, value) = line.unwrap_or_else(|| panic!("no {name} in {text}")).split_once(' ').unwrap();
            value.parse::<f64>().unwrap()
        };
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!((100.0..value("process_max_fds")).contains(&value("process_open_fds")), "{text}");
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
    }
}
