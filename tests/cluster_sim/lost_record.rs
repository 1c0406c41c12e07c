//! A record that Redis takes and loses before any node reads it.

use crate::broker::Loss;
use crate::cluster::Cluster;

/// Returns the numbers of the nodes, as each node knows them.
fn numbers(cluster: &Cluster) -> Vec<Vec<u64>> {
    cluster.nodes.iter().map(|node| node.service().hub().0.node_numbers()).collect()
}

#[test]
fn a_node_joins_whose_first_record_redis_has_lost_with_all_others() {
    let mut cluster = Cluster::start(1, &[0], Some(Loss::All));
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
    let mut cluster = Cluster::start(2, &[0], None);
    cluster.pass(5_000);
    let before = numbers(&cluster);
    assert!(before.iter().all(|its| its.len() == 2), "{before:?}");
    cluster.broker.borrow_mut().next_loss = Some(Loss::Record);
    cluster.pass(20_000);
    assert!(cluster.broker.borrow().next_loss.is_none());
    assert_eq!(numbers(&cluster), before, "no node was taken for dead");
}
