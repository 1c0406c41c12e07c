//! The plan of one seed: its limits, its clients and its mix of calls.
//!
//! Each seed draws its own ("swarm testing"): a run that never says goodbye, or only ever reads,
//! reaches states that an even mix of everything never reaches.

use std::time::Duration;

use speak::hub::{CHANNELS_PER_SESSION_MAX, Config, Epoch};

use support::random::Random;

use super::log::Logging;
use super::machine::MachinePlan;

/// Options of this run.
#[derive(Clone, Copy, Debug, Default)]
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
            max_memory: usize::MAX,
            epoch: Epoch::new(epoch.as_bytes().try_into().expect("eight characters")),
            watermark_hash_key,
        }
    }
}

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    /// More writes in one turn than any history retains.
    Burst,
    JoinAsNew,
    JoinAgain,
    /// One session joins more channels than it may.
    JoinMany,
    Leave,
    LeaveOne,
    Remove,
    Kick,
    Read,
    /// Several reads of one channel.
    Crowd,
    /// Several reads of one session, each on other channels.
    SameSession,
    /// A follower continues.
    Follow,
    /// A stream has too much to take: it is to be sent nothing.
    Pause,
    /// A stream has taken all.
    Resume,
    /// A stream follows other channels.
    Resubscribe,
    /// The server ends a stream.
    EndStream,
    Members,
    Close,
    /// A client vanishes, and its reads are closed one by one.
    DropClient,
    CompleteAll,
    WrongHalf,
    /// The hub is saved, and restored by another process.
    Restore,
    /// A checkpoint begins or goes on.
    Checkpoint,
    /// The process dies.
    Crash,
    /// The log is slow, or no more.
    Health,
}

const READS: [Kind; 4] = [Kind::Read, Kind::Follow, Kind::Crowd, Kind::SameSession];
const STREAMS: [Kind; 4] = [Kind::Pause, Kind::Resume, Kind::Resubscribe, Kind::EndStream];
const OTHERS: [Kind; 10] = [
    Kind::Write,
    Kind::JoinAsNew,
    Kind::JoinAgain,
    Kind::Leave,
    Kind::LeaveOne,
    Kind::Remove,
    Kind::Kick,
    Kind::Members,
    Kind::Close,
    Kind::DropClient,
];
const RARE: [Kind; 5] =
    [Kind::Burst, Kind::JoinMany, Kind::CompleteAll, Kind::WrongHalf, Kind::Restore];

/// Time that passes between two turns.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Jump {
    Nowhere,
    Tick,
    Short,
    /// To the hub's deadline.
    ToDeadline,
    /// A millisecond before or after it.
    AroundDeadline,
    /// By one of the limits, or a millisecond less or more.
    ByLimit,
    Long,
}

const SMALL_JUMPS: [Jump; 3] = [Jump::Nowhere, Jump::Tick, Jump::Short];
const WAKING_JUMPS: [Jump; 2] = [Jump::ToDeadline, Jump::AroundDeadline];
const LARGE_JUMPS: [Jump; 2] = [Jump::ByLimit, Jump::Long];

/// Time for which an idle channel is kept.
pub(crate) const IDLE_CHANNEL_MS: u64 = 60_000;

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "coins, each tossed for itself")]
pub(crate) struct Plan {
    pub(crate) limits: Limits,
    pub(crate) channels: usize,
    /// The first two channels share a bucket of the table of watermarks.
    pub(crate) names_collide: bool,
    pub(crate) connections_max: usize,
    pub(crate) followers: usize,
    /// Reads name a grace once in this many times; 0 for never.
    pub(crate) grace_once_in: u64,
    /// Durations of long polls, besides 0.
    pub(crate) waits_ms: Vec<u64>,
    /// Number of streams among ten reads that may be pending.
    pub(crate) streams_in_ten: u64,
    pub(crate) turns: u64,
    pub(crate) calls_per_turn_max: u64,
    pub(crate) kinds: Vec<(Kind, u64)>,
    pub(crate) jumps: Vec<(Jump, u64)>,
    /// Calls show no credentials once in this many times.
    pub(crate) anonymous_once_in: u64,
    /// Each message is read before it can be trimmed. Reading may hide faults, so not in each run.
    pub(crate) audits: bool,
    /// The hub is left alone while it says that nothing is due.
    pub(crate) trusts_deadline: bool,
    /// The wall clock jumps.
    pub(crate) wall_clock_jumps: bool,
    pub(crate) logging: Logging,
    /// Other processes share the log.
    pub(crate) has_others: bool,
    /// The disk of the log is full now and then.
    pub(crate) disk_fills: bool,
    /// The log is a journal on a simulated disk.
    pub(crate) machine: Option<MachinePlan>,
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
        let logging = Logging::draw(random);
        if logging != Logging::None {
            kinds.push((Kind::Checkpoint, random.pick(&[0, 8, 30])));
            kinds.push((Kind::Crash, random.pick(&[0, 1, 4])));
            kinds.push((Kind::Health, random.pick(&[0, 0, 1])));
        }
        let mut jumps: Vec<_> = SMALL_JUMPS.map(|jump| (jump, random.pick(&[0, 4, 12]))).into();
        jumps.extend(WAKING_JUMPS.map(|jump| (jump, random.pick(&[0, 1, 4]))));
        jumps.extend(LARGE_JUMPS.map(|jump| (jump, random.pick(&[0, 0, 1, 4]))));
        jumps.push((Jump::Tick, 1));
        let calls_per_turn_max = random.pick(&[1, 2, 4, 9]);
        let has_machine = logging != Logging::None && !random.once_in(3);
        let mut machine = has_machine.then(|| MachinePlan::draw(random));
        if let Some(machine) = machine.as_mut().filter(|_| logging == Logging::AtOnce) {
            // A failure ends the process, which would be in the middle of a call.
            machine.fails = 0;
        }
        Self {
            limits,
            channels,
            names_collide: random.once_in(4),
            connections_max: random.pick(&[1, 2, 4, 40]),
            followers: random.pick(&[0, 1, 3]),
            grace_once_in: random.pick(&[0, 0, 1, 3]),
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
            logging,
            disk_fills: random.once_in(3),
            has_others: machine.is_none() && limits.max_channels == 0 && random.once_in(2),
            machine,
        }
    }
}
