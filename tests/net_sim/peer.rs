//! A client of the simulation: its requests, and what it waits for.

use std::collections::VecDeque;

use support::incoming::Incoming;
use support::reader::Reader;
use support::text::Text;

use crate::tls::TlsPeer;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
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
    /// The members with numbers above this one.
    Members {
        after: u64,
    },
    /// Answered with this status in any case.
    Plain(u16),
    /// Answered with this status, and closed.
    Fatal(u16),
}

impl Kind {
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Events | Self::Frames)
    }

    /// Says whether it changes something, so that it waits for the journal.
    pub(crate) fn is_logged(self) -> bool {
        matches!(self, Self::Write | Self::Introduce | Self::Goodbye | Self::GoodbyeToOne)
    }

    /// Says whether it may be pending, and keep a session alive.
    pub(crate) fn may_wait(self) -> bool {
        self.is_stream() || matches!(self, Self::Poll { .. })
    }
}

/// One request, or one call in a frame.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    /// All of it has arrived when so many bytes of its client have.
    pub(crate) end: u64,
    pub(crate) text: Option<Text>,
    pub(crate) channels: Vec<usize>,
    pub(crate) reader: Option<Reader>,
    /// Session whose credentials it shows.
    pub(crate) carries: Option<u64>,
    /// Time that the session survives the closing of this read.
    pub(crate) grace: u64,
    pub(crate) closes: bool,
    pub(crate) is_script: bool,
    pub(crate) is_frame: bool,
    /// Time of the turn in which all of it had arrived.
    pub(crate) arrived_at: Option<u64>,
    /// Time since when it is pending, with nothing else left to do.
    pub(crate) waits_since: Option<u64>,
    /// The channels' next ids at that time.
    pub(crate) seen: Vec<u64>,
}

impl Request {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, ..Self::default() }
    }

    pub(crate) fn has_arrived(&self) -> bool {
        self.arrived_at.is_some()
    }

    /// Says whether it may wait for the journal: it changes something, or the end of its session is
    /// being written.
    pub(crate) fn may_wait_for_disk(&self) -> bool {
        self.kind.is_logged() || self.carries.is_some()
    }
}

/// A stream.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) is_frames: bool,
    pub(crate) reader: Reader,
    pub(crate) carries: Option<u64>,
    pub(crate) grace: u64,
    /// The loop has slept since it began.
    pub(crate) is_settled: bool,
    /// Time at which it began: the earliest and the latest possible.
    pub(crate) began_at: (u64, u64),
    /// Earliest and latest time of the last heartbeat, or of the last event that took its place.
    pub(crate) beat_at: (u64, u64),
    /// Time at which it last got messages.
    pub(crate) fed_at: u64,
    pub(crate) idle: IdleCause,
}

impl Following {
    /// Says whether the server may have ended it by now, since it is an event stream that carries
    /// a session.
    pub(crate) fn may_be_over(&self, now: u64, life: u64) -> bool {
        let has_end = !self.is_frames && life > 0;
        has_end && now >= self.began_at.0 + life - life / 10
    }

    /// Says whether the server must have ended it.
    pub(crate) fn is_over(&self, now: u64, life: u64) -> bool {
        let has_end = !self.is_frames && self.carries.is_some() && life > 0;
        has_end && now >= self.began_at.1 + life + life / 10
    }
}

/// Number of heartbeats in which the loop could have noticed that a client is silent.
#[derive(Debug, Default)]
pub(crate) struct IdleCause {
    since: u64,
    next_look: u64,
    looks: u32,
}

impl IdleCause {
    /// The loop sleeps at `now`, and the client was last heard of at `since`.
    /// Returns the number of heartbeats since in which the loop looked.
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ReadRate {
    /// Takes all that is sent at once.
    #[default]
    Eager,
    /// Takes some of it, now and then.
    Slow,
    /// Takes nothing, until the faults stop.
    Never,
}

#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) rate: ReadRate,
    pub(crate) answers_pings: bool,
    pub(crate) tls: Option<Box<TlsPeer>>,
    pub(crate) incoming: Incoming,
    /// Number of bytes put on the wire, and of texts.
    pub(crate) sent: u64,
    pub(crate) texts: u32,
    pub(crate) outstanding: VecDeque<Request>,
    pub(crate) following: Option<Following>,
    /// Body of a request that waits for `100 Continue`, or the last byte of a request.
    pub(crate) rest: Option<Vec<u8>>,
    /// It sends nothing more that makes sense.
    pub(crate) is_spoilt: bool,
    /// It closed its side, or both.
    pub(crate) has_closed: bool,
    /// It got the last chunk of its event stream.
    pub(crate) has_last_chunk: bool,
    /// It got the last response or a Close.
    pub(crate) is_dismissed: bool,
    pub(crate) dismissed_at: u64,
    /// It may have been sending when it was dismissed, and has time to read why.
    pub(crate) may_linger: bool,
    /// It was accepted only to be rejected.
    pub(crate) is_rejected: bool,
    pub(crate) is_observer: bool,
    pub(crate) accepted_at: Option<u64>,
    /// Time at which a call of it last waited for the disk.
    pub(crate) awaited_disk_at: u64,
    /// End of the first request while its call waits for the disk, and the time since when it does.
    pub(crate) front_since: (u64, u64),
    /// A call was answered in the last turn.
    pub(crate) was_answered: bool,
    /// Time at which the server last read something of it, and the number of bytes read by then.
    pub(crate) heard_at: u64,
    pub(crate) consumed: u64,
    /// Turns since the server knew of bytes of it that are still unread.
    pub(crate) turns_unread: usize,
    /// Ends of its requests that were not read yet; end of the last that was.
    pub(crate) ends: VecDeque<u64>,
    pub(crate) whole: u64,
    /// Time at which the first bytes of an unfinished request were read.
    pub(crate) partial_since: Option<u64>,
    /// `partial_since` of a request whose time was over.
    pub(crate) overdue_since: Option<u64>,
    /// Time at which its unfinished request was refused, while it took nothing.
    pub(crate) refused_at: Option<u64>,
    /// It is gone, and was judged.
    pub(crate) is_over: bool,
    /// Next id of each channel, as far as it knows.
    pub(crate) cursors: Vec<u64>,
}

impl Peer {
    pub(crate) fn new(rate: ReadRate, answers_pings: bool, channels: usize) -> Self {
        Self { rate, answers_pings, cursors: vec![0; channels], ..Self::default() }
    }

    /// Says whether it may send another request now.
    pub(crate) fn may_ask(&self) -> bool {
        let is_silent = self.is_over || self.has_closed || self.is_spoilt || self.rest.is_some();
        let has_events = self.following.as_ref().is_some_and(|following| !following.is_frames);
        let awaits_stream = self.outstanding.iter().any(|request| request.kind.is_stream());
        !is_silent && !has_events && !awaits_stream
    }

    pub(crate) fn may_pong(&self) -> bool {
        self.answers_pings && !self.has_closed && !self.is_spoilt && self.rest.is_none()
    }

    pub(crate) fn dismiss(&mut self, now: u64) {
        (self.is_dismissed, self.dismissed_at) = (true, now);
    }
}
