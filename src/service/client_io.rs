//! All of a conversation but its hub: what the hub delivers into.

use super::client::{Client, Delivery, LINGER_MS, Next, State};
use super::client_table::Clients;
use super::limits::Patience;
use super::socket::Socket;
use super::stream_state::Backlog;
use super::write_queue::Flush;
use crate::api::Api;
use crate::http::Persistence;
use crate::hub::{Key, Now, Wake};

/// Clients, and what their answers are made with.
pub(super) struct Io<S> {
    pub(super) clients: Clients<S>,
    pub(super) api: Api,
    pub(super) patience: Patience,
    pub(super) now: Now,
}

impl<S: Socket> Io<S> {
    /// Answers a read that waited, or tells one that stays.
    pub(super) fn answer_waiting(&mut self, wake: &Wake<'_>) {
        let Self { api, clients, .. } = self;
        let key = Key::from_bits(wake.client);
        let time = clients.time_for(wake.channel);
        // Who is told next may repeat this one, also where nobody is here to be told.
        let Some(client) = clients.get_mut(key) else { return api.begin_wake(wake) };
        let presentation = match &mut client.state {
            State::Waiting { presentation, .. } => presentation.take(),
            State::Following(_) => return self.tell(key, wake),
            // It closed in this very turn.
            _ => return api.begin_wake(wake),
        };
        client.state = State::Reading;
        let (payload, persistence) = api.wake(wake, presentation.as_deref());
        let Ok(delivery) = client.deliver(&payload, time) else {
            client.state = State::Closing;
            clients.reap_later(key);
            return;
        };
        let next = match persistence {
            Persistence::Closes if client.has_input() => Next::Linger,
            Persistence::Closes => Next::Close,
            Persistence::Stays | Persistence::StaysIfTold => Next::Read,
        };
        let flush = delivery.flush();
        clients.delivered(key, wake.channel, payload.bytes().len(), delivery);
        if flush != Flush::Drained {
            clients.count_memory(key);
        }
        self.settle(key, next, flush);
    }

    /// After an answer was handed to the kernel, wholly or in part: what the client is at now.
    pub(super) fn settle(&mut self, key: Key, next: Next, flush: Flush) {
        let Self { clients, patience, now, .. } = self;
        let client: &mut Client<S> = clients.the(key);
        if flush != Flush::Drained {
            client.state = State::Writing(next);
            return clients.set_deadline(key, now.mono.after(patience.request_timeout_ms));
        }
        match next {
            Next::Read if client.has_input() => {
                client.state = State::Reading;
                let ms = if client.incoming.is_some() { patience.request_timeout_ms } else { patience.keep_alive_ms };
                clients.make_ready(key);
                clients.set_deadline(key, now.mono.after(ms));
            }
            Next::Read if !client.peer_closed => {
                client.state = State::Reading;
                clients.set_deadline(key, now.mono.after(patience.keep_alive_ms));
            }
            Next::Linger if client.can_read || !client.peer_closed => {
                client.state = State::Lingering;
                // A peer that is gone needs no farewell; the next read tells.
                let _ = client.socket.shut_down_writing();
                // What it sent behind its last request is thrown away like what is still to come.
                client.incoming = None;
                if client.can_read {
                    clients.make_ready(key);
                }
                clients.count_memory(key);
                clients.set_deadline(key, now.mono.after(LINGER_MS.min(patience.request_timeout_ms)));
            }
            Next::Read | Next::Close | Next::Linger => {
                client.state = State::Closing;
                clients.reap_later(key);
            }
        }
    }

    /// Tells a stream what is new, or its end.
    pub(super) fn tell(&mut self, key: Key, wake: &Wake<'_>) {
        let Self { api, clients, patience, now, .. } = self;
        let time = clients.time_for(wake.channel);
        let Some((client, following)) = clients.following(key) else { return api.begin_wake(wake) };
        following.silent_until = now.mono.after(patience.heartbeat_ms);
        let due = following.due(*patience);
        let payload = api.tell(wake, &following.stream);
        let was_blocked = client.is_blocked();
        let Ok(delivery) = client.deliver(&payload, time) else { return clients.doom(key) };
        let is_held = matches!(delivery, Delivery::Held(_));
        let waits = if is_held { Some(payload.bytes().len()) } else { client.backlog() };
        let backlog = following.backlog(waits, was_blocked, patience.max_backlog);
        // Its own answer may be, or the one of another channel before it: it is not slow.
        let waits_for_time = client.is_held;
        let flush = delivery.flush();
        clients.delivered(key, wake.channel, payload.bytes().len(), delivery);
        if wake.is_last {
            // The hub knows already. The peer of a WebSocket has a farewell to send.
            clients.leave(key, State::Reading);
            return self.settle(key, Next::Linger, flush);
        }
        match backlog {
            // What comes meanwhile is told together, once it was sent this.
            _ if waits_for_time => clients.overload(key),
            Backlog::Fits => {}
            Backlog::OneTooLong => clients.overload(key),
            Backlog::TooMuch => return clients.doom(key),
        }
        if flush != Flush::Drained && clients.count_memory(key) && clients.memory() > patience.max_memory {
            return clients.doom(key);
        }
        clients.set_deadline(key, due);
        if wake.has_more && flush == Flush::Drained {
            // No event will tell that it was taken: the rest is for the next turn, which comes at once.
            clients.make_ready(key);
        }
    }
}
