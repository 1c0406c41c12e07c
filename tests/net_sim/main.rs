//! The real server without its sockets, in a network and with clients that a seed makes up.
//!
//! `SPEAK_SIM_SEEDS=N` runs the seeds below N, or N seeds from `SPEAK_SIM_FIRST` on.
//! `SPEAK_SIM_SEED=K` runs that one alone and prints its steps.

mod checks;
mod crowd;
mod disk;
mod hostile;
mod invariants;
mod journal;
#[path = "../sim/machine.rs"]
#[expect(dead_code, reason = "the simulation of the hub crashes in more ways")]
mod machine;
mod model;
mod network;
mod peer;
mod plan;
mod process;
#[path = "../sim/record.rs"]
#[expect(dead_code, reason = "the simulation of the hub has more to record")]
mod record;
mod requests;
mod room;
#[path = "../sim/sectors.rs"]
mod sectors;
#[path = "../sim/seeds.rs"]
mod seeds;
#[path = "../sim/shared_state.rs"]
mod shared_state;
mod socket;
mod tls;
mod tls_link;
mod turns;
mod world;

use record::{Record, Trace};
use seeds::Simulation;
use support::random::Random;
use world::World;

const RULES: [&str; 82] = [
    "asked to continue",
    "bit flipped in the last record",
    "TLS end of the server",
    "TLS end told",
    "TLS handshake",
    "TLS session resumed",
    "TLS state moved",
    "bit flipped in unused space",
    "call in a frame",
    "call of a session that ended",
    "client with TLS",
    "closed: closed by its peer",
    "closed: closed without a word of TLS",
    "closed: dismissed",
    "closed: half a frame",
    "closed: handshake took too long",
    "closed: idle",
    "closed: its session ended",
    "closed: no memory",
    "closed: rejected",
    "closed: rejected before its handshake",
    "closed: reset",
    "closed: silent socket",
    "closed: silent socket in a busy room",
    "closed: slow",
    "closed: stopped",
    "crash",
    "damage repaired",
    "disk compared with the hub",
    "event",
    "frame",
    "goodbye",
    "goodbye seen: Closed",
    "goodbye seen: Left",
    "goodbye seen: Timeout",
    "goodbye to one",
    "heartbeat",
    "introduction",
    "introduction too large",
    "journal handed over",
    "killed",
    "long poll closed that carried a session",
    "many requests complete at once",
    "members cut",
    "missed",
    "new epoch after a loss of power",
    "no descriptors",
    "no memory for a request",
    "older records replace a damaged snapshot",
    "outcome unknown",
    "ping",
    "poll answered",
    "poll answered with nothing",
    "power lost",
    "read closed with a grace of its own",
    "record kept that was being written",
    "record lost that was being written",
    "record lost with the power",
    "refused for want of the disk",
    "rejected",
    "request timed out",
    "rest of the members",
    "restart after a failed write",
    "snapshot complete",
    "snapshot given up",
    "socket closed that carried a session",
    "socket opened",
    "start interrupted",
    "status 403",
    "status 414",
    "status 415",
    "stopped",
    "stream closed that carried a session",
    "stream ended after its life",
    "stream ended with its session",
    "stream got a gap",
    "stream in chunks",
    "stream of HTTP/1.0",
    "stream opened",
    "too many of one address",
    "upgrade",
    "write",
];

static SIMULATION: Simulation =
    Simulation { test: "net_sim", seeds: 1_500, seeds_to_reach_all: 1_500, rules: &RULES, run };

fn run(seed: u64, notes: Trace) -> Record {
    let mut world = World::new(Random::new(seed), Record::new(notes));
    world.run();
    world.record
}

#[test]
fn the_protocol_holds_in_any_network() {
    SIMULATION.run_all();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    SIMULATION.assert_repeatable();
}
