//! Cost of a flood: the turns of the server, its memory, and the waits of a bystander.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::client::Client;
use super::server::Server;
use super::wait::until;

/// The histogram of turns: upper bounds with the number of turns up to each, the last one with all
/// turns.
pub struct Turns(Vec<(String, u64)>);

impl Turns {
    pub fn of(server: &Server) -> Self {
        let page = server.operator().get("/metrics", &[]).ok();
        let bucket = |line: &str| {
            let line = line.strip_prefix("speak_loop_seconds_bucket{le=\"")?;
            let (bound, count) = line.split_once("\"} ").expect("a bound and a count");
            Some((bound.to_owned(), count.parse().expect("a count")))
        };
        Self(page.text().lines().filter_map(bucket).collect())
    }

    fn count(&self) -> u64 {
        self.0.last().expect("buckets").1
    }

    /// Returns the lowest bound that no turn since then exceeded.
    fn longest_since(&self, before: &Self) -> &str {
        let all = self.count() - before.count();
        let mut since =
            self.0.iter().zip(&before.0).map(|((bound, now), (_, then))| (bound, now - then));
        since.find(|(_, count)| *count == all).expect("the last holds all").0
    }

    /// Prints the number of turns since then, and a bound for the longest one.
    pub fn tell_since(&self, before: &Self) {
        let (count, longest) = (self.count() - before.count(), self.longest_since(before));
        println!("    {count} turns, none longer than {longest} s");
    }
}

/// Ends the work that runs during a flood, even if the flood fails.
pub struct Over<'a>(pub &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Times that the rounds of a bystander took, sorted.
pub struct Waits(Vec<Duration>);

impl Waits {
    /// Makes rounds until `is_over`, at least one, and counts them in `rounds`.
    pub fn of(mut round: impl FnMut(), is_over: &AtomicBool, rounds: &AtomicUsize) -> Self {
        let mut waits = Vec::new();
        while waits.is_empty() || !is_over.load(Ordering::Relaxed) {
            let began = Instant::now();
            round();
            waits.push(began.elapsed());
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        waits.sort_unstable();
        Self(waits)
    }

    /// Makes some rounds while nothing else happens.
    pub fn quiet(round: impl FnMut() + Send) -> Self {
        let (rounds, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            let waits = scope.spawn(|| Self::of(round, &is_over, &rounds));
            let over = Over(&is_over);
            until("some rounds are done", || rounds.load(Ordering::Relaxed) >= 50);
            drop(over);
            waits.join().expect("no panic")
        })
    }

    pub fn tell(&self, when: &str) {
        let count = self.0.len();
        let [half, most] = [50, 99].map(|hundredths| self.0[(count - 1) * hundredths / 100]);
        let longest = self.0[count - 1];
        println!("    bystander {when}: p50 {half:?}, p99 {most:?}, max {longest:?} of {count}");
    }
}

/// Memory of a server at one moment, or the most of it over some time.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    /// Bytes that the server counts against `--max-memory`.
    pub counted: u64,
    pub rss_kib: u64,
}

impl Memory {
    pub fn of(server: &Server) -> Self {
        Self::seen_by(&mut server.operator(), server)
    }

    fn seen_by(operator: &mut Client, server: &Server) -> Self {
        let page = operator.get("/metrics", &[]).ok();
        let value = |line: &str| line.strip_prefix("speak_memory_bytes ")?.parse().ok();
        let counted = page.text().lines().find_map(value).expect("the gauge");
        Self { counted, rss_kib: server.rss_kib() }
    }

    /// Looks again and again until `is_over`, and returns the most.
    pub fn most(server: &Server, is_over: &AtomicBool) -> Self {
        let (mut operator, mut most) = (server.operator(), Self::default());
        while !is_over.load(Ordering::Relaxed) {
            let now = Self::seen_by(&mut operator, server);
            most.counted = most.counted.max(now.counted);
            thread::sleep(Duration::from_millis(2));
        }
        // The kernel has noted the most by itself.
        Self { rss_kib: server.peak_rss_kib(), ..most }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} KiB counted, RSS {} KiB", self.counted / 1_024, self.rss_kib)
    }
}
