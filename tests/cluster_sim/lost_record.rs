//! A record that Redis takes and loses before any node reads it.

use support::random::Random;

use crate::broker::{Broker, Loss, SharedBroker};
use crate::node::Node;
use crate::plan::Plan;

/// Redis and nodes, without clients.
struct Cluster {
    broker: SharedBroker,
    nodes: Vec<Node>,
    now: u64,
}

impl Cluster {
    /// Starts nodes. Redis loses something with the first record.
    fn start(nodes: usize, loss: Option<Loss>) -> Self {
        let broker = Broker::new(Random::new(1), vec![0]);
        broker.borrow_mut().next_loss = loss;
        let options = Plan::draw(&mut Random::new(1)).options;
        let nodes = (0..nodes).map(|_| Node::start(&options, &broker, 0, 0, 1)).collect();
        Self { broker, nodes, now: 0 }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            self.broker.borrow_mut().advance(self.now);
            while let Some(node) = self.nodes.iter_mut().find(|node| node.is_due(self.now)) {
                node.turn(self.now);
                self.broker.borrow_mut().advance(self.now);
            }
        }
    }

    /// Returns the numbers of the nodes, as each node knows them.
    fn numbers(&self) -> Vec<Vec<u64>> {
        self.nodes.iter().map(|node| node.service().hub().0.node_numbers()).collect()
    }
}

#[test]
fn a_node_joins_whose_first_record_redis_has_lost_with_all_others() {
    let mut cluster = Cluster::start(1, Some(Loss::All));
    let has_lost = |cluster: &Cluster| cluster.broker.borrow().next_loss.is_none();
    while !has_lost(&cluster) {
        assert!(cluster.now < 10_000, "it appends no record");
        cluster.pass(1);
    }
    cluster.pass(500);
    assert!(!cluster.nodes[0].is_joined());
    // It asks after a second, and then waits for other nodes for three.
    cluster.pass(4_500);
    assert!(cluster.nodes[0].is_joined());
}

#[test]
fn a_record_is_sent_again_that_redis_alone_has_lost() {
    let mut cluster = Cluster::start(2, None);
    cluster.pass(5_000);
    let numbers = cluster.numbers();
    assert!(numbers.iter().all(|its| its.len() == 2), "{numbers:?}");
    cluster.broker.borrow_mut().next_loss = Some(Loss::Record);
    cluster.pass(20_000);
    assert!(cluster.broker.borrow().next_loss.is_none());
    assert_eq!(cluster.numbers(), numbers, "no node was taken for dead");
}
