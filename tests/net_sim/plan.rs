//! The plan of one seed: its options, its faults and its mix of steps.
//!
//! Swarm testing (Groce et al., ISSTA 2012): each seed leaves out kinds of steps altogether.
//! An event that is rare in an even mix happens all the time where little else does.

use std::ffi::OsString;

use speak::options::{Command, Options, parse};

use crate::machine::MachinePlan;
use crate::network::Faults;
use crate::tls;
use support::random::Random;

/// A step of the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Connect,
    Write,
    ReadNow,
    Poll,
    Events,
    Frames,
    Introduce,
    Goodbye,
    Lookup,
    /// Several requests at once, before the answer to any.
    Pipeline,
    /// Bytes that are no request, or one too large.
    Nonsense,
    /// The beginning of a request whose end never comes.
    Truncated,
    /// The rest of a body that waits for `100 Continue`, or the last byte of a request.
    Continue,
    /// A request without its last byte.
    Withhold,
    /// The rests of all requests, at once.
    Release,
    Drain,
    HalfClose,
    Close,
    Reset,
    /// The peer resets during a call of the server's.
    Fuse,
    /// Nothing arrives from the peer any more, without an end.
    Cut,
    Spurious,
    Starve,
    WallClock,
    /// A long time passes.
    Jump,
    /// The disk of the journal is full for a while.
    FillDisk,
    /// The process dies, and another one reads the journal.
    Crash,
    /// Another process takes over state and journal.
    Upgrade,
    /// Connections with TLS move to another process.
    MoveTls,
    Tick,
    Turn,
}

const ALWAYS: [(Step, u64); 4] =
    [(Step::Connect, 12), (Step::Drain, 10), (Step::Tick, 12), (Step::Turn, 40)];

const SOMETIMES: [Step; 23] = [
    Step::Write,
    Step::ReadNow,
    Step::Poll,
    Step::Events,
    Step::Frames,
    Step::Introduce,
    Step::Goodbye,
    Step::Lookup,
    Step::Pipeline,
    Step::Nonsense,
    Step::Truncated,
    Step::Continue,
    Step::Withhold,
    Step::Release,
    Step::HalfClose,
    Step::Close,
    Step::Reset,
    Step::Fuse,
    Step::Cut,
    Step::Spurious,
    Step::Starve,
    Step::WallClock,
    Step::Jump,
];

/// The numbers that the checks need, in milliseconds and bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) keep_alive: u64,
    pub(crate) request_timeout: u64,
    pub(crate) heartbeat: u64,
    pub(crate) stream_life: u64,
    pub(crate) connection_timeout: u64,
    pub(crate) grace: u64,
    pub(crate) poll_timeout: u64,
    pub(crate) max_clients: usize,
    pub(crate) max_per_address: usize,
    pub(crate) max_backlog: usize,
    pub(crate) max_memory: usize,
    /// Little memory: history may be evicted, calls refused, clients closed.
    pub(crate) is_tight: bool,
    /// Bytes of the messages or members in one answer.
    pub(crate) max_reply: usize,
    /// One answer may not contain all that is retained.
    pub(crate) is_cut: bool,
    pub(crate) max_rate: usize,
    pub(crate) max_introduction: usize,
    pub(crate) history: usize,
}

pub(crate) struct Plan {
    pub(crate) options: Box<Options>,
    pub(crate) numbers: Numbers,
    pub(crate) steps: Vec<(Step, u64)>,
    pub(crate) length: u64,
    pub(crate) clients_max: usize,
    pub(crate) channels: usize,
    pub(crate) addresses: u8,
    /// Most clients have the first address.
    pub(crate) is_crowded: bool,
    pub(crate) faults: Faults,
    pub(crate) descriptors: usize,
    /// Sizes of a socket's buffers.
    pub(crate) capacities: Vec<usize>,
    /// Once in so many times a segment is cut in two; 0 for never.
    pub(crate) cuts: u64,
    pub(crate) delay_ms_max: u64,
    pub(crate) events_max: usize,
    pub(crate) shuffles: bool,
    pub(crate) message_bytes: Vec<usize>,
    /// A client reads all channels from the beginning to the end, by a network without faults.
    pub(crate) has_observer: bool,
    pub(crate) stops: bool,
    /// Number of steps for which each counts: a turn may have time for few.
    pub(crate) weight: usize,
    /// Disk of the journal, if there is one.
    pub(crate) disk: Option<DiskPlan>,
    pub(crate) retention_ms: u64,
    /// Once in so many times a client speaks TLS; 0 for never.
    pub(crate) tls: u64,
}

/// Faults of a disk.
#[derive(Clone, Debug)]
pub(crate) struct DiskPlan {
    /// Durations of a job of the helper, in milliseconds.
    pub(crate) delays: Vec<u64>,
    pub(crate) fills: bool,
    pub(crate) crashes: bool,
    pub(crate) machine: MachinePlan,
}

impl DiskPlan {
    /// Returns a plan, or `None` for a server without a journal.
    pub(crate) fn draw(random: &mut Random) -> Option<Self> {
        let has_disk = random.once_in(2);
        let is_quick = random.once_in(3);
        let delays = random.pick(&[vec![0, 1, 5], vec![0, 20, 300], vec![3, 700, 3_000, 7_000]]);
        let mut plan = Self {
            delays: if is_quick { vec![0] } else { delays },
            fills: !is_quick && random.once_in(2),
            crashes: !is_quick && !random.once_in(3),
            machine: MachinePlan::draw(random),
        };
        if is_quick {
            plan.machine.fails = 0;
        }
        has_disk.then_some(plan)
    }

    /// Returns the steps of such a disk, and their weights.
    pub(crate) fn steps(&self) -> Vec<(Step, u64)> {
        let fill = self.fills.then_some((Step::FillDisk, 2));
        let crash = self.crashes.then_some([(Step::Crash, 1), (Step::Upgrade, 1)]);
        fill.into_iter().chain(crash.into_iter().flatten()).collect()
    }

    /// Returns whether a call may wait for longer than its turn.
    pub(crate) fn has_lag(&self) -> bool {
        self.delays != [0] || self.machine.fails > 0 || self.fills || self.crashes
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
    pub(crate) fn draw(random: &mut Random) -> Self {
        let numbers = Numbers {
            keep_alive: random.pick(&[300, 5_000, 75_000]),
            request_timeout: random.pick(&[200, 2_000, 10_000]),
            heartbeat: random.pick(&[400, 3_000, 15_000]),
            stream_life: random.pick(&[0, 200, 700, 4_000]),
            connection_timeout: random.pick(&[100, 1_000, 5_000]),
            grace: random.pick(&[0, 0, 0, 50, 2_000]),
            poll_timeout: random.pick(&[1_000, 5_000, 25_000]),
            max_clients: random.pick(&[3, 10, 1_000, 1_000]),
            max_per_address: random.pick(&[0, 0, 0, 2, 5]),
            max_backlog: random.pick(&[500, 20_000, 1 << 20]),
            max_memory: random.pick(&[60_000, 256 << 20, 256 << 20, 256 << 20]),
            is_tight: false,
            max_reply: random.pick(&[300, 1 << 20, 1 << 20]),
            is_cut: false,
            max_rate: random.pick(&[0, 0, 0, 5]),
            max_introduction: random.pick(&[30, 1_024, 4_096]),
            history: random.pick(&[0, 2, 100, 100]),
        };
        let retention_ms = random.pick(&[300, 20_000, 3_600_000]);
        let disk = DiskPlan::draw(random);
        let has_lag = disk.as_ref().is_some_and(DiskPlan::has_lag);
        let max_memory = if has_lag { 256 << 20 } else { numbers.max_memory };
        let numbers = Numbers { max_memory, ..numbers };
        let is_tight = numbers.max_memory < 1 << 20;
        let numbers = Numbers { is_tight, is_cut: is_tight || numbers.max_reply == 300, ..numbers };
        let arguments = [
            format!("--keep-alive={}ms", numbers.keep_alive),
            format!("--request-timeout={}ms", numbers.request_timeout),
            format!("--heartbeat={}ms", numbers.heartbeat),
            format!("--stream-life={}ms", numbers.stream_life),
            format!("--connection-timeout={}ms", numbers.connection_timeout),
            format!("--close-grace={}ms", numbers.grace),
            format!("--poll-timeout={}ms", numbers.poll_timeout),
            format!("--max-clients={}", numbers.max_clients),
            format!("--max-clients-per-address={}", numbers.max_per_address),
            format!("--max-backlog={}", numbers.max_backlog),
            format!("--max-memory={}", numbers.max_memory),
            format!("--max-rate={}", numbers.max_rate),
            format!("--max-introduction={}", numbers.max_introduction),
            format!("--history={}", numbers.history),
            format!("--retention={retention_ms}ms"),
            format!("--max-reply={}", numbers.max_reply),
            "--max-message=4k".to_owned(),
            "--max-head=2k".to_owned(),
        ];
        let options = options(arguments);
        let mut steps = ALWAYS.to_vec();
        let keeps = random.pick(&[2, 3, 6]);
        for step in SOMETIMES {
            if !random.once_in(keeps) {
                let weight = random.pick(&[1, 3, 10]);
                let is_rare = matches!(
                    step,
                    Step::Reset | Step::Fuse | Step::Cut | Step::Jump | Step::Starve | Step::Close
                );
                steps.push((step, if is_rare { weight.min(3) } else { 2 * weight }));
            }
        }
        if let Some(disk) = &disk {
            steps.extend(disk.steps());
        }
        let is_faulty = random.once_in(2);
        let mut rate = |choices: &[u64]| if is_faulty { random.pick(choices) } else { 0 };
        let faults = Faults {
            interrupted: rate(&[0, 20, 5]),
            short_write: rate(&[0, 10, 2]),
            out_of_room: rate(&[0, 0, 10]),
            cannot_register: rate(&[0, 0, 30]),
        };
        // Drawn aside: a run without TLS is the same as before there was any.
        let tls = random.clone().pick(&[1, 2, 0, 0, 0]);
        if tls > 0 {
            steps.extend(tls::STEPS);
        }
        Self {
            options,
            numbers,
            tls,
            steps,
            length: random.pick(&[100, 400, 1_500]),
            clients_max: random.pick(&[3, 8, 20, 60]),
            channels: random.pick(&[1, 2, 5]),
            addresses: random.pick(&[1, 3, 20]),
            is_crowded: random.once_in(3),
            faults,
            descriptors: if random.once_in(4) { random.pick(&[3, 6, 12]) } else { 10_000 },
            capacities: random.pick(&[vec![1 << 20], vec![200, 3_000, 1 << 20], vec![30, 500]]),
            cuts: random.pick(&[0, 4, 1]),
            delay_ms_max: random.pick(&[0, 5, 300]),
            events_max: random.pick(&[1, 3, 1024, 1024]),
            shuffles: random.once_in(2),
            message_bytes: random.pick(&[vec![0], vec![0, 50, 3_000], vec![500]]),
            has_observer: !random.once_in(5),
            stops: random.once_in(5),
            weight: random.pick(&[1, 1, 30, 300, 2_000]),
            disk,
            retention_ms,
        }
    }
}
