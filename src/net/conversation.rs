//! What is said with the clients: bytes in, requests to the calls, answers out.
//!
//! Knows neither doors nor the poll: events come in as facts about a client.

use std::io;
use std::mem;
use std::net::IpAddr;

use super::budget::{Budget, Time};
use super::client::{Client, Incoming, Input, Next, State};
use super::clients::Clients;
use super::following::{Backlog, tell};
use super::metrics::Metrics;
use super::outbox::Flush;
use super::socket::Socket;
use crate::api::{Address, Api, Error, Outcome, Payload, Peer};
use crate::http::{self, Limits, Parsed, Persistence, Progress};
use crate::hub::{Hub, Key, Millis, Now, Resumed, Wake};

/// One read takes this much at most, and with it a client's turn.
pub const READ_BYTES: usize = 64 * 1024;

/// A client that pipelines gets this much of answers in one turn, then others have theirs.
pub const ANSWERS_BYTES_A_TURN: usize = 256 * 1024;

/// What a client is told whose request finds no memory.
const NO_MEMORY: Error = Error::OverCapacity("this server has no memory left for more: try again later");

/// What a client is told whose request came in the midst of an upgrade.
const HANDED_OVER: Error = Error::OverCapacity("this server is being replaced by a newer one: try again at once");

/// How long a client that was told to go may still send.
pub const LINGER_MS: u64 = 5_000;

/// How long clients may take over things, and how much they may leave lying.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) keep_alive_ms: u64,
    pub(super) request_timeout_ms: u64,
    /// How long a stream may be silent.
    pub(super) heartbeat_ms: u64,
    /// Bytes that may wait for one stream.
    pub(super) max_backlog: usize,
    /// Clients that one address may have at once; 0 for no limit.
    pub(super) max_per_address: usize,
    /// Bytes that requests which are not whole and answers which are not taken may take, of all clients.
    pub(super) max_memory: usize,
}

/// What the poll said of a socket.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// There may be something to read.
    pub is_readable: bool,
    /// There may be room to send.
    pub is_writable: bool,
    /// The peer sends nothing more.
    pub is_closed: bool,
    /// The peer reset the connection, or cannot be reached.
    pub is_broken: bool,
}

impl Event {
    /// Another one of the same socket, before anybody looked at this one.
    pub(super) fn add(&mut self, later: Self) {
        self.is_readable |= later.is_readable;
        self.is_writable |= later.is_writable;
        self.is_closed |= later.is_closed;
        self.is_broken |= later.is_broken;
    }
}

/// Why no more requests are taken from a client in this step.
pub(super) enum Stop {
    /// All that is there was handled, or more has to come first.
    NeedsInput,
    /// A read waits. What stands behind it is held.
    Waits,
    /// It had its share of the turn.
    Yields,
    /// It is to go.
    Ends(Next),
}

/// Clients, calls and hub, and the present.
pub(super) struct Conversation<S> {
    pub(super) clients: Clients<S>,
    pub(super) hub: Hub,
    pub(super) api: Api,
    limits: Limits,
    pub(super) patience: Patience,
    pub(super) now: Now,
    pub(super) metrics: Metrics,
    /// What is read, from whichever client it is.
    buffer: Box<[u8]>,
    /// What is answered, to whichever client it is.
    pub(super) out: Vec<u8>,
    /// Another process has the hub: requests are for it.
    is_leaving: bool,
    /// While streams go on in a row, and may share what they are told.
    pub(super) resumed: Option<Resumed>,
}

impl<S: Socket> Conversation<S> {
    pub(super) fn new(hub: Hub, api: Api, patience: Patience, now: Now) -> Self {
        Self {
            clients: Clients::new(patience.max_per_address, now.mono),
            limits: api.limits(),
            hub,
            api,
            patience,
            now,
            metrics: Metrics::default(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            out: Vec::new(),
            is_leaving: false,
            resumed: None,
        }
    }

    /// A turn begins.
    pub(super) fn set_time(&mut self, now: Now) {
        self.now = now;
        self.clients.begin_turn();
        self.api.set_time(now);
        self.hub.set_outside(self.clients.memory() + self.api.encoded_bytes());
    }

    /// When something is due that nobody will call for.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        Millis::first([self.hub.next_deadline(), self.clients.next_deadline()])
    }

    /// Takes a client in.
    pub(super) fn admit(&mut self, socket: S, address: Option<IpAddr>) -> Key {
        let is_proxy = self.api.trusts(address);
        let deadline = self.now.mono.after(self.patience.keep_alive_ms);
        self.clients.insert(Client::new(socket, address.map(Address::from), is_proxy, deadline))
    }

    /// Takes in a client that another process has begun with, and what came of its next request.
    pub(super) fn take_over(&mut self, socket: S, address: Option<IpAddr>, bytes: Vec<u8>) -> Key {
        let key = self.admit(socket, address);
        if !bytes.is_empty() {
            self.clients.the(key).incoming = Some(Box::new(Incoming { bytes, progress: Progress::default() }));
            self.clients.make_ready(key);
            self.clients.set_deadline(key, self.now.mono.after(self.patience.request_timeout_ms));
        }
        key
    }

    /// Takes in a client that came by the admin door.
    pub(super) fn admit_operator(&mut self, socket: S) -> Key {
        let deadline = self.now.mono.after(self.patience.keep_alive_ms);
        self.clients.insert(Client { is_operator: true, ..Client::new(socket, None, false, deadline) })
    }

    /// Lets a client go that was just taken in.
    pub(super) fn dismiss(&mut self, key: Key) {
        self.lose(key);
    }

    /// Tells a client that was just taken in why there is no room for it.
    pub(super) fn turn_away(&mut self, key: Key, error: Error) {
        self.clients.mark_refused(key);
        self.api.turn_away(error, &mut self.out);
        self.send_out(key, &Stop::Ends(Next::Linger));
    }

    /// Tells somebody why there is no room, and closes at once: there is no room either for those who take their time. What
    /// was sent already is read, since a close on top of it would be a reset, which may overtake the answer.
    pub(super) fn brush_off(&mut self, mut socket: S, error: Error) {
        let _ = socket.read(&mut self.buffer);
        self.api.turn_away(error, &mut self.out);
        let _ = socket.write(&self.out);
        self.out.clear();
        let _ = socket.shut_down_writing();
    }

    /// The same for a client that was just taken in.
    pub(super) fn dismiss_with(&mut self, key: Key, error: Error) {
        self.api.turn_away(error, &mut self.out);
        // Nothing waits before it, and what does not fit now never will.
        let _ = self.clients.the(key).send(&Payload::Private(&self.out));
        self.out.clear();
        self.lose(key);
    }

    /// Puts an error in the place of an answer. What an operator asks is not counted.
    fn refuse(&mut self, key: Key, error: Error) {
        if self.clients.the(key).is_operator {
            self.api.turn_away(error, &mut self.out);
        } else {
            self.api.refuse(error, &mut self.out);
        }
    }

    /// Something happened to a client.
    pub(super) fn hear(&mut self, key: Key, event: Event) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if client.late.is_some() || self.clients.budget.for_clients() == Time::Spent {
            return self.clients.hear_later(key, event);
        }
        self.attend(key, event);
    }

    fn attend(&mut self, key: Key, event: Event) {
        let client = self.clients.the(key);
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
        if !self.clients.count_memory(key) || self.clients.memory() <= self.patience.max_memory {
            return;
        }
        let client = self.clients.the(key);
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
        for _ in 0..self.clients.ready() {
            if self.clients.budget.for_ready() == Time::Spent {
                break;
            }
            if let Some(key) = self.clients.pop_ready() {
                self.go_on(key);
                self.mind_memory(key);
            }
        }
        while self.clients.budget.for_clients() == Time::Left
            && let Some((key, event)) = self.clients.pop_late()
        {
            self.attend(key, event);
        }
    }

    /// Sends answers that earlier turns had no time for, as long as there is `time`.
    fn send_late(&mut self, time: fn(&Budget) -> Time) {
        self.resumed = Some(Resumed::default());
        while time(&self.clients.budget) == Time::Left
            && let Some((key, held)) = self.clients.lanes.pop()
        {
            let Some(client) = self.clients.get_mut(key) else { continue };
            let bytes = held.as_ref().map_or(0, |held| held.bytes().len()) + client.backlog().unwrap_or(0);
            let result = client.release(held.as_ref());
            self.clients.budget.sent(bytes);
            self.was_flushed(key, &result);
            self.clients.count_memory(key);
        }
        self.resumed = None;
    }

    /// Does what is due.
    pub(super) fn expire(&mut self) {
        while let Some(key) = self.clients.pop_due(self.now.mono) {
            let client = self.clients.the(key);
            if client.deadline > self.now.mono {
                let deadline = client.deadline;
                self.clients.set_deadline(key, deadline);
                continue;
            }
            match &client.state {
                State::Reading if client.incoming.is_some() => {
                    client.incoming = None;
                    self.refuse(key, Error::RequestTimeout);
                    self.send_out(key, &Stop::Ends(Next::Linger));
                }
                State::Waiting { reader, .. } => {
                    let reader = *reader;
                    self.hub.dismiss(self.now, reader);
                }
                State::Following(_) => self.show_life(key),
                _ => self.lose(key),
            }
        }
        self.hub.expire(self.now);
    }

    /// The end of a turn: what it brought is delivered, and those who left are reaped.
    pub(super) fn end_turn(&mut self) {
        loop {
            self.send_late(Budget::for_late_delivery);
            let Self { hub, api, clients, patience, now, .. } = self;
            hub.deliver(*now, |wake| answer_waiting(api, clients, *patience, *now, &wake));
            self.send_late(Budget::for_delivery);
            for key in self.clients.take_overloaded() {
                self.put_off(key);
            }
            if !self.clients.has_doomed() {
                break;
            }
            let doomed = self.clients.take_doomed();
            // Their goodbyes are of this turn too. Every round loses somebody, so there is a last one.
            for key in doomed {
                self.lose(key);
            }
        }
        self.api.end_turn();
        self.clients.reap();
        if self.out.capacity() > 2 * ANSWERS_BYTES_A_TURN {
            self.out = Vec::new();
        }
    }

    /// The server stops: every waiting read is answered, and every client goes once it has its answer.
    pub(super) fn stop(&mut self) {
        self.api.close();
        self.hub.dismiss_all(self.now);
        self.end_turn();
        for key in self.clients.keys() {
            match &mut self.clients.the(key).state {
                State::Reading => self.lose(key),
                State::Writing(next) => *next = Next::Close,
                State::Waiting { .. } | State::Following(_) | State::Lingering | State::Closing => {}
            }
        }
        self.clients.reap();
    }

    /// Another process has the hub from now on. Those who wait are still to be dismissed.
    pub(super) fn leave_to_another(&mut self) {
        self.is_leaving = true;
        self.api.leave();
        self.hub.retire(self.now);
    }

    /// Has the read that waits on a client answered with nothing, or ends it if it stays.
    pub(super) fn dismiss_reader(&mut self, key: Key) {
        if let Some(reader) = self.clients.reader(key) {
            self.hub.dismiss(self.now, reader);
        }
    }

    /// Gives away the clients that are between two requests, each with what came of its next.
    pub(super) fn pass_on(&mut self, mut pass: impl FnMut(&S, &[u8])) {
        for key in self.clients.keys() {
            let client = self.clients.the(key);
            match (&client.state, &client.incoming) {
                // Nobody there would know that it came by the admin door.
                (State::Reading, _) if client.is_operator => drop(self.clients.remove(key)),
                // Its chunks were decoded in place, and are no request any more.
                (State::Reading, Some(incoming)) if matches!(incoming.progress, Progress::Chunked { .. }) => {
                    client.incoming = None;
                    self.api.refuse(HANDED_OVER, &mut self.out);
                    self.send_out(key, &Stop::Ends(Next::Linger));
                }
                (State::Reading, incoming) => {
                    pass(&client.socket, incoming.as_ref().map_or(&[], |incoming| &incoming.bytes));
                    self.clients.remove(key);
                }
                _ => {}
            }
        }
    }

    /// Whether some answer is still being sent.
    pub(super) fn is_sending(&self) -> bool {
        self.clients.iter().any(|client| matches!(client.state, State::Writing(_)))
    }

    /// A client is gone, and with it the read that waits on it.
    pub(super) fn lose(&mut self, key: Key) {
        self.leave(key, State::Closing);
        self.clients.reap_later(key);
    }

    /// A client goes over to another state, and the read that waits on it is closed.
    fn leave(&mut self, key: Key, state: State) {
        if let Some(reader) = self.clients.leave(key, state) {
            self.hub.close_reader(self.now, reader);
        }
    }

    /// Reads on, where the client is at that.
    pub(super) fn go_on(&mut self, key: Key) {
        match self.clients.get_mut(key).map(|client| &client.state) {
            Some(State::Reading | State::Following(_)) if self.is_leaving => {}
            Some(State::Reading | State::Following(_)) => self.serve(key),
            Some(State::Lingering) => self.discard(key),
            Some(State::Waiting { .. } | State::Writing(_) | State::Closing) | None => {}
        }
    }

    /// Throws away what a client sends that was told to go.
    fn discard(&mut self, key: Key) {
        let client = self.clients.the(key);
        let result = if client.can_read { client.read(&mut self.buffer) } else { Ok(Input::Nothing) };
        let is_over = client.peer_closed && !client.can_read;
        match result {
            Ok(input) if !is_over => {
                if let Input::Bytes(length) = input {
                    self.clients.budget.handled(length);
                }
                let client = self.clients.the(key);
                if client.can_read {
                    self.clients.make_ready(key);
                }
            }
            _ => self.lose(key),
        }
    }

    /// Takes requests, or frames, from a client: first those held, then what one read brings.
    fn serve(&mut self, key: Key) {
        self.clients.budget.begin_client();
        let mut held = self.clients.the(key).incoming.take();
        let was_held = held.is_some();
        let (mut handled, mut stop) = match &mut held {
            Some(held) => self.take_held(key, held),
            None => (0, Stop::NeedsInput),
        };
        if matches!(stop, Stop::NeedsInput) && self.clients.the(key).can_read {
            let mut buffer = mem::take(&mut self.buffer);
            let result = self.read_requests(key, &mut buffer, &mut held);
            self.buffer = buffer;
            let Ok((fresh, its_stop)) = result else {
                self.out.clear();
                return self.lose(key);
            };
            handled += fresh;
            stop = its_stop;
        }
        let held = held.filter(|held| !held.bytes.is_empty());
        let is_held = held.is_some();
        self.clients.the(key).incoming = held;
        let stays = matches!(self.clients.the(key).state, State::Waiting { .. } | State::Following(_));
        if !stays && (handled > 0 || was_held != is_held) {
            let Patience { keep_alive_ms, request_timeout_ms, .. } = self.patience;
            let ms = if is_held { request_timeout_ms } else { keep_alive_ms };
            self.clients.set_deadline(key, self.now.mono.after(ms));
        }
        self.send_out(key, &stop);
    }

    /// Reads once and takes requests from what came; what is left of it is held.
    fn read_requests(
        &mut self,
        key: Key,
        buffer: &mut [u8],
        held: &mut Option<Box<Incoming>>,
    ) -> io::Result<(usize, Stop)> {
        let Input::Bytes(length) = self.clients.the(key).read(buffer)? else {
            return Ok((0, Stop::NeedsInput));
        };
        self.clients.budget.came(length);
        let fresh = &mut buffer[..length];
        if let Some(held) = held {
            held.bytes.extend_from_slice(fresh);
            return Ok(self.take_held(key, held));
        }
        // Nearly always: whole requests, handled where they were read.
        let mut progress = Progress::default();
        let (taken, stop) = self.take(key, fresh, &mut progress);
        if taken < length {
            let mut rest = Box::new(Incoming { bytes: fresh[taken..].to_vec(), progress });
            rest.forget(0);
            *held = Some(rest);
        }
        Ok((taken, stop))
    }

    fn take_held(&mut self, key: Key, held: &mut Incoming) -> (usize, Stop) {
        let (taken, stop) = self.take(key, &mut held.bytes, &mut held.progress);
        held.forget(taken);
        (taken, stop)
    }

    fn take(&mut self, key: Key, bytes: &mut [u8], progress: &mut Progress) -> (usize, Stop) {
        match self.clients.the(key).state {
            State::Following(_) => self.take_frames(key, bytes),
            _ => self.take_requests(key, bytes, progress),
        }
    }

    /// Handles the requests at the start of `bytes`, one after the other; their answers gather in `self.out`.
    /// Returns how many bytes they took.
    fn take_requests(&mut self, key: Key, bytes: &mut [u8], progress: &mut Progress) -> (usize, Stop) {
        let client = self.clients.the(key);
        let is_operator = client.is_operator;
        let peer = Peer { client: key.to_bits(), address: client.address, is_proxy: client.is_proxy };
        let mut taken = 0;
        loop {
            if *progress == Progress::default() {
                taken += http::blank_prefix(&bytes[taken..]);
            }
            let rest = &mut bytes[taken..];
            if rest.is_empty() {
                return (taken, Stop::NeedsInput);
            }
            let whole = if *progress == Progress::default() { http::parse_whole(rest, &self.limits) } else { None };
            let (request, length) = match whole {
                Some(whole) => whole,
                None => match http::parse(rest, progress, &self.limits) {
                    Ok(Parsed::Complete(request, length)) => (request, length),
                    Ok(Parsed::Incomplete { wants_continue }) => {
                        if wants_continue {
                            self.out.extend_from_slice(http::CONTINUE);
                        }
                        return (taken, Stop::NeedsInput);
                    }
                    Err(reject) => {
                        self.refuse(key, reject.into());
                        return (taken, Stop::Ends(Next::Linger));
                    }
                },
            };
            taken += length;
            let answered = self.out.len();
            let outcome = if is_operator {
                let clients = self.clients.served();
                let Self { api, hub, metrics, out, .. } = self;
                Outcome::Answered(api.handle_admin(&request, |api, page| metrics.write(hub, api, clients, page), out))
            } else {
                self.api.handle(&mut self.hub, self.now, &request, peer, &mut self.out)
            };
            self.clients.budget.handled(self.out.len() - answered);
            match outcome {
                Outcome::Waits { reader, presentation, wait_ms } => {
                    self.clients.the(key).state = State::Waiting { reader, presentation };
                    self.clients.set_deadline(key, self.now.mono.after(wait_ms));
                    return (taken, Stop::Waits);
                }
                Outcome::Follows { reader, stream } => {
                    self.begin_following(key, reader, stream);
                    let (more, stop) = self.take_frames(key, &mut bytes[taken..]);
                    return (taken + more, stop);
                }
                Outcome::Answered(Persistence::Closes) => {
                    let client = self.clients.the(key);
                    let may_send = taken < bytes.len() || client.can_read;
                    return (taken, Stop::Ends(if may_send { Next::Linger } else { Next::Close }));
                }
                Outcome::Answered(_) if self.has_its_share() => return (taken, Stop::Yields),
                Outcome::Answered(_) => {}
            }
        }
    }

    /// Whether the client whose requests are handled now has had its share of the turn.
    pub(super) fn has_its_share(&self) -> bool {
        self.out.len() >= ANSWERS_BYTES_A_TURN || self.clients.budget.for_client() == Time::Spent
    }

    /// Sends the answers that gathered, and sees what the client is at then.
    fn send_out(&mut self, key: Key, stop: &Stop) {
        let client = self.clients.the(key);
        let was_blocked = client.is_blocked();
        let sent = match (self.out.is_empty(), was_blocked) {
            (true, false) => Ok(Flush::Drained),
            (true, true) => Ok(Flush::Blocked { any: false }),
            (false, _) => client.send(&Payload::Private(&self.out)),
        };
        self.out.clear();
        let Ok(flush) = sent else { return self.lose(key) };
        let is_following = matches!(client.state, State::Following(_));
        let next = match stop {
            Stop::NeedsInput | Stop::Yields if is_following => {
                match self.backlog(key, was_blocked) {
                    Backlog::Fits => {}
                    Backlog::OneTooLong => self.put_off(key),
                    Backlog::TooMuch => return self.lose(key),
                }
                return self.go_on_following(key, flush, matches!(stop, Stop::Yields));
            }
            Stop::Ends(_) if is_following => {
                self.leave(key, State::Reading);
                Next::Linger
            }
            Stop::Waits if client.peer_closed => return self.lose(key),
            Stop::Waits => return,
            Stop::NeedsInput if flush == Flush::Drained => {
                if client.can_read {
                    self.clients.make_ready(key);
                } else if client.peer_closed {
                    // Half-closed and answered: whatever is there is no whole request, and never will be.
                    self.lose(key);
                }
                return;
            }
            Stop::NeedsInput | Stop::Yields => Next::Read,
            Stop::Ends(next) => *next,
        };
        settle(&mut self.clients, self.patience, self.now, key, next, flush);
    }

    /// Sends what waited for the kernel to have room.
    pub(super) fn drain(&mut self, key: Key) {
        let client = self.clients.the(key);
        if client.outbox.is_some() {
            let result = client.flush();
            self.was_flushed(key, &result);
        }
    }

    /// After what waited for a client was sent, wholly or in part: what it is at now.
    fn was_flushed(&mut self, key: Key, result: &io::Result<Flush>) {
        match (result, &self.clients.the(key).state) {
            (Err(_), _) => self.lose(key),
            (Ok(flush), State::Writing(next)) if *flush != (Flush::Blocked { any: false }) => {
                let next = *next;
                settle(&mut self.clients, self.patience, self.now, key, next, *flush);
            }
            (Ok(flush), State::Following(_)) => self.was_taken(key, *flush),
            (Ok(_), _) => {}
        }
    }
}

impl Incoming {
    /// Lets go of bytes at the start that were handled, and of those that have no more use.
    fn forget(&mut self, bytes: usize) {
        self.bytes.drain(..bytes);
        self.progress.compact(&mut self.bytes);
    }
}

/// Answers a read that waited, or tells one that stays.
fn answer_waiting<S: Socket>(api: &mut Api, clients: &mut Clients<S>, patience: Patience, now: Now, wake: &Wake<'_>) {
    let key = Key::from_bits(wake.client);
    let time = clients.time_for(wake.channel);
    // Who is told next may repeat this one, also where nobody is here to be told.
    let Some(client) = clients.get_mut(key) else { return api.begin_wake(wake) };
    let presentation = match &mut client.state {
        State::Waiting { presentation, .. } => presentation.take(),
        State::Following(_) => return tell(api, clients, patience, now, key, wake),
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
    settle(clients, patience, now, key, next, flush);
}

/// After an answer was handed to the kernel, wholly or in part: what the client is at now.
pub(super) fn settle<S: Socket>(
    clients: &mut Clients<S>,
    patience: Patience,
    now: Now,
    key: Key,
    next: Next,
    flush: Flush,
) {
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
