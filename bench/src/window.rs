//! CPU time of a server during some work, and the share of the cores that others used.

use std::fs;
use std::time::{Duration, Instant};

use support::process::{self, Cores, Process, own_ns};

use crate::result::Result;
use crate::server::Target;

/// `/proc/stat` counts in ticks of the user's clock, which is 100 Hz on every Linux.
const TICK_NS: f64 = 1e7;

/// Returns nanoseconds of a core: busy with processes, or stolen by the host.
fn core_ns(core: usize) -> Result<f64> {
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
    Ok((user + nice + system + irq + softirq + steal) * TICK_NS)
}

/// Waits until the servers and their Redis are idle. Returns the CPU time of both.
fn settle(servers: &[Process], redis: &[Process]) -> Result<[u64; 2]> {
    let all: Vec<_> = servers.iter().chain(redis).copied().collect();
    if !all.is_empty() {
        process::settle(&all)?;
    }
    Ok([process::sum_of_cpu_ns(servers)?, process::sum_of_cpu_ns(redis)?])
}

/// A time in which servers work.
pub(crate) struct Window {
    servers: Vec<Process>,
    redis: Vec<Process>,
    cores: Cores,
    server_ns: u64,
    redis_ns: u64,
    own_ns: u64,
    cores_ns: [f64; 2],
    start: Instant,
}

/// Use of the cores in a [`Window`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// CPU time of the servers, if their processes are known.
    pub(crate) server_ns: Option<u64>,
    /// CPU time of their Redis, if they have one.
    pub(crate) redis_ns: Option<u64>,
    pub(crate) wall: Duration,
    /// Largest share of a core that other processes or the host took.
    pub(crate) disturbed: f64,
}

impl Window {
    /// Opens the window once the servers and their Redis are idle.
    pub(crate) fn open(targets: &[Target], cores: Cores) -> Result<Self> {
        let servers: Vec<_> = targets.iter().flat_map(Target::processes).collect();
        let redis: Vec<_> = targets.iter().find_map(|target| target.redis).into_iter().collect();
        let [server_ns, redis_ns] = settle(&servers, &redis)?;
        Ok(Self {
            servers,
            redis,
            cores,
            server_ns,
            redis_ns,
            own_ns: own_ns()?,
            cores_ns: [core_ns(cores.server)?, core_ns(cores.generator)?],
            start: Instant::now(),
        })
    }

    /// Closes the window. Its time ends now, the servers' work when they are idle again.
    pub(crate) fn close(self) -> Result<Usage> {
        let wall = self.start.elapsed();
        let own_ns = own_ns()?.saturating_sub(self.own_ns) as f64;
        let [server_ns, redis_ns] = settle(&self.servers, &self.redis)?;
        let used = |now: u64, before| {
            now.checked_sub(before).ok_or("a thread of the server ended, and its time is lost")
        };
        let server_ns = used(server_ns, self.server_ns)?;
        let redis_ns = used(redis_ns, self.redis_ns)?;
        let whole_ns = self.start.elapsed().as_nanos() as f64;
        let [server_core, generator_core] = self.cores_ns;
        let mut others = [
            core_ns(self.cores.server)? - server_core - server_ns as f64,
            core_ns(self.cores.generator)? - generator_core - redis_ns as f64 - own_ns,
        ];
        if self.cores.server == self.cores.generator {
            others = [others[0] - own_ns - redis_ns as f64; 2];
        }
        Ok(Usage {
            server_ns: (!self.servers.is_empty()).then_some(server_ns),
            redis_ns: (!self.redis.is_empty()).then_some(redis_ns),
            wall,
            disturbed: (others[0].max(others[1]) / whole_ns).max(0.0),
        })
    }
}
