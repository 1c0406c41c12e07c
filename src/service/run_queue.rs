//! Clients with work that waits for a turn with budget, in a fair order.
//!
//! Addresses take turns, so an address has one place in a round, however many clients it has. An
//! address that had nothing to do lately comes before the round, as a new flow of FQ-CoDel does
//! (RFC 8290, section 4.2). The clients of one address are served by their weight: a client that
//! did little the last time does not wait for those that did much.

use std::collections::{HashMap, VecDeque};

use crate::api::SourceKey;
use crate::hub::Key;

/// Clients of one address, by what they are expected to cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Weight {
    /// The client did little the last time.
    Light,
    /// The client has not been served yet.
    #[default]
    Unknown,
    /// The client did much the last time, or has more to do.
    Heavy,
}

/// Weights in the order in which an address is served, over and over. If no client has the weight,
/// the lightest one is served.
const ROTATION: [Weight; 8] = {
    use Weight::{Heavy, Light, Unknown};
    [Light, Light, Unknown, Light, Light, Unknown, Light, Heavy]
};

/// Clients with work, by address. Each client is in the queue once at most.
#[derive(Default)]
pub(super) struct RunQueue {
    /// `None` for clients of the admin listener.
    flows: HashMap<Option<SourceKey>, Flow>,
    /// Addresses that became active since their last round.
    new: VecDeque<Option<SourceKey>>,
    /// Addresses in the order of their rounds. Some may have no client any more.
    old: VecDeque<Option<SourceKey>>,
    /// Clients in all flows.
    len: usize,
}

/// Clients of one address.
#[derive(Default)]
struct Flow {
    by_weight: [VecDeque<Key>; 3],
    /// Clients served, to find the place in the rotation.
    served: usize,
}

impl Flow {
    fn is_empty(&self) -> bool {
        self.by_weight.iter().all(VecDeque::is_empty)
    }

    fn pop(&mut self) -> Option<Key> {
        let first = ROTATION[self.served % ROTATION.len()];
        self.served += 1;
        let mut order = std::iter::once(first as usize).chain(0..self.by_weight.len());
        order.find_map(|weight| self.by_weight[weight].pop_front())
    }
}

impl RunQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of clients.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, address: Option<SourceKey>, weight: Weight, client: Key) {
        let flow = self.flows.entry(address).or_insert_with(|| {
            self.new.push_back(address);
            Flow::default()
        });
        flow.by_weight[weight as usize].push_back(client);
        self.len += 1;
    }

    /// Takes the next client.
    pub(super) fn pop(&mut self) -> Option<Key> {
        loop {
            let is_new = !self.new.is_empty();
            let address = if is_new { self.new.pop_front() } else { self.old.pop_front() }?;
            let flow = self.flows.get_mut(&address).expect("a listed address has a flow");
            let client = flow.pop();
            // Even an empty flow waits for the end of one more round. Otherwise it would be new
            // again with its next client, and an address could keep all others waiting.
            if client.is_some() || !flow.is_empty() {
                self.old.push_back(address);
            } else {
                self.flows.remove(&address);
            }
            if client.is_some() {
                self.len -= 1;
                return client;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn address(last: u8) -> SourceKey {
        Some(IpAddr::from([192, 0, 2, last])).into()
    }

    fn pop(queue: &mut RunQueue) -> Option<u64> {
        queue.pop().map(Key::to_bits)
    }

    #[test]
    fn an_address_has_one_place_in_a_round_however_many_clients_it_has() {
        let mut queue = RunQueue::default();
        for client in 0..1000 {
            queue.push(Some(address(1)), Weight::Heavy, Key::from_bits(client));
        }
        for client in 1000..1003 {
            queue.push(Some(address(2)), Weight::Heavy, Key::from_bits(client));
        }
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).collect();
        assert_eq!(order[..6], [0, 1000, 1, 1001, 2, 1002]);
        assert_eq!((order.len(), queue.len(), queue.flows.len()), (1003, 0, 0));
    }

    #[test]
    fn an_address_that_was_idle_comes_first_but_only_once_a_round() {
        let mut queue = RunQueue::default();
        for busy in 1..=10 {
            for client in 0..10 {
                queue.push(Some(address(busy)), Weight::Heavy, Key::from_bits(client));
            }
        }
        for _ in 0..15 {
            pop(&mut queue);
        }
        queue.push(Some(address(11)), Weight::Unknown, Key::from_bits(100));
        assert_eq!(pop(&mut queue), Some(100));
        // It asks again at once: now it has a place in the round like the others.
        queue.push(Some(address(11)), Weight::Light, Key::from_bits(100));
        let others = std::iter::from_fn(|| pop(&mut queue)).take_while(|it| *it != 100).count();
        assert_eq!(others, 10);
    }

    #[test]
    fn a_light_client_does_not_wait_for_heavy_ones_of_its_address_nor_starves_them() {
        let mut queue = RunQueue::default();
        for client in 0..100 {
            queue.push(Some(address(1)), Weight::Heavy, Key::from_bits(client));
            queue.push(Some(address(1)), Weight::Unknown, Key::from_bits(1000 + client));
        }
        queue.push(Some(address(1)), Weight::Light, Key::from_bits(5000));
        assert_eq!(pop(&mut queue), Some(5000));
        let mut heavy = 0;
        for _ in 0..80 {
            queue.push(Some(address(1)), Weight::Light, Key::from_bits(5000));
            heavy += usize::from(pop(&mut queue).is_some_and(|client| client < 100));
        }
        assert_eq!(heavy, 10);
    }
}
