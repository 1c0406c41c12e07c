//! Runs the plan: every server in rotation, several rounds, one set of figures each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::process::{Cores, pin, raise_file_limit};

use crate::outcome::{Outcome, Row};
use crate::plan::{self, Length, Part};
use crate::result::Result;
use crate::sample::Sample;
use crate::server::{Kind, Programs, Target};
use crate::work::Work;
use crate::{curves, json, peer_plan, plot, table};

/// Options of `run`.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) length: Length,
    pub(crate) speak: Option<PathBuf>,
    /// Another build of Speak, as the only peer.
    pub(crate) against: Option<PathBuf>,
    pub(crate) rounds: Option<usize>,
    pub(crate) only: Vec<String>,
    pub(crate) results: PathBuf,
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
    let (kinds, mut parts) = match options.length {
        Length::Peers => (peer_plan::KINDS, peer_plan::parts()),
        length => (plan::kinds(options.against.is_some()), plan::parts(length)),
    };
    let missing = kinds.iter().filter_map(|&kind| {
        let why = programs.missing(kind)?;
        Some(format!("without {}: {why}", kind.name()))
    });
    let left_out: Vec<String> = missing.collect();
    for line in &left_out {
        eprintln!("{line}");
    }
    let startable = |part: &Part| {
        let mut targets = part.targets.iter();
        targets.any(|&kind| programs.missing(kind).is_none())
    };
    let named = |part: &Part| {
        options.only.is_empty() || options.only.iter().any(|only| part.name.starts_with(only))
    };
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
        kinds,
        rows: rows.collect(),
        left_out,
    };
    if files < needed_files(&outcome.rows) {
        return Err(format!("only {files} files may be open: see `ulimit -Hn`").into());
    }
    for round in 1..=outcome.rounds {
        for row in &mut outcome.rows {
            // Each row has one round at least.
            if round > 1 && start.elapsed() > options.length.time_max() {
                break;
            }
            eprint!("round {round} of {}: {}:", outcome.rounds, row.part.name);
            measure(&programs, row, options.length, &mut outcome.left_out)?;
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
    let plot = match options.length {
        Length::Peers => curves::render(&outcome),
        Length::Quick | Length::Full => plot::render(&outcome),
    };
    std::fs::write(path("svg"), plot)?;
    eprintln!("written: {} and {}", path("json").display(), path("svg").display());
    let own = format!(" with {}: ", Kind::Speak.name());
    match outcome.left_out.iter().find(|line| line.contains(&own)) {
        Some(line) => Err(line.clone().into()),
        None => Ok(()),
    }
}

/// Runs one round of a row: each server once, in rotation, freshly started. In a run with peers,
/// what a server did not endure is left out and said: how much each one bears is a result too.
fn measure(
    programs: &Programs,
    row: &mut Row,
    length: Length,
    left_out: &mut Vec<String>,
) -> Result<()> {
    for &kind in row.part.targets {
        let prefix = format!("{} with {}: ", row.part.name, kind.name());
        let failed = left_out.iter().any(|line| line.starts_with(&prefix));
        if failed || programs.missing(kind).is_some() {
            continue;
        }
        let sample = match run_once(programs, &row.part, kind) {
            Ok(sample) => sample,
            Err(error) if length == Length::Peers => {
                let error = error.to_string();
                let line = prefix + error.lines().next().unwrap_or_default();
                eprintln!("\n{line}");
                left_out.push(line);
                continue;
            }
            Err(error) => return Err(format!("{prefix}{error}").into()),
        };
        if let Some(cost) = sample.cost {
            eprint!(" {} {cost:.2}", kind.name());
        }
        row.samples.entry(kind).or_default().push(sample);
    }
    Ok(())
}

fn run_once(programs: &Programs, part: &Part, kind: Kind) -> Result<Sample> {
    let server = programs.start(kind, part.is_tls)?;
    let sample = part.work.run(&server.target, programs.cores);
    sample.map_err(|error| format!("{error}\n{}", server.running.log_end()).into())
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
        Work::Idle { readers, .. } | Work::Return { readers, .. } => readers,
        _ => 0,
    });
    clients.max().unwrap_or(0) as u64 + 200
}
