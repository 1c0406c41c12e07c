//! What the calls mean: a request goes to the hub, what the hub says becomes an answer.
//!
//! Knows both HTTP and the hub, which do not know each other; has no sockets and no clock.

mod admin;
mod calls;
mod client_addr;
mod cors;
mod error;
mod file;
mod frame;
mod json;
mod params;
mod payload;
mod rate_limit;
mod read;
mod request_stats;
mod response;
mod route;
mod sse;
mod stream;
mod transport;

pub use calls::Context;
pub use client_addr::{Cidr, RequestSource, SourceKey, TrustedProxies};
pub use cors::AllowOrigin;
pub use error::Error;
pub use payload::{Payload, SharedBytes};
pub use request_stats::RequestStats;
pub use response::ReplyFormat;
pub use transport::{Stream, Transport, WebSocket};

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use self::calls::{Action, Call, Settings};
use self::params::Parameters;
use self::payload::EncodeCache;
use self::rate_limit::RateLimit;
use self::read::{ReadCall, ReadParams};
use self::request_stats::RequestKind;
use self::response::{ResponseOptions, ResponseWriter};
use self::route::Route;
use crate::http::{Limits, Method, Persistence, Request};
use crate::hub::{Epoch, Hub, Mode, Now, ReadResult, ReaderKey, Wake};

/// A body may be a message that is percent-encoded throughout, and its name and channel too.
const BODY_OVERHEAD_BYTES: usize = 4096;

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
        format: Option<Box<ReplyFormat>>,
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
    config: Config,
    poll_timeout_ms: u64,
    settings: Settings,
    epoch: Epoch,
    writer: ResponseWriter,
    /// The JSON of the answer that is being put together; of the last wake-up, for those that repeat it.
    json: Vec<u8>,
    /// What the last wake-up became, in each form in which it was wanted.
    shared_buf: EncodeCache,
    /// Bytes of those that somebody still holds.
    cached: Rc<Cell<usize>>,
    /// An answer for one.
    private_buf: Vec<u8>,
    rate_limit: Option<RateLimit>,
    requests: RequestStats,
    is_leaving: bool,
}

impl Api {
    /// The calls on this hub. `random` fills a buffer with bytes that nobody can guess.
    #[must_use]
    pub fn new(config: Config, hub: &Hub, random: fn(&mut [u8])) -> Self {
        Self {
            poll_timeout_ms: millis(config.poll_timeout),
            settings: Settings {
                max_message: config.max_message,
                session_timeout_ms: millis(hub.connection_timeout()),
                random,
            },
            epoch: hub.epoch(),
            writer: ResponseWriter::new(config.allow_origin.clone()),
            json: Vec::new(),
            shared_buf: EncodeCache::default(),
            cached: Rc::default(),
            private_buf: Vec::new(),
            rate_limit: RateLimit::new(config.max_rate),
            requests: RequestStats::default(),
            is_leaving: false,
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

    /// From now on streams are told at their end that the server goes.
    pub fn leave(&mut self) {
        self.is_leaving = true;
    }

    /// From now on every answer tells its client to go.
    pub fn close(&mut self) {
        self.leave();
        self.writer.is_closing = true;
    }

    /// Handles a request. Appends the response to `out`, unless the request is a read that waits.
    pub fn handle(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Handled {
        let (kind, error) = match Route::of(request.path, self.config.demo) {
            Err(error) => (RequestKind::None, error),
            Ok(route) => match (route.check_method(request.method), route) {
                (Err(error), _) => (route.into(), error),
                (Ok(()), Route::Call(call)) if request.method != Method::Options => {
                    return self.handle_call(context, call, request, out);
                }
                (Ok(()), _) => return self.respond_file(route, request, out),
            },
        };
        self.respond_error(kind, error, self.response_options(request), out)
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
            json::push_reply(&mut self.json, &wake.reply, names, self.epoch);
        }
        self.record(Call::Read.into(), 200);
        let dress = ResponseOptions::from_reply_format(presentation);
        let persistence = self.writer.persistence(dress.persistence);
        if presentation.is_some() {
            self.private_buf.clear();
            self.writer.push_json(&mut self.private_buf, dress, &self.json);
            return (Payload::Private(&self.private_buf), persistence);
        }
        let Self { shared_buf, private_buf, writer, json, cached, .. } = self;
        let shared = shared_buf.response.get_or_insert_with(|| {
            private_buf.clear();
            writer.push_json(private_buf, dress, json);
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

    fn handle_call(
        &mut self,
        context: &mut Context<'_>,
        call: Call,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Handled {
        // Parameters are large: they are filled in place, and never moved.
        let mut parameters = Parameters::new(call.schema());
        let parsed = parameters.parse(request);
        let callback = parameters.callback(request.method);
        let options =
            ResponseOptions { callback: callback.ok().flatten(), ..self.response_options(request) };
        self.json.clear();
        let checked = callback.and(parsed).and_then(|()| self.check(context, call, request));
        let result = match (checked, call.action()) {
            (Err(error), _) => Err(error),
            (Ok(()), Action::Execute(execute)) => {
                execute(&self.settings, context, &parameters, &mut self.json)
            }
            (Ok(()), Action::Read) => {
                let read = ReadCall { request, parameters: &parameters, options };
                match self.read(context, &read, out) {
                    Ok(None) => Ok(()),
                    Ok(Some(handled)) => return handled,
                    Err(error) => Err(error),
                }
            }
        };
        match result {
            Ok(()) => {
                self.writer.push_json(out, options, &self.json);
                self.record(call.into(), 200);
                Handled::Responded(self.writer.persistence(options.persistence))
            }
            Err(error) => self.respond_error(call.into(), error, options, out),
        }
    }

    /// Rejects a call that adds messages from a page that may not, or too often.
    fn check(
        &mut self,
        context: &Context<'_>,
        call: Call,
        request: &Request<'_>,
    ) -> Result<(), Error> {
        if call.schema().adds_messages {
            self.config.allow_origin.check_origin(request)?;
        }
        if call.is_rate_limited() && self.rate_limit.is_some() {
            let address = self.config.proxies.client_addr(context.source, request);
            self.check_rate(context.now, address)?;
        }
        Ok(())
    }

    /// Counts a call against the limit of its address.
    fn check_rate(&mut self, now: Now, address: Option<SourceKey>) -> Result<(), Error> {
        let (Some(limit), Some(address)) = (&mut self.rate_limit, address) else { return Ok(()) };
        let too_many = |seconds| {
            Error::TooManyRequests("too many messages from your address; slow down", seconds)
        };
        limit.try_acquire(now.mono, address).map_err(too_many)
    }

    /// Reads into `self.json` and returns `None`, or returns how the read waits or continues.
    fn read(
        &mut self,
        context: &mut Context<'_>,
        call: &ReadCall<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Handled>, Error> {
        if let Some(transport) = Transport::from_request(call.request)? {
            if transport == Transport::WebSocket {
                self.config.allow_origin.check_origin(call.request)?;
            }
            return self.start_stream(context, call, transport, out).map(Some);
        }
        let params = ReadParams::parse(call.parameters, self.poll_timeout_ms)?;
        let mode = if params.wait_ms > 0 { Mode::LongPoll } else { Mode::Immediate };
        match context.hub.read(context.now, &params.request(mode, context.token))? {
            ReadResult::Ready(reply) => {
                let labels = call.parameters.channels.iter();
                json::push_reply(&mut self.json, &reply, labels, self.epoch);
                Ok(None)
            }
            ReadResult::Pending(reader) => Ok(Some(Handled::LongPoll {
                reader,
                format: call.options.to_reply_format(call.parameters),
                wait_ms: params.wait_ms,
            })),
            ReadResult::Streaming(..) => unreachable!("no stream was asked for"),
        }
    }

    fn response_options(&self, request: &Request<'_>) -> ResponseOptions<'static> {
        ResponseOptions {
            callback: None,
            cors_grant: self.writer.allow_origin.cors_grant(request.origin),
            persistence: request.persistence,
            is_head: request.method == Method::Head,
        }
    }

    /// Responds with an error. After a failed handshake the client is closed: bytes that follow may
    /// be no HTTP.
    fn respond_error(
        &mut self,
        kind: RequestKind,
        error: Error,
        mut options: ResponseOptions<'_>,
        out: &mut Vec<u8>,
    ) -> Handled {
        if matches!(error, Error::BadHandshake(_)) {
            options.persistence = Persistence::Close;
        }
        self.record_error(kind, error);
        self.push_error(error, options, out);
        Handled::Responded(self.writer.persistence(options.persistence))
    }

    fn push_error(&mut self, error: Error, dress: ResponseOptions<'_>, out: &mut Vec<u8>) {
        self.json.clear();
        json::push_error(&mut self.json, error);
        self.writer.push_error(out, dress, error, &self.json);
    }

    /// Counts and logs a request that was answered. Neither ever tells more of it.
    #[inline]
    fn record(&mut self, subject: RequestKind, status: u16) {
        self.requests.count(subject, status);
        log::debug!("{} {status}", subject.name());
    }

    /// The same for one that is refused.
    fn record_error(&mut self, subject: RequestKind, error: Error) {
        let (name, status) = error.name_and_status();
        self.requests.count(subject, status);
        log::debug!("{} {status} {name}", subject.name());
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
