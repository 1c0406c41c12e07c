//! What is under a channel's name.

/// What is under a channel's name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    /// A channel, by place.
    Channel(u32),
    /// None; one would begin with this id.
    Nowhere { first_id: u64 },
}
