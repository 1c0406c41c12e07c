//! The real hub compared with a naive model of it, driven by seeds.
//!
//! `SPEAK_SIM_SEEDS=N` runs the seeds below N, or N seeds from `SPEAK_SIM_FIRST` on.
//! `SPEAK_SIM_SEED=K` runs that one alone and prints its steps.

mod answers;
mod apply;
mod chooser;
mod command;
mod commit;
mod crash;
mod delivery;
mod follower;
mod log;
mod machine;
mod message;
mod model;
mod moderation;
mod pair_names;
mod pending;
mod plan;
mod proposals;
mod reads;
mod record;
mod sectors;
mod seeds;
mod shared_state;
mod snapshot;
mod streams;
mod world;

use record::{Record, Trace};
use seeds::Simulation;
use support::random::Random;
use world::World;

const RULES: [&str; 149] = [
    "address sent away",
    "answer cut",
    "answer shared",
    "answer shared by a stream and a poll",
    "answer shared by two that resume",
    "bit flipped in the last record",
    "bit flipped in unused space",
    "channel began at the watermark of another name",
    "channel dropped",
    "channel dropped and created again during a checkpoint",
    "channel dropped during a checkpoint",
    "checkpoint abandoned",
    "checkpoint begun",
    "checkpoint complete",
    "checkpoint lost in a crash",
    "close of an answered read",
    "command failed: SessionEnded",
    "command failed: TooManyChannels",
    "cursor moved to the watermark of another name",
    "damage repaired",
    "drop of a channel that is used again",
    "dropped channel came again",
    "dropped channel stays for readers or commands",
    "dropped introduction given",
    "goodbye in several channels",
    "goodbye refused: LogBehind",
    "goodbye refused: SentAway",
    "goodbye refused: SessionEnded",
    "goodbye refused: WrongAuth",
    "goodbye to one",
    "goodbye to one refused: LogBehind",
    "goodbye to one refused: SentAway",
    "goodbye to one refused: WrongAuth",
    "grace asked for again",
    "grace began",
    "grace ended by a call",
    "grace of a read",
    "grace outlived by a read",
    "hub restored",
    "hub saved with a pending read",
    "idle channel gave room to another",
    "introduce",
    "introduce refused: LogBehind",
    "introduce refused: OverCapacity",
    "introduce refused: SentAway",
    "introduce refused: SessionEnded",
    "introduce refused: TooManyChannels",
    "introduce refused: WrongAuth",
    "introduction without its text given",
    "journal handed over",
    "kick",
    "kick of one who is not there",
    "kick refused: LogBehind",
    "killed",
    "member kicked",
    "message removed again",
    "missed sent",
    "new epoch after a loss of power",
    "older records replace a damaged snapshot",
    "orphan answered with its goodbye",
    "orphan answered with nothing",
    "orphaned stream resubscribed",
    "orphaned stream resumed",
    "orphaned stream sent its goodbye",
    "paused stream ended by the server",
    "paused stream ended with its session",
    "paused stream not sent",
    "paused stream paused",
    "paused stream resubscribed",
    "pending read got a gap",
    "poll not replaced by a stream",
    "power lost",
    "prefix recovered",
    "proposals lost",
    "read answered for one of several",
    "read answered for several channels",
    "read on overlapping channels not replaced",
    "read refused: OverCapacity",
    "read refused: SessionEnded",
    "read refused: WrongAuth",
    "read replaced",
    "record in the log that no process applied",
    "record kept that was being written",
    "record lost that was being written",
    "record lost with the power",
    "record of unknown outcome",
    "record refused: disk full",
    "recovered from a disk",
    "recovered from a disk with a snapshot",
    "recovered with a checkpoint",
    "recovered without a checkpoint",
    "remove",
    "remove refused: LogBehind",
    "remove refused: OverCapacity",
    "remove refused: UnknownMessage",
    "reset sent",
    "rest of the members",
    "resubscribe",
    "resubscribe refused: OverCapacity",
    "resubscribe refused: SessionEnded",
    "resubscribe refused: WrongAuth",
    "resubscribed for another session",
    "resubscribed without a session",
    "resume of a stream that is not paused",
    "room kept for an address that was sent away",
    "session ended during a checkpoint",
    "session ended: Closed",
    "session ended: Left",
    "session ended: Timeout",
    "session outlived an outage",
    "session recovered",
    "session restored",
    "several goodbyes at one time",
    "snapshot complete",
    "snapshot given up",
    "start interrupted",
    "stream began paused",
    "stream began with a gap",
    "stream began with a reset",
    "stream began with messages",
    "stream began with nothing",
    "stream closed that carried a session",
    "stream completed",
    "stream ended by the server",
    "stream ended by the server with news",
    "stream kept its session alive",
    "stream left incomplete",
    "stream not replaced by a poll",
    "stream not replaced by a stream",
    "stream paused",
    "stream refused: OverCapacity",
    "stream refused: SessionEnded",
    "stream refused: WrongAuth",
    "stream resubscribed to others",
    "stream resubscribed to the same",
    "stream resumed with a gap",
    "stream resumed with nothing",
    "stream resumed, and no longer paused",
    "stream resumed, and still paused",
    "stream sent",
    "stream sent a gap",
    "stream sent for one of several channels",
    "stream sent for several channels",
    "went on after a crash",
    "write refused: LogBehind",
    "write refused: OverCapacity",
    "write refused: SentAway",
    "write refused: SessionEnded",
    "write refused: WrongAuth",
];

static SIMULATION: Simulation =
    Simulation { test: "sim", seeds: 3_000, seeds_to_reach_all: 3_000, rules: &RULES, run };

fn run(seed: u64, notes: Trace) -> Record {
    let mut world = World::new(Random::new(seed), Record::new(notes));
    world.run();
    world.record.tally.add_all(&world.model.tally);
    if let Some(machine) = world.machine() {
        let counts = std::mem::take(&mut machine.tally);
        for what in counts {
            world.record.tally.count(what);
        }
    }
    world.record
}

#[test]
fn the_hub_does_the_same_as_the_naive_model() {
    SIMULATION.run_all();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    SIMULATION.assert_repeatable();
}
