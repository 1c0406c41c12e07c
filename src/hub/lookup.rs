//! Lookups of channel names.

/// Result of looking up a channel name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The channel exists and has this index.
    Occupied(u32),
    /// The channel does not exist. Its first message would have this id.
    Vacant { first_id: u64 },
}

impl Lookup {
    /// Returns the index of the channel, if it exists.
    pub(super) fn index(self) -> Option<u32> {
        match self {
            Self::Occupied(index) => Some(index),
            Self::Vacant { .. } => None,
        }
    }
}
