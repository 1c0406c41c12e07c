//! The nodes that hold a session.

/// Nodes that hold a session. Without a cluster there are none, and they take the memory of a
/// pointer.
#[derive(Debug, Default)]
pub(super) struct Holders(Option<Box<List>>);

#[derive(Debug, Default)]
struct List {
    nodes: Vec<u64>,
    closed_position: u64,
}

impl Holders {
    /// Returns the nodes, in the order in which they came to hold the session.
    pub(super) fn as_slice(&self) -> &[u64] {
        self.0.as_ref().map_or(&[], |list| &list.nodes)
    }

    pub(super) fn contains(&self, node: u64) -> bool {
        self.as_slice().contains(&node)
    }

    pub(super) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }

    /// Position of the last command by which a node released the session because of a reader that
    /// was closed. 0 if there is none.
    pub(super) fn closed_position(&self) -> u64 {
        self.0.as_ref().map_or(0, |list| list.closed_position)
    }

    /// Notes such a position, while a node holds the session.
    pub(super) fn note_closed(&mut self, position: u64) {
        if let Some(list) = &mut self.0 {
            list.closed_position = list.closed_position.max(position);
        }
    }

    /// Adds a node, which must not be there.
    pub(super) fn push(&mut self, node: u64) {
        self.0.get_or_insert_default().nodes.push(node);
    }

    /// Removes a node. Returns whether it was there.
    pub(super) fn remove(&mut self, node: u64) -> bool {
        let Some(list) = &mut self.0 else { return false };
        let before = list.nodes.len();
        list.nodes.retain(|holder| *holder != node);
        list.nodes.len() < before
    }
}

/// Returns a hash of two numbers, to be added to those of others.
pub(super) fn mix(one: u64, other: u64) -> u64 {
    // The finalizer of `SplitMix64`, over a product with its increment.
    let mixed = one.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ other;
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

impl From<Vec<u64>> for Holders {
    fn from(nodes: Vec<u64>) -> Self {
        Self((!nodes.is_empty()).then(|| Box::new(List { nodes, closed_position: 0 })))
    }
}
