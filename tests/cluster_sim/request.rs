//! Requests that wait for their responses.

use speak::hub::PairKind;
use support::reader::Subscription;
use support::text::Text;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    Introduce,
    /// Of a session that exists.
    IntroduceAs,
    Goodbye,
    Leave,
    /// Of the message with this id.
    Remove(u64),
    /// Of the session with this number. For so many seconds, no client may add to the room: all
    /// have one address.
    Kick(u64, u32),
    Create(PairKind),
    Read,
    Poll,
    Members,
}

pub(crate) struct Request {
    pub(crate) node: usize,
    /// Place of its client in the network of the node.
    pub(crate) place: usize,
    pub(crate) kind: Kind,
    pub(crate) person: Option<usize>,
    pub(crate) text: Option<Text>,
    /// Channels, as indexes.
    pub(crate) channels: Vec<usize>,
    /// Channels of a read, with their cursors.
    pub(crate) subscriptions: Vec<Subscription>,
    /// Lowest id after all that was answered for each channel before the request was sent.
    pub(crate) floors: Vec<u64>,
    pub(crate) sent_at: u64,
    /// Number of the poll among those of its session.
    pub(crate) poll: u64,
    /// It is the read of the observer of this channel.
    pub(crate) observes: Option<usize>,
    /// Members that must be shown, and that must not, if nothing happens to them.
    pub(crate) present: Vec<usize>,
    pub(crate) absent: Vec<usize>,
    /// The session must have ended.
    pub(crate) is_of_ended: bool,
}

impl Request {
    /// Says whether it may add to a room, under the name that is not its owner's.
    pub(crate) fn adds(&self) -> bool {
        let kinds = [Kind::Write, Kind::Introduce, Kind::IntroduceAs, Kind::Goodbye, Kind::Leave];
        kinds.contains(&self.kind)
    }

    pub(crate) fn changes(&self) -> bool {
        !matches!(self.kind, Kind::Read | Kind::Poll | Kind::Members | Kind::Create(_))
    }
}
