//! What one seed plays with: its options, its faults and its mix of steps.
//!
//! Swarm testing (Groce et al., ISSTA 2012): every seed leaves out kinds of steps altogether. What is rare in an even mix
//! of everything happens all the time where little else does.

use std::ffi::OsString;

use speak::options::{Command, Options, parse};

use crate::network::Faults;
use crate::random::Random;

/// What may happen next.
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
    /// Something that is no request, or one too large.
    Nonsense,
    /// The beginning of a request whose end never comes.
    Stump,
    /// The rest of a body that waits for `100 Continue`.
    Continue,
    Drain,
    HalfClose,
    Close,
    Reset,
    /// The peer resets amid a call of the server's.
    Fuse,
    Spurious,
    Starve,
    WallClock,
    /// Time passes, and the loop slept through it.
    Jump,
    Tick,
    Turn,
}

const ALWAYS: [(Step, u64); 4] =
    [(Step::Connect, 12), (Step::Drain, 10), (Step::Tick, 12), (Step::Turn, 40)];

const SOMETIMES: [Step; 20] = [
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
    Step::Stump,
    Step::Continue,
    Step::HalfClose,
    Step::Close,
    Step::Reset,
    Step::Fuse,
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
    pub(crate) connection_timeout: u64,
    pub(crate) grace: u64,
    pub(crate) poll_timeout: u64,
    pub(crate) max_clients: usize,
    pub(crate) max_per_address: usize,
    pub(crate) max_backlog: usize,
    pub(crate) max_memory: usize,
    /// Little memory: history may go, calls may be refused, clients may be cut.
    pub(crate) is_tight: bool,
    pub(crate) max_rate: usize,
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
    pub(crate) faults: Faults,
    pub(crate) descriptors: usize,
    /// What a socket's buffers hold.
    pub(crate) capacities: Vec<usize>,
    /// Once in so many times a piece is cut in two; 0 for never.
    pub(crate) cuts: u64,
    pub(crate) delay_ms_max: u64,
    pub(crate) events_max: usize,
    pub(crate) shuffles: bool,
    pub(crate) message_bytes: Vec<usize>,
    /// Somebody reads everything from the beginning to the end, by a network without faults.
    pub(crate) has_witness: bool,
    pub(crate) stops: bool,
    /// For how many a step counts: a turn may have time for few.
    pub(crate) weight: usize,
}

impl Plan {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let numbers = Numbers {
            keep_alive: random.pick(&[300, 5_000, 75_000]),
            request_timeout: random.pick(&[200, 2_000, 10_000]),
            heartbeat: random.pick(&[400, 3_000, 15_000]),
            connection_timeout: random.pick(&[100, 1_000, 5_000]),
            grace: random.pick(&[0, 0, 0, 50, 2_000]),
            poll_timeout: random.pick(&[1_000, 5_000, 25_000]),
            max_clients: random.pick(&[3, 10, 1_000, 1_000]),
            max_per_address: random.pick(&[0, 0, 0, 2, 5]),
            max_backlog: random.pick(&[500, 20_000, 1 << 20]),
            max_memory: random.pick(&[60_000, 256 << 20, 256 << 20, 256 << 20]),
            is_tight: false,
            max_rate: random.pick(&[0, 0, 0, 5]),
            history: random.pick(&[0, 2, 100, 100]),
        };
        let numbers = Numbers { is_tight: numbers.max_memory < 1 << 20, ..numbers };
        let retention = random.pick(&["300ms", "20s", "1h"]);
        let max_reply = random.pick(&["300", "1m", "1m"]);
        let arguments = [
            format!("--keep-alive={}ms", numbers.keep_alive),
            format!("--request-timeout={}ms", numbers.request_timeout),
            format!("--heartbeat={}ms", numbers.heartbeat),
            format!("--connection-timeout={}ms", numbers.connection_timeout),
            format!("--close-grace={}ms", numbers.grace),
            format!("--poll-timeout={}ms", numbers.poll_timeout),
            format!("--max-clients={}", numbers.max_clients),
            format!("--max-clients-per-address={}", numbers.max_per_address),
            format!("--max-backlog={}", numbers.max_backlog),
            format!("--max-memory={}", numbers.max_memory),
            format!("--max-rate={}", numbers.max_rate),
            format!("--history={}", numbers.history),
            format!("--retention={retention}"),
            format!("--max-reply={max_reply}"),
            "--max-message=4k".to_owned(),
            "--max-head=2k".to_owned(),
        ];
        let Ok(Command::Run(options)) = parse(arguments.into_iter().map(OsString::from), |_| None)
        else {
            panic!("options of the simulation are options")
        };
        let mut steps = ALWAYS.to_vec();
        let keeps = random.pick(&[2, 3, 6]);
        for step in SOMETIMES {
            if !random.once_in(keeps) {
                let weight = random.pick(&[1, 3, 10]);
                let is_rare = matches!(
                    step,
                    Step::Reset | Step::Fuse | Step::Jump | Step::Starve | Step::Close
                );
                steps.push((step, if is_rare { weight.min(3) } else { 2 * weight }));
            }
        }
        let is_faulty = random.once_in(2);
        let mut rate = |choices: &[u64]| if is_faulty { random.pick(choices) } else { 0 };
        let faults = Faults {
            interrupted: rate(&[0, 20, 5]),
            short_write: rate(&[0, 10, 2]),
            out_of_room: rate(&[0, 0, 10]),
            cannot_watch: rate(&[0, 0, 30]),
        };
        Self {
            options,
            numbers,
            steps,
            length: random.pick(&[100, 400, 1_500]),
            clients_max: random.pick(&[3, 8, 20, 60]),
            channels: random.pick(&[1, 2, 5]),
            addresses: random.pick(&[1, 3, 20]),
            faults,
            descriptors: if random.once_in(4) { random.pick(&[3, 6, 12]) } else { 10_000 },
            capacities: random.pick(&[vec![1 << 20], vec![200, 3_000, 1 << 20], vec![30, 500]]),
            cuts: random.pick(&[0, 4, 1]),
            delay_ms_max: random.pick(&[0, 5, 300]),
            events_max: random.pick(&[1, 3, 1024, 1024]),
            shuffles: random.once_in(2),
            message_bytes: random.pick(&[vec![0], vec![0, 50, 3_000], vec![500]]),
            has_witness: !random.once_in(5),
            stops: random.once_in(5),
            weight: random.pick(&[1, 1, 30, 300, 2_000]),
        }
    }
}
