//! The calls and the hub with the clients around them: the part of the service, without sockets.

use std::collections::BTreeSet;
use std::{env, mem};

use speak::api::{Api, Phase, ReplyFormat, Stream};
use speak::http::{Persistence, Progress};
use speak::hub::{
    self, Hub, Millis, Mode, Now, ReadRequest, ReadResult, ReaderKey, ResumeBatch, Since, Wake,
};
use support::reader::Reader;
use support::ws;

use super::asked::{Asked, accepted};
use super::knowledge::{Knowledge, StreamCheck};
use super::responses::{self, parse_json, texts};
use super::settings::{self, MAX_BACKLOG, Settings};

pub(super) const CLIENTS: usize = 6;

#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) session: u64,
    pub(super) auth: String,
}

/// One client, as far as the calls and the hub see it.
#[derive(Default)]
pub(super) struct Client {
    /// Comes back in wake-ups; unique to this client.
    pub(super) number: u64,
    pub(super) state: State,
    /// Bytes received and not handled yet.
    pub(super) input: Vec<u8>,
    pub(super) progress: Progress,
    /// Bytes per send; 0 for all at once.
    pub(super) piece_bytes: usize,
    /// Bytes queued for a client that reads nothing.
    pub(super) backlog: Option<usize>,
    /// The hub reported more for its stream than was sent.
    pub(super) has_more: bool,
    /// Its last event stream, which it may resume.
    pub(super) last_stream: Option<StreamCheck>,
}

#[derive(Default)]
pub(super) enum State {
    #[default]
    Reading,
    LongPolling {
        reader: ReaderKey,
        format: Option<Box<ReplyFormat>>,
        until: Millis,
        asked: Box<Asked>,
        its: Reader,
        closes: bool,
    },
    Streaming {
        reader: ReaderKey,
        stream: Stream,
        got: Delivered,
        /// The session that it keeps alive.
        session: Option<u64>,
        fragments: Option<Vec<u8>>,
    },
    Closed,
}

/// A stream and the messages that it got.
pub(super) enum Delivered {
    Events(StreamCheck),
    Frames(Reader),
}

pub(super) struct World {
    pub(super) settings: Settings,
    pub(super) hub: Hub,
    pub(super) api: Api,
    pub(super) now: Now,
    pub(super) clients: [Client; CLIENTS],
    pub(super) last_number: u64,
    closed_this_turn: BTreeSet<u64>,
    pub(super) is_stopping: bool,
    pub(super) knowledge: Knowledge,
    pub(super) identities: Vec<Identity>,
    /// Names of pairs: the secret one, and the one that is given away.
    pub(super) pairs: Vec<(String, String)>,
    pub(super) out: Vec<u8>,
    pub(super) history: History,
}

/// Prints the events of a session, if `SPEAK_FUZZ_TRACE` is set.
#[derive(Clone, Copy)]
pub(super) struct History(bool);

impl History {
    pub(super) fn note(self, who: u64, what: &str, bytes: &[u8]) {
        if self.0 {
            eprintln!("{who} {what}: {}", bytes.escape_ascii());
        }
    }
}

impl World {
    pub(super) fn new(settings: Settings) -> Self {
        settings::reset_chance();
        let hub = Hub::new(settings.hub.clone());
        let mut api = Api::new(settings.api.clone(), &hub, settings::chance);
        let now = Now { mono: Millis(0), unix_ms: 1_763_802_330_123 };
        api.set_time(now);
        Self {
            settings,
            hub,
            api,
            now,
            clients: Default::default(),
            last_number: 0,
            closed_this_turn: BTreeSet::new(),
            is_stopping: false,
            knowledge: Knowledge::new(),
            identities: Vec::new(),
            pairs: Vec::new(),
            out: Vec::new(),
            history: History(env::var_os("SPEAK_FUZZ_TRACE").is_some()),
        }
    }

    /// Returns the client with this index; a new one if the last has closed.
    pub(super) fn client(&mut self, place: usize) -> &mut Client {
        let client = &mut self.clients[place];
        if client.number == 0 || matches!(client.state, State::Closed) {
            self.last_number += 1;
            let last_stream = client.last_stream.take();
            *client = Client { number: self.last_number, last_stream, ..Client::default() };
        }
        client
    }

    pub(super) fn close(&mut self, place: usize) {
        let client = &mut self.clients[place];
        self.history.note(client.number, "closes", b"");
        match mem::replace(&mut client.state, State::Closed) {
            State::LongPolling { reader, .. } => self.hub.on_reader_closed(self.now, reader),
            State::Streaming { reader, got, .. } => {
                self.hub.on_reader_closed(self.now, reader);
                if let Delivered::Events(stream) = got {
                    client.last_stream = Some(stream);
                }
            }
            State::Reading | State::Closed => {}
        }
        self.closed_this_turn.insert(client.number);
    }

    /// Makes a client read nothing, or everything again.
    pub(super) fn block(&mut self, place: usize) {
        let client = self.client(place);
        client.backlog = if client.backlog.is_some() { None } else { Some(0) };
        self.resume(place);
    }

    /// Pauses a stream until it has read what was sent.
    pub(super) fn pause(&mut self, place: usize) {
        if let Client { state: State::Streaming { reader, .. }, has_more, .. } =
            &mut self.clients[place]
        {
            self.hub.pause(*reader);
            *has_more = true;
        }
    }

    /// Sends all pending messages to a stream that reads.
    pub(super) fn resume(&mut self, place: usize) {
        let Self { hub, api, clients, knowledge, history, now, .. } = self;
        for _ in 0..10_000 {
            let client = &mut clients[place];
            let State::Streaming { reader, .. } = &client.state else { return };
            if client.backlog.is_some() {
                return;
            }
            let had_more = client.has_more;
            if !hub.resume(*now, *reader, &mut ResumeBatch::default(), |wake| {
                send(api, client, knowledge, *history, &wake);
            }) {
                client.has_more = false;
                return;
            }
            assert!(had_more, "there is more, and the hub did not say so");
        }
        panic!("a stream that never comes to its end");
    }

    /// Ends the turn and begins the next.
    pub(super) fn turn(&mut self, passed_ms: u64) {
        self.end_turn();
        self.history.note(0, "a turn ends, milliseconds", passed_ms.to_string().as_bytes());
        self.now.mono = self.now.mono.after(passed_ms);
        self.now.unix_ms += passed_ms;
        self.api.set_time(self.now);
        for place in 0..CLIENTS {
            // Its input waited for the pending read.
            self.take(place);
            self.resume(place);
        }
    }

    fn end_turn(&mut self) {
        for place in 0..CLIENTS {
            if let State::LongPolling { reader, until, .. } = &self.clients[place].state
                && *until <= self.now.mono
            {
                self.hub.complete_empty(self.now, *reader);
            }
        }
        self.hub.expire(self.now);
        let deadline = self.hub.next_deadline();
        assert!(deadline.is_none_or(|deadline| deadline > self.now.mono), "what is due was done");
        self.deliver();
        self.api.end_turn();
        self.closed_this_turn.clear();
        self.check_census();
    }

    fn deliver(&mut self) {
        loop {
            let Self { hub, api, clients, knowledge, settings, closed_this_turn, history, .. } =
                self;
            hub.deliver(self.now, |wake| {
                let Some(place) = clients.iter().position(|client| client.number == wake.token)
                else {
                    assert!(closed_this_turn.contains(&wake.token), "a client that is long gone");
                    return;
                };
                let client = &mut clients[place];
                match mem::take(&mut client.state) {
                    State::LongPolling { format, asked, mut its, closes, .. } => {
                        assert!(wake.is_last);
                        let persistence = api.count_reply(format.as_deref());
                        let response = match &format {
                            None => api.encode_reply(&wake).bytes(),
                            Some(format) => api.encode_reply_as(&wake, format),
                        };
                        history.note(wake.token, "is woken", response);
                        let closes = closes || persistence == Persistence::Close;
                        let json = responses::check(response, &asked, settings.has_list, closes);
                        assert_eq!(persistence == Persistence::Close, closes);
                        client.state = if closes { State::Closed } else { State::Reading };
                        knowledge.take(&mut its, &json.expect("a read is answered in JSON"));
                    }
                    state @ State::Streaming { .. } => {
                        client.state = state;
                        send(api, client, knowledge, *history, &wake);
                    }
                    State::Closed if closed_this_turn.contains(&wake.token) => {
                        client.state = State::Closed;
                    }
                    State::Reading | State::Closed => {
                        panic!("a client without a pending read is woken")
                    }
                }
            });
            let is_cut = |client: &Client| {
                let is_stream = matches!(client.state, State::Streaming { .. });
                is_stream && client.backlog.is_some_and(|bytes| bytes > MAX_BACKLOG)
            };
            let cut: Vec<_> = (0..CLIENTS).filter(|place| is_cut(&self.clients[*place])).collect();
            if cut.is_empty() {
                return;
            }
            for place in cut {
                self.close(place);
            }
        }
    }

    /// Asserts that streams which read have got every message.
    fn check_streams(&mut self) {
        let mut known = Vec::new();
        for client in self.clients.iter().filter(|client| client.backlog.is_none()) {
            let State::Streaming { got, .. } = &client.state else { continue };
            let (Delivered::Events(StreamCheck { reader, .. }) | Delivered::Frames(reader)) = got;
            let its = reader.subscriptions.iter();
            known.extend(its.filter_map(|its| its.id().map(|id| (its.name.clone(), id))));
        }
        for (channel, id) in known {
            assert_eq!(self.next_ids(&[&channel]), [id], "a stream has not been sent all");
        }
    }

    /// Returns the next id of each channel that a client has just read.
    pub(super) fn next_ids(&mut self, channels: &[&str]) -> Vec<u64> {
        let next_id = |channel: &&str| {
            let log = accepted(channel).for_reading().expect("it was accepted");
            let (targets, mode) = (&[(log, Since::Now)], Mode::Immediate);
            let (epoch, credentials, grace_ms) = (None, None, None);
            let call = ReadRequest { targets, epoch, credentials, grace_ms, mode, token: 0 };
            let Ok(ReadResult::Ready(reply)) = self.hub.read(self.now, &call) else {
                panic!("it is answered")
            };
            reply.slices()[0].next_id()
        };
        channels.iter().map(next_id).collect()
    }

    fn waiting(&self) -> usize {
        let waits = |client: &&Client| {
            matches!(client.state, State::LongPolling { .. } | State::Streaming { .. })
        };
        self.clients.iter().filter(waits).count()
    }

    fn check_census(&self) {
        let census = self.hub.gauges();
        assert_eq!(census.readers, self.waiting(), "reads that wait");
        let kept = self.clients.iter().filter_map(|client| match &client.state {
            State::LongPolling { asked, .. } => asked.connection(),
            State::Streaming { session, .. } => *session,
            State::Reading | State::Closed => None,
        });
        let kept = kept.collect::<BTreeSet<_>>().len();
        assert!(
            (kept..=self.identities.len()).contains(&census.sessions),
            "a session with a pending read lives"
        );
        let max = self.settings.hub.max_channels;
        assert!(max == 0 || census.channels <= max, "{census:?}");
        assert!(census.timers <= census.channels + census.sessions, "{census:?}");
    }

    /// Stops the server: all pending reads are answered.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.api.set_phase(Phase::Stopping);
        self.hub.complete_all_empty(self.now);
        self.turn(0);
        assert_eq!(self.hub.gauges().readers, self.waiting());
    }

    /// Closes all clients and lets time pass until nothing is left to do.
    pub(super) fn finish(&mut self) {
        self.end_turn();
        (0..CLIENTS).for_each(|place| self.resume(place));
        self.check_streams();
        for place in 0..CLIENTS {
            self.clients[place].input.clear();
            self.close(place);
        }
        self.turn(0);
        for _ in 0..10_000 {
            let Some(deadline) = self.hub.next_deadline() else { break };
            let ms = deadline.0 - self.now.mono.0.min(deadline.0);
            self.turn(ms);
        }
        self.turn(0);
        let census = self.hub.gauges();
        let held = self.hub.memory();
        let hub::Gauges { channels, sessions, readers, timers, messages, .. } = census;
        assert_eq!([channels, sessions, readers, timers, messages, held], [0; 6], "all have gone");
        self.knowledge.ledger.finish().expect("one goodbye for each introduction");
    }

    /// Returns the time until the hub is due.
    pub(super) fn until_deadline(&self) -> u64 {
        self.hub.next_deadline().map_or(0, |deadline| deadline.0.saturating_sub(self.now.mono.0))
    }
}

/// Sends a message to a stream, or its end.
fn send(
    api: &mut Api,
    client: &mut Client,
    knowledge: &mut Knowledge,
    history: History,
    wake: &Wake<'_>,
) {
    let State::Streaming { stream, got, .. } = &mut client.state else {
        unreachable!("it is a stream")
    };
    let payload = api.encode_update(wake, stream);
    let bytes = payload.bytes();
    history.note(client.number, "is sent", bytes);
    if let Some(backlog) = &mut client.backlog {
        *backlog += bytes.len();
    }
    match got {
        Delivered::Events(stream) => knowledge.take_events(stream, bytes),
        Delivered::Frames(reader) if !wake.is_last => {
            let texts = texts(bytes);
            assert_eq!(texts.len(), 1, "a frame for each answer");
            knowledge.take(reader, &parse_json(texts[0]));
        }
        Delivered::Frames(_) => assert_eq!((bytes.len(), bytes[0]), (4, ws::CLOSE), "a Close"),
    }
    client.has_more = wake.has_more;
    if wake.is_last {
        if let Delivered::Events(stream) = got {
            assert!(stream.has_ended(), "the last chunk");
        }
        client.state = State::Closed;
    }
}
