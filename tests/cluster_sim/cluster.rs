//! A small cluster whose clients are driven by hand.

use serde_json::Value;
use support::http::{get, target};
use support::incoming::Cutter;
use support::random::Random;

use crate::broker::{Broker, Loss, SharedBroker};
use crate::node::Node;
use crate::plan::{Sizes, options};

/// Redis and nodes.
pub(crate) struct Cluster {
    pub(crate) broker: SharedBroker,
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: u64,
}

/// A request whose response is awaited: its node, and the place of its client there.
#[derive(Clone, Copy)]
pub(crate) struct Asked(usize, usize);

/// Status and body of a response.
pub(crate) type Response = (u16, Value);

impl Cluster {
    /// Starts nodes, which are so far away from Redis. Redis loses something with the first record.
    pub(crate) fn start(nodes: usize, delays_ms: &[u64], loss: Option<Loss>) -> Self {
        let broker = Broker::new(Random::new(1), delays_ms.to_vec());
        broker.borrow_mut().next_loss = loss;
        let options = options(["--connection-timeout=60s".to_owned()]);
        let nodes = (0..nodes).map(|_| Node::start(&options, &broker, 0, 0, Sizes::REAL)).collect();
        Self { broker, nodes, now: 0 }
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now += 1;
            self.settle();
            for node in &self.nodes {
                node.net.borrow_mut().advance(1);
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        self.broker.borrow_mut().advance(self.now);
        while let Some(node) = self.nodes.iter_mut().find(|node| node.is_due(self.now)) {
            node.turn(self.now);
            self.broker.borrow_mut().advance(self.now);
        }
    }

    /// Sends a request of a client of its own.
    pub(crate) fn ask(&mut self, node: usize, path: &str, params: &[(&str, &str)]) -> Asked {
        let its = &mut self.nodes[node];
        let place = its.client();
        its.send(place, get(&target(path, params)));
        Asked(node, place)
    }

    /// Takes the response to a request, if it is there.
    pub(crate) fn take(&mut self, Asked(node, place): Asked) -> Option<Response> {
        let mut net = self.nodes[node].net.borrow_mut();
        net.drain(place, usize::MAX);
        let item = Cutter::default().next(&net.links[place].tape).expect("a response")?;
        let response = (item.status?, serde_json::from_slice(item.body()).expect("JSON"));
        net.links[place].tape.clear();
        drop(net);
        self.nodes[node].idle.push(place);
        Some(response)
    }

    /// Returns the response to a request, which comes within so many milliseconds.
    pub(crate) fn await_response(&mut self, asked: Asked, most_ms: u64) -> Response {
        for _ in 0..most_ms {
            if let Some(response) = self.take(asked) {
                return response;
            }
            self.pass(1);
        }
        self.take(asked).unwrap_or_else(|| panic!("no response in {most_ms} ms"))
    }
}
