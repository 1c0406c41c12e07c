//! All clients and the hub, turn by turn: who comes and goes, what happens to them, what is due and what is delivered.
//!
//! Knows neither doors nor the poll: events come in as facts about a client.

use std::net::IpAddr;

use super::budget::{Budget, Time};
use super::client::{Client, Incoming, Next, State};
use super::client_io::Io;
use super::client_table::Clients;
use super::event::Event;
use super::http::{ANSWERS_BYTES_A_TURN, READ_BYTES, Stop};
use super::limits::Patience;
use super::socket::Socket;
use crate::api::{Address, Api, Error, Payload};
use crate::http::{Limits, Progress};
use crate::hub::{Hub, Key, Millis, Now, Resumed};
use crate::metrics::Metrics;

/// What a client is told whose request finds no memory.
const NO_MEMORY: Error = Error::OverCapacity("this server has no memory left for more: try again later");

/// What a client is told whose request came in the midst of an upgrade.
const HANDED_OVER: Error = Error::OverCapacity("this server is being replaced by a newer one: try again at once");

/// Clients, calls and hub, and the present.
pub(super) struct Conversation<S> {
    pub(super) hub: Hub,
    pub(super) io: Io<S>,
    pub(super) limits: Limits,
    pub(super) metrics: Metrics,
    /// What is read, from whichever client it is.
    pub(super) buffer: Box<[u8]>,
    /// What is answered, to whichever client it is.
    pub(super) out: Vec<u8>,
    /// Another process has the hub: requests are for it.
    pub(super) is_leaving: bool,
    /// While streams go on in a row, and may share what they are told.
    pub(super) resumed: Option<Resumed>,
}

impl<S: Socket> Conversation<S> {
    pub(super) fn new(hub: Hub, api: Api, patience: Patience, now: Now) -> Self {
        Self {
            limits: api.limits(),
            hub,
            io: Io { clients: Clients::new(patience.max_per_address, now.mono), api, patience, now },
            metrics: Metrics::default(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            out: Vec::new(),
            is_leaving: false,
            resumed: None,
        }
    }

    /// A turn begins.
    pub(super) fn set_time(&mut self, now: Now) {
        self.io.now = now;
        self.io.clients.begin_turn();
        self.io.api.set_time(now);
        self.hub.set_outside(self.io.clients.memory() + self.io.api.encoded_bytes());
    }

    /// When something is due that nobody will call for.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        Millis::first([self.hub.next_deadline(), self.io.clients.next_deadline()])
    }

    /// Takes a client in.
    pub(super) fn admit(&mut self, socket: S, address: Option<IpAddr>) -> Key {
        let is_proxy = self.io.api.trusts(address);
        let deadline = self.io.now.mono.after(self.io.patience.keep_alive_ms);
        self.io.clients.insert(Client::new(socket, address.map(Address::from), is_proxy, deadline))
    }

    /// Takes in a client that another process has begun with, and what came of its next request.
    pub(super) fn take_over(&mut self, socket: S, address: Option<IpAddr>, bytes: Vec<u8>) -> Key {
        let key = self.admit(socket, address);
        if !bytes.is_empty() {
            self.io.clients.the(key).incoming = Some(Box::new(Incoming { bytes, progress: Progress::default() }));
            self.io.clients.make_ready(key);
            self.io.clients.set_deadline(key, self.io.now.mono.after(self.io.patience.request_timeout_ms));
        }
        key
    }

    /// Takes in a client that came by the admin door.
    pub(super) fn admit_operator(&mut self, socket: S) -> Key {
        let deadline = self.io.now.mono.after(self.io.patience.keep_alive_ms);
        self.io.clients.insert(Client { is_operator: true, ..Client::new(socket, None, false, deadline) })
    }

    /// Lets a client go that was just taken in.
    pub(super) fn dismiss(&mut self, key: Key) {
        self.lose(key);
    }

    /// Tells a client that was just taken in why there is no room for it.
    pub(super) fn turn_away(&mut self, key: Key, error: Error) {
        self.io.clients.mark_refused(key);
        self.io.api.turn_away(error, &mut self.out);
        self.send_out(key, &Stop::Ends(Next::Linger));
    }

    /// Tells somebody why there is no room, and closes at once: there is no room either for those who take their time. What
    /// was sent already is read, since a close on top of it would be a reset, which may overtake the answer.
    pub(super) fn brush_off(&mut self, mut socket: S, error: Error) {
        let _ = socket.read(&mut self.buffer);
        self.io.api.turn_away(error, &mut self.out);
        let _ = socket.write(&self.out);
        self.out.clear();
        let _ = socket.shut_down_writing();
    }

    /// The same for a client that was just taken in.
    pub(super) fn dismiss_with(&mut self, key: Key, error: Error) {
        self.io.api.turn_away(error, &mut self.out);
        // Nothing waits before it, and what does not fit now never will.
        let _ = self.io.clients.the(key).send(&Payload::Private(&self.out));
        self.out.clear();
        self.lose(key);
    }

    /// Puts an error in the place of an answer. What an operator asks is not counted.
    pub(super) fn refuse(&mut self, key: Key, error: Error) {
        if self.io.clients.the(key).is_operator {
            self.io.api.turn_away(error, &mut self.out);
        } else {
            self.io.api.refuse(error, &mut self.out);
        }
    }

    /// Something happened to a client.
    pub(super) fn hear(&mut self, key: Key, event: Event) {
        let Some(client) = self.io.clients.get_mut(key) else { return };
        if client.late.is_some() || self.io.clients.budget.for_clients() == Time::Spent {
            return self.io.clients.hear_later(key, event);
        }
        self.attend(key, event);
    }

    fn attend(&mut self, key: Key, event: Event) {
        let client = self.io.clients.the(key);
        client.can_read |= event.is_readable;
        client.peer_closed |= event.is_closed;
        match &client.state {
            State::Closing => {}
            _ if event.is_broken => self.lose(key),
            State::Waiting { .. } if event.is_closed => self.lose(key),
            State::Following(_) => self.hear_following(key, event),
            State::Waiting { .. } | State::Writing(_) => {
                if event.is_writable {
                    self.drain(key);
                }
            }
            State::Reading | State::Lingering => self.go_on(key),
        }
        self.mind_memory(key);
    }

    /// Something of a client's may have become more. One that takes what is not there is told to go.
    fn mind_memory(&mut self, key: Key) {
        if !self.io.clients.count_memory(key) || self.io.clients.memory() <= self.io.patience.max_memory {
            return;
        }
        let client = self.io.clients.the(key);
        if let State::Reading = client.state {
            client.incoming = None;
            self.refuse(key, NO_MEMORY);
            self.send_out(key, &Stop::Ends(Next::Linger));
        } else {
            self.lose(key);
        }
    }

    /// Goes on with the clients whose work was cut short, and with what happened that there was no time for.
    pub(super) fn go_on_with_ready(&mut self) {
        for _ in 0..self.io.clients.ready() {
            if self.io.clients.budget.for_ready() == Time::Spent {
                break;
            }
            if let Some(key) = self.io.clients.pop_ready() {
                self.go_on(key);
                self.mind_memory(key);
            }
        }
        while self.io.clients.budget.for_clients() == Time::Left
            && let Some((key, event)) = self.io.clients.pop_late()
        {
            self.attend(key, event);
        }
    }

    /// Sends answers that earlier turns had no time for, as long as there is `time`.
    fn send_late(&mut self, time: fn(&Budget) -> Time) {
        self.resumed = Some(Resumed::default());
        while time(&self.io.clients.budget) == Time::Left
            && let Some((key, held)) = self.io.clients.lanes.pop()
        {
            let Some(client) = self.io.clients.get_mut(key) else { continue };
            let bytes = held.as_ref().map_or(0, |held| held.bytes().len()) + client.backlog().unwrap_or(0);
            let result = client.release(held.as_ref());
            self.io.clients.budget.sent(bytes);
            self.was_flushed(key, &result);
            self.io.clients.count_memory(key);
        }
        self.resumed = None;
    }

    /// Does what is due.
    pub(super) fn expire(&mut self) {
        while let Some(key) = self.io.clients.pop_due(self.io.now.mono) {
            let client = self.io.clients.the(key);
            if client.deadline > self.io.now.mono {
                let deadline = client.deadline;
                self.io.clients.set_deadline(key, deadline);
                continue;
            }
            match &client.state {
                // It is not the client that is late.
                State::Reading | State::Following(_) | State::Writing(_) if client.is_kept_waiting() => {
                    self.io.clients.set_deadline(key, self.io.now.mono.after(1));
                }
                State::Reading if client.incoming.is_some() => {
                    client.incoming = None;
                    self.refuse(key, Error::RequestTimeout);
                    self.send_out(key, &Stop::Ends(Next::Linger));
                }
                State::Waiting { reader, .. } => {
                    let reader = *reader;
                    self.hub.dismiss(self.io.now, reader);
                }
                State::Following(_) => self.show_life(key),
                _ => self.lose(key),
            }
        }
        self.hub.expire(self.io.now);
    }

    /// The end of a turn: what it brought is delivered, and those who left are reaped.
    pub(super) fn end_turn(&mut self) {
        loop {
            self.send_late(Budget::for_late_delivery);
            let Self { hub, io, .. } = self;
            hub.deliver(io.now, |wake| io.answer_waiting(&wake));
            self.send_late(Budget::for_delivery);
            for key in self.io.clients.take_overloaded() {
                self.put_off(key);
            }
            // Their goodbyes are of this turn too, and those of who turned out to be gone when it was sent something. Every
            // round but the first loses somebody, so there is a last one.
            for key in self.io.clients.take_doomed() {
                self.lose(key);
            }
            if !self.hub.has_undelivered() {
                break;
            }
        }
        self.io.api.end_turn();
        self.io.clients.reap();
        if self.out.capacity() > 2 * ANSWERS_BYTES_A_TURN {
            self.out = Vec::new();
        }
    }

    /// The server stops: every waiting read is answered, and every client goes once it has its answer.
    pub(super) fn stop(&mut self) {
        self.io.api.close();
        self.hub.dismiss_all(self.io.now);
        self.end_turn();
        for key in self.io.clients.keys() {
            match &mut self.io.clients.the(key).state {
                State::Reading => self.lose(key),
                State::Writing(next) => *next = Next::Close,
                State::Waiting { .. } | State::Following(_) | State::Lingering | State::Closing => {}
            }
        }
        self.io.clients.reap();
    }

    /// Another process has the hub from now on. Those who wait are still to be dismissed.
    pub(super) fn leave_to_another(&mut self) {
        self.is_leaving = true;
        self.io.api.leave();
        self.hub.retire(self.io.now);
    }

    /// Has the read that waits on a client answered with nothing, or ends it if it stays.
    pub(super) fn dismiss_reader(&mut self, key: Key) {
        if let Some(reader) = self.io.clients.reader(key) {
            self.hub.dismiss(self.io.now, reader);
        }
    }

    /// Gives away the clients that are between two requests, each with what came of its next.
    pub(super) fn pass_on(&mut self, mut pass: impl FnMut(&S, &[u8])) {
        for key in self.io.clients.keys() {
            let client = self.io.clients.the(key);
            match (&client.state, &client.incoming) {
                // Nobody there would know that it came by the admin door.
                (State::Reading, _) if client.is_operator => drop(self.io.clients.remove(key)),
                // Its chunks were decoded in place, and are no request any more.
                (State::Reading, Some(incoming)) if matches!(incoming.progress, Progress::Chunked { .. }) => {
                    client.incoming = None;
                    self.io.api.refuse(HANDED_OVER, &mut self.out);
                    self.send_out(key, &Stop::Ends(Next::Linger));
                }
                (State::Reading, incoming) => {
                    pass(&client.socket, incoming.as_ref().map_or(&[], |incoming| &incoming.bytes));
                    self.io.clients.remove(key);
                }
                _ => {}
            }
        }
    }

    /// Whether some answer is still being sent.
    pub(super) fn is_sending(&self) -> bool {
        self.io.clients.iter().any(|client| matches!(client.state, State::Writing(_)))
    }

    /// A client is gone, and with it the read that waits on it.
    pub(super) fn lose(&mut self, key: Key) {
        self.leave(key, State::Closing);
        self.io.clients.reap_later(key);
    }

    /// A client goes over to another state, and the read that waits on it is closed.
    pub(super) fn leave(&mut self, key: Key, state: State) {
        if let Some(reader) = self.io.clients.leave(key, state) {
            self.hub.close_reader(self.io.now, reader);
        }
    }
}
