//! CPU time of a server during some work, and the share of the cores that others used.

use std::fs;
use std::time::{Duration, Instant};

use support::process::{Cores, Process, own_ns};

use crate::result::Result;

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

/// A time in which a server works.
pub(crate) struct Window {
    server: Option<Process>,
    cores: Cores,
    server_ns: u64,
    own_ns: u64,
    cores_ns: [f64; 2],
    start: Instant,
}

/// Use of the cores in a [`Window`].
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
            cores_ns: [core_ns(cores.server)?, core_ns(cores.generator)?],
            start: Instant::now(),
        })
    }

    /// Closes the window. Its time ends now, the server's work when the server is idle again.
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
        let [server_core, generator_core] = self.cores_ns;
        let mut others = [
            core_ns(self.cores.server)? - server_core - server_ns.unwrap_or(0) as f64,
            core_ns(self.cores.generator)? - generator_core - own_ns,
        ];
        if self.cores.server == self.cores.generator {
            others = [others[0] - own_ns; 2];
        }
        Ok(Usage { server_ns, wall, disturbed: (others[0].max(others[1]) / whole_ns).max(0.0) })
    }
}
