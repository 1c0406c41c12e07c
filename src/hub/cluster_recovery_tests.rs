//! A hub that begins with the checkpoint of another node has the same shared state.

use std::collections::BTreeMap;

use super::*;
use crate::hub::{Applied, BAN_SECONDS_MAX, Introducing, Reason, SharedSettings};

const SETTINGS: SharedSettings =
    SharedSettings { history: 100, retention_ms: 1 << 40, session_timeout_ms: 5_000 };

/// Own number of the node that saves, and of the one that loads. Neither is in the cluster.
const SAVING: u64 = 90;
const LOADING: u64 = 91;

/// Time of the log minus the monotonic time of each of them.
const AHEAD_MS: [i64; 2] = [-5_000, 70_000];

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

struct Record {
    unix_ms: u64,
    node: u64,
    sequence: u64,
    commands: Vec<u8>,
}

/// Introductions of the members, with their ids.
type Members = BTreeMap<u64, (u64, String)>;

/// What all nodes have in common.
#[derive(Debug, PartialEq, Eq)]
struct Shared {
    hash: u64,
    position: u64,
    last_session: u64,
    nodes: BTreeMap<u64, (u64, u64)>,
    /// Holders, position of a closing, channels.
    sessions: BTreeMap<u64, (Vec<u64>, u64, Vec<String>)>,
    /// Next ids, messages and members.
    channels: BTreeMap<String, (u64, Vec<String>, Members)>,
    watermarks: Vec<(u16, u64)>,
}

impl Shared {
    fn of(hub: &Hub) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let nodes = minicbor::to_vec(hub.nodes.as_ref().unwrap().save()).unwrap();
        let mut decoder = Decoder::new(&nodes);
        decoder.array().unwrap();
        let nodes: Vec<(u64, u64, u64)> = decoder.decode().unwrap();
        let nodes = nodes.into_iter().map(|(number, sequence, heir)| (number, (sequence, heir)));
        let sessions = hub.sessions.iter().map(|session| {
            let names = session.channels.iter().map(|it| hub.channels[*it].name.to_string());
            let holders = &session.holders;
            let closed_position = holders.closed_position();
            (session.number, (holders.as_slice().to_vec(), closed_position, names.collect()))
        });
        let channels = hub.channels.iter().filter(|(_, channel)| channel.is_shared);
        let channels = channels.map(|(_, channel)| {
            let entries = channel.entries.iter().map(|entry| text(&entry.json)).collect();
            let members = channel.members.iter();
            let members =
                members.map(|(number, member)| (*number, (member.id, text(&member.text_json))));
            (channel.name.to_string(), (channel.next_id(), entries, members.collect()))
        });
        Self {
            hash: hub.shared_hash(),
            // A hub without a record after the checkpoint has none yet.
            position: hub.position().max(hub.hashed_from),
            last_session: hub.sessions.last_number(),
            nodes: nodes.collect(),
            sessions: sessions.collect(),
            channels: channels.collect(),
            watermarks: hub.channels.id_watermarks().iter().collect(),
        }
    }
}

struct World {
    random: Random,
    hub: Hub,
    records: Vec<Record>,
    unix_ms: u64,
    sequences: BTreeMap<u64, u64>,
    ended: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut hub = Hub::new(Config::default());
        hub.begin_clustering(now_of(0, 1_000_000), SAVING);
        let mut world = Self {
            random: Random(seed),
            hub,
            records: Vec::new(),
            unix_ms: 1_000_000,
            sequences: BTreeMap::new(),
            ended: 0,
        };
        world.hub.set_piece_bytes(1);
        let mut first = Vec::new();
        let begin = Command::Begin { epoch: *b"abcdefgh", watermark_hash_key: Some([7; 16]) };
        minicbor::encode(&begin, &mut first).unwrap();
        minicbor::encode(&Command::Join { settings: SETTINGS }, &mut first).unwrap();
        world.append(1, first);
        world
    }

    fn append(&mut self, node: u64, commands: Vec<u8>) {
        self.unix_ms += self.random.below(300);
        let last = self.sequences.entry(node).or_default();
        // A record that comes twice has no effect.
        let sequence = if self.random.below(10) == 0 { *last } else { *last + 1 };
        *last = sequence;
        let record = Record { unix_ms: self.unix_ms, node, sequence, commands };
        apply(&mut self.hub, 0, self.records.len(), &record);
        self.records.push(record);
    }

    fn step(&mut self) {
        let random = &mut self.random;
        let node = 1 + random.below(5);
        let names = ["a", "b", "c", "d", "e"];
        let channel = names[random.below(5) as usize];
        let session = 1 + random.below(self.hub.sessions.last_number() + 1);
        let texts = ["howdy", "ahoy"];
        let text = texts[random.below(2) as usize];
        let mut commands = Vec::new();
        for _ in 0..=random.below(3) {
            let from = (random.below(2) == 0).then_some(session);
            let found = self.hub.channels.find_name(channel);
            let next_id = found.map_or(1, |index| self.hub.channels[index].next_id());
            let sequence = self.sequences.get(&node).copied().unwrap_or(0);
            let is_owner = (random.below(4) == 0).then_some(true);
            let address = Some(random.below(4)).filter(|number| *number > 0);
            let command = match random.below(30) {
                0..=4 => Command::Write { channel, from, text, is_owner },
                5..=7 => {
                    let session = Introducing::New([b'A'; TOKEN_BYTES]);
                    Command::Introduce { channel, session, text, is_owner, address }
                }
                8..=10 => {
                    let session = Introducing::Existing(session);
                    Command::Introduce { channel, session, text, is_owner, address }
                }
                24..=26 => Command::Remove { channel, id: random.below(next_id + 1) },
                27..=29 => {
                    let seconds = random.below(2) as u32 * BAN_SECONDS_MAX;
                    Command::Kick { channel, session, seconds, text: Some(text) }
                }
                11 => Command::Leave { channel, session, text: Some(text) },
                12 => Command::End { session, reason: Reason::Closed, text: None },
                13..=15 => Command::DropChannel { channel, next_id },
                16..=17 => Command::Hold { session, polls: vec![channel] },
                18..=20 => {
                    let expected_ms = self.unix_ms - 600 * random.below(2);
                    let closed_position = (random.below(2) == 0).then(|| random.below(100));
                    let before = 100 * random.below(8);
                    let decided_position = self.hub.position().saturating_sub(before);
                    Command::Release { session, expected_ms, closed_position, decided_position }
                }
                21 => Command::Bury { node: 1 + random.below(5), sequence },
                22 => Command::Part { heir: Some(1 + random.below(5)) },
                _ => Command::Join { settings: SETTINGS },
            };
            minicbor::encode(&command, &mut commands).unwrap();
        }
        let before = self.hub.sessions.len();
        self.append(node, commands);
        self.ended += before.saturating_sub(self.hub.sessions.len());
    }
}

/// Returns the time of a record at the node that saves (0) or loads (1).
fn now_of(which: usize, unix_ms: u64) -> Now {
    Now { mono: Millis(unix_ms.saturating_sub_signed(AHEAD_MS[which])), unix_ms }
}

fn apply(hub: &mut Hub, which: usize, index: usize, record: &Record) {
    let now = now_of(which, record.unix_ms);
    if hub.begin_record(now, record.node, record.sequence) {
        let mut decoder = Decoder::new(&record.commands);
        let mut number = 0;
        while decoder.position() < record.commands.len() {
            let command: Command<'_> = decoder.decode().unwrap();
            let position = (index as u64 + 1) * 100 + number;
            let is_mismatch =
                matches!(hub.apply(now, now.mono, position, &command), Ok(Applied::Mismatch(_)));
            assert!(!is_mismatch);
            number += 1;
        }
        hub.end_record(index as u64 + 1);
    }
    hub.deliver_nothing();
}

#[test]
fn a_loaded_hub_equals_the_one_that_was_saved_while_it_changed() {
    let (mut ended, mut held, mut banned) = (0, 0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..world.random.below(60) {
            world.step();
        }
        let begun = world.records.len();
        world.hub.begin_checkpoint();
        let mut pieces = Vec::new();
        while let Some(piece) = world.hub.next_piece(now_of(0, world.unix_ms)) {
            pieces.push(piece);
            for _ in 0..world.random.below(3) {
                world.step();
            }
        }
        for _ in 0..world.random.below(30) {
            world.step();
        }
        let end = now_of(1, world.unix_ms);
        let mut recovery = Recovery::of_node(Config::default(), end, LOADING, AHEAD_MS[1]);
        for piece in &pieces {
            recovery.load_piece(piece).unwrap();
        }
        let mut hub = recovery.finish_node(end).unwrap();
        for (index, record) in world.records.iter().enumerate().skip(begun) {
            apply(&mut hub, 1, index, record);
        }
        assert_eq!(Shared::of(&hub), Shared::of(&world.hub), "seed {seed}");
        assert!(hub.sessions.iter().all(|session| !session.local.is_held), "seed {seed}");
        let times = |hub: &Hub, ahead_ms: i64| -> Vec<u64> {
            let mut channels: Vec<_> = hub.channels.iter().map(|(_, channel)| channel).collect();
            channels.sort_by(|one, other| one.name.cmp(&other.name));
            let entries = channels.iter().flat_map(|channel| &channel.entries);
            entries.map(|entry| entry.at.0.saturating_add_signed(ahead_ms)).collect()
        };
        assert_eq!(times(&hub, AHEAD_MS[1]), times(&world.hub, AHEAD_MS[0]), "seed {seed}");
        let bans = |hub: &Hub, ahead_ms: i64| -> BTreeMap<String, Vec<(u64, u64)>> {
            let channels = hub.channels.iter().filter(|(_, channel)| channel.is_shared);
            let bans = channels.filter_map(|(_, channel)| {
                Some((channel.name.to_string(), channel.snapshot_bans(ahead_ms)?))
            });
            bans.collect()
        };
        assert_eq!(bans(&hub, AHEAD_MS[1]), bans(&world.hub, AHEAD_MS[0]), "seed {seed}");
        assert_eq!(hub.has_bans(), world.hub.has_bans(), "seed {seed}");
        banned += bans(&hub, 0).len();
        ended += world.ended;
        held += hub.sessions.iter().filter(|session| session.holders.len() > 1).count();
    }
    assert!(ended > 100 && held > 100, "{ended} sessions ended, {held} have several holders");
    assert!(banned > 30, "{banned} channels have addresses that were sent away");
}

#[test]
fn a_checkpoint_without_nodes_or_without_an_end_is_none_of_a_cluster() {
    let now = now_of(1, 1_000_000);
    let node = || Recovery::of_node(Config::default(), now, LOADING, AHEAD_MS[1]);
    let mut alone = Hub::new(Config::default());
    alone.begin_logging();
    alone.begin_checkpoint();
    let piece = alone.next_piece(now).unwrap();
    assert_eq!(node().load_piece(&piece), Err(Corrupt("a checkpoint without nodes")));
    let mut world = World::new(1);
    world.hub.begin_checkpoint();
    let mut recovery = node();
    recovery.load_piece(&world.hub.next_piece(now).unwrap()).unwrap();
    assert_eq!(recovery.finish_node(now).err(), Some(Corrupt("a checkpoint without an end")));
    let empty = node().finish_node(now).unwrap();
    assert_eq!((empty.gauges().channels, empty.node_count(), empty.is_joined()), (0, 0, false));
}
