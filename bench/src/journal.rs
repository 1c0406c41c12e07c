//! What the journal costs: CPU time of a write, rates on this disk, turns of the loop during a
//! snapshot, and the time of a recovery. Each with its goal.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::incoming::Item;
use support::process::{Cores, Process, Running, pin, raise_file_limit};

use crate::busy::Busy;
use crate::closed_loop::{self, Closed, Script};
use crate::disk;
use crate::journal_table::{Cost, Figures, Rate, Recovery, SnapshotTurns};
use crate::result::Result;
use crate::sample::Sample;
use crate::server::{Target, start_with_admin};
use crate::turns::Page;
use crate::wire::{Dialect, WRITE_ROOM_AT, put_digits};

/// Rounds of the CPU time and of the rates.
const ROUNDS: usize = 5;
/// Connections whose CPU time is measured, with the number of writes of a round.
const COSTS: [(usize, usize); 2] = [(64, 60_000), (1, 12_000)];
/// Connections with one write on its way each.
pub(crate) const DEPTHS: [usize; 4] = [1, 16, 64, 256];
/// Time of a measurement of a rate with a journal, and without.
const RATE_TIME: Duration = Duration::from_millis(400);
const NONE_TIME: Duration = Duration::from_millis(200);

/// Bytes of text in the messages that fill a state.
const TEXT_BYTES: usize = 200;
const ROOMS: usize = 64;
/// Messages that a channel retains. All of them take a snapshot of some more than [`STATE_BYTES`].
const HISTORY: usize = 15_000;
const STATE_BYTES: usize = 256_000_000;
/// Writes between two looks at the size of the journal.
const FILL_STEP: usize = 16_384;
/// A snapshot begins when the log is twice as large as the previous one. The state is filled until
/// the log is nearly so large.
const FILLED: f64 = 1.95;
/// Time between two looks at the snapshot.
const LOAD_STEP: Duration = Duration::from_millis(200);
/// A snapshot that takes longer is an error of the bench.
const SNAPSHOT_MAX: Duration = Duration::from_mins(1);

/// Options of `journal`.
pub(crate) struct Options {
    pub(crate) speak: PathBuf,
    /// Directory on the disk that is measured.
    pub(crate) directory: PathBuf,
}

/// How a server keeps its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Nothing,
    Os,
    Always,
}

/// The machine, and where things are.
struct Bench<'a> {
    options: &'a Options,
    cores: Cores,
    /// Directory of the journals, on the disk that is measured.
    folder: PathBuf,
}

/// A server with an admin listener.
struct Server {
    target: Target,
    admin: SocketAddrV4,
    running: Running,
}

/// Measures, and prints the table.
pub(crate) fn run(options: &Options) -> Result<()> {
    raise_file_limit()?;
    let cores = Cores::choose()?;
    pin(cores.generator)?;
    let folder = options.directory.join(format!("speak-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let bench = Bench { options, cores, folder };
    let figures = bench.measure();
    std::fs::remove_dir_all(&bench.folder)?;
    print!("{}", figures?.render());
    Ok(())
}

impl Bench<'_> {
    fn measure(&self) -> Result<Figures> {
        let start = Instant::now();
        let mut figures = Figures::default();
        for (connections, writes) in COSTS {
            eprintln!("CPU time, {connections} connections");
            figures.costs.push(self.cost(connections, writes, &mut figures.busy)?);
        }
        let mut rates = DEPTHS.map(|depth| Rate { depth, ..Rate::default() });
        for round in 1..=ROUNDS {
            eprintln!("rates, round {round} of {ROUNDS}");
            for rate in &mut rates {
                self.rate(rate, &mut figures.busy)?;
            }
        }
        figures.rates = rates.into();
        self.snapshot(&mut figures)?;
        figures.took = start.elapsed();
        Ok(figures)
    }

    /// Starts a server with the journal of this name.
    fn start(&self, mode: Mode, name: &str) -> Result<Server> {
        let mut command = Command::new(&self.options.speak);
        command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.args(["--max-memory", "2g", "--retention", "24h"]);
        command.args(["--history", &HISTORY.to_string()]);
        if mode != Mode::Nothing {
            let sync = if mode == Mode::Os { "os" } else { "always" };
            command.arg("--journal").arg(self.folder.join(name)).args(["--journal-sync", sync]);
        }
        let (running, address, admin) = start_with_admin(command, self.cores)?;
        let process = Some(running.process());
        let target = Target { process, ..Target::new(address, Dialect::Speak) };
        Ok(Server { target, admin, running })
    }

    /// Makes writes on a new server. Returns their CPU time.
    fn cost_of(&self, mode: Mode, work: Closed, busy: &mut Busy) -> Result<f64> {
        let server = self.start(mode, "cost")?;
        let sample = closed_loop::publish(&server.target, self.cores, work);
        let sample = sample.map_err(|error| format!("{error}\n{}", server.running.log_end()))?;
        server.finish(busy)?;
        busy.note(Duration::ZERO, sample.disturbed);
        drop(server);
        if mode != Mode::Nothing {
            std::fs::remove_dir_all(self.folder.join("cost"))?;
        }
        Ok(sample.cost.ok_or("no CPU time of the server")?)
    }

    fn cost(&self, connections: usize, writes: usize, busy: &mut Busy) -> Result<Cost> {
        let warm_up = writes / 10;
        let work =
            Closed { connections, depth: 1, requests: writes, at_most: Duration::MAX, warm_up };
        let mut cost = Cost { connections, ..Cost::default() };
        for _ in 0..ROUNDS {
            for (mode, figures) in [(Mode::Nothing, &mut cost.none), (Mode::Os, &mut cost.os)] {
                figures.push(self.cost_of(mode, work, busy)?);
            }
        }
        Ok(cost)
    }

    fn rate(&self, rate: &mut Rate, busy: &mut Busy) -> Result<()> {
        let mut fill = Fill::new(rate.depth);
        let none = self.start(Mode::Nothing, "rate")?;
        fill.run(&none, self.cores, 1, 4 * rate.depth, Duration::MAX)?;
        let sample = fill.run(&none, self.cores, 1, usize::MAX, NONE_TIME)?;
        rate.none.push(sample.per_second);
        rate.none_turns += none.finish(busy)?.turns()?;
        drop(none);

        let always = self.start(Mode::Always, "rate")?;
        fill.run(&always, self.cores, 1, 4 * rate.depth, Duration::MAX)?;
        let before = (Page::read(always.admin)?.flushes()?, fill.written);
        let sample = fill.run(&always, self.cores, 1, usize::MAX, RATE_TIME)?;
        rate.always.push(sample.per_second);
        let page = always.finish(busy)?;
        let flushes = page.flushes()? - before.0;
        rate.flushes.push(flushes.per_second());
        rate.each_record.push((fill.written - before.1) as f64 / flushes.count as f64);
        rate.turns += page.turns()?;
        drop(always);
        Ok(std::fs::remove_dir_all(self.folder.join("rate"))?)
    }

    /// Fills a state, recovers it, and takes a snapshot of it under load.
    fn snapshot(&self, figures: &mut Figures) -> Result<()> {
        eprintln!("filling a state");
        let mut fill = Fill::new(64);
        let mut server = self.start(Mode::Os, "state")?;
        let bytes = loop {
            fill.run(&server, self.cores, 16, FILL_STEP, Duration::MAX)?;
            let log = Page::read(server.admin)?.value("speak_log_bytes")?;
            let snapshot = newest_snapshot(&server.running.log()).unwrap_or(0) as f64;
            if fill.written * TEXT_BYTES > STATE_BYTES
                && (FILLED * snapshot..2.0 * snapshot).contains(&log)
                && !is_saving(&self.folder.join("state"))?
            {
                break log + snapshot;
            }
        };
        server.running.kill()?;
        drop(server);
        disk::evict(&self.folder.join("state"))?;
        eprintln!("recovery");
        let start = Instant::now();
        let server = self.start(Mode::Always, "state")?;
        figures.recovery = Recovery { bytes, time: start.elapsed() };
        eprintln!("snapshot under load");
        figures.snapshot = self.load_until_snapshot(&server, &mut fill, &mut figures.busy)?;
        Ok(())
    }

    /// Writes until the server has taken a snapshot, and as long as that without one.
    fn load_until_snapshot(
        &self,
        server: &Server,
        fill: &mut Fill,
        busy: &mut Busy,
    ) -> Result<SnapshotTurns> {
        let mut result = SnapshotTurns::default();
        let start = Instant::now();
        let starved = server.process().starved()?;
        let mut before = Page::read(server.admin)?.turns()?;
        let mut is_saving = false;
        while result.bytes == 0 || result.other_time < result.time {
            fill.run(server, self.cores, 1, usize::MAX, LOAD_STEP)?;
            let was_saving = is_saving;
            let snapshot = newest_snapshot(&server.running.log()).unwrap_or(0);
            is_saving = self::is_saving(&self.folder.join("state"))?;
            let turns = Page::read(server.admin)?.turns()?;
            if was_saving || is_saving || snapshot != result.bytes {
                result.turns += turns - before;
                result.time += LOAD_STEP;
            } else {
                result.other_turns += turns - before;
                result.other_time += LOAD_STEP;
            }
            result.bytes = snapshot;
            before = turns;
            if start.elapsed() > SNAPSHOT_MAX {
                return Err("the server takes no snapshot".into());
            }
        }
        busy.note(server.process().starved()?.saturating_sub(starved), 0.0);
        Ok(result)
    }
}

impl Server {
    fn process(&self) -> Process {
        self.running.process()
    }

    /// Returns the metrics, and notes the time for which the server has had no core.
    fn finish(&self, busy: &mut Busy) -> Result<Page> {
        busy.note(self.process().starved()?, 0.0);
        Page::read(self.admin)
    }
}

/// Returns the size of the newest snapshot that the server has logged, in bytes.
fn newest_snapshot(log: &str) -> Option<u64> {
    let mut lines = log.lines().rev();
    let line = lines.find(|line| line.contains("journal snapshot complete"))?;
    line.rsplit_once("bytes=")?.1.parse().ok()
}

/// Returns whether a snapshot is being written: its file does not have its name yet.
fn is_saving(journal: &Path) -> Result<bool> {
    for entry in std::fs::read_dir(journal)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snapshot-") && name.contains("new") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes to many channels, one after the other.
struct Fill {
    template: Vec<u8>,
    connections: usize,
    depth: usize,
    written: usize,
    batch: Vec<u8>,
}

impl Fill {
    fn new(connections: usize) -> Self {
        let text = "m".repeat(TEXT_BYTES);
        let head = "HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let template = format!("GET /write?channel=b00000&message={text} {head}").into_bytes();
        Self { template, connections, depth: 1, written: 0, batch: Vec::new() }
    }

    fn run(
        &mut self,
        server: &Server,
        cores: Cores,
        depth: usize,
        requests: usize,
        at_most: Duration,
    ) -> Result<Sample> {
        self.depth = depth;
        // The server need not come to rest.
        let target = Target { process: None, ..server.target };
        let work = Closed { connections: self.connections, depth, requests, at_most, warm_up: 0 };
        let result = closed_loop::drive(&target, cores, work, self);
        Ok(result.map_err(|error| format!("{error}\n{}", server.running.log_end()))?)
    }
}

impl Script for Fill {
    fn requests(&mut self, _connection: usize) -> &[u8] {
        self.batch.clear();
        for _ in 0..self.depth {
            let room = (self.written % ROOMS) as u32;
            put_digits(&mut self.template[WRITE_ROOM_AT..WRITE_ROOM_AT + 5], room);
            self.batch.extend_from_slice(&self.template);
            self.written += 1;
        }
        &self.batch
    }

    fn answer(&mut self, _connection: usize, frame: &Item) -> Result<()> {
        match frame.status {
            Some(200) => Ok(()),
            _ => Err(format!("a write was answered {}", frame.lossy()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_snapshot_is_the_last_that_was_logged() {
        let line = |bytes| format!("INFO journal snapshot complete position=9 bytes={bytes}\n");
        assert_eq!(newest_snapshot(&(line(5) + &line(7) + "INFO other bytes=8\n")), Some(7));
        assert_eq!(newest_snapshot("INFO other bytes=8\n"), None);
    }

    #[test]
    fn a_batch_goes_to_one_channel_after_the_other() {
        let mut fill = Fill::new(64);
        fill.depth = ROOMS + 1;
        let batch = String::from_utf8(fill.requests(0).to_vec()).unwrap();
        let rooms: Vec<&str> =
            batch.lines().filter_map(|line| Some(line.split_once('&')?.0)).collect();
        assert_eq!(rooms.len(), ROOMS + 1);
        assert_eq!(rooms[1], "GET /write?channel=b00001");
        assert_eq!(rooms[ROOMS], rooms[0]);
    }
}
