//! The real server but for its sockets, amid a network and a crowd that a seed makes up.
//!
//! `SPEAK_SIM_SEEDS=N` runs the seeds below N. `SPEAK_SIM_SEED=K` runs that one alone and prints its steps.

#[path = "net_sim/asking.rs"]
mod asking;
#[path = "net_sim/crowd.rs"]
mod crowd;
#[path = "net_sim/ear.rs"]
mod ear;
#[path = "net_sim/hearing.rs"]
mod hearing;
#[path = "net_sim/judge.rs"]
mod judge;
#[path = "net_sim/ledger.rs"]
mod ledger;
#[path = "net_sim/network.rs"]
mod network;
#[path = "net_sim/peer.rs"]
mod peer;
#[path = "net_sim/plan.rs"]
mod plan;
#[path = "sim/random.rs"]
mod random;
#[path = "sim/record.rs"]
#[expect(dead_code, reason = "the simulation of the hub has more to tell")]
mod record;
#[path = "sim/seeds.rs"]
mod seeds;
#[path = "net_sim/world.rs"]
mod world;

use random::Random;
use record::{Record, Trace};
use seeds::Simulation;
use world::World;

const RULES: [&str; 42] = [
    "asked to continue",
    "call in a frame",
    "call of one that ended",
    "closed: closed by its peer",
    "closed: half a frame",
    "closed: idle",
    "closed: its connection ended",
    "closed: no memory",
    "closed: not let in",
    "closed: reset",
    "closed: silent socket",
    "closed: slow",
    "closed: stopped",
    "closed: told to go",
    "event",
    "frame",
    "goodbye",
    "goodbye seen: closed",
    "goodbye seen: left",
    "goodbye seen: timeout",
    "goodbye to one",
    "introduction",
    "long poll closed that carried a connection",
    "missed",
    "no descriptors",
    "no memory for a request",
    "ping",
    "poll answered",
    "poll answered with nothing",
    "request timed out",
    "sign of life",
    "socket closed that carried a connection",
    "socket opened",
    "status 414",
    "stopped",
    "stream closed that carried a connection",
    "stream ended with its connection",
    "stream opened",
    "stream told of a gap",
    "too many of one address",
    "turned away",
    "write",
];

static SIMULATION: Simulation =
    Simulation { test: "net_sim", seeds: 5_000, seeds_to_reach_all: 1_500, rules: &RULES, run };

fn run(seed: u64, notes: Trace) -> Record {
    let mut world = World::new(Random::new(seed), Record::new(notes));
    world.run();
    world.record
}

#[test]
fn whatever_the_network_does_the_protocol_holds() {
    SIMULATION.run_all();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    SIMULATION.assert_repeatable();
}
