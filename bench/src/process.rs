//! Figures of processes from the kernel: CPU time, memory, and other users of the cores.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};
use rustix::thread::CpuSet;

use crate::Result;

/// Time between two looks at a process that should become idle.
const SETTLE_STEP: Duration = Duration::from_millis(5);
/// A process that is busy for longer than this without a request has a defect.
const SETTLE_MAX: Duration = Duration::from_secs(20);
/// `/proc/stat` counts in ticks of the user's clock, which is 100 Hz on every Linux.
const TICK_NS: f64 = 1e7;

/// The cores of a run. Both are the same on a machine with one core.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) generator: usize,
}

impl Cores {
    /// Chooses the first two cores that this process may use.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = rustix::thread::sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let server = cores.next().ok_or("no core may be used")?;
        Ok(Self { server, generator: cores.next().unwrap_or(server) })
    }
}

/// Pins this process to a core. Processes that it starts later begin there.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Raises the limit on open files to its maximum and returns that.
pub(crate) fn raise_file_limit() -> Result<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised)?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Resident memory in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) anonymous: u64,
    /// All kinds, including file pages and memory shared between processes (nchan keeps messages
    /// there).
    pub(crate) total: u64,
}

/// A measured process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pid: u32,
}

impl Process {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// Returns the CPU time of all threads by the scheduler's clock, in nanoseconds.
    pub(crate) fn cpu_ns(self) -> Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            sum += run_ns(&task?.path().join("schedstat"))?;
        }
        Ok(sum)
    }

    /// Returns how long the first thread was runnable without a core.
    pub(crate) fn starved(self) -> Result<Duration> {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.pid))?;
        Ok(Duration::from_nanos(text.split(' ').nth(1).unwrap_or_default().parse()?))
    }

    /// Waits until the process uses no more CPU time, and so has finished its work.
    pub(crate) fn settle(self) -> Result<u64> {
        let deadline = Instant::now() + SETTLE_MAX;
        let mut before = self.cpu_ns()?;
        loop {
            std::thread::sleep(SETTLE_STEP);
            let now = self.cpu_ns()?;
            if now == before {
                return Ok(now);
            }
            if Instant::now() > deadline {
                return Err("the server does not come to rest".into());
            }
            before = now;
        }
    }

    pub(crate) fn memory(self) -> Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            let kib: u64 = number.ok_or("no memory in /proc")?.parse()?;
            Ok(kib * 1024)
        };
        let anonymous = field("RssAnon:")?;
        Ok(Memory { anonymous, total: anonymous + field("RssFile:")? + field("RssShmem:")? })
    }

    /// Returns the child processes.
    pub(crate) fn children(self) -> Result<Vec<u32>> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let text = fs::read_to_string(path)?;
        Ok(text.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?)
    }
}

/// Returns the CPU time of the calling thread, which is the generator.
fn own_ns() -> Result<u64> {
    run_ns(Path::new("/proc/thread-self/schedstat"))
}

/// Returns the run time of a thread.
fn run_ns(schedstat: &Path) -> Result<u64> {
    let text = fs::read_to_string(schedstat)?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// Use of a core: nanoseconds busy with processes, and stolen by the host.
#[derive(Clone, Copy)]
struct CoreTime {
    busy_ns: f64,
    stolen_ns: f64,
}

fn core_time(core: usize) -> Result<CoreTime> {
    let text = fs::read_to_string("/proc/stat")?;
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    let ticks: Vec<f64> = line
        .ok_or("no such core in /proc/stat")?
        .split_whitespace()
        .map(str::parse)
        .collect::<std::result::Result<_, _>>()?;
    let [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] = ticks[..] else {
        return Err("/proc/stat has another form".into());
    };
    Ok(CoreTime {
        busy_ns: (user + nice + system + irq + softirq) * TICK_NS,
        stolen_ns: steal * TICK_NS,
    })
}

/// A time window in which a server works.
pub(crate) struct Window {
    server: Option<Process>,
    cores: Cores,
    server_ns: u64,
    own_ns: u64,
    times: [CoreTime; 2],
    start: Instant,
}

/// Resources used in a [`Window`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// CPU time of the server, if its process is known.
    pub(crate) server_ns: Option<u64>,
    pub(crate) wall: Duration,
    /// Largest share of a core that other processes or the host took.
    pub(crate) disturbed: f64,
}

impl Window {
    /// Opens the window once the server is idle.
    pub(crate) fn open(server: Option<Process>, cores: Cores) -> Result<Self> {
        let server_ns = server.map_or(Ok(0), Process::settle)?;
        Ok(Self {
            server,
            cores,
            server_ns,
            own_ns: own_ns()?,
            times: [core_time(cores.server)?, core_time(cores.generator)?],
            start: Instant::now(),
        })
    }

    /// Closes the window. The time ends now; the server's work counts until it is idle again.
    pub(crate) fn close(self) -> Result<Usage> {
        let wall = self.start.elapsed();
        let own_ns = own_ns()?.saturating_sub(self.own_ns) as f64;
        let server_ns = match self.server {
            Some(server) => {
                let used = server.settle()?.checked_sub(self.server_ns);
                Some(used.ok_or("a thread of the server ended, and its time is lost")?)
            }
            None => None,
        };
        let whole_ns = self.start.elapsed().as_nanos() as f64;
        let ours_ns = [server_ns.unwrap_or(0) as f64, own_ns];
        let mut others = [0.0_f64; 2];
        for (index, core) in [self.cores.server, self.cores.generator].iter().enumerate() {
            let (before, now) = (self.times[index], core_time(*core)?);
            others[index] = now.busy_ns - before.busy_ns - ours_ns[index];
            others[index] += now.stolen_ns - before.stolen_ns;
        }
        if self.cores.server == self.cores.generator {
            others = [others[0] - own_ns; 2];
        }
        Ok(Usage { server_ns, wall, disturbed: (others[0].max(others[1]) / whole_ns).max(0.0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let own = Process::new(std::process::id());
        let before = own_ns().unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        assert!(own_ns().unwrap() > before);
        assert!(own.cpu_ns().unwrap() > 0);
        let memory = own.memory().unwrap();
        assert!(memory.anonymous > 0 && memory.total >= memory.anonymous);
    }
}
