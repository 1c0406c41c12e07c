//! The page of `/metrics`. Each layer counts in plain integers; this module reads them on request.
//!
//! No label ever has a channel name, a session or an address: these are secret, and their number
//! has no limit.

mod histogram;
mod process;
mod prometheus;
mod tls;

pub use process::{ProcessStats, ProcessUsage};
pub use tls::TlsStats;

use std::time::Duration;

use self::histogram::Histogram;
use self::prometheus::{Kind, Page, Seconds};
use crate::api::Api;
use crate::hub::{DropReason, Gauges, Hub, Reason};
use crate::options::VERSION;

/// Reason why a client was rejected.
#[derive(Clone, Copy)]
pub(crate) enum RejectReason {
    /// The limit on clients is reached.
    MaxClients,
    /// The limit on clients of one address is reached.
    MaxPerAddress,
    /// The kernel has no descriptor for the client, or cannot watch more of them.
    Descriptors,
}

/// Counters and limits of the service.
#[derive(Default)]
pub(crate) struct Metrics {
    /// Durations of the turns of the loop.
    pub(crate) turns: Histogram,
    /// Durations of the flushes of the log.
    pub(crate) flushes: Histogram,
    rejected: [u64; RejectReason::ALL.len()],
    log_refusals: [u64; LogRefusal::ALL.len()],
    /// Loads of the state of a cluster that replaced another one.
    log_reloads: u64,
    /// Numberings of message ids that replaced another one.
    log_epochs: u64,
    /// Limit on clients.
    pub(crate) max_clients: usize,
    /// Limit on the memory used for clients, in bytes.
    pub(crate) max_memory: usize,
    /// Reads the values of the process. `None` in a simulation.
    pub(crate) process: Option<Box<dyn FnMut() -> ProcessStats>>,
    /// Reads the values of TLS. `None` without listeners that speak it.
    pub(crate) tls: Option<Box<dyn FnMut() -> TlsStats>>,
}

/// Reason why the log refused a call.
#[derive(Clone, Copy)]
pub(crate) enum LogRefusal {
    /// The disk is full.
    Full,
    /// The log did not respond in time, before the call was on its way to it.
    Behind,
    /// The log failed, or did not respond in time: the outcome of the call is unknown.
    Unknown,
}

/// Values of the log; all 0 without one.
#[derive(Default)]
pub(crate) struct LogGauges {
    pub(crate) is_up: bool,
    /// Nodes of the cluster.
    pub(crate) nodes: usize,
    /// Age of the record that is being written.
    pub(crate) lag: Duration,
    /// Position of the last record that was applied.
    pub(crate) position: u64,
    /// Size of the records after the newest snapshot.
    pub(crate) bytes: u64,
}

impl LogRefusal {
    const ALL: [(Self, &str); 3] =
        [(Self::Full, "full"), (Self::Behind, "behind"), (Self::Unknown, "unknown")];
}

impl RejectReason {
    const ALL: [(Self, &str); 3] = [
        (Self::MaxClients, "max_clients"),
        (Self::MaxPerAddress, "max_clients_per_address"),
        (Self::Descriptors, "descriptors"),
    ];
}

impl Metrics {
    /// Counts a rejected client of a public listener.
    pub(crate) fn count_rejected(&mut self, reason: RejectReason) {
        self.rejected[reason as usize] += 1;
    }

    /// Counts calls that the log refused.
    pub(crate) fn count_log_refusals(&mut self, reason: LogRefusal, calls: usize) {
        self.log_refusals[reason as usize] += calls as u64;
    }

    /// Counts a load of the state that replaces the one of this process.
    pub(crate) fn count_log_reload(&mut self) {
        self.log_reloads += 1;
    }

    /// Counts a numbering of message ids that replaces another one.
    pub(crate) fn count_log_epoch(&mut self) {
        self.log_epochs += 1;
    }

    /// Appends the page. `clients` is the number of clients of the public listeners.
    pub(crate) fn write(
        &mut self,
        hub: &Hub,
        api: &Api,
        clients: usize,
        log: &LogGauges,
        out: &mut Vec<u8>,
    ) {
        let mut page = Page(out);
        page.family("speak_build_info", Kind::Gauge, "Version of the server; the value is 1.")
            .labelled_sample(&[("version", &VERSION)], 1);
        self.write_gauges(hub, clients, &mut page);
        let help =
            "Requests that were answered, by call and status; frames of WebSockets included.";
        let mut family = page.family("speak_requests_total", Kind::Counter, help);
        for (call, status, count) in api.requests().iter() {
            family.labelled_sample(&[("call", &call), ("status", &status)], count);
        }
        write_hub(hub, &mut page);
        let help = "Rejected clients, by reason.";
        let mut family = page.family("speak_clients_refused_total", Kind::Counter, help);
        for (reason, name) in RejectReason::ALL {
            family.labelled_sample(&[("reason", &name)], self.rejected[reason as usize]);
        }
        self.write_log(log, &mut page);
        let tls = self.tls.as_mut().map(|read| read()).unwrap_or_default();
        tls.write(&mut page);
        let help = "Duration of a turn of the loop in seconds, without the wait for events.";
        page.family("speak_loop_seconds", Kind::Histogram, help).histogram(&self.turns);
        let process = self.process.as_mut().map(|read| read());
        let dropped = process.as_ref().map_or(0, |process| process.dropped_log_lines);
        let help = "Log lines dropped because standard error was not writable.";
        page.counter("speak_log_lines_lost_total", help, dropped);
        if let Some(process) = &process {
            process.write(&mut page);
        }
    }

    fn write_log(&self, log: &LogGauges, page: &mut Page<'_>) {
        page.gauge(
            "speak_log_up",
            "1 if the journal or cluster takes records; 0 if it is full, late or failed, or none.",
            u8::from(log.is_up),
        );
        page.gauge(
            "speak_log_lag_seconds",
            "Time for which the disk or Redis has not taken the record that is to be written.",
            Seconds(log.lag),
        );
        let help = "Duration of writing and flushing a record in seconds; without flushes, none.";
        page.family("speak_log_flush_seconds", Kind::Histogram, help).histogram(&self.flushes);
        page.gauge(
            "speak_log_nodes",
            "Nodes of the cluster, with this one; 0 without a cluster.",
            log.nodes,
        );
        page.gauge(
            "speak_log_position",
            "Position of the last record that was applied; a record has the changes of a turn.",
            log.position,
        );
        page.gauge(
            "speak_log_bytes",
            "Size of the records after the newest snapshot in bytes.",
            log.bytes,
        );
        let help = "Calls that the log refused, by reason; `unknown` may have taken effect.";
        let mut family = page.family("speak_log_refused_total", Kind::Counter, help);
        for (reason, name) in LogRefusal::ALL {
            family.labelled_sample(&[("reason", &name)], self.log_refusals[reason as usize]);
        }
        let help = "Times that this node dropped its state and loaded that of the cluster.";
        page.counter("speak_log_reloads_total", help, self.log_reloads);
        let help = "New epochs of message ids that began while this process was running.";
        page.counter("speak_log_epochs_total", help, self.log_epochs);
    }

    fn write_gauges(&self, hub: &Hub, clients: usize, page: &mut Page<'_>) {
        let Gauges { readers, channels, sessions, messages, .. } = hub.gauges();
        page.gauge(
            "speak_clients",
            "Clients that are served: TCP connections and Unix sockets.",
            clients,
        );
        page.gauge(
            "speak_clients_max",
            "Limit on clients: --max-clients, or less if the file limit is lower.",
            self.max_clients,
        );
        page.gauge(
            "speak_readers",
            "Pending reads: long polls, event streams and WebSockets.",
            readers,
        );
        page.gauge("speak_channels", "Number of channels.", channels);
        page.gauge("speak_connections", "Number of introduced connections.", sessions);
        page.gauge("speak_messages_retained", "Messages in the history of all channels.", messages);
        page.gauge(
            "speak_memory_bytes",
            "Memory used for clients in bytes, as --max-memory counts it.",
            hub.memory(),
        );
        page.gauge(
            "speak_memory_max_bytes",
            "Limit on the memory used for clients in bytes: --max-memory.",
            self.max_memory,
        );
    }
}

fn write_hub(hub: &Hub, page: &mut Page<'_>) {
    let stats = hub.stats();
    let mut family = page.family("speak_messages_total", Kind::Counter, "Messages added, by type.");
    for (kind, count) in stats.messages() {
        family.labelled_sample(&[("type", &kind)], count);
    }
    let help =
        "Responses to pending long polls, and events or frames of streams; empty ones excluded.";
    page.counter("speak_deliveries_total", help, stats.deliveries());
    let mut family = page.family("speak_goodbyes_total", Kind::Counter, "Goodbyes, by reason.");
    for reason in Reason::ALL {
        family.labelled_sample(&[("reason", &reason.as_str())], stats.goodbyes(reason));
    }
    let help =
        "Messages dropped from history, by the limit that was reached: count, age or memory.";
    let mut family = page.family("speak_history_dropped_total", Kind::Counter, help);
    for reason in DropReason::ALL {
        family.labelled_sample(&[("reason", &reason.as_str())], stats.dropped(reason));
    }
}
