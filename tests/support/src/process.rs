//! Processes as the kernel shows them, and servers as child processes.

use std::fs::{self, File};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{env, io, process, thread};

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::CpuSet;

pub const START_MAX: Duration = Duration::from_secs(10);
const STOP_MAX: Duration = Duration::from_secs(7);
const STEP: Duration = Duration::from_millis(10);
/// Time between two looks at a process that should come to rest.
const SETTLE_STEP: Duration = Duration::from_millis(5);
/// A process that is busy for longer without a request has a defect.
const SETTLE_MAX: Duration = Duration::from_secs(20);
/// Lines of the log that are quoted where a server fails.
const LOG_LINES: usize = 10;

/// The cores that a run uses: the same one where there is no other.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    pub server: usize,
    /// Core of this process.
    pub generator: usize,
}

impl Cores {
    /// Chooses the first two that this process may use.
    pub fn choose() -> io::Result<Self> {
        let allowed = rustix::thread::sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let server = cores.next().ok_or_else(|| io::Error::other("no core may be used"))?;
        Ok(Self { server, generator: cores.next().unwrap_or(server) })
    }
}

/// Pins this process to a core; its later children begin there.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Raises the limit on open files as far as it goes, and returns it.
pub fn raise_file_limit() -> io::Result<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Creates a folder that no other process has.
pub fn fresh_folder(prefix: &str) -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = env::temp_dir().join(format!("{prefix}-{}-{number}", process::id()));
    fs::create_dir(&folder)?;
    Ok(folder)
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Memory of the process alone.
    pub anonymous: u64,
    /// All kinds: also pages of files, and memory that processes share (nchan keeps messages
    /// there).
    pub total: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    fn read(self, file: &str) -> io::Result<String> {
        fs::read_to_string(format!("/proc/{}/{file}", self.0))
    }

    /// Returns the CPU time of all its threads by the scheduler's clock, in nanoseconds.
    pub fn cpu_ns(self) -> io::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.0))? {
            sum += run_ns(&task?.path().join("schedstat"))?;
        }
        Ok(sum)
    }

    /// Returns the time during which its first thread could have run and had no core.
    pub fn starved(self) -> io::Result<Duration> {
        Ok(Duration::from_nanos(number(self.read("schedstat")?.split(' ').nth(1))?))
    }

    /// Waits until the process uses no more CPU time: all that it was asked is done then.
    pub fn settle(self) -> io::Result<u64> {
        settle(&[self])
    }

    pub fn memory(self) -> io::Result<Memory> {
        let status = self.read("status")?;
        let field = |name: &str| -> io::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            Ok(number::<u64>(line.and_then(|rest| rest.split_whitespace().next()))? * 1024)
        };
        let anonymous = field("RssAnon:")?;
        Ok(Memory { anonymous, total: anonymous + field("RssFile:")? + field("RssShmem:")? })
    }

    pub fn children(self) -> io::Result<Vec<u32>> {
        let text = self.read(&format!("task/{}/children", self.0))?;
        text.split_whitespace().map(|pid| number(Some(pid))).collect()
    }
}

/// Returns the CPU time of several processes, in nanoseconds.
pub fn sum_of_cpu_ns(processes: &[Process]) -> io::Result<u64> {
    processes.iter().map(|process| process.cpu_ns()).sum()
}

/// Waits until none of these processes uses CPU time. Processes that talk to each other have to
/// rest at the same time. Returns the CPU time of all.
pub fn settle(processes: &[Process]) -> io::Result<u64> {
    let deadline = Instant::now() + SETTLE_MAX;
    let mut before = sum_of_cpu_ns(processes)?;
    loop {
        thread::sleep(SETTLE_STEP);
        let now = sum_of_cpu_ns(processes)?;
        if now == before {
            return Ok(now);
        }
        if Instant::now() > deadline {
            return Err(io::Error::other("the server does not come to rest"));
        }
        before = now;
    }
}

/// Returns the CPU time of the calling thread, in nanoseconds.
pub fn own_ns() -> io::Result<u64> {
    run_ns(Path::new("/proc/thread-self/schedstat"))
}

fn run_ns(schedstat: &Path) -> io::Result<u64> {
    number(fs::read_to_string(schedstat)?.split(' ').next())
}

fn number<T: FromStr>(text: Option<&str>) -> io::Result<T> {
    let value = text.and_then(|text| text.parse().ok());
    value.ok_or_else(|| io::Error::other("a file in /proc has another form"))
}

/// A server as a child process, with its log in a file; dropping it ends it.
pub struct Running {
    child: Child,
    /// The process that took over from `child`, or from another successor.
    successor: Option<Pid>,
    /// Success or failure, once it has ended.
    outcome: Option<bool>,
    folder: PathBuf,
}

impl Running {
    /// Starts a server on its core, with its log in `folder`, which is removed at the end.
    pub fn spawn(mut command: Command, cores: Cores, folder: PathBuf) -> io::Result<Self> {
        let log = File::create(folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // A child begins on its parent's core; to pin it only afterwards would miss its start.
        pin(cores.server)?;
        let spawned = command.spawn();
        pin(cores.generator)?;
        Ok(Self { child: spawned?, successor: None, outcome: None, folder })
    }

    /// Waits for the line of the log that names the address.
    pub fn await_address(&mut self) -> io::Result<SocketAddrV4> {
        let deadline = Instant::now() + START_MAX;
        loop {
            let log = self.log();
            let mut lines = log.lines().filter_map(|line| line.split_once(" listening on http"));
            let address =
                |rest: &str| rest.trim_start_matches('s').strip_prefix("://")?.parse().ok();
            if let Some(address) = lines.find_map(|(_, rest)| address(rest.trim())) {
                return Ok(address);
            }
            self.check_start(deadline)?;
        }
    }

    /// Waits a moment, unless the server has ended or the deadline has passed.
    pub fn check_start(&mut self, deadline: Instant) -> io::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(io::Error::other(format!("it ended with {status}")));
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(STEP);
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.successor.map_or(self.child.id(), |pid| pid.as_raw_pid().cast_unsigned())
    }

    pub fn process(&self) -> Process {
        Process(self.pid())
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.outcome.is_none()
            && let Some(pid) = Pid::from_raw(self.pid().cast_signed())
        {
            // An error means that it ended by itself.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it, and waits until it has ended.
    pub fn kill(&mut self) -> io::Result<()> {
        self.signal(Signal::KILL);
        self.await_end()
    }

    fn await_end(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + STOP_MAX;
        while self.ended()?.is_none() {
            if Instant::now() > deadline {
                return Err(io::Error::other("a server was ended, and is still there"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Says whether it succeeded, once it has ended.
    pub fn ended(&mut self) -> io::Result<Option<bool>> {
        if self.outcome.is_none() {
            self.outcome = match self.successor {
                None => self.child.try_wait()?.map(|status| status.success()),
                // A successor is this process's child only once its predecessor has ended.
                Some(pid) => match waitpid(Some(pid), WaitOptions::NOHANG) {
                    Ok(ended) => ended.map(|(_, status)| status.exit_status() == Some(0)),
                    Err(_) => None,
                },
            };
        }
        Ok(self.outcome)
    }

    /// Replaces a process that has ended by the one that took over from it.
    /// Its end is known only if orphans come to this process (`PR_SET_CHILD_SUBREAPER`).
    pub fn succeeded_by(&mut self, successor: Pid) {
        (self.successor, self.outcome) = (Some(successor), None);
    }

    /// Returns all that it and its predecessors wrote to the log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A process that was waited for has no id any more.
        if let Ok(None) = self.ended() {
            self.signal(Signal::TERM);
        }
        if self.await_end().is_err() {
            eprintln!("a server does not end when asked; it is killed");
            let _ = self.kill();
        }
        // A folder that is left does no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let own = Process(process::id());
        let (before, start) = (own_ns().unwrap(), Instant::now());
        while start.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        assert!(own_ns().unwrap() > before);
        assert!(own.cpu_ns().unwrap() > 0 && own.starved().is_ok());
        let memory = own.memory().unwrap();
        assert!(memory.anonymous > 0 && memory.total >= memory.anonymous);
    }
}
