//! A client of the simulation: what it asked, and what it waits for.

use std::collections::VecDeque;

use crate::ear::ResponseParser;

/// Where a read begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    Now,
    All,
    Last(u64),
    Id(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    ReadNow,
    Poll {
        wait_ms: u64,
    },
    Events,
    Frames,
    Introduce,
    Goodbye,
    GoodbyeToOne,
    /// Answered with this status, whatever else happens.
    Plain(u16),
    /// Answered with this status, and told to go.
    Fatal(u16),
}

/// One request, or one call in a frame.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    /// All of it is there when so many bytes of its client are.
    pub(crate) end: u64,
    pub(crate) text: Option<usize>,
    pub(crate) channels: Vec<usize>,
    pub(crate) since: Vec<Since>,
    /// The connection whose credentials it shows.
    pub(crate) carries: Option<usize>,
    pub(crate) closes: bool,
    pub(crate) is_script: bool,
    pub(crate) is_frame: bool,
    /// The turn in which the server had it at the latest, and at the earliest.
    pub(crate) arrived_at: Option<u64>,
    /// It waits, as nothing else is left for it to do: since then.
    pub(crate) waits_since: Option<u64>,
    /// What the channels' next ids were then.
    pub(crate) seen: Vec<u64>,
}

/// A read that stays.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) is_frames: bool,
    pub(crate) channels: Vec<usize>,
    pub(crate) since: Vec<Since>,
    pub(crate) cursors: Vec<Option<u64>>,
    pub(crate) gaps: Vec<bool>,
    pub(crate) carries: Option<usize>,
    /// The loop has slept since it began.
    pub(crate) is_settled: bool,
    /// When it was last told something, at the earliest; answers to its calls are not meant.
    pub(crate) told_at: u64,
    pub(crate) silence: IdleCause,
}

/// How often the loop could have noticed that a stream gave no sign of life.
#[derive(Debug, Default)]
pub(crate) struct IdleCause {
    since: u64,
    next_look: u64,
    looks: u32,
}

impl IdleCause {
    /// The loop sleeps at `now`; the last sign was at `since`. Returns how many heartbeats went by in which it looked.
    pub(crate) fn look(&mut self, since: u64, now: u64, heartbeat_ms: u64) -> u32 {
        if since != self.since || self.next_look == 0 {
            *self = Self { since, next_look: since + heartbeat_ms, looks: 0 };
        }
        if now >= self.next_look {
            self.looks += 1;
            self.next_look = now + heartbeat_ms;
        }
        self.looks
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadRate {
    /// Takes all that is sent to it at once.
    Eager,
    /// Takes some of it, now and then.
    Slow,
    /// Takes nothing, until the network heals.
    Never,
}

pub(crate) struct Peer {
    pub(crate) appetite: ReadRate,
    pub(crate) answers_pings: bool,
    pub(crate) ear: ResponseParser,
    /// Bytes put on the wire.
    pub(crate) sent: u64,
    pub(crate) outstanding: VecDeque<Request>,
    pub(crate) following: Option<Following>,
    /// What belongs behind what was sent: the body of a request that expects to be asked for it.
    pub(crate) rest: Option<Vec<u8>>,
    /// It says nothing more that makes sense.
    pub(crate) is_spoilt: bool,
    /// It closed its side, or all.
    pub(crate) has_closed: bool,
    /// It was told to go.
    pub(crate) is_told_to_go: bool,
    pub(crate) told_to_go_at: u64,
    /// It may have been amid something when it was told to go, and has time to read why.
    pub(crate) may_linger: bool,
    /// It was let in only to be told that there is no room.
    pub(crate) is_refused: bool,
    pub(crate) is_witness: bool,
    pub(crate) accepted_at: Option<u64>,
    /// When the server last read something of it, and how much by then.
    pub(crate) heard_at: u64,
    pub(crate) consumed: u64,
    /// Where what it sends ends, request by request, as far as it was not read; where the last ends that was.
    pub(crate) ends: VecDeque<u64>,
    pub(crate) whole: u64,
    /// When the first bytes were read of what is not whole.
    pub(crate) partial_since: Option<u64>,
    /// The same of one whose time was over.
    pub(crate) overdue_since: Option<u64>,
    /// When it was seen that what it began is refused, while it takes nothing.
    pub(crate) refused_at: Option<u64>,
    pub(crate) pings: u32,
    /// Judged already: it is gone.
    pub(crate) is_over: bool,
    pub(crate) cursors: Vec<u64>,
}

impl Peer {
    pub(crate) fn new(appetite: ReadRate, answers_pings: bool, channels: usize) -> Self {
        Self {
            appetite,
            answers_pings,
            ear: ResponseParser::new(),
            sent: 0,
            outstanding: VecDeque::new(),
            following: None,
            rest: None,
            is_spoilt: false,
            has_closed: false,
            is_told_to_go: false,
            told_to_go_at: 0,
            may_linger: false,
            is_refused: false,
            is_witness: false,
            accepted_at: None,
            heard_at: 0,
            consumed: 0,
            ends: VecDeque::new(),
            whole: 0,
            partial_since: None,
            overdue_since: None,
            refused_at: None,
            pings: 0,
            is_over: false,
            cursors: vec![0; channels],
        }
    }

    /// Whether it may send another request now.
    pub(crate) fn may_ask(&self) -> bool {
        let follows_events = self.following.as_ref().is_some_and(|following| !following.is_frames);
        let awaits_stream =
            self.outstanding.iter().any(|it| matches!(it.kind, Kind::Events | Kind::Frames));
        !self.is_over
            && !self.has_closed
            && !self.is_spoilt
            && self.rest.is_none()
            && !follows_events
            && !awaits_stream
    }
}
