//! Several nodes that share a Redis.

use support::redis::Redis;

use crate::server::{self, Server};

/// Redis, and the nodes after `World::server`.
pub(crate) struct Cluster {
    pub(crate) redis: Redis,
    pub(crate) others: Vec<Server>,
    /// Nodes that new clients connect to; the first one is `World::server`.
    pub(crate) is_up: Vec<bool>,
    /// Node that was killed, until it is started again.
    pub(crate) dead: Option<usize>,
}

impl Cluster {
    /// Starts a Redis that loses nothing when it is killed.
    pub(crate) fn start_redis() -> Redis {
        Redis::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn new(redis: Redis, others: Vec<Server>) -> Self {
        let is_up = vec![true; others.len() + 1];
        Self { redis, others, is_up, dead: None }
    }

    pub(crate) fn is_dead(&self, node: usize) -> bool {
        self.dead == Some(node)
    }
}

/// Says whether a node serves.
pub(crate) fn is_joined(node: &Server) -> bool {
    server::call(node.address, "/health").is_ok_and(|health| health["status"] == "ok")
}
