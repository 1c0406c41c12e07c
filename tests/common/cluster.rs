//! Further nodes beside a server, which share a Redis with it.
//!
//! With `SPEAK_TEST_CLUSTER=3`, each server that a test starts is three processes, and each client
//! connects to one of them at random, as behind a load balancer without sticky sessions.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use support::http::request;
use support::random::Random;
use support::redis::Redis;

use super::client::Client;
use super::server::{Server, command};
use super::wait::until;

/// Environment variable with the number of nodes of each server.
const NODES_ENV: &str = "SPEAK_TEST_CLUSTER";

/// Options that concern one process: a limit that counts on each node alone, or the admin listener,
/// which tells of one process. With such an option, a cluster has one node.
const OF_ONE_PROCESS: [&str; 5] =
    ["--max-clients", "--max-rate", "--max-channels", "--max-memory", "--admin-listen"];

/// Options with which there is no cluster.
const ALONE: [&str; 3] = ["--journal", "--state", "--cluster"];

/// Any free port: the only address that several processes can listen to.
const ANY_PORT: &str = "127.0.0.1:0";

/// Redis and the nodes beside the first one.
pub struct Cluster {
    others: Vec<Server>,
    addresses: Vec<SocketAddr>,
    _redis: Redis,
}

/// Number of nodes, and their Redis.
pub struct Plan {
    nodes: usize,
    redis: Redis,
    /// The server's command before `--cluster` was added.
    command: Command,
}

/// Says whether servers have several nodes that their tests did not ask for.
pub fn has_nodes() -> bool {
    std::env::var_os(NODES_ENV).is_some()
}

impl Plan {
    /// Starts a Redis and adds the option for it to the command of a server, if this run of the
    /// tests asks for it.
    pub fn make(server: &mut Command) -> Option<Self> {
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
        let is_server = server.get_program() == command().get_program();
        if !is_server || has(&ALONE) || is_elsewhere {
            return None;
        }
        let nodes = if has(&OF_ONE_PROCESS) { 1 } else { nodes };
        let redis = Redis::start();
        server.args(["--cluster", &redis.url()]);
        Some(Self { nodes, redis, command: again(server) })
    }

    /// Starts the other nodes. Returns once all nodes serve.
    pub fn begin(self, first: &Server) -> Cluster {
        let others: Vec<_> =
            (1..self.nodes).map(|_| Server::spawn_node(again(&self.command), 1)).collect();
        let addresses: Vec<_> =
            [first].into_iter().chain(&others).map(|server| server.address_of(0)).collect();
        for address in &addresses {
            until("a node has joined", || {
                let mut client = Client::connect(*address);
                let health =
                    client.call(request("GET", "/health", &[("Connection", "close")], None));
                // It counts as a client until then.
                client.is_closed();
                health.status == 200
            });
        }
        Cluster { others, addresses, _redis: self.redis }
    }
}

impl Cluster {
    /// Returns the address of a node at random.
    pub fn address(&self) -> SocketAddr {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let seed = u64::from(std::process::id()) << 32;
        Random::new(seed + COUNT.fetch_add(1, Ordering::Relaxed)).pick(&self.addresses)
    }

    /// Nodes beside the first one.
    pub fn others(&self) -> &[Server] {
        &self.others
    }

    pub fn others_mut(&mut self) -> &mut [Server] {
        &mut self.others
    }
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
