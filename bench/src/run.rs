//! Runs the plan: every server in rotation, several rounds, one set of figures each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::process::{Cores, pin, raise_file_limit};

use crate::plan::{self, Against, Goal, Length, Part};
use crate::server::{Kind, Programs, Target};
use crate::stats::Spread;
use crate::work::{Sample, Work};
use crate::{Result, json, plot, table};

/// Options of `run`.
pub(crate) struct Options {
    pub(crate) length: Length,
    pub(crate) speak: Option<PathBuf>,
    /// Another build of Speak, as the only peer.
    pub(crate) against: Option<PathBuf>,
    pub(crate) rounds: Option<usize>,
    pub(crate) only: Vec<String>,
    pub(crate) results: PathBuf,
}

/// Results of a run.
pub(crate) struct Outcome {
    pub(crate) length: Length,
    pub(crate) rounds: usize,
    pub(crate) took: Duration,
    /// Seconds since 1970.
    pub(crate) at: u64,
    pub(crate) rows: Vec<Row>,
}

/// A part of the plan with its samples: for each server one of each round.
pub(crate) struct Row {
    pub(crate) part: Part,
    pub(crate) samples: BTreeMap<Kind, Vec<Sample>>,
}

impl Row {
    /// Returns the figures of a server, by round.
    fn costs(&self, kind: Kind) -> impl Iterator<Item = f64> {
        let samples = self.samples.get(&kind).into_iter().flatten();
        samples.filter_map(|sample| sample.cost)
    }

    pub(crate) fn cost(&self, kind: Kind) -> Option<Spread> {
        Spread::of(self.costs(kind))
    }

    /// Returns Speak's figure divided by a peer's, round by round. A disturbance mostly hits both.
    pub(crate) fn ratio(&self, peer: Kind) -> Option<Spread> {
        let pairs = self.costs(Kind::Speak).zip(self.costs(peer));
        Spread::of(pairs.map(|(speak, peer)| speak / peer))
    }
}

impl Outcome {
    /// Returns the compared servers, Speak first: another build of it, or the usual peers.
    pub(crate) fn kinds(&self) -> &'static [Kind] {
        let has_other_build =
            self.rows.iter().any(|row| row.part.targets.contains(&Kind::OtherBuild));
        if has_other_build { &[Kind::Speak, Kind::OtherBuild] } else { plan::PEERS }
    }

    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.part.name == name)
    }

    /// Returns the measured value of a goal, if there is one.
    pub(crate) fn measured(&self, row: &Row, goal: &Goal) -> Option<Spread> {
        match goal.against {
            Against::Peer(kind) => row.ratio(kind),
            Against::Absolute => row.cost(Kind::Speak),
            Against::LongPoll(name) => {
                let other = self.row(name)?;
                let pairs = row.costs(Kind::Speak).zip(other.costs(Kind::Speak));
                Spread::of(pairs.map(|(one, other)| one / other))
            }
            Against::WritePerCall => {
                let connects = self.row("connect")?.costs(Kind::Speak);
                let writes = self.row("publish")?.costs(Kind::Speak);
                let both = row.costs(Kind::Speak).zip(connects).zip(writes);
                Spread::of(both.map(|((churn, connect), write)| {
                    let calls = churn - (connect - write);
                    calls / 2.0 / write
                }))
            }
            Against::LeftOverBefore => {
                let samples = row.samples.get(&Kind::Speak).into_iter().flatten();
                let extras = samples.flat_map(|sample| &sample.extra);
                let left = extras.filter(|(name, _)| *name == "left_over_before");
                Spread::of(left.map(|(_, value)| *value))
            }
        }
    }
}

/// Compares the servers, prints the table, and writes the files.
pub(crate) fn run(options: &Options) -> Result<()> {
    let files = raise_file_limit()?;
    let programs = Programs {
        speak: options.speak.clone(),
        against: options.against.clone(),
        cores: Cores::choose()?,
    };
    pin(programs.cores.generator)?;
    if programs.cores.server == programs.cores.generator {
        eprintln!("only one core may be used: rates and latencies mean little");
    }
    let kinds =
        if options.against.is_some() { &[Kind::Speak, Kind::OtherBuild] } else { plan::PEERS };
    for &kind in kinds {
        if let Some(why) = programs.missing(kind) {
            eprintln!("without {}: {why}", kind.name());
        }
    }
    let startable = |part: &Part| {
        let mut targets = part.targets.iter();
        targets.any(|&kind| programs.missing(kind).is_none())
    };
    let named = |part: &Part| {
        options.only.is_empty() || options.only.iter().any(|only| part.name.starts_with(only))
    };
    let mut parts = plan::parts(options.length);
    if options.against.is_some() {
        plan::against(&mut parts);
    }
    let parts = parts.into_iter();
    let rows =
        parts.filter(named).filter(startable).map(|part| Row { part, samples: BTreeMap::new() });
    let start = Instant::now();
    let mut outcome = Outcome {
        length: options.length,
        rounds: options.rounds.unwrap_or(options.length.rounds()),
        took: Duration::ZERO,
        at: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        rows: rows.collect(),
    };
    if files < needed_files(&outcome.rows) {
        return Err(format!("only {files} files may be open: see `ulimit -Hn`").into());
    }
    for round in 1..=outcome.rounds {
        for row in &mut outcome.rows {
            eprint!("round {round} of {}: {}:", outcome.rounds, row.part.name);
            measure(&programs, row)?;
            eprintln!();
        }
    }
    outcome.took = start.elapsed();
    print!("{}", table::render(&outcome));
    std::fs::create_dir_all(&options.results)?;
    let path = |kind| {
        let name = format!("{}.{kind}", options.length.name());
        options.results.join(name)
    };
    let text = serde_json::to_string_pretty(&json::render(&outcome))?;
    std::fs::write(path("json"), text + "\n")?;
    std::fs::write(path("svg"), plot::render(&outcome))?;
    eprintln!("written: {} and {}", path("json").display(), path("svg").display());
    Ok(())
}

/// Runs one round of a row: each server once, in rotation, freshly started.
fn measure(programs: &Programs, row: &mut Row) -> Result<()> {
    for &kind in row.part.targets {
        if programs.missing(kind).is_some() {
            continue;
        }
        let server = programs.start(kind)?;
        let sample = row.part.work.run(&server.target, programs.cores);
        let sample = sample.map_err(|error| {
            let (part, said) = (row.part.name, server.running.log_end());
            format!("{part} with {}: {error}\n{said}", kind.name())
        })?;
        if let Some(cost) = sample.cost {
            eprint!(" {} {cost:.2}", kind.name());
        }
        row.samples.entry(kind).or_default().push(sample);
    }
    Ok(())
}

/// Puts one load on a running server and prints the sample.
pub(crate) fn drive(target: &Target, work: Work) -> Result<()> {
    raise_file_limit()?;
    let sample = work.run(target, Cores::choose()?)?;
    println!("{}", json::sample(&sample));
    Ok(())
}

/// Returns the file descriptors needed for the largest crowd: its clients, and some of the process
/// itself.
fn needed_files(rows: &[Row]) -> u64 {
    let clients = rows.iter().map(|row| match row.part.work {
        Work::Fanout(work) => work.readers,
        Work::Chat(work) => work.rooms * work.users,
        Work::Idle { readers, .. } => readers,
        _ => 0,
    });
    clients.max().unwrap_or(0) as u64 + 200
}
