//! The real server but for its sockets, amid a network and a crowd that a seed makes up.
//!
//! `SPEAK_SIM_SEEDS=N` runs the seeds below N. `SPEAK_SIM_SEED=K` runs that one alone and prints its steps.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, process, thread};

#[path = "net_sim/asking.rs"]
mod asking;
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
#[path = "net_sim/world.rs"]
mod world;

use random::Random;
use record::{Notes, Record, Tally};
use world::World;

/// What is run where nothing else is asked: some ten seconds of a debug build on one core.
const SEEDS: u64 = 1_500;

/// From this many seeds on, a rule that never came to bear is a fault of the mix.
const SEEDS_TO_REACH_ALL: u64 = 1_500;

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
        let replay = format!("SPEAK_SIM_SEED={seed} cargo test --test net_sim -- --nocapture");
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
    world.record
}

fn asked(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}

#[test]
fn whatever_the_network_does_the_protocol_holds() {
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
