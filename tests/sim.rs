//! The real hub beside a naive model of it, driven by seeds.
//!
//! `SPEAK_SIM_SEEDS=N` runs the seeds below N. `SPEAK_SIM_SEED=K` runs that one alone and prints its steps.

#[path = "sim/answers.rs"]
mod answers;
#[path = "sim/chooser.rs"]
mod chooser;
#[path = "sim/delivery.rs"]
mod delivery;
#[path = "sim/follower.rs"]
mod follower;
#[path = "sim/message.rs"]
mod message;
#[path = "sim/model.rs"]
mod model;
#[path = "sim/moving.rs"]
mod moving;
#[path = "sim/plan.rs"]
mod plan;
#[path = "sim/random.rs"]
mod random;
#[path = "sim/reads.rs"]
mod reads;
#[path = "sim/record.rs"]
mod record;
#[path = "sim/seeds.rs"]
mod seeds;
#[path = "sim/streams.rs"]
mod streams;
#[path = "sim/twins.rs"]
mod twins;
#[path = "sim/world.rs"]
mod world;

use random::Random;
use record::{Record, Trace};
use seeds::Simulation;
use world::World;

const RULES: [&str; 86] = [
    "answer cut",
    "answer shared",
    "answer shared by a stream and a poll",
    "answer shared by two that go on",
    "channel began where another name rests",
    "channel dropped",
    "close of an answered read",
    "connection ended: Closed",
    "connection ended: Left",
    "connection ended: Timeout",
    "connection restored",
    "dropped channel came again",
    "dropped introduction given",
    "follow anew",
    "follow anew refused: SessionEnded",
    "follow anew refused: OverCapacity",
    "follow anew refused: WrongAuth",
    "goodbye in several channels",
    "goodbye refused: SessionEnded",
    "goodbye refused: WrongAuth",
    "goodbye to one",
    "goodbye to one refused: WrongAuth",
    "grace asked for again",
    "grace began",
    "grace ended by a call",
    "grace outlived by a read",
    "hub restored",
    "hub saved while somebody waited",
    "introduce",
    "introduce refused: SessionEnded",
    "introduce refused: OverCapacity",
    "introduce refused: TooManyChannels",
    "introduce refused: WrongAuth",
    "missed told",
    "orphan answered with its goodbye",
    "orphan answered with nothing",
    "orphaned stream followed anew",
    "orphaned stream resumed",
    "orphaned stream told its goodbye",
    "poll not replaced by a stream",
    "read on overlapping channels not replaced",
    "read refused: SessionEnded",
    "read refused: OverCapacity",
    "read refused: WrongAuth",
    "read replaced",
    "reset told",
    "resume of one that is not behind",
    "several said goodbye at once",
    "stream began behind",
    "stream began with a gap",
    "stream began with a reset",
    "stream began with messages",
    "stream began with nothing",
    "stream behind ended with its connection",
    "stream behind followed anew",
    "stream behind not told",
    "stream closed that carried a connection",
    "stream dismissed",
    "stream fell behind",
    "stream followed anew for another connection",
    "stream followed others anew",
    "stream followed the same anew",
    "stream kept its connection alive",
    "stream not replaced by a poll",
    "stream not replaced by a stream",
    "stream refused: SessionEnded",
    "stream refused: OverCapacity",
    "stream refused: WrongAuth",
    "stream put off",
    "stream behind put off",
    "stream resumed with nothing",
    "stream resumed, and no longer behind",
    "stream resumed, and still behind",
    "stream resumed, and told of a gap",
    "stream told",
    "stream told for one of several channels",
    "stream told for several channels",
    "stream told of a gap",
    "stream with a connection followed anew without",
    "waiting read answered for one of several channels",
    "waiting read answered for several channels",
    "waiting read told of a gap",
    "unused channel gave room to another",
    "write refused: SessionEnded",
    "write refused: OverCapacity",
    "write refused: WrongAuth",
];

static SIMULATION: Simulation =
    Simulation { test: "sim", seeds: 5_000, seeds_to_reach_all: 1_000, rules: &RULES, run };

fn run(seed: u64, notes: Trace) -> Record {
    let mut world = World::new(Random::new(seed), Record::new(notes));
    world.run();
    world.record.tally.add_all(&world.model.tally);
    world.record
}

#[test]
fn the_hub_does_what_the_naive_model_says() {
    SIMULATION.run_all();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    SIMULATION.assert_repeatable();
}
