//! What is under a channel's name.

/// What is under a channel's name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// A channel, by place.
    Occupied(u32),
    /// None; one would begin with this id.
    Vacant { first_id: u64 },
}
