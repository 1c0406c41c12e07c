//! What one seed plays with: its limits, its crowd and its mix of calls.
//!
//! Every seed draws its own ("swarm testing"): a run that never says goodbye, or
//! only ever reads, reaches states in which an even mix of everything never stays.

use std::time::Duration;

use speak::hub::{CHANNELS_PER_SESSION_MAX, Config, Epoch};

use super::random::Random;

/// What the operator of this run decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) history: u64,
    pub(crate) retention_ms: u64,
    pub(crate) timeout_ms: u64,
    pub(crate) grace_ms: u64,
    pub(crate) max_reply: usize,
    pub(crate) max_channels: usize,
}

impl Limits {
    pub(crate) fn config(&self, epoch: &str, watermark_hash_key: [u8; 16]) -> Config {
        Config {
            history: self.history as usize,
            retention: Duration::from_millis(self.retention_ms),
            connection_timeout: Duration::from_millis(self.timeout_ms),
            close_grace: Duration::from_millis(self.grace_ms),
            max_reply: self.max_reply,
            max_channels: self.max_channels,
            epoch: Epoch::new(epoch.as_bytes().try_into().expect("eight characters")),
            watermark_hash_key,
            ..Config::default()
        }
    }
}

/// What may be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    /// More writes in one turn than any history retains.
    Burst,
    JoinAsNew,
    JoinAgain,
    /// One connection joins more channels than it may.
    JoinMany,
    Leave,
    LeaveOne,
    Read,
    /// Several that wait on one channel.
    Crowd,
    /// Several reads of one connection, each on channels of its own.
    Household,
    /// A client that goes on where its last answer ended.
    Follow,
    /// A stream has more before it than it should: it is not to be told anything.
    PutOff,
    /// A stream has taken what it was given.
    Resume,
    /// A stream follows other channels.
    FollowAnew,
    Members,
    Close,
    /// A client dies, and its reads are closed one by one.
    Vanish,
    DismissAll,
    WrongHalf,
    /// The hub is saved, and restored elsewhere.
    MoveHouse,
}

const READS: [Kind; 4] = [Kind::Read, Kind::Follow, Kind::Crowd, Kind::Household];
const STREAMS: [Kind; 3] = [Kind::PutOff, Kind::Resume, Kind::FollowAnew];
const OTHERS: [Kind; 8] = [
    Kind::Write,
    Kind::JoinAsNew,
    Kind::JoinAgain,
    Kind::Leave,
    Kind::LeaveOne,
    Kind::Members,
    Kind::Close,
    Kind::Vanish,
];
const RARE: [Kind; 5] =
    [Kind::Burst, Kind::JoinMany, Kind::DismissAll, Kind::WrongHalf, Kind::MoveHouse];

/// How far the clock goes between two turns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Jump {
    Nowhere,
    Tick,
    Short,
    /// To when the hub asked to be woken.
    ToDeadline,
    /// A millisecond short of that, or beyond.
    AroundDeadline,
    /// By one of the limits, give or take a millisecond.
    ByLimit,
    Long,
}

const SMALL_JUMPS: [Jump; 3] = [Jump::Nowhere, Jump::Tick, Jump::Short];
const WAKING_JUMPS: [Jump; 2] = [Jump::ToDeadline, Jump::AroundDeadline];
const LARGE_JUMPS: [Jump; 2] = [Jump::ByLimit, Jump::Long];

/// How long a channel lingers of which nothing is left.
pub(crate) const LINGER_MS: u64 = 60_000;

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "coins, each tossed for itself")]
pub(crate) struct Plan {
    pub(crate) limits: Limits,
    pub(crate) channels: usize,
    /// Whether the first two channels share a place in the table of resting ids.
    pub(crate) twins: bool,
    pub(crate) connections_max: usize,
    pub(crate) followers: usize,
    /// How long reads wait; 0 is drawn beside it.
    pub(crate) waits_ms: Vec<u64>,
    /// Of ten reads that wait, how many are streams.
    pub(crate) streams_in_ten: u64,
    pub(crate) turns: u64,
    pub(crate) calls_per_turn_max: u64,
    pub(crate) kinds: Vec<(Kind, u64)>,
    pub(crate) jumps: Vec<(Jump, u64)>,
    /// Calls show credentials once in this many times.
    pub(crate) anonymous_once_in: u64,
    /// Whether every message is looked at before it can be trimmed. Looking may hide what nobody's looking shows.
    pub(crate) audits: bool,
    /// Whether the hub is left alone while it says that nothing is due.
    pub(crate) trusts_deadline: bool,
    /// Whether somebody turns the wall clock.
    pub(crate) wall_clock_jumps: bool,
}

impl Plan {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let limits = Limits {
            history: random.pick(&[0, 1, 3, 100]),
            retention_ms: random.pick(&[40, 3_000, 70_000, 600_000, 86_400_000]),
            timeout_ms: random.pick(&[1, 30, 1_000, 5_000, 5_000, 100_000, 100_000, 100_000]),
            grace_ms: random.pick(&[0, 0, 7, 300, 4_000, 30_000]),
            max_reply: random.pick(&[1, 150, 400, 1 << 20, 1 << 20]),
            max_channels: random.pick(&[0, 0, 0, 1, 3, 6]),
        };
        let channels = random.pick(&[1, 2, 2, 3, 5, 9, 36]);
        let mut kinds: Vec<_> = OTHERS.map(|kind| (kind, random.pick(&[0, 2, 6, 6, 20]))).into();
        kinds.extend(READS.map(|kind| (kind, random.pick(&[0, 6, 12, 20]))));
        kinds.extend(RARE.map(|kind| (kind, random.pick(&[0, 0, 1]))));
        let streams_in_ten = random.pick(&[0, 0, 2, 5, 10]);
        if streams_in_ten > 0 {
            kinds.extend(STREAMS.map(|kind| (kind, random.pick(&[0, 4, 12]))));
        }
        kinds.push((Kind::Write, 1));
        if channels > CHANNELS_PER_SESSION_MAX {
            kinds.push((Kind::JoinMany, 1));
        }
        let mut jumps: Vec<_> = SMALL_JUMPS.map(|jump| (jump, random.pick(&[0, 4, 12]))).into();
        jumps.extend(WAKING_JUMPS.map(|jump| (jump, random.pick(&[0, 1, 4]))));
        jumps.extend(LARGE_JUMPS.map(|jump| (jump, random.pick(&[0, 0, 1, 4]))));
        jumps.push((Jump::Tick, 1));
        let calls_per_turn_max = random.pick(&[1, 2, 4, 9]);
        Self {
            limits,
            channels,
            twins: random.once_in(4),
            connections_max: random.pick(&[1, 2, 4, 40]),
            followers: random.pick(&[0, 1, 3]),
            waits_ms: random.pick(&[
                vec![25_000],
                vec![1, 10, 500],
                vec![20, 2_000, 25_000],
                vec![100_000, 400_000],
            ]),
            streams_in_ten,
            turns: random.pick(&[100, 180, 260]) / (calls_per_turn_max + 1),
            calls_per_turn_max,
            kinds,
            jumps,
            anonymous_once_in: random.pick(&[1, 2, 4, 9]),
            audits: random.once_in(2),
            trusts_deadline: random.once_in(2),
            wall_clock_jumps: random.once_in(4),
        }
    }
}
