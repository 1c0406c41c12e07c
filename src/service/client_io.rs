//! The part of the service that the hub delivers into. So nothing in this file calls the hub.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use super::client::{AfterResponse, Client, Sent, State, Transition};
use super::client_table::ClientTable;
use super::fair_queue::DeferredSend;
use super::limits::{ClientLimits, HANDSHAKE_BYTES, HANDSHAKE_MEMORY_PART, LINGER_MS, READ_BYTES};
use super::socket::Socket;
use super::stream_state::Backlog;
use super::write_queue::Flush;
use crate::api::{Api, Error, Payload, ReplyFormat, SourceKey};
use crate::http::{Limits, Persistence};
use crate::hub::{Key, Now, Wake};
use crate::metrics::Metrics;

/// All clients, and everything that is needed to respond to them.
pub(super) struct ClientIo<S> {
    pub(super) clients: ClientTable<S>,
    pub(super) api: Api,
    pub(super) limits: ClientLimits,
    pub(super) request_limits: Limits,
    pub(super) metrics: Metrics,
    pub(super) now: Now,
    /// Memory of the hub without its history. Set before the hub delivers into this.
    pub(super) hub_bytes: usize,
    /// Memory of calls that wait for the log, and of what the nodes of a cluster tell each other.
    pub(super) log_bytes: usize,
    /// Buffer for one read from any client.
    pub(super) read_buf: Box<[u8]>,
    /// Unsent responses to the client whose requests are being handled.
    pub(super) response: Vec<u8>,
}

impl<S: Socket> ClientIo<S> {
    pub(super) fn new(api: Api, limits: ClientLimits, max_clients: usize, now: Now) -> Self {
        let mut metrics = Metrics::default();
        metrics.max_clients = max_clients;
        metrics.max_memory = limits.max_memory;
        Self {
            clients: ClientTable::new(limits.max_per_address, now.mono),
            request_limits: api.limits(),
            api,
            limits,
            metrics,
            now,
            hub_bytes: 0,
            log_bytes: 0,
            read_buf: vec![0; READ_BYTES].into_boxed_slice(),
            response: Vec::new(),
        }
    }

    /// Returns the bytes that clients make the server hold outside of the hub.
    pub(super) fn external_bytes(&self) -> usize {
        self.clients.memory() + self.api.encoded_bytes() + self.log_bytes
    }

    /// Returns whether the server holds more than `--max-memory` for clients, without the history
    /// that can be evicted.
    pub(super) fn is_over_memory_limit(&self) -> bool {
        self.hub_bytes + self.external_bytes() > self.limits.max_memory
    }

    /// Adds a client of a public listener. The address is `None` for a Unix socket.
    pub(super) fn admit(&mut self, socket: S, address: Option<IpAddr>) -> Key {
        let is_proxy = self.api.is_trusted(address);
        let ClientLimits { keep_alive_ms, request_timeout_ms, .. } = self.limits;
        let ms = if socket.is_handshaking() { request_timeout_ms } else { keep_alive_ms };
        let deadline = self.now.mono.after(ms);
        let key = SourceKey::from(address);
        self.clients.insert(Client::new(socket, Some(key), is_proxy, deadline))
    }

    /// Returns whether the handshakes, with that of a client that was just added, take more than
    /// their share of the memory. A client that says nothing costs as much as one that goes on.
    pub(super) fn exceeds_handshake_limit(&mut self, key: Key) -> bool {
        let bytes = self.clients.handshake_count() * HANDSHAKE_BYTES;
        self.clients.expect_mut(key).is_handshaking
            && bytes > self.limits.max_memory / HANDSHAKE_MEMORY_PART
    }

    /// Adds a client of the admin listener.
    pub(super) fn admit_admin(&mut self, socket: S) -> Key {
        let deadline = self.now.mono.after(self.limits.keep_alive_ms);
        let mut client = Client::new(socket, None, false, deadline);
        client.is_admin = true;
        self.clients.insert(client)
    }

    /// Rejects a client that was just added: sends `error`, and lingers so that the client can read
    /// it.
    pub(super) fn reject(&mut self, key: Key, error: Error) {
        self.clients.mark_rejected(key);
        match self.respond_to_new(key, error) {
            Some(flush) => self.finish_response(key, AfterResponse::Linger, flush),
            None => drop(self.clients.close(key)),
        }
    }

    /// Sends `error` to a client that was just added, and closes it.
    pub(super) fn respond_and_close(&mut self, key: Key, error: Error) {
        // Nothing is queued before the error. Bytes that do not fit into the kernel's buffer are
        // never sent.
        self.respond_to_new(key, error);
        self.clients.close(key);
    }

    /// Sends `error` to a client that has sent no request. Returns `None` if the send fails.
    fn respond_to_new(&mut self, key: Key, error: Error) -> Option<Flush> {
        self.api.push_rejection_uncounted(error, &mut self.response);
        let client = self.clients.expect_mut(key);
        let sent = client.send(&Payload::Private(&self.response));
        self.response.clear();
        sent.ok()
    }

    /// Sends `error` to a socket and closes it, without adding a client that would linger. Reads
    /// the bytes that the peer has already sent: a close with unread bytes sends a reset, which may
    /// overtake the response. A handshake is not worth its cost here.
    pub(super) fn reject_and_close(&mut self, mut socket: S, error: Error) {
        if socket.is_handshaking() {
            return;
        }
        let _ = socket.read(&mut self.read_buf);
        self.api.push_rejection_uncounted(error, &mut self.response);
        let _ = socket.write(&self.response);
        self.response.clear();
        let _ = socket.shut_down_writing();
    }

    /// Appends an error as the response. Does not count it if the client is of the admin listener.
    pub(super) fn push_error(&mut self, key: Key, error: Error) {
        if self.clients.expect_mut(key).is_admin {
            self.api.push_rejection_uncounted(error, &mut self.response);
        } else {
            self.api.push_rejection(error, &mut self.response);
        }
    }

    /// Delivers a reply of the hub: completes a long poll, or sends an update to a stream.
    pub(super) fn complete_read(&mut self, wake: &Wake<'_>) {
        let Self { api, clients, .. } = self;
        let key = Key::from_bits(wake.token);
        let has_budget = clients.has_send_budget(wake.channel);
        // The client may be gone. The cache still needs this wake-up: the next may repeat it.
        let Some(client) = clients.get_mut(key) else { return api.reset_cache(wake) };
        let format = match client.state() {
            State::LongPolling { .. } => client.complete_poll(),
            State::Streaming(_) => return self.send_to_stream(key, wake, has_budget),
            // The client was closed in this turn.
            _ => return api.reset_cache(wake),
        };
        let persistence = api.count_reply(format.as_deref());
        let after = match persistence {
            Persistence::Close if client.has_input() => AfterResponse::Linger,
            Persistence::Close => AfterResponse::Close,
            Persistence::Persistent | Persistence::PersistentIfAnnounced => {
                AfterResponse::KeepAlive
            }
        };
        let flush = if has_budget || client.is_blocked() {
            let Ok((bytes, flush)) = Self::send_reply(api, client, wake, format.as_deref()) else {
                clients.close(key);
                return;
            };
            if format.is_some() || !wake.same_as_previous {
                clients.budget.charge_encoding(bytes);
            }
            clients.budget.charge_send(bytes);
            flush
        } else {
            let send = if format.is_none() && wake.same_as_previous {
                DeferredSend::Shared(Rc::clone(api.encode_reply(wake)))
            } else {
                DeferredSend::Reply(api.share_reply(wake), format)
            };
            client.is_deferred = true;
            clients.deferred_sends.push(wake.channel, (key, send));
            Flush::WouldBlock { progress: false }
        };
        if flush != Flush::Complete {
            clients.budget.charge_encoding(api.take_copied_bytes());
            clients.update_memory(key);
        }
        self.finish_response(key, after, flush);
        if flush != Flush::Complete && self.is_over_memory_limit() {
            self.clients.close_later(key);
        }
    }

    /// Sends the reply to a long poll, and returns the length of the response. What the kernel does
    /// not take shares the messages with other replies.
    #[inline]
    fn send_reply(
        api: &mut Api,
        client: &mut Client<S>,
        wake: &Wake<'_>,
        format: Option<&ReplyFormat>,
    ) -> io::Result<(usize, Flush)> {
        let Some(format) = format else {
            let response = api.encode_reply(wake);
            let flush = client.send(&Payload::Shared(response))?;
            return Ok((response.bytes().len(), flush));
        };
        let response = api.encode_reply_as(wake, format);
        let bytes = response.len();
        let sent = client.send_part(response)?;
        let is_complete = sent == bytes && !client.is_blocked();
        let flush = if is_complete {
            Flush::Complete
        } else {
            client.queue_chunks(api.split_private(wake), sent)
        };
        Ok((bytes, flush))
    }

    /// Moves the client to its next state, after all or a part of a response was sent.
    pub(super) fn finish_response(&mut self, key: Key, after: AfterResponse, flush: Flush) {
        let Self { clients, limits, now, .. } = self;
        let client = clients.expect_mut(key);
        let ms = match client.on_response_sent(after, flush) {
            Transition::Writing => limits.request_timeout_ms,
            Transition::Reading { has_input: false } => limits.keep_alive_ms,
            Transition::Reading { has_input: true } => {
                let is_incomplete = client.input.is_some();
                clients.schedule(key);
                if is_incomplete { limits.request_timeout_ms } else { limits.keep_alive_ms }
            }
            Transition::Lingering => {
                if client.is_readable {
                    clients.schedule(key);
                }
                clients.update_memory(key);
                LINGER_MS.min(limits.request_timeout_ms)
            }
            Transition::Closing => return clients.reap_later(key),
        };
        clients.set_deadline(key, now.mono.after(ms));
    }

    /// Records that bytes of a stream's peer were read. Any bytes prove that it is there; an
    /// incomplete message has a deadline of its own.
    pub(super) fn on_stream_input(&mut self, key: Key) {
        if let Some((_, stream)) = self.clients.stream_mut(key) {
            stream.on_input(self.now.mono, self.limits);
        }
    }

    /// Sends an update to a stream, or ends the stream. Defers the send if the turn has no budget.
    pub(super) fn send_to_stream(&mut self, key: Key, wake: &Wake<'_>, has_budget: bool) {
        let Self { api, clients, limits, now, .. } = self;
        let Some((client, stream)) = clients.stream_mut(key) else {
            return api.reset_cache(wake);
        };
        // An update that waits after unsent bytes is no output yet.
        if !client.is_stalled() {
            stream.on_output(now.mono, *limits);
        }
        let was_blocked = client.is_blocked();
        if !has_budget
            && !was_blocked
            && !wake.is_last
            && let Some(format) = stream.stream.private_format()
        {
            let send = DeferredSend::Update(api.share_reply(wake), format);
            client.is_deferred = true;
            clients.deferred_sends.push(wake.channel, (key, send));
            clients.budget.charge_encoding(api.take_copied_bytes());
            clients.pause_later(key);
            if self.is_over_memory_limit() {
                self.clients.close_later(key);
            }
            return;
        }
        let payload = api.encode_update(wake, &stream.stream);
        let bytes = payload.bytes().len();
        let sent = match payload {
            Payload::Private(update) if !wake.is_last => client.send_part(update).map(|sent| {
                if sent == bytes && !was_blocked {
                    return Sent::Now(Flush::Complete);
                }
                Sent::Now(client.queue_chunks(api.split_private(wake), sent))
            }),
            payload => client.deliver(&payload, has_budget),
        };
        let Ok(sent) = sent else { return clients.close_later(key) };
        let unsent = match &sent {
            Sent::Deferred(_) => Some(bytes),
            Sent::Now(_) => client.queued_bytes(),
        };
        let backlog = stream.backlog(unsent, was_blocked, limits.max_backlog);
        // This update is deferred, or an earlier one of another channel: the peer is not slow.
        let is_deferred = client.is_deferred;
        let flush = sent.flush();
        if !wake.same_as_previous {
            clients.budget.charge_encoding(bytes);
        }
        clients.account_delivery(key, wake.channel, bytes, sent);
        if wake.is_last {
            // The hub has already removed the reader. A WebSocket peer still has to send its Close
            // frame, so linger.
            clients.end_stream(key);
            return self.finish_response(key, AfterResponse::Linger, flush);
        }
        match backlog {
            // Further messages until this update is sent form one update.
            _ if is_deferred => clients.pause_later(key),
            Backlog::WithinLimit => {}
            Backlog::OversizedMessage => clients.pause_later(key),
            Backlog::OverLimit => return clients.close_later(key),
        }
        if flush != Flush::Complete {
            clients.budget.charge_encoding(api.take_copied_bytes());
            if clients.update_memory(key) && self.is_over_memory_limit() {
                return self.clients.close_later(key);
            }
        }
        let clients = &mut self.clients;
        if wake.has_more && flush == Flush::Complete {
            // No event reports that the update was sent. The next turn begins at once and sends
            // the next update.
            clients.schedule(key);
        }
    }
}
