//! One node as the log and the other nodes see it.

use minicbor::Decoder;

use super::*;
use crate::hub::{
    ChannelName, Config, Introducing, LogHealth, Mode, Proposals, ReadRequest, ReadResult, Since,
    SnapshotLoader, SnapshotRecord, TOKEN_BYTES, whole_ms,
};

/// Number of the node, and of another one.
const OWN: u64 = 1;
const OTHER: u64 = 2;

/// Time of the log minus the monotonic time of the node.
const AHEAD_MS: u64 = 1_000_000;

fn at(ms: u64) -> Now {
    Now { mono: Millis(ms), unix_ms: ms + AHEAD_MS }
}

/// A node whose log is applied as a test says. The other node is in the cluster too.
struct Node {
    hub: Hub,
    position: u64,
    sequences: [u64; 2],
}

impl Node {
    fn new() -> Self {
        let mut hub = Hub::new(Config::default());
        hub.begin_clustering(at(0), OWN);
        let mut node = Self { hub, position: 0, sequences: [0; 2] };
        for number in [OWN, OTHER] {
            let settings = node.hub.shared_settings();
            node.apply(at(0), number, &Command::Join { settings });
        }
        node
    }

    /// Applies a record of a node, with one command.
    fn apply(&mut self, now: Now, number: u64, command: &Command<'_>) {
        let sequence = &mut self.sequences[number as usize - 1];
        *sequence += 1;
        assert!(self.hub.begin_record(now, number, *sequence));
        self.position += 1;
        // A command may fail, as that of a session which has ended.
        let _ = self.hub.apply(now, now.mono, self.position, command);
        self.hub.end_record(self.position);
        self.hub.deliver(now, |_| {});
    }

    /// Introduces a session at a node.
    fn introduce(&mut self, now: Now, number: u64) {
        let session = Introducing::New([b'A'; TOKEN_BYTES]);
        let (channel, text) = ("c", "Josh");
        let command = Command::Introduce { channel, session, text, is_owner: None, address: None };
        self.apply(now, number, &command);
    }

    /// Applies what the node has proposed, at a time of the log. Returns the number of commands.
    fn apply_proposals(&mut self, now: Now) -> u32 {
        let mut proposals = Proposals::default();
        self.hub.swap_proposals(&mut proposals);
        let mut decoder = Decoder::new(proposals.bytes());
        for _ in 0..proposals.count() {
            let command: Command<'_> = decoder.decode().unwrap();
            self.apply(now, OWN, &command);
        }
        proposals.count()
    }

    fn lives(&self) -> bool {
        self.hub.has_session(1)
    }

    fn timeout_ms(&self) -> u64 {
        whole_ms(self.hub.config().connection_timeout)
    }

    fn standing(&self, now: Now) -> Standing {
        let auth = str::from_utf8(&[b'A'; TOKEN_BYTES]).unwrap().to_owned();
        self.hub.standing(now, Credentials { session: 1, auth: &auth })
    }
}

#[test]
fn a_release_that_waited_for_the_log_is_void_and_is_decided_again() {
    let mut node = Node::new();
    node.introduce(at(0), OWN);
    let decided_ms = node.timeout_ms();
    node.hub.expire(at(decided_ms));
    assert_eq!(node.apply_proposals(at(decided_ms + RELEASE_LATE_MS + 1)), 1);
    assert!(node.lives());
    node.hub.expire(at(decided_ms + RELEASE_LATE_MS + 1));
    assert_eq!(node.apply_proposals(at(decided_ms + 2 * RELEASE_LATE_MS + 1)), 1);
    assert!(!node.lives());
}

#[test]
fn a_release_takes_effect_however_far_away_the_log_is() {
    for round_trip_ms in [0, 600, 980] {
        let mut node = Node::new();
        node.introduce(at(0), OWN);
        let decided_ms = node.timeout_ms();
        node.hub.note_round_trip(Millis(0), Millis(round_trip_ms));
        node.hub.expire(at(decided_ms));
        // It waits for the record before.
        assert_eq!(node.apply_proposals(at(decided_ms + 2 * round_trip_ms)), 1);
        assert!(!node.lives(), "{round_trip_ms}");
    }
}

#[test]
fn a_release_after_an_outage_does_not_allow_for_another_one() {
    let mut node = Node::new();
    node.introduce(at(0), OWN);
    let decided_ms = node.timeout_ms();
    node.hub.note_round_trip(Millis(0), Millis(60_000));
    node.hub.expire(at(decided_ms));
    assert_eq!(node.apply_proposals(at(decided_ms + 4_000)), 1);
    assert!(node.lives());
}

/// Returns a release by the other node, which has just decided it.
fn release_elsewhere(node: &Node, now_ms: u64, closed_position: Option<u64>) -> Command<'static> {
    let (expected_ms, decided_position) = (now_ms + AHEAD_MS, node.position);
    Command::Release { session: 1, expected_ms, closed_position, decided_position }
}

#[test]
fn a_session_has_the_reason_of_a_closing_that_its_last_node_did_not_know_of() {
    for (closed_position, reason) in [(Some(4), "closed"), (None, "timeout")] {
        let mut node = Node::new();
        node.introduce(at(0), OWN);
        node.apply(at(0), OTHER, &Command::Hold { session: 1, polls: Vec::new() });
        let decided_ms = node.timeout_ms();
        node.hub.expire(at(decided_ms));
        let release = release_elsewhere(&node, decided_ms, closed_position);
        node.apply(at(decided_ms), OTHER, &release);
        assert!(node.lives());
        assert_eq!(node.apply_proposals(at(decided_ms)), 1);
        assert!(!node.lives());
        let channel = node.hub.channels.find_name("c").unwrap();
        let goodbye = &node.hub.channels[channel].entries.back().unwrap().json;
        let goodbye = String::from_utf8(goodbye.to_vec()).unwrap();
        assert!(goodbye.contains(&format!(r#""reason":"{reason}""#)), "{goodbye}");
    }
}

#[test]
fn a_session_times_out_at_a_node_that_has_heard_of_it_after_a_closing_elsewhere() {
    let mut node = Node::new();
    node.introduce(at(0), OWN);
    node.apply(at(0), OTHER, &Command::Hold { session: 1, polls: Vec::new() });
    let release = release_elsewhere(&node, 10, Some(2));
    node.introduce(at(5), OWN);
    node.apply(at(10), OTHER, &release);
    let timeout_ms = node.timeout_ms();
    // The reader may have waited until just before the release.
    for (at_ms, count) in [(5, 1), (9, 0), (10, 1)] {
        node.hub.expire(at(at_ms + timeout_ms));
        assert_eq!(node.apply_proposals(at(at_ms + timeout_ms)), count, "at {at_ms}");
    }
    let channel = node.hub.channels.find_name("c").unwrap();
    let goodbyes = node.hub.channels[channel].entries.iter().filter(|entry| {
        String::from_utf8(entry.json.to_vec()).unwrap().contains(r#""reason":"timeout""#)
    });
    assert_eq!(goodbyes.count(), 2);
}

#[test]
fn a_release_before_its_node_got_the_sessions_of_another_one_is_void() {
    let mut node = Node::new();
    node.introduce(at(0), OWN);
    let decided_ms = node.timeout_ms();
    // The client has gone on at the other node, which dies.
    node.apply(at(decided_ms), OTHER, &Command::Hold { session: 1, polls: Vec::new() });
    node.hub.expire(at(decided_ms));
    let sequence = node.sequences[1];
    node.apply(at(decided_ms), OWN, &Command::Bury { node: OTHER, sequence });
    assert_eq!(node.apply_proposals(at(decided_ms)), 1);
    assert!(node.lives());
    node.hub.expire(at(2 * decided_ms));
    assert_eq!(node.apply_proposals(at(2 * decided_ms)), 1);
    assert!(!node.lives());
}

/// Both would be in one record, and the release would be applied before the read is made again.
#[test]
fn a_node_does_not_release_a_session_for_which_a_hold_waits() {
    let mut node = Node::new();
    node.introduce(at(0), OWN);
    let decided_ms = node.timeout_ms();
    let auth = str::from_utf8(&[b'A'; TOKEN_BYTES]).unwrap().to_owned();
    let credentials = Credentials { session: 1, auth: &auth };
    node.hub.propose_hold(at(decided_ms - 1), credentials, &["c"]).unwrap();
    node.hub.expire(at(decided_ms + 5_000));
    assert_eq!(node.apply_proposals(at(decided_ms + 5_000)), 1);
    // Its timeout begins when the read has been made again.
    node.hub.expire(at(2 * decided_ms + 4_999));
    assert_eq!(node.apply_proposals(at(2 * decided_ms + 4_999)), 0);
    node.hub.expire(at(2 * decided_ms + 5_000));
    assert_eq!(node.apply_proposals(at(2 * decided_ms + 5_000)), 1);
    assert!(!node.lives());
}

#[test]
fn a_hold_before_a_release_keeps_the_session() {
    let mut node = Node::new();
    node.introduce(at(0), OWN);
    let decided_ms = node.timeout_ms();
    node.hub.expire(at(decided_ms));
    node.apply(at(decided_ms), OTHER, &Command::Hold { session: 1, polls: Vec::new() });
    assert_eq!(node.apply_proposals(at(decided_ms)), 1);
    assert!(node.lives());
    assert_eq!(node.standing(at(decided_ms)), Standing::Elsewhere);
}

#[test]
fn a_node_that_wrote_meanwhile_is_not_buried() {
    let mut node = Node::new();
    node.introduce(at(0), OTHER);
    let sequence = node.sequences[1];
    let heartbeat = Command::Heartbeat { position: 0, hash: 0, readers: Vec::new() };
    node.apply(at(1), OTHER, &heartbeat);
    node.apply(at(2), OWN, &Command::Bury { node: OTHER, sequence });
    assert_eq!((node.hub.node_count(), node.standing(at(2))), (2, Standing::Elsewhere));
    let sequence = node.sequences[1];
    node.apply(at(3), OWN, &Command::Bury { node: OTHER, sequence });
    node.hub.note_round_trip(Millis(3), Millis(3));
    assert_eq!((node.hub.node_count(), node.standing(at(3))), (1, Standing::Held));
}

#[test]
fn a_node_without_a_recent_record_of_its_own_is_not_sure_of_its_sessions() {
    let mut node = Node::new();
    node.introduce(at(0), OWN);
    assert_eq!(node.standing(at(0)), Standing::Unsure);
    // The record took a second, during which others saw nothing of this node.
    node.hub.note_round_trip(Millis(100), Millis(1_100));
    assert_eq!(node.standing(at(2_099)), Standing::Held);
    assert_eq!(node.standing(at(2_100)), Standing::Unsure);
    node.hub.note_round_trip(Millis(0), Millis(2_100));
    assert_eq!(node.standing(at(2_100)), Standing::Unsure);
}

/// The log did not take the hold that the read asked for.
#[test]
fn a_node_holds_the_session_of_a_read_that_began_while_the_log_was_away() {
    let mut node = Node::new();
    node.introduce(at(0), OTHER);
    node.hub.set_log_health(Millis(1), LogHealth::Stalled);
    let key = ChannelName::parse("c").unwrap().for_writing().unwrap();
    let targets = [(key, Since::Id(2))];
    let auth = str::from_utf8(&[b'A'; TOKEN_BYTES]).unwrap().to_owned();
    let request = ReadRequest {
        targets: &targets,
        epoch: None,
        credentials: Some(Credentials { session: 1, auth: &auth }),
        grace_ms: None,
        mode: Mode::LongPoll,
        token: 1,
    };
    assert!(matches!(node.hub.read(at(1), &request), Ok(ReadResult::Pending(_))));
    assert_eq!(node.apply_proposals(at(2)), 0);
    node.hub.set_log_health(Millis(3), LogHealth::Good);
    assert_eq!(node.apply_proposals(at(3)), 1);
    assert_eq!(node.standing(at(3)), Standing::Shared);
}

/// The hash tells states apart in which equal commands had equal results.
#[test]
fn the_hash_has_the_holders_and_the_nodes() {
    let mut hashes = Vec::new();
    let mut hash = |node: &Node| hashes.push(node.hub.shared_hash());
    let mut node = Node::new();
    node.introduce(at(0), OWN);
    let (position, applied) = (node.position, node.hub.applied_hash());
    hash(&node);
    let session = node.hub.sessions.find(1).unwrap();
    assert!(node.hub.sessions.hold_at(session, OTHER, position + 1));
    hash(&node);
    assert!(!node.hub.sessions.release_at(session, OWN, position + 1));
    hash(&node);
    node.hub.begin_record(at(0), OTHER, 100);
    hash(&node);
    assert!(node.hub.nodes.as_mut().unwrap().bury(OTHER, 100, 7));
    hash(&node);
    assert_eq!(node.hub.applied_hash(), applied);
    let count = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), count, "all are different");
    assert_eq!((node.hub.sessions.holders_hash() == 0, node.lives()), (false, true));
    node.apply(at(0), OWN, &Command::End { session: 1, reason: Reason::Left, text: None });
    assert_eq!((node.hub.sessions.holders_hash(), node.lives()), (0, false));
}

/// A successor has an estimate of its own of the time of the log.
#[test]
fn no_record_of_a_successor_is_older_than_what_its_predecessor_has_saved() {
    let mut node = Node::new();
    node.introduce(at(50), OWN);
    let config = node.hub.config().clone();
    let mut loader = None;
    let saved = node.hub.save(at(60), 0, |record| match (&mut loader, record) {
        (None, SnapshotRecord::Header(header)) => {
            loader = Some(SnapshotLoader::begin(&config, header, header.unix_ms)?);
            Ok(())
        }
        (loader, record) => loader.as_mut().expect("the header is first").load(record),
    });
    assert_eq!(saved, Ok(()));
    let (hub, _) = Hub::restore(loader.unwrap()).unwrap();
    assert_eq!(hub.record_time(at(45)).mono, Millis(60));
    assert_eq!(hub.record_time(at(61)).mono, Millis(61));
}
