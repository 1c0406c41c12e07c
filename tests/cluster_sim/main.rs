//! Several real servers without their sockets, with one model of Redis, and clients that a seed
//! makes up.
//!
//! `SPEAK_SIM_SEEDS=N` runs the seeds below N, or N seeds from `SPEAK_SIM_FIRST` on.
//! `SPEAK_SIM_SEED=K` runs that one alone and prints its steps.

mod answers;
mod broker;
mod calls;
mod cluster;
mod differential;
mod ending;
mod lost_record;
#[path = "../net_sim/network.rs"]
#[expect(dead_code, reason = "the simulation of the network has more faults")]
mod network;
mod node;
mod person;
mod plan;
#[path = "../sim/record.rs"]
#[expect(dead_code, reason = "the simulation of the hub has more to record")]
mod record;
mod redis;
mod request;
#[path = "../sim/seeds.rs"]
mod seeds;
mod slow_log;
#[path = "../net_sim/socket.rs"]
mod socket;
mod state;
#[path = "../net_sim/tls_link.rs"]
#[expect(dead_code, reason = "no client speaks TLS here")]
mod tls_link;
mod world;

use record::{Record, Trace};
use seeds::Simulation;
use support::random::Random;
use world::World;

const RULES: [&str; 18] = [
    "Create",
    "Goodbye",
    "Introduce",
    "IntroduceAs",
    "Kick",
    "Leave",
    "Members",
    "Poll",
    "Read",
    "Remove",
    "Write",
    "connection cut",
    "node killed",
    "node paused",
    "node upgraded",
    "piece of a snapshot read",
    "redis paused",
    "snapshot written",
];

static SIMULATION: Simulation =
    Simulation { test: "cluster_sim", seeds: 100, seeds_to_reach_all: 100, rules: &RULES, run };

fn run(seed: u64, notes: Trace) -> Record {
    let mut world = World::new(Random::new(seed), Record::new(notes));
    world.run();
    world.record
}

#[test]
fn the_contract_holds_on_any_nodes() {
    SIMULATION.run_all();
}

/// Seeds that have found faults, since the plan was last changed.
const FOUND: [u64; 1] = [13_218];

#[test]
fn a_seed_that_has_found_a_fault_finds_none() {
    for seed in FOUND {
        println!("seed {seed}");
        run(seed, Trace::Forgotten);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    SIMULATION.assert_repeatable();
}
