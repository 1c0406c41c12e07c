//! One TCP connection (or Unix socket): its state and what little it holds.

use std::io;
use std::rc::Rc;

use super::event::Event;
use super::socket::Socket;
use super::write_queue::{Flush, WriteQueue, send};
use crate::api::{Payload, ReplyFormat, SharedBytes, SourceKey};
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
    LongPolling { reader: ReaderKey, presentation: Option<Box<ReplyFormat>> },
    /// A stream, of which the rest is kept apart: told things until one of both ends it. What does not fit into the kernel's buffer waits in its outbox.
    /// Next: `Writing`, `Lingering`, `Closing`.
    Streaming(Key),
    /// An answer did not fit into the kernel's buffer; nothing is read meanwhile. Next: what it says.
    Writing(AfterResponse),
    /// Told to go, but it may still be sending: what it sends is thrown away, since closing now could
    /// take the answer from it (RFC 9112, section 9.6). Next: `Closing`.
    Lingering,
    /// Reaped at the end of this turn; further events are ignored.
    Closing,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterResponse {
    KeepAlive,
    /// The client is not there to send anything more.
    Close,
    Linger,
}

/// A request of which not all is there or not all was handled.
pub(super) struct ReadBuffer {
    pub(super) bytes: Vec<u8>,
    /// How far the first request in it was read.
    pub(super) progress: Progress,
}

/// A client with all that belongs to it. Most wait, and hold nothing but this.
pub(super) struct Client<S> {
    pub(super) socket: S,
    pub(super) state: State,
    pub(super) incoming: Option<Box<ReadBuffer>>,
    pub(super) write_queue: Option<Box<WriteQueue>>,
    /// An answer is held for it in a lane, which comes before all that stands in its outbox.
    pub(super) is_deferred: bool,
    /// When it is looked at in its present state.
    pub(super) deadline: Millis,
    /// Fires at `fires_at`, which is never later than `deadline`.
    pub(super) timer: Option<TimerId>,
    pub(super) fires_at: Millis,
    /// What it took when it was last counted.
    pub(super) charged_bytes: u32,
    /// The socket may hold bytes that were not read.
    pub(super) is_readable: bool,
    /// Nothing comes after what the socket holds.
    pub(super) is_read_closed: bool,
    /// On the list of clients to go on with in the next turn.
    pub(super) is_scheduled: bool,
    /// What happened to it that a turn had no time for.
    pub(super) deferred_event: Option<Event>,
    /// Accepted only to be told that there is no room.
    pub(super) is_rejected: bool,
    /// It came by the admin door.
    pub(super) is_admin: bool,
    /// It speaks for others, as the operator says.
    pub(super) is_proxy: bool,
    /// Nothing for a Unix socket.
    pub(super) address: Option<SourceKey>,
}

/// What became of an answer to a read that waited.
pub(super) enum Sent {
    Now(Flush),
    /// It waits for a turn that has time for it: in a lane where it is shared, else in the client's outbox.
    Deferred(Option<Rc<SharedBytes>>),
}

impl Sent {
    pub(super) fn flush(&self) -> Flush {
        match self {
            Self::Now(flush) => *flush,
            Self::Deferred(_) => Flush::WouldBlock { any: false },
        }
    }
}

/// What came of a look at the socket.
pub(super) enum ReadResult {
    Bytes(usize),
    WouldBlock,
}

impl<S: Socket> Client<S> {
    pub(super) fn new(
        socket: S,
        address: Option<SourceKey>,
        is_proxy: bool,
        deadline: Millis,
    ) -> Self {
        Self {
            socket,
            state: State::Reading,
            incoming: None,
            write_queue: None,
            is_deferred: false,
            deadline,
            timer: None,
            fires_at: Millis(0),
            charged_bytes: 0,
            is_readable: false,
            is_read_closed: false,
            is_scheduled: false,
            deferred_event: None,
            is_rejected: false,
            is_admin: false,
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
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<ReadResult> {
        match self.socket.read(buffer) {
            Ok(0) => {
                self.is_read_closed = true;
                self.is_readable = false;
                Ok(ReadResult::WouldBlock)
            }
            Ok(length) => {
                self.is_readable = length == buffer.len();
                Ok(ReadResult::Bytes(length))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                Ok(ReadResult::WouldBlock)
            }
            // Edge-triggered: nobody will tell us again, so `can_read` stays.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(ReadResult::WouldBlock),
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
            self.write_queue.get_or_insert_default().push(payload);
            return Ok(Flush::WouldBlock { any: false });
        }
        let bytes = payload.bytes();
        let sent = send(&mut self.socket, bytes)?;
        if sent == bytes.len() {
            return Ok(Flush::Complete);
        }
        self.write_queue = Some(Box::new(WriteQueue::from_unsent(payload, sent)));
        Ok(Flush::WouldBlock { any: sent > 0 })
    }

    /// Sends something if the turn `has_budget`, or has it held for [`Client::release`]. What many share is held without a
    /// buffer of the client's own.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`].
    pub(super) fn deliver(&mut self, payload: &Payload<'_>, has_budget: bool) -> io::Result<Sent> {
        if has_budget || self.is_blocked() {
            return self.send(payload).map(Sent::Now);
        }
        self.is_deferred = true;
        Ok(Sent::Deferred(match payload {
            Payload::Shared(encoded) => Some(Rc::clone(encoded)),
            Payload::Private(_) => {
                self.write_queue = Some(Box::new(WriteQueue::from_unsent(payload, 0)));
                None
            }
        }))
    }

    /// Sends what was held, and what came behind it.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`].
    pub(super) fn send_deferred(&mut self, held: Option<&Rc<SharedBytes>>) -> io::Result<Flush> {
        self.is_deferred = false;
        if let Some(encoded) = held {
            let sent = send(&mut self.socket, encoded.bytes())?;
            if sent < encoded.bytes().len() {
                let mut outbox = WriteQueue::from_unsent(&Payload::Shared(encoded), sent);
                if let Some(behind) = self.write_queue.take() {
                    outbox.append(*behind);
                }
                self.write_queue = Some(Box::new(outbox));
                return Ok(Flush::WouldBlock { any: sent > 0 });
            }
        }
        self.flush()
    }

    /// Whether there was no time yet for what it said, or for what it is to be told.
    pub(super) fn has_deferred_work(&self) -> bool {
        self.is_scheduled || self.deferred_event.is_some() || self.is_deferred
    }

    /// Whether something waits to be sent, so that whatever comes has to stand behind it.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_deferred || self.write_queue.is_some()
    }

    /// Sends what waits to be sent, unless it stands behind something that is held.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`].
    pub(super) fn flush(&mut self) -> io::Result<Flush> {
        if self.is_deferred {
            return Ok(Flush::WouldBlock { any: false });
        }
        let Some(outbox) = &mut self.write_queue else { return Ok(Flush::Complete) };
        let result = outbox.flush(&mut self.socket)?;
        if result == Flush::Complete {
            self.write_queue = None;
        }
        Ok(result)
    }

    /// Bytes that wait to be sent, if any do.
    pub(super) fn queued_bytes(&self) -> Option<usize> {
        self.write_queue.as_ref().map(|outbox| outbox.bytes())
    }

    /// Whether it takes no memory but its own, as most do.
    pub(super) fn has_no_buffers(&self) -> bool {
        self.incoming.is_none()
            && self.write_queue.is_none()
            && !matches!(self.state, State::Streaming(_))
    }

    /// Memory that it takes beside itself: requests that are not whole, answers that are not taken.
    pub(super) fn memory(&self) -> usize {
        let incoming = self.incoming.as_ref().map_or(0, |incoming| incoming.bytes.capacity());
        incoming + self.write_queue.as_ref().map_or(0, |outbox| outbox.memory())
    }

    /// Whether there is more to read or to handle.
    pub(super) fn has_input(&self) -> bool {
        self.is_readable || self.incoming.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As large as the socket of the server in a debug build, which is tested where that is defined.
    type SocketOfServer = [u64; 3];

    #[test]
    fn a_client_that_waits_stays_small() {
        assert!(
            size_of::<Client<SocketOfServer>>() <= 112,
            "{}",
            size_of::<Client<SocketOfServer>>()
        );
    }
}
