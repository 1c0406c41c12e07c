//! Runs the seeds of a simulation on all cores, and shows how to replay a failure.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use super::record::{Record, Tally, Trace};

/// A simulation.
pub(crate) struct Simulation {
    /// Its file of tests.
    pub(crate) test: &'static str,
    /// Number of seeds, unless a variable sets another.
    pub(crate) seeds: u64,
    /// Number of seeds in which each rule has to apply.
    pub(crate) seeds_to_reach_all: u64,
    pub(crate) rules: &'static [&'static str],
    pub(crate) run: fn(u64, Trace) -> Record,
}

/// A seed takes some milliseconds; after this time it will never end.
const HUNG_AFTER: Duration = Duration::from_mins(1);

/// Seeds that run now, with their start.
static RUNNING: Mutex<BTreeMap<u64, Instant>> = Mutex::new(BTreeMap::new());

impl Simulation {
    /// Runs the seeds, and claims that each rule applied.
    pub(crate) fn run_all(&'static self) {
        if let Some(seed) = asked("SPEAK_SIM_SEED") {
            let record = self.run(seed, Trace::Printed);
            return println!("seed {seed}: {} steps", record.steps);
        }
        thread::spawn(|| self.watch_for_hangs());
        let began = Instant::now();
        let seeds = asked("SPEAK_SIM_SEEDS").unwrap_or(self.seeds);
        let next = AtomicU64::new(0);
        let work = || {
            let _end = EndOfAll(&next);
            let (mut steps, tally) = (0, Tally::default());
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return (steps, tally);
                }
                running().insert(seed, Instant::now());
                let record = self.run(seed, Trace::Forgotten);
                running().remove(&seed);
                steps += record.steps;
                tally.add_all(&record.tally);
            }
        };
        let (mut steps, tally) = (0, Tally::default());
        thread::scope(|scope| {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                let (its_steps, its_tally) = worker.join().expect("a seed failed, see above");
                steps += its_steps;
                tally.add_all(&its_tally);
            }
        });
        for rule in self.rules.iter().filter(|_| seeds >= self.seeds_to_reach_all) {
            assert!(tally.times(rule) > 0, "in {seeds} seeds never: {rule}");
        }
        println!("{tally}");
        println!("{seeds} seeds, {steps} steps, {:.1} s", began.elapsed().as_secs_f32());
    }

    /// Claims that a seed determines the whole run.
    pub(crate) fn assert_repeatable(&'static self) {
        for seed in 0..20 {
            let lines = || match self.run(seed, Trace::Kept(RefCell::default())).notes {
                Trace::Kept(lines) => lines.into_inner(),
                Trace::Forgotten | Trace::Printed => unreachable!("they are kept"),
            };
            assert_eq!(lines(), lines(), "seed {seed}");
        }
    }

    fn run(&self, seed: u64, notes: Trace) -> Record {
        let _replay = Replay { seed, test: self.test };
        (self.run)(seed, notes)
    }

    /// Ends the process when a seed hangs, since a test that never ends would not show its seed.
    fn watch_for_hangs(&self) {
        loop {
            thread::sleep(HUNG_AFTER / 10);
            if let Some((seed, _)) =
                running().iter().find(|(_, since)| since.elapsed() > HUNG_AFTER)
            {
                Replay { seed: *seed, test: self.test }.show("hangs");
                process::exit(1);
            }
        }
    }
}

fn running() -> MutexGuard<'static, BTreeMap<u64, Instant>> {
    RUNNING.lock().expect("no panic while it is locked")
}

/// Shows how to replay a failure.
struct Replay {
    seed: u64,
    test: &'static str,
}

impl Replay {
    fn show(&self, what: &str) {
        let Self { seed, test } = self;
        let replay = format!("SPEAK_SIM_SEED={seed} cargo test --test {test} -- --nocapture");
        // Not through the test harness, which would drop it when the process ends here.
        let _ = writeln!(io::stderr(), "seed {seed} {what}; its steps: {replay}");
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show("failed");
        }
    }
}

/// Starts no more seeds when one fails.
struct EndOfAll<'a>(&'a AtomicU64);

impl Drop for EndOfAll<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(u64::MAX / 2, Ordering::Relaxed);
        }
    }
}

fn asked(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}
