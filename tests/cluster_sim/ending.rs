//! The end of a run: nothing fails any more, all nodes agree, and nothing is left.

use std::collections::BTreeSet;

use crate::request::Kind;
use crate::state::shared_state;
use crate::world::World;

/// Time after which the nodes have found together again.
const CALM_MS: u64 = 15_000;

/// Memory of a node without clients, channels and sessions, with the last records of the log.
const IDLE_BYTES_MAX: usize = 400_000;

impl World {
    pub(crate) fn end(&mut self) {
        self.record.note(|| "    no more faults".to_owned());
        let last = self.nodes.iter().map(|node| node.paused_until).max().unwrap_or(0);
        let paused_until = {
            let mut broker = self.broker.borrow_mut();
            if !self.plan.is_far {
                broker.delays = vec![0, 1];
            }
            broker.paused_until
        };
        let rest = last.max(paused_until).saturating_sub(self.now);
        self.pass(rest);
        self.watch(CALM_MS);
        if !self.plan.is_far {
            self.compare();
            self.check_polls();
        }
        // All fall silent.
        for request in std::mem::take(&mut self.requests) {
            self.close(&request);
        }
        for session in self.ledger.sessions.values_mut() {
            session.fall_silent();
        }
        self.watch(self.plan.timeout_ms.max(self.plan.grace_ms) + CALM_MS);
        if self.plan.is_far {
            self.check_sessions();
            // Nodes that are far away are hardly ever at the same position.
            self.broker.borrow_mut().delays = vec![0, 1];
            self.watch(CALM_MS);
        }
        self.compare();
        self.look();
        self.ledger.finish().unwrap();
        if let Some(fault) = self.ledger.owed() {
            panic!("{fault}");
        }
        {
            let broker = self.broker.borrow();
            self.record.tally.add("snapshot written", broker.snapshots);
            self.record.tally.add("piece of a snapshot read", broker.pieces);
        }
        for (reason, times) in &self.ledger.goodbyes {
            self.record.tally.add(&format!("goodbye seen: {reason:?}"), *times);
        }
        self.check_rest();
    }

    /// Lets time pass, in which the observers go on.
    fn watch(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.observe();
            self.pass(200);
        }
    }

    /// Lets the observers read all that is there.
    fn look(&mut self) {
        self.observe();
        self.pass(1_000);
        let next_ids: Vec<_> = (0..self.plan.channels).map(|at| self.ledger.next_id(at)).collect();
        for (channel, next_id) in next_ids.into_iter().enumerate() {
            assert!(self.observed[channel] >= next_id, "the observer is behind");
        }
    }

    /// Claims that all nodes have the same state.
    fn compare(&mut self) {
        for _ in 0..2_000 {
            let hubs = self.nodes.iter().filter(|node| node.lives());
            let hubs: Vec<_> = hubs.map(|node| node.service().hub().0).collect();
            let positions: BTreeSet<_> = hubs.iter().map(|hub| hub.position()).collect();
            if positions.len() > 1 {
                self.pass(1);
                continue;
            }
            assert!(hubs.iter().all(|hub| hub.is_joined()), "all are in the cluster");
            let counts: BTreeSet<_> = hubs.iter().map(|hub| hub.node_count()).collect();
            assert_eq!(counts.into_iter().collect::<Vec<_>>(), [hubs.len()], "nodes");
            let hashes: BTreeSet<_> = hubs.iter().map(|hub| hub.shared_hash()).collect();
            assert_eq!(hashes.len(), 1, "equal hashes");
            let states: Vec<_> = hubs.iter().map(|hub| shared_state(hub)).collect();
            assert!(states.windows(2).all(|two| two[0] == two[1]), "{states:#?}");
            return;
        }
        panic!("the nodes are never at the same position");
    }

    /// Claims that all sessions have ended: also those whose release takes a long time.
    fn check_sessions(&self) {
        for node in self.nodes.iter().filter(|node| node.lives()) {
            assert_eq!(node.service().gauges().hub.sessions, 0, "sessions are left");
        }
    }

    /// Claims that polls wait for good reason.
    fn check_polls(&self) {
        for request in self.requests.iter().filter(|it| it.kind == Kind::Poll) {
            for subscription in &request.subscriptions {
                let next_id = self.ledger.next_id(subscription.channel);
                let from = subscription.id().unwrap_or(1);
                assert!(from >= next_id, "a poll from {from} waits, and {next_id} is next");
            }
        }
    }

    /// Claims that nothing is left in the nodes but the channels.
    fn check_rest(&mut self) {
        for request in std::mem::take(&mut self.requests) {
            self.close(&request);
        }
        for node in &mut self.nodes {
            for place in std::mem::take(&mut node.idle) {
                node.close(place);
            }
        }
        self.pass(3_000);
        for node in self.nodes.iter().filter(|node| node.lives()) {
            let gauges = node.service().gauges();
            assert_eq!((gauges.clients, gauges.hub.readers, gauges.hub.sessions), (0, 0, 0));
            let bytes = node.service().memory();
            let most = IDLE_BYTES_MAX + gauges.hub.messages * 1_000;
            assert!(bytes < most, "{bytes} bytes are left");
        }
    }
}
