//! One TCP connection (or Unix socket): its state and what little it holds.

use std::io;
use std::rc::Rc;

use super::budget::Time;
use super::event::Event;
use super::socket::Socket;
use super::write_queue::{Flush, Outbox, send};
use crate::api::{Address, Encoded, Payload, Presentation};
use crate::http::Progress;
use crate::hub::{Key, Millis, ReaderKey, TimerId};

/// How long a client that was told to go may still send.
pub const LINGER_MS: u64 = 5_000;

/// What a client is at.
#[derive(Debug)]
pub(super) enum State {
    /// Between requests, or in the midst of one. Next: all others.
    Reading,
    /// A `/read` with nothing to deliver; holds no buffers, but for a client that pipelines and is slow to take the
    /// answers that came before. Next: `Reading`, `Writing`, `Lingering`, `Closing`.
    Waiting { reader: ReaderKey, presentation: Option<Box<Presentation>> },
    /// A stream, of which the rest is kept apart: told things until one of both ends it. What does not fit into the kernel's buffer waits in its outbox.
    /// Next: `Writing`, `Lingering`, `Closing`.
    Following(Key),
    /// An answer did not fit into the kernel's buffer; nothing is read meanwhile. Next: what it says.
    Writing(Next),
    /// Told to go, but it may still be sending: what it sends is thrown away, since closing now could
    /// take the answer from it (RFC 9112, section 9.6). Next: `Closing`.
    Lingering,
    /// Reaped at the end of this turn; further events are ignored.
    Closing,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Read,
    /// The client is not there to send anything more.
    Close,
    Linger,
}

/// A request of which not all is there or not all was handled.
pub(super) struct Incoming {
    pub(super) bytes: Vec<u8>,
    /// How far the first request in it was read.
    pub(super) progress: Progress,
}

/// A client with all that belongs to it. Most wait, and hold nothing but this.
pub(super) struct Client<S> {
    pub(super) socket: S,
    pub(super) state: State,
    pub(super) incoming: Option<Box<Incoming>>,
    pub(super) outbox: Option<Box<Outbox>>,
    /// An answer is held for it in a lane, which comes before all that stands in its outbox.
    pub(super) is_held: bool,
    /// When it is looked at in its present state.
    pub(super) deadline: Millis,
    /// Fires at `fires_at`, which is never later than `deadline`.
    pub(super) timer: Option<TimerId>,
    pub(super) fires_at: Millis,
    /// What it took when it was last counted.
    pub(super) counted_memory: u32,
    /// The socket may hold bytes that were not read.
    pub(super) can_read: bool,
    /// Nothing comes after what the socket holds.
    pub(super) peer_closed: bool,
    /// On the list of clients to go on with in the next turn.
    pub(super) is_ready: bool,
    /// What happened to it that a turn had no time for.
    pub(super) late: Option<Event>,
    /// Accepted only to be told that there is no room.
    pub(super) is_refused: bool,
    /// It came by the admin door.
    pub(super) is_operator: bool,
    /// It speaks for others, as the operator says.
    pub(super) is_proxy: bool,
    /// Nothing for a Unix socket.
    pub(super) address: Option<Address>,
}

/// What became of an answer to a read that waited.
pub(super) enum Delivery {
    Tried(Flush),
    /// It waits for a turn that has time for it: in a lane where it is shared, else in the client's outbox.
    Held(Option<Rc<Encoded>>),
}

impl Delivery {
    pub(super) fn flush(&self) -> Flush {
        match self {
            Self::Tried(flush) => *flush,
            Self::Held(_) => Flush::Blocked { any: false },
        }
    }
}

/// What came of a look at the socket.
pub(super) enum Input {
    Bytes(usize),
    Nothing,
}

impl<S: Socket> Client<S> {
    pub(super) fn new(socket: S, address: Option<Address>, is_proxy: bool, deadline: Millis) -> Self {
        Self {
            socket,
            state: State::Reading,
            incoming: None,
            outbox: None,
            is_held: false,
            deadline,
            timer: None,
            fires_at: Millis(0),
            counted_memory: 0,
            can_read: false,
            peer_closed: false,
            is_ready: false,
            late: None,
            is_refused: false,
            is_operator: false,
            is_proxy,
            address,
        }
    }

    /// Reads once. A read that returns less than was asked has drained the socket: no second one is needed to find
    /// that out, since the next arrival raises a new event.
    ///
    /// # Errors
    ///
    /// What the socket says; the client is gone then.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Input> {
        match self.socket.read(buffer) {
            Ok(0) => {
                self.peer_closed = true;
                self.can_read = false;
                Ok(Input::Nothing)
            }
            Ok(length) => {
                self.can_read = length == buffer.len();
                Ok(Input::Bytes(length))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.can_read = false;
                Ok(Input::Nothing)
            }
            // Edge-triggered: nobody will tell us again, so `can_read` stays.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Input::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Sends an answer: at once, as far as the kernel takes it; the rest, and all that follows, when it has room again.
    ///
    /// # Errors
    ///
    /// What the socket says; the client is gone then.
    pub(super) fn send(&mut self, payload: &Payload<'_>) -> io::Result<Flush> {
        if self.is_blocked() {
            self.outbox.get_or_insert_default().push(payload);
            return Ok(Flush::Blocked { any: false });
        }
        let bytes = payload.bytes();
        let sent = send(&mut self.socket, bytes)?;
        if sent == bytes.len() {
            return Ok(Flush::Drained);
        }
        self.outbox = Some(Box::new(Outbox::of(payload, sent)));
        Ok(Flush::Blocked { any: sent > 0 })
    }

    /// Sends something if there is `time`, or has it held for [`Client::release`]. What many share is held without a
    /// buffer of the client's own.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`].
    pub(super) fn deliver(&mut self, payload: &Payload<'_>, time: Time) -> io::Result<Delivery> {
        if time == Time::Left || self.is_blocked() {
            return self.send(payload).map(Delivery::Tried);
        }
        self.is_held = true;
        Ok(Delivery::Held(match payload {
            Payload::Shared(encoded) => Some(Rc::clone(encoded)),
            Payload::Private(_) => {
                self.outbox = Some(Box::new(Outbox::of(payload, 0)));
                None
            }
        }))
    }

    /// Sends what was held, and what came behind it.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`].
    pub(super) fn release(&mut self, held: Option<&Rc<Encoded>>) -> io::Result<Flush> {
        self.is_held = false;
        if let Some(encoded) = held {
            let sent = send(&mut self.socket, encoded.bytes())?;
            if sent < encoded.bytes().len() {
                let mut outbox = Outbox::of(&Payload::Shared(encoded), sent);
                if let Some(behind) = self.outbox.take() {
                    outbox.append(*behind);
                }
                self.outbox = Some(Box::new(outbox));
                return Ok(Flush::Blocked { any: sent > 0 });
            }
        }
        self.flush()
    }

    /// Whether there was no time yet for what it said, or for what it is to be told.
    pub(super) fn is_kept_waiting(&self) -> bool {
        self.is_ready || self.late.is_some() || self.is_held
    }

    /// Whether something waits to be sent, so that whatever comes has to stand behind it.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_held || self.outbox.is_some()
    }

    /// Sends what waits to be sent, unless it stands behind something that is held.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`].
    pub(super) fn flush(&mut self) -> io::Result<Flush> {
        if self.is_held {
            return Ok(Flush::Blocked { any: false });
        }
        let Some(outbox) = &mut self.outbox else { return Ok(Flush::Drained) };
        let result = outbox.flush(&mut self.socket)?;
        if result == Flush::Drained {
            self.outbox = None;
        }
        Ok(result)
    }

    /// Bytes that wait to be sent, if any do.
    pub(super) fn backlog(&self) -> Option<usize> {
        self.outbox.as_ref().map(|outbox| outbox.bytes())
    }

    /// Whether it takes no memory but its own, as most do.
    pub(super) fn holds_nothing(&self) -> bool {
        self.incoming.is_none() && self.outbox.is_none() && !matches!(self.state, State::Following(_))
    }

    /// Memory that it takes beside itself: requests that are not whole, answers that are not taken.
    pub(super) fn memory(&self) -> usize {
        let incoming = self.incoming.as_ref().map_or(0, |incoming| incoming.bytes.capacity());
        incoming + self.outbox.as_ref().map_or(0, |outbox| outbox.memory())
    }

    /// Whether there is more to read or to handle.
    pub(super) fn has_input(&self) -> bool {
        self.can_read || self.incoming.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As large as the socket of the server in a debug build, which is tested where that is defined.
    type SocketOfServer = [u64; 3];

    #[test]
    fn a_client_that_waits_stays_small() {
        assert!(size_of::<Client<SocketOfServer>>() <= 112, "{}", size_of::<Client<SocketOfServer>>());
    }
}
