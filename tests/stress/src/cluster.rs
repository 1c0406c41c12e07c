//! Several nodes that share a Redis.

use std::time::{Duration, Instant};

use support::redis::Redis;

use crate::server::Server;

/// After a disturbance, a call may have waited for the log for five seconds, and is answered then.
const DISTURBED_AFTER: Duration = Duration::from_secs(6);

/// Redis, and the nodes after `World::server`.
pub(crate) struct Cluster {
    pub(crate) redis: Redis,
    pub(crate) others: Vec<Server>,
    /// Nodes that new clients connect to; the first one is `World::server`.
    pub(crate) is_up: Vec<bool>,
    /// Node that was killed, until it is started again.
    pub(crate) dead: Option<usize>,
    /// A node or Redis is being disturbed, or was until this time.
    pub(crate) is_disturbed: bool,
    pub(crate) disturbed_until: Option<Instant>,
    /// Node that stood still last. It may load its state again, and then ends all reads.
    pub(crate) paused: Option<usize>,
}

impl Cluster {
    /// Starts a Redis that loses nothing when it is killed.
    pub(crate) fn start_redis() -> Redis {
        Redis::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn new(redis: Redis, others: Vec<Server>) -> Self {
        let is_up = vec![true; others.len() + 1];
        Self {
            redis,
            others,
            is_up,
            dead: None,
            is_disturbed: false,
            disturbed_until: None,
            paused: None,
        }
    }

    /// Says whether nodes may refuse calls, and notice closings late.
    pub(crate) fn may_be_in_trouble(&self) -> bool {
        let is_recent = |until: Instant| until.elapsed() < DISTURBED_AFTER;
        self.is_disturbed || self.disturbed_until.is_some_and(is_recent)
    }

    pub(crate) fn is_dead(&self, node: usize) -> bool {
        self.dead == Some(node)
    }
}

/// Says whether a node serves.
pub(crate) fn is_joined(node: &Server) -> bool {
    node.call("/health").is_ok_and(|health| health["status"] == "ok")
}
