//! `process_*`, the names that Prometheus clients give to what the kernel knows of a process.

use std::time::Duration;

use super::prometheus::{Page, Seconds};

/// Values of one process at one moment. `None` where the kernel does not tell.
#[derive(Debug, Default)]
pub struct ProcessStats {
    /// Start of the process, since 1970.
    pub started: Duration,
    /// Limit on open file descriptors.
    pub max_fds: Option<u64>,
    /// Open file descriptors, clients included.
    pub open_fds: Option<usize>,
    /// Processor time and memory.
    pub usage: Option<ProcessUsage>,
    /// Log lines dropped because standard error was not writable.
    pub dropped_log_lines: u64,
}

/// Processor time and memory of a process.
#[derive(Debug)]
pub struct ProcessUsage {
    /// Processor time in user and kernel mode.
    pub cpu: Duration,
    /// Bytes in physical memory.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Number of threads.
    pub threads: u64,
}

impl ProcessStats {
    /// Appends the known values.
    pub(super) fn write(&self, page: &mut Page<'_>) {
        let started = Seconds(self.started);
        page.gauge(
            "process_start_time_seconds",
            "When it was started, in seconds since 1970.",
            started,
        );
        if let Some(fds) = self.max_fds {
            page.gauge("process_max_fds", "How many files it may have open.", fds);
        }
        if let Some(fds) = self.open_fds {
            page.gauge("process_open_fds", "Files that are open, clients among them.", fds);
        }
        if let Some(usage) = &self.usage {
            let help = "Processor time, the kernel's for it too.";
            page.counter("process_cpu_seconds_total", help, Seconds(usage.cpu));
            page.gauge(
                "process_resident_memory_bytes",
                "Memory that it really takes.",
                usage.resident_bytes,
            );
            page.gauge(
                "process_virtual_memory_bytes",
                "Addresses that it has.",
                usage.virtual_bytes,
            );
            page.gauge("process_threads", "Threads of it.", usage.threads);
        }
    }
}
