//! Runs the seeds of a simulation on all cores, and shows how to replay a failure.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{env, iter, process, thread};

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
        let first = asked("SPEAK_SIM_FIRST").unwrap_or(0);
        let next = AtomicU64::new(first);
        let total = Mutex::new((0, Tally::default()));
        let work = || {
            // No more seeds begin after one has failed.
            let _end_of_all = OnPanic(|| next.store(u64::MAX / 2, Ordering::Relaxed));
            let new_seed = || Some(next.fetch_add(1, Ordering::Relaxed));
            for seed in iter::from_fn(|| new_seed().filter(|seed| *seed < first + seeds)) {
                lock(&RUNNING).insert(seed, Instant::now());
                let record = self.run(seed, Trace::Forgotten);
                lock(&RUNNING).remove(&seed);
                let mut total = lock(&total);
                total.0 += record.steps;
                total.1.add_all(&record.tally);
            }
        };
        thread::scope(|scope| {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            (0..cores).for_each(|_| drop(scope.spawn(work)));
        });
        let (steps, tally) = &*lock(&total);
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
        let _replay = OnPanic(|| self.show_replay(seed, "failed"));
        (self.run)(seed, notes)
    }

    fn show_replay(&self, seed: u64, what: &str) {
        let replay =
            format!("SPEAK_SIM_SEED={seed} cargo test --test {} -- --nocapture", self.test);
        // Not through the test harness, which would drop it when the process ends here.
        let _ = writeln!(io::stderr(), "seed {seed} {what}; its steps: {replay}");
    }

    /// Ends the process when a seed hangs, since a test that never ends would not show its seed.
    fn watch_for_hangs(&self) {
        loop {
            thread::sleep(HUNG_AFTER / 10);
            let is_hung = |(_, since): &(&u64, &Instant)| since.elapsed() > HUNG_AFTER;
            if let Some((seed, _)) = lock(&RUNNING).iter().find(is_hung) {
                self.show_replay(*seed, "hangs");
                process::exit(1);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it is locked")
}

/// Does something if the thread panics before this is dropped.
struct OnPanic<F: Fn()>(F);

impl<F: Fn()> Drop for OnPanic<F> {
    fn drop(&mut self) {
        if thread::panicking() {
            (self.0)();
        }
    }
}

fn asked(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value} is not a number")))
}
