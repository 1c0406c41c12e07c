//! One client: an accepted TCP or Unix socket, its state and its few buffers.
//!
//! All changes of a client's state are in this file, in methods named after the event. The callers
//! set timers and free memory, as the new state requires.

use std::io;
use std::mem;
use std::rc::Rc;

use super::event::DeferredEvents;
use super::fair_queue::DeferredSend;
use super::long_poll::LongPoll;
use super::run_queue::Weight;
use super::socket::Socket;
use super::waited::Waited;
use super::write_queue::{Flush, WriteQueue, send};
use crate::api::{Chunk, Insertion, Payload, ReplyFormat, RequestSource, SourceKey};
use crate::http::Progress;
use crate::hub::{Key, Millis, ReaderKey, TimerId};

/// State of a client.
#[derive(Debug)]
pub(super) enum State {
    /// Between two requests, or in the middle of one. Next: all others.
    Reading,
    /// Calls wait for the log. Requests after them are not read.
    /// Next: `Reading`, `Writing`, `Lingering`, `Closing`.
    Committing,
    /// A `/read` waits for messages. The client has no buffers, unless it pipelines and is slow to
    /// read earlier responses. Next: `Reading`, `Writing`, `Lingering`, `Closing`.
    LongPolling(LongPoll),
    /// A stream. This is the key of its [`StreamState`](super::stream_state::StreamState). Updates
    /// that do not fit into the kernel's buffer wait in the write queue.
    /// Next: `Writing`, `Lingering`, `Closing`.
    Streaming(Key),
    /// A response did not fit into the kernel's buffer. Nothing is read until it is sent.
    /// Next: as [`AfterResponse`] says.
    Writing(AfterResponse),
    /// The last response is sent, but the peer may still be sending. Its input is discarded: an
    /// earlier close could destroy the response on its way (RFC 9112, section 9.6).
    /// Next: `Closing`.
    Lingering,
    /// Freed at the end of this turn; events are ignored.
    Closing,
}

/// Reader that belongs to a state.
#[derive(Clone, Copy, Debug)]
pub(super) enum PendingRead {
    None,
    LongPoll(ReaderKey),
    /// Key of the [`StreamState`](super::stream_state::StreamState), which names the reader.
    Stream(Key),
}

impl State {
    /// Returns the reader that belongs to this state.
    pub(super) fn pending_read(&self) -> PendingRead {
        match self {
            Self::LongPolling(poll) => PendingRead::LongPoll(poll.reader()),
            Self::Streaming(stream) => PendingRead::Stream(*stream),
            Self::Reading
            | Self::Committing
            | Self::Writing(_)
            | Self::Lingering
            | Self::Closing => PendingRead::None,
        }
    }
}

/// State that follows once a response is sent completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterResponse {
    /// `Reading`.
    KeepAlive,
    /// `Closing`: the peer sends nothing more.
    Close,
    /// `Lingering`.
    Linger,
}

/// State that a client has entered after a response was sent; the caller sets its timer.
/// `Reading` says whether there is more to read or to handle already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    Reading { has_input: bool },
    Writing,
    Lingering,
    Closing,
}

/// Bytes that were read and not handled: an incomplete request, or requests after a pending read.
pub(super) struct ReadBuffer {
    pub(super) bytes: Vec<u8>,
    /// Progress of the parser in the first request.
    pub(super) progress: Progress,
}

impl ReadBuffer {
    /// Removes `bytes` handled bytes at the start, and bytes that the parser no longer needs.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
        self.progress.compact(&mut self.bytes);
    }
}

/// Bytes in the buffers of a client that is expected to do little.
const LIGHT_BUFFER_BYTES: u32 = 16 * 1024;

/// A client. Most clients wait, and use no memory besides this struct.
pub(super) struct Client<S> {
    pub(super) socket: S,
    state: State,
    pub(super) input: Option<Box<ReadBuffer>>,
    pub(super) write_queue: Option<Box<WriteQueue>>,
    /// A send to this client is deferred. It comes before everything in the write queue.
    pub(super) is_deferred: bool,
    /// Time at which the client is checked in its present state.
    pub(super) deadline: Millis,
    /// Never fires later than `deadline`.
    pub(super) timer: Option<TimerId>,
    /// Bytes of this client's buffers, as of the last count.
    pub(super) charged_bytes: u32,
    /// The socket may hold bytes that were not read.
    pub(super) is_readable: bool,
    /// The peer has closed its direction: nothing follows the bytes in the socket.
    pub(super) is_read_closed: bool,
    /// There is input to handle, though no event will say so.
    pub(super) is_scheduled: bool,
    /// The next call has waited until this process was not behind.
    pub(super) waited: Option<Waited>,
    /// In the run queue, or on the list of clients to add to it.
    pub(super) is_queued: bool,
    /// Place in the run queue, by what the client did the last time.
    pub(super) weight: Weight,
    /// Events that wait for the client's place in the run queue.
    pub(super) deferred_events: DeferredEvents,
    /// Accepted only to be sent an error.
    pub(super) is_rejected: bool,
    /// Accepted by the admin listener.
    pub(super) is_admin: bool,
    /// A trusted proxy: it sends requests of other clients.
    pub(super) is_proxy: bool,
    /// The client is in its handshake, and counts as such.
    pub(super) is_handshaking: bool,
    /// `None` for a client of the admin listener.
    pub(super) address: Option<SourceKey>,
}

/// Result of sending to a pending read.
pub(super) enum Sent {
    /// The send was made, at least in part.
    Now(Flush),
    /// The send waits for a turn with budget, in the queue of deferred sends.
    Deferred(DeferredSend),
}

impl Sent {
    pub(super) fn flush(&self) -> Flush {
        match self {
            Self::Now(flush) => *flush,
            Self::Deferred(_) => Flush::WouldBlock { progress: false },
        }
    }
}

/// Result of a read from the socket.
pub(super) enum Input {
    Bytes(usize),
    /// No bytes are there now, or the peer has closed its direction.
    Nothing,
}

impl<S: Socket> Client<S> {
    /// Creates a client in `Reading`.
    pub(super) fn new(
        socket: S,
        address: Option<SourceKey>,
        is_proxy: bool,
        deadline: Millis,
    ) -> Self {
        Self {
            is_handshaking: socket.is_handshaking(),
            socket,
            state: State::Reading,
            input: None,
            write_queue: None,
            is_deferred: false,
            deadline,
            timer: None,
            charged_bytes: 0,
            is_readable: false,
            is_read_closed: false,
            is_scheduled: false,
            waited: None,
            is_queued: false,
            weight: Weight::Unknown,
            deferred_events: DeferredEvents::default(),
            is_rejected: false,
            is_admin: false,
            is_proxy,
            address,
        }
    }

    /// Returns the peer that the client's requests come from.
    pub(super) fn request_source(&self) -> RequestSource {
        let Self { address, is_proxy, is_admin, .. } = *self;
        RequestSource { address, is_proxy, is_tls: self.socket.is_tls(), is_admin }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Enters `LongPolling`: a `/read` found nothing to deliver.
    pub(super) fn start_long_poll(&mut self, reader: ReaderKey, format: Option<Box<ReplyFormat>>) {
        self.state = State::LongPolling(match format {
            None => LongPoll::Usual(reader),
            Some(format) => LongPoll::Formatted(format),
        });
    }

    /// Enters `Committing`: a call waits for the log.
    pub(super) fn start_commit(&mut self) {
        self.state = State::Committing;
    }

    /// Leaves `Committing` for `Reading`, until [`Client::on_response_sent`] is called for the
    /// responses.
    pub(super) fn end_commit(&mut self) {
        self.state = State::Reading;
    }

    /// Enters `Streaming`: a `/read` stays open.
    pub(super) fn start_stream(&mut self, stream: Key) {
        self.state = State::Streaming(stream);
    }

    /// Leaves `LongPolling` for `Reading`, until [`Client::on_response_sent`] is called for the
    /// reply. The hub has removed the reader. Returns the reply's format, `None` for the usual one.
    pub(super) fn complete_poll(&mut self) -> Option<Box<ReplyFormat>> {
        if !matches!(self.state, State::LongPolling(_)) {
            return None;
        }
        match mem::replace(&mut self.state, State::Reading) {
            State::LongPolling(LongPoll::Formatted(format)) => Some(format),
            _ => None,
        }
    }

    /// Leaves `Streaming` for `Reading`, until [`Client::on_response_sent`] is called for the last
    /// bytes of the stream. Returns the read that has ended.
    pub(super) fn end_stream(&mut self) -> PendingRead {
        let read = self.state.pending_read();
        self.state = State::Reading;
        read
    }

    /// Enters the state that follows a response of which all or a part was sent: `Writing`, or the
    /// one that `after` says. `Closing` takes the place of `Reading` and `Lingering` if the peer
    /// has closed its direction and nothing is left to read.
    pub(super) fn on_response_sent(&mut self, after: AfterResponse, flush: Flush) -> Transition {
        if flush != Flush::Complete {
            self.state = State::Writing(after);
            return Transition::Writing;
        }
        match after {
            AfterResponse::KeepAlive if self.has_input() => {
                self.state = State::Reading;
                Transition::Reading { has_input: true }
            }
            AfterResponse::KeepAlive if !self.is_read_closed => {
                self.state = State::Reading;
                Transition::Reading { has_input: false }
            }
            AfterResponse::Linger if self.is_readable || !self.is_read_closed => {
                self.state = State::Lingering;
                // If the peer has disconnected, the next read reports it.
                let _ = self.socket.shut_down_writing();
                // Bytes after the last request are discarded, as later bytes are.
                self.input = None;
                Transition::Lingering
            }
            AfterResponse::KeepAlive | AfterResponse::Close | AfterResponse::Linger => {
                self.state = State::Closing;
                Transition::Closing
            }
        }
    }

    /// Makes `Closing` follow `Writing`: the server stops.
    pub(super) fn close_after_response(&mut self) {
        if let State::Writing(after) = &mut self.state {
            *after = AfterResponse::Close;
        }
    }

    /// Enters `Closing` from any state. Returns the read that has ended.
    pub(super) fn close(&mut self) -> PendingRead {
        let read = self.state.pending_read();
        self.state = State::Closing;
        read
    }

    /// Reads once. A read that fills less than the buffer has emptied the socket, unless the socket
    /// has input of its own: no second read is needed, since the next arrival raises a new event.
    ///
    /// # Errors
    ///
    /// The socket's error. The caller closes the client.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Input> {
        match self.socket.read(buffer) {
            Ok(0) => {
                self.is_read_closed = true;
                self.is_readable = false;
                Ok(Input::Nothing)
            }
            Ok(length) => {
                self.is_readable = length == buffer.len() || self.socket.has_input();
                Ok(Input::Bytes(length))
            }
            Err(error) => self.on_read_error(error),
        }
    }

    #[cold]
    #[inline(never)]
    fn on_read_error(&mut self, error: io::Error) -> io::Result<Input> {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                Ok(Input::Nothing)
            }
            // Edge-triggered: the event is not raised again, so `is_readable` stays.
            io::ErrorKind::Interrupted => Ok(Input::Nothing),
            _ => Err(error),
        }
    }

    /// Sends as much of `payload` as the kernel takes. The rest, and everything after it, waits in
    /// the write queue.
    ///
    /// # Errors
    ///
    /// The socket's error. The caller closes the client.
    pub(super) fn send(&mut self, payload: &Payload<'_>) -> io::Result<Flush> {
        if self.is_blocked() {
            self.write_queue.get_or_insert_default().push(payload);
            return Ok(Flush::WouldBlock { progress: false });
        }
        let bytes = payload.bytes();
        let sent = send(&mut self.socket, bytes)?;
        if sent == bytes.len() {
            return Ok(Flush::Complete);
        }
        self.write_queue = Some(Box::new(WriteQueue::from_unsent(payload, sent)));
        Ok(Flush::WouldBlock { progress: sent > 0 })
    }

    /// Sends `payload` if the turn `has_budget`, and otherwise defers it to
    /// [`Client::send_deferred`]. Shared bytes are deferred without a buffer of the client's own.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`].
    pub(super) fn deliver(&mut self, payload: &Payload<'_>, has_budget: bool) -> io::Result<Sent> {
        if has_budget || self.is_blocked() {
            return self.send(payload).map(Sent::Now);
        }
        let send = match payload {
            Payload::Shared(shared) => DeferredSend::Shared(Rc::clone(shared)),
            Payload::Private(_) => {
                self.write_queue = Some(Box::new(WriteQueue::from_unsent(payload, 0)));
                DeferredSend::Queued
            }
        };
        Ok(self.defer(send))
    }

    /// Defers a send until a turn has budget for it. Everything else waits in the write queue.
    pub(super) fn defer(&mut self, send: DeferredSend) -> Sent {
        self.is_deferred = true;
        Sent::Deferred(send)
    }

    /// Sends what was deferred, and then the write queue. `chunks` makes the same bytes in the form
    /// in which the rest waits, if the kernel does not take all of them.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`].
    pub(super) fn send_deferred(
        &mut self,
        bytes: &[u8],
        chunks: impl FnOnce() -> Vec<Chunk>,
    ) -> io::Result<Flush> {
        self.is_deferred = false;
        let sent = send(&mut self.socket, bytes)?;
        if sent == bytes.len() {
            return self.flush();
        }
        let later = self.write_queue.take();
        let flush = self.queue_chunks(chunks(), sent);
        if let (Some(queue), Some(later)) = (&mut self.write_queue, later) {
            queue.append(*later);
        }
        Ok(flush)
    }

    /// Sends as much of `bytes` as the kernel takes, and returns how much: nothing if the client is
    /// blocked.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`].
    pub(super) fn send_part(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_blocked() { Ok(0) } else { send(&mut self.socket, bytes) }
    }

    /// Queues chunks. Their first `sent` bytes are already sent, which only a client that is not
    /// blocked can have been.
    pub(super) fn queue_chunks(&mut self, chunks: Vec<Chunk>, sent: usize) -> Flush {
        let queue = WriteQueue::from_chunks(chunks, sent);
        match &mut self.write_queue {
            Some(before) => before.append(queue),
            none => *none = Some(Box::new(queue)),
        }
        Flush::WouldBlock { progress: sent > 0 }
    }

    /// Sends `bytes` with other chunks between them, as [`Client::send`] does.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`].
    pub(super) fn send_inserted(
        &mut self,
        bytes: &[u8],
        insertions: Vec<Insertion>,
    ) -> io::Result<Flush> {
        let (mut chunks, mut copied) = (Vec::new(), 0);
        for Insertion { at, chunk } in insertions {
            if copied < at {
                chunks.push(Chunk::Own(bytes[copied..at].into()));
                copied = at;
            }
            chunks.push(chunk);
        }
        chunks.push(Chunk::Own(bytes[copied..].into()));
        let was_blocked = self.is_blocked();
        let flush = self.queue_chunks(chunks, 0);
        if was_blocked { Ok(flush) } else { self.flush() }
    }

    /// Returns whether there are unsent bytes for which no event will come.
    pub(super) fn is_flush_cut(&self) -> bool {
        !self.is_deferred && self.write_queue.as_ref().is_some_and(|queue| queue.is_cut)
    }

    /// Returns whether input of this client, or a send to it, is deferred.
    pub(super) fn has_deferred_work(&self) -> bool {
        self.has_deferred_input() || self.is_deferred
    }

    /// Returns whether input of this client is deferred.
    pub(super) fn has_deferred_input(&self) -> bool {
        self.is_queued
    }

    /// Returns whether there are unsent bytes that the kernel does not take.
    pub(super) fn is_stalled(&self) -> bool {
        self.write_queue.is_some() && !self.is_deferred
    }

    /// Returns whether there are unsent bytes, so that further bytes queue after them.
    pub(super) fn is_blocked(&self) -> bool {
        self.is_deferred || self.write_queue.is_some()
    }

    /// Sends the write queue, unless a deferred send comes before it.
    ///
    /// # Errors
    ///
    /// As for [`Client::send`].
    pub(super) fn flush(&mut self) -> io::Result<Flush> {
        if self.is_deferred {
            return Ok(Flush::WouldBlock { progress: false });
        }
        let Some(queue) = &mut self.write_queue else { return Ok(Flush::Complete) };
        let result = queue.flush(&mut self.socket)?;
        match result {
            Flush::Complete => self.write_queue = None,
            // A peer that takes a record of TLS in small pieces is slow, and not gone.
            Flush::WouldBlock { progress: false } if self.socket.has_progressed() => {
                return Ok(Flush::WouldBlock { progress: true });
            }
            Flush::WouldBlock { .. } => {}
        }
        Ok(result)
    }

    /// Sends what a socket with TLS has kept, as for a handshake.
    #[inline(never)]
    pub(super) fn flush_socket(&mut self) {
        // If the socket is broken, the next read reports it.
        let _ = self.socket.flush();
    }

    /// Returns the bytes in the write queue, or `None` if there is no queue.
    pub(super) fn queued_bytes(&self) -> Option<usize> {
        self.write_queue.as_ref().map(|queue| queue.bytes())
    }

    /// Returns whether the client certainly uses no memory besides this struct, as most clients do.
    /// A socket with TLS may have buffers.
    pub(super) fn has_no_buffers(&self) -> bool {
        self.input.is_none()
            && self.write_queue.is_none()
            && !matches!(self.state, State::Streaming(_))
            && !self.socket.is_tls()
    }

    /// Returns the bytes of incomplete requests and unsent responses.
    pub(super) fn memory(&self) -> usize {
        let input = self.input.as_ref().map_or(0, |input| input.bytes.capacity());
        input + self.socket.memory() + self.write_queue.as_ref().map_or(0, |queue| queue.memory())
    }

    /// Returns what the client is expected to cost in its next share of a turn. Bytes that the
    /// client has left in its buffers are still to be handled, however little its last share was.
    pub(super) fn weight(&self) -> Weight {
        if self.charged_bytes > LIGHT_BUFFER_BYTES { Weight::Heavy } else { self.weight }
    }

    /// Returns whether there is more to read or to handle.
    pub(super) fn has_input(&self) -> bool {
        self.is_readable || self.input.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Size of the server's socket in a release build: descriptor, its kind, number of a session.
    /// In a debug build, mio's part is larger.
    type ServerSocket = [u32; 3];

    #[test]
    fn a_waiting_client_stays_small() {
        assert!(size_of::<Client<ServerSocket>>() <= 80, "{}", size_of::<Client<ServerSocket>>());
    }
}
