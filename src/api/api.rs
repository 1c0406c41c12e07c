//! One request in, one answer out, or a read that waits.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::call::Reading;
use super::client_addr::{Address, Peer, Proxies};
use super::cors::AllowOrigin;
use super::error::Error;
use super::params::Parameters;
use super::rate_limit::RateLimit;
use super::request_stats::{Requests, Subject};
use super::response::{self, Content, Dress, Encoded, Payload, Presentation, Tailor};
use super::route::{Call, Route};
use super::transport::{Shared, Stream, Transport};
use crate::http::{Callback, Limits, Method, Persistence, Request};
use crate::hub::{Auth, Epoch, Hub, Mode, Now, Pair, ReadCall, ReadOutcome, ReaderKey, TOKEN_BYTES, Wake, Who, token};
use crate::web;

/// A body may be a message that is percent-encoded throughout, and its name and channel too.
const BODY_BYTES_BESIDE_MESSAGE: usize = 4096;

const PREFLIGHT: &str = "Access-Control-Allow-Methods: GET, POST\r\n\
    Access-Control-Allow-Headers: content-type, last-event-id\r\n\
    Access-Control-Max-Age: 86400\r\n";

/// What the operator decides about calls.
#[derive(Clone, Debug)]
pub struct Config {
    /// A message's size in bytes.
    pub max_message: usize,
    /// A request head's size in bytes.
    pub max_head: usize,
    /// The longest that a read waits.
    pub poll_timeout: Duration,
    /// Which pages may call.
    pub allow_origin: AllowOrigin,
    /// Whether `/` is the demo.
    pub demo: bool,
    /// Calls that add messages, a second and address; 0 for no limit.
    pub max_rate: usize,
    /// Who may say in whose name they call.
    pub proxies: Proxies,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The answer was appended. Tells whether the client stays.
    Answered(Persistence),
    /// Nothing was appended: the read waits, and [`Api::wake`] answers it.
    Waits {
        /// For [`Hub::close_reader`], should the client go first.
        reader: ReaderKey,
        /// For [`Api::wake`].
        presentation: Option<Box<Presentation>>,
        /// How long it waits; then [`Hub::dismiss`].
        wait_ms: u64,
    },
    /// Its beginning was appended: the read stays, and [`Api::tell`] goes on with it.
    Follows {
        /// For [`Hub::close_reader`] when the client goes.
        reader: ReaderKey,
        /// For [`Api::tell`].
        stream: Stream,
    },
}

/// The meaning of the calls, with the scratch space to put answers together.
pub struct Api {
    pub(super) config: Config,
    pub(super) poll_timeout_ms: u64,
    connection_timeout_ms: u64,
    pub(super) epoch: Epoch,
    pub(super) tailor: Tailor,
    /// The JSON of the answer that is being put together; of the last wake-up, for those that repeat it.
    pub(super) json: Vec<u8>,
    /// What the last wake-up became, in each form in which it was wanted.
    pub(super) shared: Shared,
    /// Bytes of those that somebody still holds.
    pub(super) encoded: Rc<Cell<usize>>,
    /// An answer for one.
    pub(super) private: Vec<u8>,
    rate_limit: Option<RateLimit>,
    requests: Requests,
    random: fn(&mut [u8]),
    pub(super) is_leaving: bool,
}

impl Api {
    /// The calls on this hub. `random` fills a buffer with bytes that nobody can guess.
    #[must_use]
    pub fn new(config: Config, hub: &Hub, random: fn(&mut [u8])) -> Self {
        Self {
            poll_timeout_ms: millis(config.poll_timeout),
            connection_timeout_ms: millis(hub.connection_timeout()),
            epoch: hub.epoch(),
            tailor: Tailor::new(config.allow_origin.clone()),
            json: Vec::new(),
            shared: Shared::default(),
            encoded: Rc::default(),
            private: Vec::new(),
            rate_limit: RateLimit::new(config.max_rate),
            requests: Requests::default(),
            random,
            is_leaving: false,
            config,
        }
    }

    /// Whether whoever calls from this address, or without one by a Unix socket, may say in whose name.
    #[must_use]
    pub fn trusts(&self, address: Option<IpAddr>) -> bool {
        self.config.proxies.trust(address)
    }

    /// What a request may weigh.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { head_bytes: self.config.max_head, body_bytes: 3 * self.config.max_message + BODY_BYTES_BESIDE_MESSAGE }
    }

    /// To be called at the start of every turn.
    pub fn set_time(&mut self, now: Now) {
        self.tailor.set_time(now.unix_ms);
    }

    /// From now on streams are told at their end that the server goes.
    pub fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// From now on every answer tells its client to go.
    pub fn close(&mut self) {
        self.leave();
        self.tailor.is_closing = true;
    }

    /// Does what the request asks and appends the answer to `out`, unless it is a read that waits.
    pub fn handle(&mut self, hub: &mut Hub, now: Now, request: &Request<'_>, peer: Peer, out: &mut Vec<u8>) -> Outcome {
        let dress = Dress {
            callback: None,
            permission: self.tailor.allow_origin.permission(request.origin),
            persistence: request.persistence,
            is_bodiless: request.method == Method::Head,
        };
        let route = match Route::of(request.path, self.config.demo) {
            Ok(route) => route,
            Err(error) => {
                self.fail(Subject::None, error, dress, out);
                return Outcome::Answered(self.tailor.persistence(dress.persistence));
            }
        };
        match (route, route.check(request.method)) {
            (_, Err(error)) => self.fail(route.into(), error, dress, out),
            (Route::Call(call), Ok(())) if request.method != Method::Options => {
                return self.call(hub, now, call, request, peer, dress, out);
            }
            (_, Ok(())) => {
                let status = self.fetch(route, request, dress, out);
                self.note(if request.method == Method::Options { Subject::Preflight } else { route.into() }, status);
            }
        }
        Outcome::Answered(self.tailor.persistence(dress.persistence))
    }

    /// Appends an error that closes the client, in place of an answer to what it asks.
    pub fn refuse(&mut self, error: Error, out: &mut Vec<u8>) {
        self.note_error(Subject::None, error);
        self.turn_away(error, out);
    }

    /// Appends an error that closes the client, who did not ask anything that would count.
    pub fn turn_away(&mut self, error: Error, out: &mut Vec<u8>) {
        let permission = self.tailor.allow_origin.permission(None);
        self.push_error(error, Dress { permission, persistence: Persistence::Closes, ..Dress::PLAIN }, out);
    }

    /// How requests were answered until now.
    #[must_use]
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Encodes the answer of a read that waited, once for all that share it. Tells too whether the client stays.
    pub fn wake(&mut self, wake: &Wake<'_>, presentation: Option<&Presentation>) -> (Payload<'_>, Persistence) {
        self.begin_wake(wake);
        if self.json.is_empty() {
            let names = presentation.into_iter().flat_map(|presentation| presentation.names.iter().map(|name| &**name));
            response::push_reply(&mut self.json, &wake.reply, names, self.epoch);
        }
        self.note(Subject::Read, 200);
        let dress = Dress::of(presentation);
        let persistence = self.tailor.persistence(dress.persistence);
        if presentation.is_some() {
            self.private.clear();
            self.tailor.push_json(&mut self.private, dress, 200, "", &self.json);
            return (Payload::Private(&self.private), persistence);
        }
        let Self { shared, private, tailor, json, encoded, .. } = self;
        let shared = shared.answer.get_or_insert_with(|| {
            private.clear();
            tailor.push_json(private, dress, 200, "", json);
            Encoded::new(private, encoded)
        });
        (Payload::Shared(shared), persistence)
    }

    /// Bytes of answers for many that are still held, here or by those who are slow to take them.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.encoded.get()
    }

    /// Forgets the wake-up before, unless this one repeats it. Called for every one, also where nobody is left to be told.
    pub fn begin_wake(&mut self, wake: &Wake<'_>) {
        if !wake.is_repeat {
            self.json.clear();
            self.shared = Shared::default();
        }
    }

    /// Gives back what a large answer took. To be called at the end of every turn.
    pub fn end_turn(&mut self) {
        const KEPT: usize = 64 * 1024;
        self.shared = Shared::default();
        for scratch in [&mut self.json, &mut self.private] {
            if scratch.capacity() > KEPT {
                *scratch = Vec::new();
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the request and all that it acts on")]
    fn call(
        &mut self,
        hub: &mut Hub,
        now: Now,
        call: Call,
        request: &Request<'_>,
        peer: Peer,
        dress: Dress<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        // In one place from the first to the last: they are large for something that is moved with each request.
        let mut parameters = Parameters::default();
        let gathered = parameters.gather(call, request);
        let callback = match &parameters.callback {
            None => Ok(None),
            Some(_) if request.method == Method::Post => {
                Err(Error::BadParameter("'callback' is for GET: a script tag cannot POST"))
            }
            Some(name) => Callback::parse(name).map(Some).map_err(|_| Error::BadCallback),
        };
        let dress = Dress { callback: callback.ok().flatten(), ..dress };
        self.json.clear();
        let mut result = callback.map(|_| ()).and(gathered);
        if call.adds_messages() {
            result = result.and_then(|()| self.config.allow_origin.check(request));
            if self.rate_limit.is_some() {
                let address = self.config.proxies.caller(peer, request);
                result = result.and_then(|()| self.count(now, call, address));
            }
        }
        let result = match result {
            Err(error) => Err(error),
            Ok(()) if call == Call::Read => match self.read(hub, now, (request, &parameters), peer, dress, out) {
                Ok(None) => Ok(()),
                Ok(Some(outcome)) => return outcome,
                Err(error) => Err(error),
            },
            Ok(()) => self.act(hub, now, call, &parameters),
        };
        // What follows a handshake that failed may be no HTTP.
        let is_over = matches!(result, Err(Error::BadHandshake(_)));
        let dress = if is_over { Dress { persistence: Persistence::Closes, ..dress } } else { dress };
        match result {
            Ok(()) => {
                self.tailor.push_json(out, dress, 200, "", &self.json);
                self.note(call.into(), 200);
            }
            Err(error) => self.fail(call.into(), error, dress, out),
        }
        Outcome::Answered(self.tailor.persistence(dress.persistence))
    }

    /// Counts a call that adds messages against the limit of who makes it. A goodbye is never refused.
    pub(super) fn count(&mut self, now: Now, call: Call, address: Option<Address>) -> Result<(), Error> {
        let (Some(limit), Some(address)) = (&mut self.rate_limit, address) else { return Ok(()) };
        if !matches!(call, Call::Write | Call::Introduce) {
            return Ok(());
        }
        let too_many = |seconds| Error::TooManyRequests("too many messages from your address: slow down", seconds);
        limit.take(now.mono, address).map_err(too_many)
    }

    /// Does a call that never waits; its JSON is in `self.json`.
    pub(super) fn act(
        &mut self,
        hub: &mut Hub,
        now: Now,
        call: Call,
        parameters: &Parameters<'_>,
    ) -> Result<(), Error> {
        let json = &mut self.json;
        match call {
            Call::Write => {
                let saying = parameters.saying(call, self.config.max_message)?;
                let id = hub.write(now, &saying.log, saying.message, saying.credentials)?;
                response::push_id(json, id);
            }
            Call::Introduce => {
                let saying = parameters.saying(call, self.config.max_message)?;
                let who = match saying.credentials {
                    Some(credentials) => Who::Again(credentials),
                    None => Who::New(Auth::new(secret(self.random))),
                };
                let introduced = hub.introduce(now, &saying.log, saying.message, who)?;
                response::push_introduced(json, &introduced, self.connection_timeout_ms);
            }
            Call::Goodbye => {
                let leaving = parameters.leaving(self.config.max_message)?;
                hub.goodbye(now, leaving.credentials, leaving.log.as_ref(), leaving.message)?;
                json.extend_from_slice(b"{\"ok\":true}");
            }
            Call::Members => response::push_members(json, &hub.members(now, &parameters.members()?)),
            Call::Create => response::push_pair(json, &Pair::new(secret(self.random))),
            Call::Health => json.extend_from_slice(b"{\"status\":\"ok\"}"),
            Call::Read => unreachable!("a read may wait"),
        }
        Ok(())
    }

    /// Reads into `self.json`, or tells what else became of the read.
    fn read(
        &mut self,
        hub: &mut Hub,
        now: Now,
        (request, parameters): (&Request<'_>, &Parameters<'_>),
        peer: Peer,
        dress: Dress<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Outcome>, Error> {
        if let Some(transport) = Transport::asked_by(request)? {
            if transport == Transport::Frames {
                self.config.allow_origin.check(request)?;
            }
            return self.follow(hub, now, (request, parameters), transport, peer, dress, out).map(Some);
        }
        let Reading { follows, credentials, wait_ms, epoch } = parameters.reading(self.poll_timeout_ms)?;
        let mode = if wait_ms > 0 { Mode::Once } else { Mode::AtOnce };
        let call = ReadCall { follows: follows.as_slice(), epoch, credentials, mode, client: peer.client };
        match hub.read(now, &call)? {
            ReadOutcome::Answer(reply) => {
                response::push_reply(&mut self.json, &reply, parameters.channels.iter(), self.epoch);
                Ok(None)
            }
            ReadOutcome::Waits(reader) => {
                Ok(Some(Outcome::Waits { reader, presentation: dress.remember(&parameters.channels), wait_ms }))
            }
            ReadOutcome::Follows(..) => unreachable!("no stream was asked for"),
        }
    }

    /// Answers what needs no hub: files, the image, preflights.
    fn fetch(&self, route: Route, request: &Request<'_>, dress: Dress<'_>, out: &mut Vec<u8>) -> u16 {
        if request.method == Method::Options {
            let more = format!("{PREFLIGHT}Allow: {}\r\n", route.allow());
            self.tailor.head(dress, 204, None, &more).push(out, 0);
            return 204;
        }
        match route {
            Route::ImageTest => self.tailor.push(out, dress, 200, Content::fresh("image/gif"), "", web::PIXEL),
            Route::Bare => self.tailor.push(out, dress, 200, Content::JSON, "", web::BARE),
            Route::File(file) => return self.tailor.push_file(out, dress, file, request),
            Route::Call(_) | Route::Server => unreachable!("calls are called, and `*` takes only OPTIONS"),
        }
        200
    }

    fn fail(&mut self, subject: Subject, error: Error, dress: Dress<'_>, out: &mut Vec<u8>) {
        self.note_error(subject, error);
        self.push_error(error, dress, out);
    }

    fn push_error(&mut self, error: Error, dress: Dress<'_>, out: &mut Vec<u8>) {
        self.json.clear();
        response::push_error(&mut self.json, error);
        self.tailor.push_json(out, dress, error.row().1, &error.fields(), &self.json);
    }

    /// Counts and logs a request that was answered. Neither ever tells more of it.
    #[inline]
    pub(super) fn note(&mut self, subject: Subject, status: u16) {
        self.requests.count(subject, status);
        log::debug!("{} {status}", subject.name());
    }

    /// The same for one that is refused.
    pub(super) fn note_error(&mut self, subject: Subject, error: Error) {
        let (name, status) = error.row();
        self.requests.count(subject, status);
        log::debug!("{} {status} {name}", subject.name());
    }
}

/// A fresh secret name.
fn secret(random: fn(&mut [u8])) -> [u8; TOKEN_BYTES] {
    let mut bytes = [0; 32];
    let mut used = bytes.len();
    token(|| {
        if used == bytes.len() {
            random(&mut bytes);
            used = 0;
        }
        used += 1;
        bytes[used - 1]
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
