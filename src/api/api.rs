//! One request in, one answer out, or a read that waits.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use super::call::ReadParams;
use super::client_addr::{RequestSource, SourceKey, TrustedProxies};
use super::cors::AllowOrigin;
use super::error::Error;
use super::params::Parameters;
use super::phase::Phase;
use super::rate_limit::RateLimit;
use super::request_stats::{RequestKind, RequestStats};
use super::response::{
    self, BodyType, Payload, ReplyFormat, ResponseOptions, ResponseWriter, SharedBytes,
};
use super::route::{Call, Route};
use super::transport::{EncodeCache, Stream, Transport};
use crate::http::{Callback, Limits, Method, Persistence, Request};
use crate::hub::{
    Auth, Epoch, Hub, Introducer, Mode, Now, Pair, ReadRequest, ReadResult, ReaderKey, TOKEN_BYTES,
    Wake, token,
};
use crate::web;

/// A body may be a message that is percent-encoded throughout, and its name and channel too.
const BODY_OVERHEAD_BYTES: usize = 4096;

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
    pub proxies: TrustedProxies,
}

/// What became of a request.
#[derive(Debug)]
pub enum Handled {
    /// The answer was appended. Tells whether the client stays.
    Responded(Persistence),
    /// Nothing was appended: the read waits, and [`Api::wake`] answers it.
    LongPoll {
        /// For [`Hub::close_reader`], should the client go first.
        reader: ReaderKey,
        /// For [`Api::wake`].
        presentation: Option<Box<ReplyFormat>>,
        /// How long it waits; then [`Hub::dismiss`].
        wait_ms: u64,
    },
    /// Its beginning was appended: the read stays, and [`Api::tell`] goes on with it.
    Stream {
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
    pub(super) writer: ResponseWriter,
    /// The JSON of the answer that is being put together; of the last wake-up, for those that repeat it.
    pub(super) json: Vec<u8>,
    /// What the last wake-up became, in each form in which it was wanted.
    pub(super) shared_buf: EncodeCache,
    /// Bytes of those that somebody still holds.
    pub(super) cached: Rc<Cell<usize>>,
    /// An answer for one.
    pub(super) private_buf: Vec<u8>,
    rate_limit: Option<RateLimit>,
    requests: RequestStats,
    random: fn(&mut [u8]),
}

impl Api {
    /// The calls on this hub. `random` fills a buffer with bytes that nobody can guess.
    #[must_use]
    pub fn new(config: Config, hub: &Hub, random: fn(&mut [u8])) -> Self {
        Self {
            poll_timeout_ms: millis(config.poll_timeout),
            connection_timeout_ms: millis(hub.connection_timeout()),
            epoch: hub.epoch(),
            writer: ResponseWriter::new(config.allow_origin.clone()),
            json: Vec::new(),
            shared_buf: EncodeCache::default(),
            cached: Rc::default(),
            private_buf: Vec::new(),
            rate_limit: RateLimit::new(config.max_rate),
            requests: RequestStats::default(),
            random,
            config,
        }
    }

    /// Whether whoever calls from this address, or without one by a Unix socket, may say in whose name.
    #[must_use]
    pub fn is_trusted(&self, address: Option<IpAddr>) -> bool {
        self.config.proxies.is_trusted(address)
    }

    /// What a request may weigh.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            head_bytes: self.config.max_head,
            body_bytes: 3 * self.config.max_message + BODY_OVERHEAD_BYTES,
        }
    }

    /// To be called at the start of every turn.
    pub fn set_time(&mut self, now: Now) {
        self.writer.set_time(now.unix_ms);
    }

    /// Has the responses from now on follow `phase`.
    pub fn set_phase(&mut self, phase: Phase) {
        self.writer.phase = phase;
    }

    /// Does what the request asks and appends the answer to `out`, unless it is a read that waits.
    pub fn handle(
        &mut self,
        hub: &mut Hub,
        now: Now,
        request: &Request<'_>,
        peer: RequestSource,
        out: &mut Vec<u8>,
    ) -> Handled {
        let dress = ResponseOptions {
            callback: None,
            cors_grant: self.writer.allow_origin.cors_grant(request.origin),
            persistence: request.persistence,
            is_head: request.method == Method::Head,
        };
        let route = match Route::of(request.path, self.config.demo) {
            Ok(route) => route,
            Err(error) => {
                self.respond_error(RequestKind::None, error, dress, out);
                return Handled::Responded(self.writer.persistence(dress.persistence));
            }
        };
        match (route, route.check_method(request.method)) {
            (_, Err(error)) => self.respond_error(route.into(), error, dress, out),
            (Route::Call(call), Ok(())) if request.method != Method::Options => {
                return self.handle_call(hub, now, call, request, peer, dress, out);
            }
            (_, Ok(())) => {
                let status = self.respond_file(route, request, dress, out);
                self.record(
                    if request.method == Method::Options {
                        RequestKind::Preflight
                    } else {
                        route.into()
                    },
                    status,
                );
            }
        }
        Handled::Responded(self.writer.persistence(dress.persistence))
    }

    /// Appends an error that closes the client, in place of an answer to what it asks.
    pub fn push_rejection(&mut self, error: Error, out: &mut Vec<u8>) {
        self.record_error(RequestKind::None, error);
        self.push_rejection_uncounted(error, out);
    }

    /// Appends an error that closes the client, who did not ask anything that would count.
    pub fn push_rejection_uncounted(&mut self, error: Error, out: &mut Vec<u8>) {
        let cors_grant = self.writer.allow_origin.cors_grant(None);
        self.push_error(
            error,
            ResponseOptions {
                cors_grant,
                persistence: Persistence::Close,
                ..ResponseOptions::DEFAULT
            },
            out,
        );
    }

    /// How requests were answered until now.
    #[must_use]
    pub fn requests(&self) -> &RequestStats {
        &self.requests
    }

    /// Encodes the answer of a read that waited, once for all that share it. Tells too whether the client stays.
    pub fn encode_reply(
        &mut self,
        wake: &Wake<'_>,
        presentation: Option<&ReplyFormat>,
    ) -> (Payload<'_>, Persistence) {
        self.reset_cache(wake);
        if self.json.is_empty() {
            let names = presentation
                .into_iter()
                .flat_map(|presentation| presentation.channel_labels.iter().map(|name| &**name));
            response::push_reply(&mut self.json, &wake.reply, names, self.epoch);
        }
        self.record(RequestKind::Read, 200);
        let dress = ResponseOptions::of(presentation);
        let persistence = self.writer.persistence(dress.persistence);
        if presentation.is_some() {
            self.private_buf.clear();
            self.writer.push_json(&mut self.private_buf, dress, 200, "", &self.json);
            return (Payload::Private(&self.private_buf), persistence);
        }
        let Self { shared_buf, private_buf, writer, json, cached, .. } = self;
        let shared = shared_buf.answer.get_or_insert_with(|| {
            private_buf.clear();
            writer.push_json(private_buf, dress, 200, "", json);
            SharedBytes::new(private_buf, cached)
        });
        (Payload::Shared(shared), persistence)
    }

    /// Bytes of answers for many that are still held, here or by those who are slow to take them.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.cached.get()
    }

    /// Forgets the wake-up before, unless this one repeats it. Called for every one, also where nobody is left to be told.
    pub fn reset_cache(&mut self, wake: &Wake<'_>) {
        if !wake.same_as_previous {
            self.json.clear();
            self.shared_buf = EncodeCache::default();
        }
    }

    /// Gives back what a large answer took. To be called at the end of every turn.
    pub fn end_turn(&mut self) {
        const KEEP_CAPACITY: usize = 64 * 1024;
        self.shared_buf = EncodeCache::default();
        for scratch in [&mut self.json, &mut self.private_buf] {
            if scratch.capacity() > KEEP_CAPACITY {
                *scratch = Vec::new();
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the request and all that it acts on")]
    fn handle_call(
        &mut self,
        hub: &mut Hub,
        now: Now,
        call: Call,
        request: &Request<'_>,
        peer: RequestSource,
        dress: ResponseOptions<'_>,
        out: &mut Vec<u8>,
    ) -> Handled {
        // In one place from the first to the last: they are large for something that is moved with each request.
        let mut parameters = Parameters::default();
        let gathered = parameters.parse(call, request);
        let callback = match &parameters.callback {
            None => Ok(None),
            Some(_) if request.method == Method::Post => {
                Err(Error::BadParameter("'callback' is for GET: a script tag cannot POST"))
            }
            Some(name) => Callback::parse(name).map(Some).map_err(|_| Error::BadCallback),
        };
        let dress = ResponseOptions { callback: callback.ok().flatten(), ..dress };
        self.json.clear();
        let mut result = callback.map(|_| ()).and(gathered);
        if call.adds_messages() {
            result = result.and_then(|()| self.config.allow_origin.check_origin(request));
            if self.rate_limit.is_some() {
                let address = self.config.proxies.client_addr(peer, request);
                result = result.and_then(|()| self.count(now, call, address));
            }
        }
        let result = match result {
            Err(error) => Err(error),
            Ok(()) if call == Call::Read => {
                match self.read(hub, now, (request, &parameters), peer, dress, out) {
                    Ok(None) => Ok(()),
                    Ok(Some(outcome)) => return outcome,
                    Err(error) => Err(error),
                }
            }
            Ok(()) => self.execute(hub, now, call, &parameters),
        };
        // What follows a handshake that failed may be no HTTP.
        let is_over = matches!(result, Err(Error::BadHandshake(_)));
        let dress = if is_over {
            ResponseOptions { persistence: Persistence::Close, ..dress }
        } else {
            dress
        };
        match result {
            Ok(()) => {
                self.writer.push_json(out, dress, 200, "", &self.json);
                self.record(call.into(), 200);
            }
            Err(error) => self.respond_error(call.into(), error, dress, out),
        }
        Handled::Responded(self.writer.persistence(dress.persistence))
    }

    /// Counts a call that adds messages against the limit of who makes it. A goodbye is never refused.
    pub(super) fn count(
        &mut self,
        now: Now,
        call: Call,
        address: Option<SourceKey>,
    ) -> Result<(), Error> {
        let (Some(limit), Some(address)) = (&mut self.rate_limit, address) else { return Ok(()) };
        if !matches!(call, Call::Write | Call::Introduce) {
            return Ok(());
        }
        let too_many = |seconds| {
            Error::TooManyRequests("too many messages from your address: slow down", seconds)
        };
        limit.take(now.mono, address).map_err(too_many)
    }

    /// Does a call that never waits; its JSON is in `self.json`.
    pub(super) fn execute(
        &mut self,
        hub: &mut Hub,
        now: Now,
        call: Call,
        parameters: &Parameters<'_>,
    ) -> Result<(), Error> {
        let json = &mut self.json;
        match call {
            Call::Write => {
                let saying = parameters.parse_write(call, self.config.max_message)?;
                let id = hub.write(now, &saying.channel, saying.message, saying.credentials)?;
                response::push_id(json, id);
            }
            Call::Introduce => {
                let saying = parameters.parse_write(call, self.config.max_message)?;
                let who = match saying.credentials {
                    Some(credentials) => Introducer::Existing(credentials),
                    None => Introducer::New(Auth::new(random_token(self.random))),
                };
                let introduced = hub.introduce(now, &saying.channel, saying.message, who)?;
                response::push_introduced(json, &introduced, self.connection_timeout_ms);
            }
            Call::Goodbye => {
                let leaving = parameters.parse_goodbye(self.config.max_message)?;
                hub.goodbye(now, leaving.credentials, leaving.channel.as_ref(), leaving.message)?;
                json.extend_from_slice(b"{\"ok\":true}");
            }
            Call::Members => {
                response::push_members(json, &hub.members(now, &parameters.members()?));
            }
            Call::Create => response::push_pair(json, &Pair::new(random_token(self.random))),
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
        peer: RequestSource,
        dress: ResponseOptions<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Handled>, Error> {
        if let Some(transport) = Transport::from_request(request)? {
            if transport == Transport::WebSocket {
                self.config.allow_origin.check_origin(request)?;
            }
            return self
                .start_stream(hub, now, (request, parameters), transport, peer, dress, out)
                .map(Some);
        }
        let ReadParams { follows, credentials, wait_ms, epoch } =
            parameters.parse_read(self.poll_timeout_ms)?;
        let mode = if wait_ms > 0 { Mode::LongPoll } else { Mode::Immediate };
        let call = ReadRequest {
            targets: follows.as_slice(),
            epoch,
            credentials,
            mode,
            token: peer.client,
        };
        match hub.read(now, &call)? {
            ReadResult::Ready(reply) => {
                response::push_reply(
                    &mut self.json,
                    &reply,
                    parameters.channels.iter(),
                    self.epoch,
                );
                Ok(None)
            }
            ReadResult::Pending(reader) => Ok(Some(Handled::LongPoll {
                reader,
                presentation: dress.to_reply_format(&parameters.channels),
                wait_ms,
            })),
            ReadResult::Streaming(..) => unreachable!("no stream was asked for"),
        }
    }

    /// Answers what needs no hub: files, the image, preflights.
    fn respond_file(
        &self,
        route: Route,
        request: &Request<'_>,
        dress: ResponseOptions<'_>,
        out: &mut Vec<u8>,
    ) -> u16 {
        if request.method == Method::Options {
            let more = format!("{PREFLIGHT}Allow: {}\r\n", route.allow());
            self.writer.head(dress, 204, None, &more).push(out, 0);
            return 204;
        }
        match route {
            Route::ImageTest => {
                self.writer.push(out, dress, 200, BodyType::no_store("image/gif"), "", web::PIXEL);
            }
            Route::Root => self.writer.push(out, dress, 200, BodyType::JSON, "", web::BARE),
            Route::File(file) => return self.writer.push_file(out, dress, file, request),
            Route::Call(_) | Route::Asterisk => {
                unreachable!("calls are called, and `*` takes only OPTIONS")
            }
        }
        200
    }

    fn respond_error(
        &mut self,
        subject: RequestKind,
        error: Error,
        dress: ResponseOptions<'_>,
        out: &mut Vec<u8>,
    ) {
        self.record_error(subject, error);
        self.push_error(error, dress, out);
    }

    fn push_error(&mut self, error: Error, dress: ResponseOptions<'_>, out: &mut Vec<u8>) {
        self.json.clear();
        response::push_error(&mut self.json, error);
        self.writer.push_json(
            out,
            dress,
            error.name_and_status().1,
            &error.extra_headers(),
            &self.json,
        );
    }

    /// Counts and logs a request that was answered. Neither ever tells more of it.
    #[inline]
    pub(super) fn record(&mut self, subject: RequestKind, status: u16) {
        self.requests.count(subject, status);
        log::debug!("{} {status}", subject.name());
    }

    /// The same for one that is refused.
    pub(super) fn record_error(&mut self, subject: RequestKind, error: Error) {
        let (name, status) = error.name_and_status();
        self.requests.count(subject, status);
        log::debug!("{} {status} {name}", subject.name());
    }
}

/// A fresh secret name.
fn random_token(random: fn(&mut [u8])) -> [u8; TOKEN_BYTES] {
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
