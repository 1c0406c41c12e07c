//! What `/metrics` tells. Each layer counts what it does, in plain numbers; here they are read, when somebody asks.
//!
//! No label ever names a channel, a connection or an address: those are secrets, and there is no end of them.

mod process;
mod prometheus;
mod turn_histogram;

pub use process::{ProcessStats, ProcessUsage};

use self::prometheus::{Kind, Page};
use self::turn_histogram::Turns;
use crate::api::Api;
use crate::hub::{DropReason, Gauges, Hub, Reason};
use crate::options::VERSION;

/// Why there was no room for a client.
#[derive(Clone, Copy)]
pub(crate) enum RejectReason {
    /// As many are there as may.
    MaxClients,
    /// As many of its address are there as may.
    MaxPerAddress,
    /// The kernel has no descriptor for it, or does not watch more of them.
    Descriptors,
}

/// What this layer counts, and what it knows of limits.
#[derive(Default)]
pub(crate) struct Metrics {
    /// How long the turns of the loop took.
    pub(crate) turns: Turns,
    refused: [u64; RejectReason::ALL.len()],
    /// How many clients may be there.
    pub(crate) max_clients: usize,
    /// How many bytes may be held for them.
    pub(crate) max_memory: usize,
    /// Reads the values of the process. `None` in a simulation.
    pub(crate) process: Option<Box<dyn FnMut() -> ProcessStats>>,
}

impl RejectReason {
    const ALL: [(Self, &str); 3] = [
        (Self::MaxClients, "max_clients"),
        (Self::MaxPerAddress, "max_clients_per_address"),
        (Self::Descriptors, "descriptors"),
    ];
}

impl Metrics {
    /// There was no room for a client that came by a public door.
    pub(crate) fn count_refused(&mut self, why: RejectReason) {
        self.refused[why as usize] += 1;
    }

    /// Appends the page; `clients` are served by the public doors.
    pub(crate) fn write(&mut self, hub: &Hub, api: &Api, clients: usize, out: &mut Vec<u8>) {
        let mut page = Page(out);
        page.family("speak_build_info", Kind::Gauge, "1, under the version that runs.")
            .labelled("version", VERSION, 1);
        self.write_gauges(hub, clients, &mut page);
        let mut family = page.family("speak_requests_total", Kind::Counter, REQUESTS_HELP);
        for (call, status, count) in api.requests().iter() {
            family.labelled_twice([("call", &call), ("status", &status)], count);
        }
        write_hub(hub, &mut page);
        let mut family = page.family(
            "speak_clients_refused_total",
            Kind::Counter,
            "Clients for whom there was no room, by reason.",
        );
        for (why, name) in RejectReason::ALL {
            family.labelled("reason", name, self.refused[why as usize]);
        }
        page.family(
            "speak_loop_seconds",
            Kind::Histogram,
            "How long a turn of the loop worked, without its wait.",
        )
        .histogram(self.turns.buckets(), self.turns.count(), self.turns.sum());
        let process = self.process.as_mut().map(|read| read());
        let dropped = process.as_ref().map_or(0, |process| process.dropped_log_lines);
        page.counter("speak_log_lines_lost_total", "Lines of the log that nobody took.", dropped);
        if let Some(process) = &process {
            process.write(&mut page);
        }
    }

    fn write_gauges(&self, hub: &Hub, clients: usize, page: &mut Page<'_>) {
        let Gauges { readers, channels, sessions, messages, .. } = hub.gauges();
        page.gauge("speak_clients", "TCP connections and Unix sockets that are served.", clients);
        page.gauge(
            "speak_clients_max",
            "How many may be: --max-clients, or what the file limit allows.",
            self.max_clients,
        );
        page.gauge(
            "speak_readers",
            "Reads that wait: long polls, event streams and WebSockets.",
            readers,
        );
        page.gauge("speak_channels", "Channels that exist.", channels);
        page.gauge("speak_connections", "Introduced connections that live.", sessions);
        page.gauge("speak_messages_retained", "Messages in the history of all channels.", messages);
        page.gauge(
            "speak_memory_bytes",
            "What is held for clients, as --max-memory counts it.",
            hub.memory(),
        );
        page.gauge("speak_memory_max_bytes", "How much may be: --max-memory.", self.max_memory);
    }
}

const REQUESTS_HELP: &str =
    "Requests that were answered, by call and status; frames of WebSockets too.";

fn write_hub(hub: &Hub, page: &mut Page<'_>) {
    let tally = hub.stats();
    let mut family =
        page.family("speak_messages_total", Kind::Counter, "Messages that were added, by type.");
    for (kind, count) in tally.messages() {
        family.labelled("type", kind, count);
    }
    let help = "Answers of long polls that waited, and events or frames of streams, that brought something.";
    page.counter("speak_deliveries_total", help, tally.deliveries());
    let mut family =
        page.family("speak_goodbyes_total", Kind::Counter, "Goodbyes that were said, by reason.");
    for reason in Reason::ALL {
        family.labelled("reason", reason.as_str(), tally.goodbyes(reason));
    }
    let help = "Messages that history let go of, by reason: what count, age or memory allows.";
    let mut family = page.family("speak_history_dropped_total", Kind::Counter, help);
    for why in DropReason::ALL {
        family.labelled("reason", why.as_str(), tally.dropped(why));
    }
}
