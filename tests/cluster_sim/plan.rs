//! The plan of one seed: its options, its faults and its mix of steps.

use std::ffi::OsString;

use speak::options::{Command, Options, parse};
use support::random::Random;

/// A step of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Write,
    /// A message of a session.
    WriteAs,
    /// A new session.
    Introduce,
    /// A session in another channel, or once more.
    IntroduceAs,
    Goodbye,
    Leave,
    /// The owner of the room removes a message.
    Remove,
    /// The owner of the room sends a session away.
    Kick,
    /// Asks for the names of a new pair.
    Create,
    Read,
    ReadAs,
    Poll,
    PollAs,
    Members,
    /// A client closes while its poll waits.
    ClosePoll,
    Tick,
    /// A long time passes.
    Jump,
    /// A node loses a connection to Redis.
    Cut,
    PauseRedis,
    PauseNode,
    Kill,
    Start,
    /// Another process takes over from a node.
    Upgrade,
    /// Redis loses records, and perhaps is another one since.
    LoseRecords,
}

const ALWAYS: [(Step, u64); 3] = [(Step::Write, 10), (Step::Read, 10), (Step::Tick, 60)];

const SOMETIMES: [(Step, u64); 20] = [
    (Step::WriteAs, 15),
    (Step::Introduce, 8),
    (Step::IntroduceAs, 5),
    (Step::Goodbye, 2),
    (Step::Leave, 2),
    (Step::Remove, 4),
    (Step::Kick, 2),
    (Step::Create, 1),
    (Step::ReadAs, 15),
    (Step::Poll, 10),
    (Step::PollAs, 15),
    (Step::Members, 8),
    (Step::ClosePoll, 2),
    (Step::Jump, 2),
    (Step::Cut, 3),
    (Step::PauseRedis, 1),
    (Step::PauseNode, 1),
    (Step::Kill, 1),
    (Step::Start, 1),
    (Step::Upgrade, 1),
];

pub(crate) struct Plan {
    pub(crate) options: Box<Options>,
    pub(crate) timeout_ms: u64,
    pub(crate) grace_ms: u64,
    pub(crate) poll_ms: u64,
    pub(crate) steps: Vec<(Step, u64)>,
    pub(crate) length: u64,
    pub(crate) channels: usize,
    pub(crate) nodes: usize,
    pub(crate) nodes_max: usize,
    /// Delays between nodes and Redis.
    pub(crate) delays: Vec<u64>,
    /// They are those of a Redis that is far away, and stay so until the end.
    pub(crate) is_far: bool,
    /// Times that pass in a tick.
    pub(crate) ticks: Vec<u64>,
    /// Durations of a pause of Redis.
    pub(crate) pauses: Vec<u64>,
    pub(crate) sizes: Sizes,
}

/// What a node has to do at most, or at least.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    /// Number of steps for which each counts: a turn may have time for few.
    pub(crate) step_weight: usize,
    /// Size of a log below which no snapshot is made, in bytes.
    pub(crate) snapshot_min: u64,
    /// Bytes of records that are kept for a Redis that lacks them.
    pub(crate) tail_max: usize,
}

impl Sizes {
    /// Those of the program.
    pub(crate) const REAL: Self =
        Self { step_weight: 1, snapshot_min: 16 << 20, tail_max: 8 << 20 };

    /// Returns whether the log may lose its beginning, or a node its kept records.
    pub(crate) fn are_small(&self) -> bool {
        self.snapshot_min < Self::REAL.snapshot_min || self.tail_max < Self::REAL.tail_max
    }
}

/// Parses arguments of the server.
pub(crate) fn options<const N: usize>(arguments: [String; N]) -> Box<Options> {
    match parse(arguments.map(OsString::from), |_| None) {
        Ok(Command::Run(options)) => options,
        _ => panic!("options of the simulation are options"),
    }
}

impl Plan {
    /// Time without trouble after which a poll certainly waits at its node, which holds its
    /// session.
    pub(crate) fn quiet_ms(&self) -> u64 {
        if self.is_far { 14_000 } else { 4_000 }
    }

    pub(crate) fn draw(random: &mut Random) -> Self {
        let timeout_ms = random.pick(&[1_000, 2_000, 5_000]);
        let grace_ms = random.pick(&[0, 0, 50, 800]);
        let poll_ms = random.pick(&[2_000, 8_000, 25_000]);
        let retention_ms = random.pick(&[3_600_000, 3_600_000, 3_600_000, 3_000]);
        let history = random.pick(&[10_000, 10_000, 20]);
        let options = options([
            format!("--connection-timeout={timeout_ms}ms"),
            format!("--close-grace={grace_ms}ms"),
            format!("--poll-timeout={poll_ms}ms"),
            format!("--retention={retention_ms}ms"),
            format!("--history={history}"),
            "--max-reply=16777216".to_owned(),
            "--keep-alive=3600s".to_owned(),
            "--max-clients-per-address=0".to_owned(),
        ]);
        let mut steps = ALWAYS.to_vec();
        for (step, weight) in SOMETIMES {
            if !random.once_in(4) {
                steps.push((step, weight * random.pick(&[1, 1, 3])));
            }
        }
        if random.once_in(3) {
            // All nodes have to vouch for what they have read within seconds.
            let delays = [Step::Kill, Step::PauseNode, Step::PauseRedis, Step::Cut];
            steps.retain(|(step, _)| !delays.contains(step));
            steps.push((Step::LoseRecords, 2));
        }
        let loses_records = steps.iter().any(|(step, _)| *step == Step::LoseRecords);
        let is_far = !loses_records && random.once_in(6);
        let delays = match is_far {
            true => vec![random.pick(&[260, 300, 350])],
            // Connections and vouches of all nodes take less than three seconds.
            false if loses_records => random.pick(&[vec![0], vec![0, 1, 2], vec![1, 5, 60]]),
            false => random.pick(&[vec![0], vec![0, 1, 2], vec![1, 5, 60], vec![0, 3, 150]]),
        };
        Self {
            options,
            timeout_ms,
            grace_ms,
            poll_ms,
            steps,
            length: random.pick(&[100, 400, 1_500]),
            channels: random.pick(&[1, 2, 4]),
            nodes: random.pick(&[1, 2, 2, 3]),
            nodes_max: random.pick(&[2, 3, 4]),
            delays,
            is_far,
            ticks: random.pick(&[vec![1, 3, 10], vec![1, 20, 100], vec![5, 50, 400]]),
            pauses: random.pick(&[vec![100, 700], vec![700, 2_500], vec![1_500, 4_000, 9_000]]),
            sizes: Sizes {
                step_weight: random.pick(&[1, 1, 300, 2_000]),
                snapshot_min: random.pick(&[500, 5_000, 50_000, Sizes::REAL.snapshot_min]),
                tail_max: random.pick(&[300, 3_000, 30_000, Sizes::REAL.tail_max]),
            },
        }
    }
}
