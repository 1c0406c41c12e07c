//! A stress run that checks itself: users who come, talk, read, are slow and leave in all ways, around a server that is killed
//! and started again, and from which others take over, and a ledger that everything seen is held against.
//!
//! From the bottom: `random`, `said` and `link` (sockets that misbehave); `ledger` is what must be, `connection` how one may
//! end; `reading` is one who reads; `world` has the loop and `answers` what comes in it; `call`, `user`, `leaving` and `stray`
//! are what users do; `recovery` is how they find back; `disturbance`, `upgrade` and `round` lead the run, and `figures` tell of it.

use std::fmt::Write as _;
use std::net::{SocketAddr, SocketAddrV4, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, getpid, set_child_subreaper};

use crate::Result;
use crate::client::Client;
use crate::process::{self, Cores};
use crate::server::{Programs, Server};
use ledger::{Fault, Ledger};
use reading::{Epochs, Names, ReadContext};
use user::User;
use world::World;

mod answers;
mod call;
mod connection;
mod disturbance;
mod figures;
mod leaving;
mod ledger;
#[cfg(test)]
mod ledger_tests;
mod link;
mod random;
mod reading;
mod recovery;
mod round;
mod said;
mod stray;
mod upgrade;
mod user;
mod world;

pub(crate) use disturbance::Disturbance;

/// What a poll waits, at most.
const POLL_TIMEOUT: Duration = Duration::from_secs(3);
const HISTORY: u64 = 32;
/// A read that another took over is answered at once: so long it takes on no machine that is not slow.
const TAKEOVER_MAX: Duration = Duration::from_secs(1);
const CONNECTION_TIMEOUT_MS: u64 = 2_000;
/// Loud rooms, and how long what is said in them is: together more than the kernel takes for a client that reads nothing.
const LOUD_ROOMS: u32 = 2;
const LOUD_BYTES: u32 = 60_000;
/// Of ten rooms, one is a private pair.
const PAIR_EVERY: usize = 10;
/// People to a room.
const USERS_A_ROOM: usize = 10;

const SERVER_OPTIONS: [&str; 14] = [
    "--history",
    "32",
    "--poll-timeout",
    "3s",
    "--connection-timeout",
    "2s",
    "--request-timeout",
    "2s",
    "--heartbeat",
    "2s",
    "--max-backlog",
    "64k",
    "--log",
    "info",
];

/// What `stress` was asked for.
pub(crate) struct Options {
    pub(crate) speak: PathBuf,
    pub(crate) seconds: u64,
    pub(crate) users: usize,
    pub(crate) seed: Option<u64>,
    pub(crate) disturbances: Vec<Disturbance>,
    /// How often another process takes over.
    pub(crate) upgrades: u64,
}

/// The server that must not outlive this process, whatever becomes of it; 0 for none.
static SERVER: AtomicU32 = AtomicU32::new(0);

/// Has the server ended with this process.
fn watch(server: &Server) {
    SERVER.store(server.id(), Ordering::Relaxed);
}

/// A free address by its number: whoever takes over from a server that is killed may have to bind it. The kernel gives
/// clients no port of this IP address, so that none of them takes the server's, or calls itself, while nobody listens.
fn free_address() -> Result<SocketAddrV4> {
    match TcpListener::bind(("127.1.1.1", 0))?.local_addr()? {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(_) => Err("not the address that was asked for".into()),
    }
}

/// Runs it, and prints its figures.
///
/// # Errors
///
/// The first thing that must not be.
pub(crate) fn run(options: &Options) -> Result<()> {
    let files = process::raise_file_limit()?;
    if files < 4 * options.users as u64 + 500 {
        return Err(format!(
            "only {files} files may be open, which is too few for {} users",
            options.users
        )
        .into());
    }
    let programs =
        Programs { speak: Some(options.speak.clone()), against: None, cores: Cores::choose()? };
    process::pin(programs.cores.generator)?;
    let seed = options.seed.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |time| time.as_nanos() as u64 % 1_000_000)
    });
    // A server that took over from another, and whose own end is to be waited for, is a child of that other one.
    set_child_subreaper(Some(getpid()))?;
    let keeps_state = options.disturbances.contains(&Disturbance::State);
    let state_file = keeps_state
        .then(|| std::env::temp_dir().join(format!("speak-stress-{}", std::process::id())));
    let start = |address: SocketAddrV4| {
        let state = state_file.as_ref().map(|file| file.to_string_lossy());
        let state: Vec<&str> = state.iter().flat_map(|file| ["--state", file]).collect();
        programs.start_speak(&address.to_string(), &[&SERVER_OPTIONS[..], &state].concat())
    };
    let server = start(free_address()?)?;
    watch(&server);
    end_server_when_we_panic();
    let names = rooms(&server, options.users)?;
    let ledger = Ledger::new(names.len(), HISTORY, CONNECTION_TIMEOUT_MS);
    let scene = ReadContext { names, epochs: Epochs::default(), ledger, loud: LOUD_ROOMS };
    let users = (0..options.users).map(|_| User::new()).collect();
    let mut world = World::new(server, scene, seed, users)?;
    world.state_file.clone_from(&state_file);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, world.interrupted.clone())?;
    }
    let began = Instant::now();
    eprintln!(
        "seed {seed}: {} users, {} rooms, {} s",
        options.users,
        world.scene.names.len(),
        options.seconds
    );
    let outcome = world.rounds(options, &start);
    print!("{}", world.figures(seed, began.elapsed()));
    let outcome = outcome.map_err(|fault| world.describe(seed, &fault).into());
    drop(world);
    if let Some(file) = state_file {
        // The last stop has kept it, unless the server failed.
        let _ = std::fs::remove_file(file);
    }
    outcome
}

/// The rooms: loud ones, plain ones, and private pairs at the end.
fn rooms(server: &Server, users: usize) -> Result<Vec<Names>> {
    let count = (users / USERS_A_ROOM).max(20);
    let pairs = count / PAIR_EVERY;
    let plain = (0..count - pairs).map(|room| {
        let name = if room < LOUD_ROOMS as usize {
            format!("loud {room}")
        } else {
            format!("Stube № {room} & co.")
        };
        Names { read: name.clone(), write: name }
    });
    let mut names: Vec<Names> = plain.collect();
    let mut client = Client::connect(server.target.address, 0)?;
    for _ in 0..pairs {
        let pair = client.ask(b"GET /create HTTP/1.1\r\nHost: localhost\r\n\r\n", |frame| {
            let pair: serde_json::Value = serde_json::from_slice(frame.body())?;
            let name = |key: &str| pair[key].as_str().map(str::to_owned).ok_or("no pair");
            Ok(Names { read: name("read")?, write: name("write")? })
        })?;
        names.push(pair);
    }
    Ok(names)
}

/// A panic aborts, and drops nothing.
fn end_server_when_we_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        if let Some(pid) = Pid::from_raw(SERVER.load(Ordering::Relaxed).cast_signed()) {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
    }));
}

impl World {
    /// All that helps to understand a fault.
    fn describe(&self, seed: u64, fault: &Fault) -> String {
        let mut told = format!("FAULT with seed {seed}: {}\n", fault.what);
        if let Some(room) = fault.room {
            _ = write!(
                told,
                "in room {room} ({}):\n{}",
                self.scene.names[room as usize].read,
                self.scene.ledger.tell(room)
            );
        }
        let said = self.server.said();
        if !said.is_empty() {
            _ = write!(told, "the server's log ends with:\n{said}\n");
        }
        told
    }
}
