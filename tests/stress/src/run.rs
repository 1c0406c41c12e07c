//! One run: the server, the channels, the users, and the report.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, process};

use rustix::process::{getpid, set_child_subreaper};
use signal_hook::consts::{SIGINT, SIGTERM};
use support::ensure;
use support::fault::{Checked, Fault};
use support::ledger::{Ledger, Rules};
use support::process::{Cores, START_MAX, pin, raise_file_limit};
use support::redis::Redis;

use crate::cluster::{self, Cluster};
use crate::disturbance::Disturbance;
use crate::read::Names;
use crate::server::{self, CONNECTION_TIMEOUT_MS, HISTORY, Journal, JournalSync, Launcher, Server};
use crate::tls::Tls;
use crate::world::World;

/// Channels with messages so long that together they exceed what the kernel takes for a client that
/// reads nothing.
const LARGE_CHANNELS: usize = 2;
/// One of so many channels is a private pair.
const PAIR_SHARE: usize = 10;
const USERS_PER_CHANNEL: usize = 10;

pub(crate) struct Options {
    pub(crate) speak: PathBuf,
    pub(crate) seconds: u64,
    pub(crate) users: usize,
    pub(crate) seed: Option<u64>,
    pub(crate) disturbances: Vec<Disturbance>,
    pub(crate) upgrades: u64,
    /// The server keeps a journal, and syncs it so.
    pub(crate) journal: Option<JournalSync>,
    /// Servers that share a Redis, if there are several.
    pub(crate) nodes: usize,
    pub(crate) has_tls: bool,
}

/// Runs, and prints the figures. Fails with the first fault.
pub(crate) fn run(options: &Options) -> Checked {
    let (files, users) = (raise_file_limit()?, options.users);
    let needed = 4 * users as u64 + 500;
    ensure!(files >= needed, "only {files} files may be open, and {users} users need {needed}");
    let cores = Cores::choose()?;
    pin(cores.generator)?;
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed =
        options.seed.unwrap_or_else(|| clock.map_or(1, |it| it.as_nanos() as u64 % 1_000_000));
    // A successor, whose end is to be waited for, is a child of its predecessor.
    set_child_subreaper(Some(getpid()))?;
    // The two options of the server exclude each other.
    let keeps_state =
        options.disturbances.contains(&Disturbance::State) && options.journal.is_none();
    let state_file = env::temp_dir().join(format!("speak-stress-{}", process::id()));
    let journal = options.journal.map(Journal::new).transpose()?;
    let redis = (options.nodes > 1).then(Cluster::start_redis);
    let launcher = Launcher {
        speak: options.speak.clone(),
        cores,
        state_file: keeps_state.then(|| state_file.clone()),
        journal: journal.clone(),
        cluster: redis.as_ref().map(Redis::url),
        tls: options.has_tls.then(Tls::new).transpose()?,
    };
    let server = launcher.start(server::free_address()?)?;
    let mut others = Vec::new();
    while others.len() + 1 < options.nodes {
        others.push(launcher.start(server::free_address()?)?);
    }
    for node in [&server].into_iter().chain(&others) {
        let deadline = Instant::now() + START_MAX;
        while options.nodes > 1 && !cluster::is_joined(node) {
            ensure!(Instant::now() < deadline, "a node does not join");
        }
    }
    let names = channels(&server, users)?;
    let mut ledger = Ledger::new(
        names.len(),
        Rules {
            timeout_ms: CONNECTION_TIMEOUT_MS,
            grace_ms: 0,
            history: Some(HISTORY),
            has_own_texts: true,
            knows_ends: true,
            has_steady_clock: true,
        },
    );
    (0..LARGE_CHANNELS).for_each(|channel| ledger.channels[channel].is_large = true);
    let mut world = World::new((launcher, server), (names, LARGE_CHANNELS), ledger, seed, users)?;
    world.cluster = redis.map(|redis| Cluster::new(redis, others));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&world.interrupted))?;
    }
    let (began, count) = (Instant::now(), world.names.len());
    eprintln!("seed {seed}: {users} users, {count} channels, {} s", options.seconds);
    let outcome = world.rounds(options);
    print!("{}", world.describe_figures(seed, began.elapsed()));
    let outcome = outcome.map_err(|fault| Fault::new(describe(&world, seed, &fault)));
    drop(world);
    if keeps_state {
        // The last stop has written it, unless the server failed.
        let _ = fs::remove_file(state_file);
    }
    if let Some(journal) = journal {
        if outcome.is_ok() {
            fs::remove_dir_all(journal.folder)?;
        } else {
            eprintln!("the journal is kept in {}", journal.folder.display());
        }
    }
    outcome
}

/// Returns the names of the channels: large ones, plain ones, and private pairs at the end.
fn channels(server: &Server, users: usize) -> Checked<Vec<Names>> {
    let count = (users / USERS_PER_CHANNEL).max(20);
    let plain = (0..count - count / PAIR_SHARE).map(|channel| {
        let is_large = channel < LARGE_CHANNELS;
        let name = if is_large {
            format!("large {channel}")
        } else {
            format!("Stube № {channel} & co.")
        };
        Names { read: name.clone(), write: name }
    });
    let mut names: Vec<Names> = plain.collect();
    while names.len() < count {
        let pair = server.call("/create")?;
        let name = |key: &str| pair[key].as_str().map(str::to_owned);
        let (Some(read), Some(write)) = (name("read"), name("write")) else {
            return Err(Fault::new(format!("not a pair: {pair}")));
        };
        names.push(Names { read, write });
    }
    Ok(names)
}

/// Describes a fault with all that helps to understand it.
fn describe(world: &World, seed: u64, fault: &Fault) -> String {
    let place = fault.channel.map_or_else(String::new, |channel| {
        let name = &world.names[channel].read;
        format!("in channel {channel} ({name}):\n{}", world.ledger.describe(channel))
    });
    let logs = world.nodes().map(|node| node.running.log_end());
    let log = logs.collect::<Vec<_>>().join("\nand another node's:\n");
    let what = &fault.what;
    format!("FAULT with seed {seed}: {what}\n{place}the server's log ends with:\n{log}\n")
}
