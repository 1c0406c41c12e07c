//! Whatever a log says, as one that another program has written or damaged: a hub that applies it
//! does not panic.

use support::random::Random;

use super::checkpoint::{
    CheckpointChannel, CheckpointEnd, CheckpointHeader, CheckpointRecord, CheckpointSession, push,
};
use super::nodes::{Nodes, SavedNodes};
use super::snapshot::{SnapshotEntry, SnapshotMember};
use super::*;

const SETTINGS: SharedSettings =
    SharedSettings { history: 100, retention_ms: 1 << 40, session_timeout_ms: 5_000 };

/// Number of the process that reads the log.
const OWN: u64 = 7;

const AUTH: &str = "ABCDEFGHIJKLMNOPQRSTUV";

const NAMES: [&str; 5] = ["a", "b", "~cHs45Jyz2f3iV_TJuZy27a8", "", "\u{1f}"];

const TEXTS: [&str; 5] = ["", "howdy", "\"\\\n\u{2028}", "{\"id\":1}", "\u{1f600}"];

/// JSON of entries and introductions, of which some are none.
const JSON: [&str; 5] = [
    r#"{"id":1,"type":"introduction","time":5,"from":1,"message":"Josh"}"#,
    r#"{"id":2,"type":"removed","time":5,"from":1}"#,
    r#"{"id":99999999999999999999,"type":"removed""#,
    r#","time":,"from":,"message":"#,
    "",
];

struct Chance(Random);

impl Chance {
    /// Returns a number: most are small.
    fn number(&mut self) -> u64 {
        match self.0.below(12) {
            0 => u64::MAX - self.0.below(2),
            1 => ID_MAX + self.0.below(3) - 1,
            2 => 1 << self.0.below(64),
            _ => self.0.below(6),
        }
    }

    fn optional(&mut self) -> Option<u64> {
        self.0.once_in(2).then(|| self.number())
    }

    fn name(&mut self) -> &'static str {
        self.0.pick(&NAMES)
    }

    fn text(&mut self) -> &'static str {
        self.0.pick(&TEXTS)
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.0.below(4)).map(|_| item(self)).collect()
    }

    /// Returns a node of the cluster, this process, or another one.
    fn node(&mut self) -> u64 {
        self.0.pick(&[OWN, OWN, 1, 1, 2, 0, u64::MAX])
    }

    fn command(&mut self) -> Command<'static> {
        let channel = self.name();
        let session = self.number();
        let text = self.text();
        let optional_text = self.0.once_in(2).then_some(text);
        match self.0.below(15) {
            0 | 1 => {
                let is_owner = self.0.pick(&[None, Some(true), Some(false)]);
                Command::Write { channel, from: self.optional(), text, is_owner }
            }
            2..=4 => {
                let auth = if self.0.once_in(30) { [0xff; 22] } else { *b"ABCDEFGHIJKLMNOPQRSTUV" };
                let new = self.0.once_in(2);
                let session =
                    if new { Introducing::New(auth) } else { Introducing::Existing(session) };
                let address = self.optional();
                Command::Introduce { channel, session, text, is_owner: None, address }
            }
            5 => Command::Leave { channel, session, text: optional_text },
            6 => {
                let reason = self.0.pick(&Reason::ALL);
                Command::End { session, reason, text: optional_text }
            }
            7 => {
                let watermark_hash_key = self.0.once_in(2).then_some([1; 16]);
                let epoch = if self.0.once_in(8) { [0xff; 8] } else { *b"abcdefgh" };
                Command::Begin { epoch, watermark_hash_key }
            }
            8 | 9 => Command::DropChannel { channel, next_id: self.number() },
            10 => match self.0.below(4) {
                0 => Command::Part { heir: self.optional() },
                1 => Command::Bury { node: self.node(), sequence: self.number() },
                _ => Command::Join { settings: SETTINGS },
            },
            11 => {
                let readers = self.list(|its| (its.name(), its.number() as u32));
                Command::Heartbeat { position: self.number(), hash: self.number(), readers }
            }
            12 => Command::Hold { session, polls: self.list(Self::name) },
            13 => Command::Release {
                session,
                expected_ms: self.number(),
                closed_position: self.optional(),
                decided_position: self.number(),
            },
            _ if self.0.once_in(2) => Command::Remove { channel, id: self.number() },
            _ => {
                let seconds = self.number() as u32;
                Command::Kick { channel, session, seconds, text: optional_text }
            }
        }
    }

    fn nodes(&mut self) -> SavedNodes {
        let mut nodes = Nodes::new(OWN);
        for (sequence, node) in [1, 2, OWN].into_iter().enumerate() {
            if self.0.once_in(2) {
                nodes.begin_record(node, sequence as u64, (0, 0));
                nodes.join(SETTINGS);
            }
        }
        nodes.save()
    }

    fn record(&mut self) -> CheckpointRecord<'static> {
        match self.0.below(8) {
            0..=2 => CheckpointRecord::Channel(CheckpointChannel {
                name: self.name(),
                position: self.number(),
                created_at: self.number(),
                next_id: self.number(),
                bans: self.0.once_in(3).then(|| vec![(1, self.number()), (2, self.number())]),
            }),
            3 => CheckpointRecord::Members(self.list(|its| SnapshotMember {
                session: its.number(),
                id: its.number(),
                unix_ms: its.number(),
                text: its.text(),
                introduction: its.0.pick(&JSON),
                address: its.optional(),
            })),
            4 => CheckpointRecord::Entries {
                first_id: self.number(),
                entries: self
                    .list(|its| SnapshotEntry { at_ms: its.number(), json: its.0.pick(&JSON) }),
            },
            5 | 6 => CheckpointRecord::Session(CheckpointSession {
                number: self.number(),
                auth: AUTH,
                position: self.number(),
                channels: self.list(Self::name),
                holders: self.0.once_in(2).then(|| self.list(Self::node)),
                closed_position: self.optional(),
            }),
            _ => CheckpointRecord::Dropped(self.number()),
        }
    }

    /// Returns a checkpoint of any parts.
    fn checkpoint(&mut self) -> Vec<u8> {
        let mut piece = Vec::new();
        let id_watermarks = self.list(|its| (its.number() as u16, its.number()));
        let header = CheckpointHeader {
            epoch: *b"abcdefgh",
            watermark_hash_key: [1; 16],
            last_session: self.number(),
            id_watermarks,
            nodes: Some(self.nodes()),
        };
        push(&mut piece, &CheckpointRecord::Header(header));
        for _ in 0..self.0.below(8) {
            push(&mut piece, &self.record());
        }
        let end = CheckpointEnd {
            position: self.number(),
            applied_hash: self.number(),
            mono_ms: self.number(),
            unix_ms: self.number(),
        };
        push(&mut piece, &CheckpointRecord::End(end));
        piece
    }

    /// Returns a hub that has loaded a checkpoint, or none if that is not of this program.
    fn hub(&mut self, now: Now) -> Hub {
        let config = Config { history: self.0.pick(&[0, 2, 100]), ..Config::default() };
        let ahead_ms = self.0.pick(&[0, -5, i64::MIN, i64::MAX]);
        let mut recovery = Recovery::of_node(config.clone(), now, OWN, ahead_ms);
        if self.0.once_in(4) || recovery.load_piece(&self.checkpoint()).is_err() {
            recovery = Recovery::of_node(config, now, OWN, ahead_ms);
        }
        recovery.finish_node(now).unwrap()
    }

    /// Applies a record of a node up to a command that is none, as the service does.
    fn apply_record(&mut self, hub: &mut Hub, now: Now, record: u64, commands: &[u8]) {
        let unix_ms = self.0.pick(&[now.unix_ms, now.unix_ms, 0, u64::MAX]);
        let node = self.node();
        let sequence = if self.0.once_in(8) { self.number() } else { record };
        let record_now = hub.record_time(Now { mono: now.mono, unix_ms });
        if !hub.begin_record(record_now, node, sequence) {
            return;
        }
        let mut proposals = Proposals::default();
        proposals.fill(commands);
        let mut at = ProposalCursor::default();
        while let Ok(Some(proposal)) = proposals.next(&mut at) {
            let position = (record << 20) + u64::from(at.index());
            let _ = hub.apply_proposal(record_now, now.mono, position, &proposal);
        }
        hub.end_record(record);
    }

    /// Does something that clients or the loop of the process do.
    fn act_locally(&mut self, hub: &mut Hub, now: Now) {
        let (credentials, text) = (Credentials { session: self.number(), auth: AUTH }, self.text());
        let Ok(name) = ChannelName::parse(self.name()) else { return };
        let key = name.for_writing().unwrap();
        match self.0.below(10) {
            0 => _ = hub.propose_write(now, &key, text, Some(credentials)),
            1 => {
                let introducer = Introducer::Existing(credentials);
                _ = hub.propose_introduction(now, &key, text, &introducer, None);
            }
            2 => _ = hub.propose_goodbye(now, credentials, None, None),
            3 => _ = hub.propose_hold(now, credentials, &["a"]),
            4 | 5 => {
                let since = self.0.pick(&[Since::Now, Since::All, Since::Id(1), Since::Last(3)]);
                let mode = self.0.pick(&[Mode::Immediate, Mode::LongPoll]);
                let credentials = self.0.once_in(2).then_some(credentials);
                let (targets, epoch) = ([(key, since)], None);
                let grace_ms = Some(1);
                let _ = hub.read(
                    now,
                    &ReadRequest {
                        targets: &targets,
                        epoch,
                        credentials,
                        grace_ms,
                        mode,
                        token: 1,
                    },
                );
            }
            6 => {
                let members = hub.members(now, &key, 0);
                assert!(members.iter().count() < 1_000 && members.readers() < usize::MAX);
            }
            7 => {
                hub.begin_checkpoint();
                while let Some(piece) = hub.next_piece(now) {
                    assert!(!piece.is_empty());
                }
            }
            8 => hub.begin_checkpoint(),
            _ => _ = hub.next_piece(now),
        }
    }

    /// The loop ends a turn.
    fn end_turn(&mut self, hub: &mut Hub, now: Now, record: u64) {
        hub.expire(now);
        hub.deliver(now, |_| {});
        hub.enforce_memory_limit(now);
        hub.save(now, 0, |_| Ok::<_, ()>(())).unwrap();
        let mut proposals = Proposals::default();
        hub.take_proposals(u32::MAX, usize::MAX, &mut proposals);
        if self.0.once_in(2) {
            return self.apply_record(hub, now, record, proposals.bytes());
        }
        let mut at = ProposalCursor::default();
        while let Some(proposal) = proposals.next(&mut at).unwrap() {
            hub.refuse(now, &proposal.command);
        }
    }
}

#[test]
fn no_log_makes_a_hub_panic() {
    let seeds = std::env::var("SPEAK_SIM_SEEDS").ok().and_then(|it| it.parse().ok());
    for seed in 0..seeds.unwrap_or(500) {
        println!("seed {seed}");
        let mut chance = Chance(Random::new(seed));
        let mut now = Now { mono: Millis(1_000), unix_ms: 1_700_000_000_000 };
        let mut hub = chance.hub(now);
        let mut record = 0;
        for _ in 0..60 {
            record += 1;
            let mut commands = Proposals::default();
            (0..=chance.0.below(3)).for_each(|_| commands.push(&chance.command()));
            chance.apply_record(&mut hub, now, record, commands.bytes());
            if chance.0.once_in(2) {
                chance.act_locally(&mut hub, now);
            }
            if chance.0.once_in(3) {
                record += 1;
                chance.end_turn(&mut hub, now, record);
            }
            // What was applied in a turn is delivered in it.
            hub.deliver(now, |_| {});
            let ms = chance.0.pick(&[0, 1, 100, 6_000, 70_000]);
            now = Now { mono: now.mono.after(ms), unix_ms: now.unix_ms + ms };
        }
        hub.detach(now);
    }
}
