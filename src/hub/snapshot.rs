//! A hub as a series of records, for a file or for another process.
//!
//! A snapshot holds channels, sessions and ids, which continue as if only time had passed. It does
//! not hold readers: their clients read again. [`snapshot`](crate::snapshot) turns the
//! records into bytes.

use minicbor::{Decode, Encode};

use super::nodes::SavedCluster;

/// One record. The records are in the order of the variants. There is one header.
///
/// Records hold secrets, so they have no `Debug`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum SnapshotRecord<'a> {
    /// Values of the hub as a whole.
    #[n(0)]
    Header(#[n(0)] SnapshotHeader),
    /// Id watermark of dropped channels.
    #[n(1)]
    IdWatermark {
        /// Bucket of the channel names.
        #[n(0)]
        bucket: u16,
        /// First id of a new channel whose name is in the bucket.
        #[n(1)]
        next_id: u64,
    },
    /// A channel.
    #[n(2)]
    Channel(#[b(0)] SnapshotChannel<'a>),
    /// A session. The records of all its channels precede it.
    #[n(3)]
    Session(#[b(0)] SnapshotSession<'a>),
}

/// Values of the hub as a whole. All times except `unix_ms` are of the clock of `mono_ms`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotHeader {
    /// Time of the snapshot, in milliseconds of the clock that deadlines use.
    #[n(0)]
    pub mono_ms: u64,
    /// The same time in milliseconds since 1970 (UTC).
    #[n(1)]
    pub unix_ms: u64,
    /// Name of the numbering of ids.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub epoch: [u8; 8],
    /// Secret key of the hash that assigns channel names to id watermarks.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub watermark_hash_key: [u8; 16],
    /// Number of the newest session, even if it has ended; 0 if there was none.
    #[n(4)]
    pub last_session: u64,
    /// End of the log that the snapshot includes. `None` if there is no log.
    #[n(5)]
    pub log: Option<SnapshotLog>,
    /// Nodes that share the log. `None` if there is only one.
    #[n(6)]
    pub cluster: Option<SavedCluster>,
}

/// End of a log.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotLog {
    /// [`Hub::position`](super::Hub::position).
    #[n(0)]
    pub position: u64,
    /// [`Hub::applied_hash`](super::Hub::applied_hash) at this position.
    #[n(1)]
    pub applied_hash: u64,
}

/// A channel with its history and its members.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotChannel<'a> {
    /// Name of the channel; of a pair, the name that is given away.
    #[b(0)]
    pub name: &'a str,
    /// Id of the first entry, or the next id if there is no entry.
    #[n(1)]
    pub first_id: u64,
    /// Time of the last use.
    #[n(2)]
    pub last_use_ms: u64,
    /// Messages, oldest first.
    #[b(3)]
    pub entries: Vec<SnapshotEntry<'a>>,
    /// Members.
    #[b(4)]
    pub members: Vec<SnapshotMember<'a>>,
    /// Numbers of the addresses that were sent away, rising, and the ends of their times. `None`
    /// if there are none.
    #[n(5)]
    pub bans: Option<Vec<(u64, u64)>>,
}

/// A retained message.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotEntry<'a> {
    /// Time at which the message was added.
    #[n(0)]
    pub at_ms: u64,
    /// The message as readers get it.
    #[b(1)]
    pub json: &'a str,
}

/// A session introduced in a channel.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotMember<'a> {
    /// Number of the session.
    #[n(0)]
    pub session: u64,
    /// Id of its newest introduction.
    #[n(1)]
    pub id: u64,
    /// `time` of that introduction.
    #[n(2)]
    pub unix_ms: u64,
    /// Text of that introduction, as a JSON string.
    #[b(3)]
    pub text: &'a str,
    /// The introduction as a whole.
    #[b(4)]
    pub introduction: &'a str,
    /// Number of the address of the client. `None` if it had none.
    #[n(5)]
    pub address: Option<u64>,
}

/// Returns members in the order of their introductions.
pub(super) fn by_introduction<'m, 't>(
    members: &'m [SnapshotMember<'t>],
) -> Vec<&'m SnapshotMember<'t>> {
    let mut ordered: Vec<_> = members.iter().collect();
    ordered.sort_unstable_by_key(|member| member.id);
    ordered
}

/// A session.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct SnapshotSession<'a> {
    /// Number of the session.
    #[n(0)]
    pub number: u64,
    /// Secret of the session.
    #[b(1)]
    pub auth: &'a str,
    /// Channels in which the session is introduced, by the position of their records among the
    /// records of channels; in the order of the introductions.
    #[n(2)]
    pub channels: Vec<u32>,
    /// Time at which the session was last heard from.
    #[n(3)]
    pub last_alive_ms: u64,
    /// Time at which the session ends because a reader was closed.
    #[n(4)]
    pub closes_at_ms: Option<u64>,
    /// Nodes that hold the session. `None` without a cluster.
    #[n(5)]
    pub holders: Option<Vec<u64>>,
    /// Position in the log of the last command that was applied before the session was last heard
    /// from. `None` without a cluster.
    #[n(6)]
    pub heard_position: Option<u64>,
    /// Position of the last command by which a node released the session because of a reader that
    /// was closed. `None` if there is none.
    #[n(7)]
    pub closed_position: Option<u64>,
}

/// Error: no hub writes such a snapshot. The text says what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;

    /// An earlier version writes neither addresses nor who was sent away, and skips both.
    #[test]
    fn a_channel_without_addresses_is_that_of_earlier_versions() {
        let (entries, members) = (Vec::new(), Vec::new());
        let mut channel = SnapshotChannel {
            name: "c",
            first_id: 1,
            last_use_ms: 2,
            entries,
            members,
            bans: None,
        };
        let bytes = minicbor::to_vec(&channel).unwrap();
        assert_eq!(bytes[0], 0x85, "an array of five values");
        assert!(minicbor::decode::<SnapshotChannel<'_>>(&bytes).unwrap() == channel);
        channel.bans = Some(vec![(7, 9)]);
        let bytes = minicbor::to_vec(&channel).unwrap();
        assert!(minicbor::decode::<SnapshotChannel<'_>>(&bytes).unwrap() == channel);
        let (text, introduction) = ("\"\"", "{}");
        let member =
            SnapshotMember { session: 1, id: 1, unix_ms: 0, text, introduction, address: None };
        let bytes = minicbor::to_vec(&member).unwrap();
        assert_eq!(bytes[0], 0x85, "an array of five values");
        assert!(minicbor::decode::<SnapshotMember<'_>>(&bytes).unwrap() == member);
    }

    /// An earlier version sends no position in an upgrade, and writes none to a state file.
    #[test]
    fn a_header_without_a_log_is_that_of_earlier_versions() {
        let header = SnapshotHeader {
            mono_ms: 1,
            unix_ms: 2,
            epoch: *b"abcdefgh",
            watermark_hash_key: [0; 16],
            last_session: 5,
            log: None,
            cluster: None,
        };
        let bytes = minicbor::to_vec(&header).unwrap();
        assert_eq!(bytes[0], 0x85, "an array of five values");
        let decoded: SnapshotHeader = minicbor::decode(&bytes).unwrap();
        assert!(decoded == header);
        let log = Some(SnapshotLog { position: 7, applied_hash: 9 });
        let bytes = minicbor::to_vec(SnapshotHeader { log, ..header }).unwrap();
        assert!(minicbor::decode::<SnapshotHeader>(&bytes).unwrap().log == log);
    }
}
