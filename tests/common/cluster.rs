//! Further nodes of a server, which share a Redis with it.
//!
//! With `SPEAK_TEST_CLUSTER=3`, each server that a test starts is three processes, and each client
//! connects to one of them at random, as behind a load balancer without sticky sessions.
//! With `SPEAK_TEST_PROXY=nginx.conf` as well, or `haproxy.cfg`, clients connect to such a
//! balancer, which gives the requests of one client to different nodes.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use support::random::Random;
use support::redis::Redis;

use super::ports::free_address;
use super::proxy::{CLUSTER_FOLDER, ProxyProcess, RECIPES};

/// Environment variable with the number of nodes of each server.
const NODES_ENV: &str = "SPEAK_TEST_CLUSTER";

/// Environment variable with the file of the proxy in front of them.
const PROXY_ENV: &str = "SPEAK_TEST_PROXY";

/// Options that concern one process: a limit that counts on each node alone, or the admin listener,
/// which tells of one process. With such an option, a cluster has one node.
const OF_ONE_PROCESS: [&str; 5] =
    ["--max-clients", "--max-rate", "--max-channels", "--max-memory", "--admin-listen"];

/// Options with which there is no cluster.
const ALONE: [&str; 3] = ["--journal", "--state", "--cluster"];

/// Any free port: the only address that several processes can listen to.
const ANY_PORT: &str = "127.0.0.1:0";

/// Number of nodes, and their Redis.
pub struct Plan {
    nodes: usize,
    pub redis: Redis,
    /// The server's command before `--cluster` was added.
    command: Command,
}

/// Says whether servers have several nodes that their tests did not ask for.
pub fn has_nodes() -> bool {
    std::env::var_os(NODES_ENV).is_some()
}

impl Plan {
    /// Starts a Redis and adds the option for it to the command of a server, if this run of the
    /// tests asks for it. `is_speak` is false if the command runs another program.
    pub fn make(server: &mut Command, is_speak: bool) -> Option<Self> {
        let nodes = std::env::var(NODES_ENV).ok()?.parse().expect("a number of nodes");
        let arguments: Vec<_> =
            server.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let has = |options: &[&str]| {
            let is_one =
                |argument: &String| options.iter().any(|option| argument.starts_with(option));
            arguments.iter().any(is_one)
        };
        let mut listeners = arguments.iter().zip(arguments.iter().skip(1));
        let is_elsewhere = listeners.any(|(option, at)| option == "--listen" && at != ANY_PORT);
        if !is_speak || has(&ALONE) || is_elsewhere {
            return None;
        }
        let nodes = if has(&OF_ONE_PROCESS) { 1 } else { nodes };
        let redis = Redis::start();
        server.args(["--cluster", &redis.url()]);
        if std::env::var_os(PROXY_ENV).is_some() {
            server.args(["--trust-proxy", "127.0.0.1"]);
        }
        Some(Self { nodes, redis, command: again(server) })
    }

    /// Returns the commands of the nodes after the first one.
    pub fn others(&self) -> Vec<Command> {
        (1..self.nodes).map(|_| again(&self.command)).collect()
    }
}

/// Starts a proxy in front of these nodes, if this run of the tests asks for it. One node has none:
/// the file has two.
pub fn start_proxy(nodes: &[SocketAddr]) -> Option<ProxyProcess> {
    let file = std::env::var(PROXY_ENV).ok().filter(|_| nodes.len() > 1)?;
    let recipe = RECIPES.iter().find(|recipe| recipe.file == file);
    let recipe = recipe.unwrap_or_else(|| panic!("{PROXY_ENV} is the name of no file: {file}"));
    Some(recipe.run_before(CLUSTER_FOLDER, free_address(), nodes))
}

/// Returns any of these.
pub fn pick(addresses: &[SocketAddr]) -> SocketAddr {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let seed = u64::from(std::process::id()) << 32;
    Random::new(seed + COUNT.fetch_add(1, Ordering::Relaxed)).pick(addresses)
}

/// Returns a command for another process like this one.
fn again(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => copy.env(name, value),
            None => copy.env_remove(name),
        };
    }
    copy
}
