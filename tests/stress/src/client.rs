//! A client: whose it is, and what it waits for.

use std::collections::VecDeque;
use std::time::Instant;

use support::reader::Subscription;
use support::text::Text;

use crate::read::{Form, Read};

/// A moment, by the machine's clock and by the server's.
pub(crate) type Moment = (Instant, u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    /// Reads a channel throughout.
    Observer(usize),
    /// A user reads with it.
    ReadConn(u32),
    /// A user read with it, before another client took the read over.
    ReplacedConn(u32),
    /// A user calls with it.
    WriteConn(u32),
    Brief(BriefClient),
    /// Reads a channel from the beginning once, after a crash.
    Auditor,
    /// The run itself.
    Harness,
}

/// A client that disappears in the middle of things, or never comes to an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BriefClient {
    /// Sends byte by byte, too slowly, until it gets 408.
    TooSlow,
    /// Got 408.
    Rejected,
    /// Disappears while it reads.
    Vanishes,
    /// Closed its side while a read was pending, and waits for the server to close.
    HalfClosed,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum What {
    Write(Text),
    /// Of a new session, or of one by its number.
    Introduce(Text, Option<u64>),
    /// Of a session, to all its channels.
    Goodbye(u64),
    /// To one channel.
    GoodbyeOf(usize),
    Members(usize),
    /// Tells that all that was sent before is done.
    Barrier,
    /// To be refused with this status.
    Refused(u16),
}

pub(crate) struct Call {
    pub(crate) what: What,
    pub(crate) sent: Moment,
    /// Session whose credentials it shows.
    pub(crate) carries: Option<u64>,
    /// `ref` of a call in a frame.
    pub(crate) reference: u64,
}

pub(crate) struct Client {
    pub(crate) owner: Owner,
    pub(crate) read: Option<Read>,
    /// Node that it connected to.
    pub(crate) node: usize,
    pub(crate) opened: Instant,
    pub(crate) asked: Moment,
    /// Calls without a response so far, in order.
    pub(crate) calls: VecDeque<Call>,
    /// The head of its stream has come.
    pub(crate) is_open: bool,
    /// The last chunk of its event stream has come.
    pub(crate) has_ended: bool,
    /// Sender of its texts, and the last of them.
    pub(crate) sender: u32,
    pub(crate) seq: u32,
    /// Bytes that it will send one by one.
    pub(crate) script: VecDeque<u8>,
    pub(crate) replaced_at: Option<Instant>,
    /// Channels that its next long poll follows in addition.
    pub(crate) next: Vec<Subscription>,
}

impl Client {
    pub(crate) fn new(owner: Owner, node: usize, sender: u32, now: Moment) -> Self {
        Self {
            owner,
            read: None,
            node,
            opened: now.0,
            asked: now,
            calls: VecDeque::new(),
            is_open: false,
            has_ended: false,
            sender,
            seq: 0,
            script: VecDeque::new(),
            replaced_at: None,
            next: Vec::new(),
        }
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.read.as_ref().is_some_and(|read| read.form.is_stream())
    }

    /// Says whether calls may be made in frames.
    pub(crate) fn is_socket(&self) -> bool {
        self.is_open && self.read.as_ref().is_some_and(|read| read.form == Form::WebSocket)
    }

    /// Has the next long poll, if there will be one, follow one more channel.
    pub(crate) fn follow_next(&mut self, more: Subscription) {
        let Some(read) = &self.read else { return };
        let mut followed = read.reader.subscriptions.iter().chain(&self.next);
        if !read.form.is_stream() && !followed.any(|its| its.channel == more.channel) {
            self.next.push(more);
        }
    }
}
