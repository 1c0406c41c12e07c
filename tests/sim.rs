//! The real hub beside a naive model of it, driven by seeds.
//!
//! `SPEAK_SIM_SEEDS=N` runs the seeds below N. `SPEAK_SIM_SEED=K` runs that one alone and prints its steps.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, process, thread};

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
#[path = "sim/streams.rs"]
mod streams;
#[path = "sim/twins.rs"]
mod twins;
#[path = "sim/world.rs"]
mod world;

use random::Random;
use record::{Notes, Record, Tally};
use world::World;

/// What is run where nothing else is asked: some fifteen seconds of a debug build on one core.
const SEEDS: u64 = 2_000;

/// From this many seeds on, a rule that never came to bear is a fault of the mix.
const SEEDS_TO_REACH_ALL: u64 = 1_000;

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
    "follow anew refused: Ended",
    "follow anew refused: OverCapacity",
    "follow anew refused: WrongAuth",
    "goodbye in several channels",
    "goodbye refused: Ended",
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
    "introduce refused: Ended",
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
    "read refused: Ended",
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
    "stream refused: Ended",
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
    "write refused: Ended",
    "write refused: OverCapacity",
    "write refused: WrongAuth",
];

/// A seed takes some milliseconds: one that takes this long will never end.
const HUNG_AFTER: Duration = Duration::from_secs(60);

/// Stands for no seed: all are done.
const DONE: u64 = u64::MAX;

/// The seed that runs now.
static CURRENT: AtomicU64 = AtomicU64::new(0);

/// Tells how to see a failure again.
struct Replay(u64);

impl Replay {
    fn tell(&self, what: &str) {
        let seed = self.0;
        let replay = format!("SPEAK_SIM_SEED={seed} cargo test --test sim -- --nocapture");
        // Past the test harness, which would keep it to itself when the process ends here.
        let _ = writeln!(io::stderr(), "seed {seed} {what}; its steps: {replay}");
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tell("failed");
        }
    }
}

/// Ends the process when a seed hangs, since a test that never ends does not tell its seed.
fn watch_for_hangs() {
    let watch = || {
        let mut last = None;
        loop {
            thread::sleep(HUNG_AFTER);
            let seed = CURRENT.load(Ordering::Relaxed);
            if seed == DONE {
                return;
            }
            if last == Some(seed) {
                Replay(seed).tell("hangs");
                process::exit(1);
            }
            last = Some(seed);
        }
    };
    thread::spawn(watch);
}

fn run(seed: u64, notes: Notes) -> Record {
    let _replay = Replay(seed);
    let mut world = World::new(Random::new(seed), Record::new(notes));
    world.run();
    world.record.tally.add_all(&world.model.tally);
    world.record
}

fn asked(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

#[test]
fn the_hub_does_what_the_naive_model_says() {
    if let Some(seed) = asked("SPEAK_SIM_SEED") {
        let record = run(seed, Notes::Printed);
        println!("seed {seed}: {} steps", record.steps);
        return;
    }
    watch_for_hangs();
    let began = Instant::now();
    let seeds = asked("SPEAK_SIM_SEEDS").unwrap_or(SEEDS);
    let mut steps = 0;
    let tally = Tally::default();
    for seed in 0..seeds {
        CURRENT.store(seed, Ordering::Relaxed);
        let record = run(seed, Notes::Forgotten);
        steps += record.steps;
        tally.add_all(&record.tally);
    }
    CURRENT.store(DONE, Ordering::Relaxed);
    for rule in RULES.iter().filter(|_| seeds >= SEEDS_TO_REACH_ALL) {
        assert!(tally.times(rule) > 0, "in {seeds} seeds never: {rule}");
    }
    println!("{tally}");
    println!("{seeds} seeds, {steps} steps, {:.1} s", began.elapsed().as_secs_f32());
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let lines = || match run(seed, Notes::Kept(RefCell::default())).notes {
            Notes::Kept(lines) => lines.into_inner(),
            Notes::Forgotten | Notes::Printed => unreachable!("they are kept"),
        };
        assert_eq!(lines(), lines(), "seed {seed}");
    }
}
