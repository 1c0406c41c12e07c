//! What `/metrics` tells. Each layer counts what it does, in plain numbers; here they are read, when somebody asks.
//!
//! No label ever names a channel, a connection or an address: those are secrets, and there is no end of them.

use super::clients::Clients;
use super::exposition::{Exposition, Kind};
use super::turns::Turns;
use crate::hub::Hub;

/// Why there was no room for a client.
#[derive(Clone, Copy)]
pub(super) enum Refused {
    /// As many are there as may.
    MaxClients,
    /// As many of its address are there as may.
    MaxPerAddress,
    /// The kernel has no descriptor for it, or does not watch more of them.
    Descriptors,
}

impl Refused {
    const ALL: [(Self, &str); 3] = [
        (Self::MaxClients, "max_clients"),
        (Self::MaxPerAddress, "max_clients_per_address"),
        (Self::Descriptors, "descriptors"),
    ];
}

/// What this layer counts.
#[derive(Default)]
pub(super) struct Metrics {
    refused: [u64; Refused::ALL.len()],
    /// How long the turns of the loop took.
    pub(super) turns: Turns,
}

impl Metrics {
    /// There was no room for a client that came by a public door.
    pub(super) fn count_refused(&mut self, why: Refused) {
        self.refused[why as usize] += 1;
    }

    /// Appends the page.
    pub(super) fn write(&self, hub: &Hub, clients: &Clients, out: &mut Vec<u8>) {
        let mut page = Exposition(out);
        page.gauge("speak_clients", "TCP connections and Unix sockets that are served.", clients.served());
        page.gauge("speak_memory_bytes", "What is held for clients, as --max-memory counts it.", hub.memory());
        let mut refused =
            page.family("speak_clients_refused_total", Kind::Counter, "Clients for whom there was no room.");
        for (why, name) in Refused::ALL {
            refused.labelled("reason", name, self.refused[why as usize]);
        }
        page.family("speak_loop_seconds", Kind::Histogram, "How long a turn of the loop worked, without its wait.")
            .histogram(self.turns.buckets(), self.turns.count(), self.turns.sum());
    }
}
