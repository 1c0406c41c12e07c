//! All of a conversation but its hub: what the hub delivers into.

use super::client::{AfterResponse, Client, LINGER_MS, Sent, State};
use super::client_table::ClientTable;
use super::limits::ClientLimits;
use super::socket::Socket;
use super::stream_state::Backlog;
use super::write_queue::Flush;
use crate::api::Api;
use crate::http::Persistence;
use crate::hub::{Key, Now, Wake};

/// Clients, and what their answers are made with.
pub(super) struct Io<S> {
    pub(super) clients: ClientTable<S>,
    pub(super) api: Api,
    pub(super) patience: ClientLimits,
    pub(super) now: Now,
}

impl<S: Socket> Io<S> {
    /// Answers a read that waited, or tells one that stays.
    pub(super) fn complete_read(&mut self, wake: &Wake<'_>) {
        let Self { api, clients, .. } = self;
        let key = Key::from_bits(wake.token);
        let has_budget = clients.has_send_budget(wake.channel);
        // Who is told next may repeat this one, also where nobody is here to be told.
        let Some(client) = clients.get_mut(key) else { return api.reset_cache(wake) };
        let presentation = match &mut client.state {
            State::LongPolling { presentation, .. } => presentation.take(),
            State::Streaming(_) => return self.send_to_stream(key, wake),
            // It closed in this very turn.
            _ => return api.reset_cache(wake),
        };
        client.state = State::Reading;
        let (payload, persistence) = api.encode_reply(wake, presentation.as_deref());
        let Ok(delivery) = client.deliver(&payload, has_budget) else {
            client.state = State::Closing;
            clients.reap_later(key);
            return;
        };
        let next = match persistence {
            Persistence::Close if client.has_input() => AfterResponse::Linger,
            Persistence::Close => AfterResponse::Close,
            Persistence::Persistent | Persistence::PersistentIfAnnounced => {
                AfterResponse::KeepAlive
            }
        };
        let flush = delivery.flush();
        clients.account_delivery(key, wake.channel, payload.bytes().len(), delivery);
        if flush != Flush::Complete {
            clients.update_memory(key);
        }
        self.finish_response(key, next, flush);
    }

    /// After an answer was handed to the kernel, wholly or in part: what the client is at now.
    pub(super) fn finish_response(&mut self, key: Key, next: AfterResponse, flush: Flush) {
        let Self { clients, patience, now, .. } = self;
        let client: &mut Client<S> = clients.expect_mut(key);
        if flush != Flush::Complete {
            client.state = State::Writing(next);
            return clients.set_deadline(key, now.mono.after(patience.request_timeout_ms));
        }
        match next {
            AfterResponse::KeepAlive if client.has_input() => {
                client.state = State::Reading;
                let ms = if client.incoming.is_some() {
                    patience.request_timeout_ms
                } else {
                    patience.keep_alive_ms
                };
                clients.schedule(key);
                clients.set_deadline(key, now.mono.after(ms));
            }
            AfterResponse::KeepAlive if !client.is_read_closed => {
                client.state = State::Reading;
                clients.set_deadline(key, now.mono.after(patience.keep_alive_ms));
            }
            AfterResponse::Linger if client.is_readable || !client.is_read_closed => {
                client.state = State::Lingering;
                // A peer that is gone needs no farewell; the next read tells.
                let _ = client.socket.shut_down_writing();
                // What it sent behind its last request is thrown away like what is still to come.
                client.incoming = None;
                if client.is_readable {
                    clients.schedule(key);
                }
                clients.update_memory(key);
                clients
                    .set_deadline(key, now.mono.after(LINGER_MS.min(patience.request_timeout_ms)));
            }
            AfterResponse::KeepAlive | AfterResponse::Close | AfterResponse::Linger => {
                client.state = State::Closing;
                clients.reap_later(key);
            }
        }
    }

    /// Tells a stream what is new, or its end.
    pub(super) fn send_to_stream(&mut self, key: Key, wake: &Wake<'_>) {
        let Self { api, clients, patience, now, .. } = self;
        let has_budget = clients.has_send_budget(wake.channel);
        let Some((client, following)) = clients.stream_mut(key) else {
            return api.reset_cache(wake);
        };
        following.heartbeat_at = now.mono.after(patience.heartbeat_ms);
        let due = following.next_check(*patience);
        let payload = api.encode_update(wake, &following.stream);
        let was_blocked = client.is_blocked();
        let Ok(delivery) = client.deliver(&payload, has_budget) else {
            return clients.close_later(key);
        };
        let is_held = matches!(delivery, Sent::Deferred(_));
        let waits = if is_held { Some(payload.bytes().len()) } else { client.queued_bytes() };
        let backlog = following.backlog(waits, was_blocked, patience.max_backlog);
        // Its own answer may be, or the one of another channel before it: it is not slow.
        let waits_for_time = client.is_deferred;
        let flush = delivery.flush();
        clients.account_delivery(key, wake.channel, payload.bytes().len(), delivery);
        if wake.is_last {
            // The hub knows already. The peer of a WebSocket has a farewell to send.
            clients.take_reader(key, State::Reading);
            return self.finish_response(key, AfterResponse::Linger, flush);
        }
        match backlog {
            // What comes meanwhile is told together, once it was sent this.
            _ if waits_for_time => clients.pause_later(key),
            Backlog::WithinLimit => {}
            Backlog::OversizedMessage => clients.pause_later(key),
            Backlog::OverLimit => return clients.close_later(key),
        }
        if flush != Flush::Complete
            && clients.update_memory(key)
            && clients.memory() > patience.max_memory
        {
            return clients.close_later(key);
        }
        clients.set_deadline(key, due);
        if wake.has_more && flush == Flush::Complete {
            // No event will tell that it was taken: the rest is for the next turn, which comes at once.
            clients.schedule(key);
        }
    }
}
