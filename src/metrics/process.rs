//! The `process_*` metrics, with the names that all Prometheus clients use.

use std::time::Duration;

use super::prometheus::{Page, Seconds};

/// Values of the process at one moment. `None` for a value that the kernel does not give.
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
        page.gauge(
            "process_start_time_seconds",
            "Start time of the process in seconds since 1970.",
            Seconds(self.started),
        );
        if let Some(fds) = self.max_fds {
            page.gauge("process_max_fds", "Limit on open file descriptors.", fds);
        }
        if let Some(fds) = self.open_fds {
            page.gauge("process_open_fds", "Open file descriptors, clients included.", fds);
        }
        if let Some(usage) = &self.usage {
            let help = "Processor time in user and kernel mode in seconds.";
            page.counter("process_cpu_seconds_total", help, Seconds(usage.cpu));
            page.gauge(
                "process_resident_memory_bytes",
                "Resident memory in bytes.",
                usage.resident_bytes,
            );
            page.gauge(
                "process_virtual_memory_bytes",
                "Virtual memory in bytes.",
                usage.virtual_bytes,
            );
            page.gauge("process_threads", "Threads of the process.", usage.threads);
        }
    }
}
