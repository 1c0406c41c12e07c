//! The API: one request goes in, a response or a pending read comes out.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;

use super::behind::Behind;
use super::calls::{Action, Call, Context, Executed, Settings};
use super::client_addr::SourceKey;
use super::config::Config;
use super::cors::CorsGrant;
use super::error::Error;
use super::json;
use super::params::{Body, Parameters};
use super::payload::{EncodeCache, Insertion, Insertions};
use super::phase::Phase;
use super::plain_http::{ChallengeFiles, PlainHttp};
use super::rate_limit::RateLimit;
use super::read_params::ReadCall;
use super::request_stats::{RequestKind, RequestStats};
use super::responder::Responder;
use super::response::{ReplyFormat, ResponseOptions, ResponseWriter};
use super::route::Route;
use super::shared_reply::MessageCache;
use super::transport::Stream;
use crate::http::{Limits, Method, Persistence, Request};
use crate::hub::{Epoch, Hub, Now, ReaderKey, token, whole_ms};

/// Bytes of a body in addition to the message: names and values of the other parameters.
const BODY_OVERHEAD_BYTES: usize = 4096;

/// Capacity of each buffer that stays allocated from turn to turn.
pub(super) const KEEP_CAPACITY: usize = 64 * 1024;

/// Result of a request.
#[derive(Debug)]
pub enum Handled {
    /// The response was appended. This is the persistence of the client after it.
    Responded(Persistence),
    /// The read waits. Nothing was appended: [`Api::encode_reply`] makes the response later.
    LongPoll {
        /// Key for [`Hub::on_reader_closed`] if the client closes first.
        reader: ReaderKey,
        /// Format of the response, for [`Api::encode_reply`].
        format: Option<Box<ReplyFormat>>,
        /// Longest wait. When it is over, the caller calls [`Hub::complete_empty`].
        wait_ms: u64,
    },
    /// The call waits for the log. Nothing was appended: [`Api::respond_applied`] makes the
    /// response later, or [`Api::respond_refused`] if [`Responder::ending`].
    Proposed(Responder),
    /// The request was not handled: it is to be handled again once this process is not behind.
    Behind(Behind),
    /// The request was not handled: it has to wait for earlier calls of the client, which wait for
    /// the log.
    Held,
    /// The head of a stream was appended. [`Api::encode_update`] continues the stream.
    Stream {
        /// Key for [`Hub::on_reader_closed`] when the client closes.
        reader: ReaderKey,
        /// State of the stream, for [`Api::encode_update`].
        stream: Stream,
    },
}

/// The calls, and buffers for their responses.
pub struct Api {
    pub(super) config: Config,
    pub(super) poll_timeout_ms: u64,
    pub(super) settings: Settings,
    pub(super) epoch: Epoch,
    pub(super) writer: ResponseWriter,
    /// JSON of the current response. During a delivery, JSON of the last wake-up, which the next
    /// wake-up may repeat.
    pub(super) json: Vec<u8>,
    /// Encodings of the last wake-up.
    pub(super) cache: EncodeCache,
    /// Messages of replies that are sent later.
    pub(super) messages: MessageCache,
    /// Bytes of all [`SharedBytes`](super::payload::SharedBytes) that were not dropped.
    pub(super) encoded_bytes: Rc<Cell<usize>>,
    /// Chunks of the responses that were appended since the caller took the last ones.
    pub(super) insertions: Insertions,
    /// Encoded response for one client.
    pub(super) private_buf: Vec<u8>,
    /// Beginning of the response to a frame.
    pub(super) frame_prefix: Vec<u8>,
    /// `None` if requests over plain HTTP are handled as others are.
    pub(super) plain_http: Option<Box<PlainHttp>>,
    rate_limit: Option<RateLimit>,
    requests: RequestStats,
}

impl Api {
    /// Creates the API of a hub. `random` fills a buffer with bytes that cannot be guessed.
    #[must_use]
    pub fn new(config: Config, hub: &Hub, random: fn(&mut [u8])) -> Self {
        Self {
            poll_timeout_ms: whole_ms(config.poll_timeout),
            settings: Settings {
                max_message: config.max_message,
                max_introduction: config.max_introduction,
                session_timeout_ms: whole_ms(hub.connection_timeout()),
                random,
            },
            epoch: hub.epoch(),
            writer: ResponseWriter::new(config.allow_origin.clone()),
            json: Vec::new(),
            cache: EncodeCache::default(),
            messages: MessageCache::default(),
            encoded_bytes: Rc::default(),
            insertions: Insertions::default(),
            private_buf: Vec::new(),
            frame_prefix: Vec::new(),
            plain_http: config.https_port.map(|port| Box::new(PlainHttp::redirecting(port))),
            rate_limit: RateLimit::new(config.max_rate),
            requests: RequestStats::default(),
            config,
        }
    }

    /// Returns whether this is the address of a trusted proxy; `None` for a Unix socket.
    #[must_use]
    pub fn is_trusted(&self, address: Option<IpAddr>) -> bool {
        self.config.proxies.is_trusted(address)
    }

    /// Makes these files the responses to challenges of ACME.
    pub fn serve_challenges(&mut self, files: Box<dyn ChallengeFiles>) {
        self.plain_http.get_or_insert_default().serve_challenges(files);
    }

    /// Returns the limits of a request. Percent-encoding may triple the size of a message.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            head_bytes: self.config.max_head,
            body_bytes: 3 * self.config.max_message + BODY_OVERHEAD_BYTES,
        }
    }

    /// Sets the time of `Date`. Call at the start of each turn.
    pub fn set_time(&mut self, now: Now) {
        self.writer.set_time(now.unix_ms);
    }

    /// Draws a name for another numbering of ids.
    #[must_use]
    pub fn draw_epoch(&self) -> Epoch {
        let random_byte = || {
            let mut byte = [0];
            (self.settings.random)(&mut byte);
            byte[0]
        };
        Epoch::new(token(random_byte))
    }

    /// Sets the name of the numbering of ids.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Sets the phase that later responses depend on.
    pub fn set_phase(&mut self, phase: Phase) {
        self.writer.phase = phase;
    }

    /// Returns the number of chunks that belong into the responses that were appended.
    #[must_use]
    #[inline]
    pub fn insertion_count(&self) -> usize {
        self.insertions.len()
    }

    /// Takes the chunks that belong into the responses that were appended, in order.
    pub fn take_insertions(&mut self) -> Vec<Insertion> {
        self.insertions.take()
    }

    /// Handles a request. Appends the response to `out`, unless the request is a read that waits.
    /// [`Api::take_insertions`] has long parts of it. `out` must be empty once they are taken.
    pub fn handle(
        &mut self,
        context: &mut Context<'_>,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Handled {
        if self.plain_http.is_some()
            && let Some(handled) = self.handle_plain(context.source, request, out)
        {
            return handled;
        }
        let route = Route::of(request.path, self.config.demo);
        if context.is_waiting && !matches!(route, Ok(Route::Call(call)) if call.is_logged()) {
            return Handled::Held;
        }
        let (kind, error) = match route {
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

    /// Appends an error in response to a request that is incomplete or malformed. The caller closes
    /// the client.
    pub fn push_rejection(&mut self, error: Error, out: &mut Vec<u8>) {
        self.record_error(RequestKind::None, error);
        self.push_rejection_uncounted(error, out);
    }

    /// Appends an error for a client that has sent no request, so that metrics count no request.
    /// The caller closes the client.
    pub fn push_rejection_uncounted(&mut self, error: Error, out: &mut Vec<u8>) {
        let persistence = Persistence::Close;
        self.push_error(error, ResponseOptions { persistence, ..ResponseOptions::DEFAULT }, out);
    }

    /// Returns the counts of all responses.
    #[must_use]
    pub fn requests(&self) -> &RequestStats {
        &self.requests
    }

    /// Returns the bytes of all [`SharedBytes`](super::payload::SharedBytes) that were not dropped.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.encoded_bytes.get()
    }

    /// Frees the memory of large responses. Call at the end of each turn.
    pub fn end_turn(&mut self) {
        self.cache = EncodeCache::default();
        self.messages.clear();
        for scratch in [&mut self.json, &mut self.private_buf] {
            if scratch.capacity() > KEEP_CAPACITY {
                *scratch = Vec::new();
            }
        }
    }

    pub(super) fn handle_call(
        &mut self,
        context: &mut Context<'_>,
        call: Call,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Handled {
        // Parameters are large: they are filled in place and never moved.
        let mut parameters = Parameters::new(call.schema());
        if call.needs_address(context.hub) {
            let address = self.config.proxies.client_addr(context.source, request);
            parameters.address = address.and_then(SourceKey::hub_address);
        }
        let parsed = parameters.parse(request);
        let callback = parameters.callback(request.method);
        let mut options =
            ResponseOptions { callback: callback.ok().flatten(), ..self.response_options(request) };
        if context.source.is_admin {
            options.cors_grant = CorsGrant::Private;
        }
        self.json.clear();
        let mut checked =
            callback.and(parsed).and_then(|()| self.check(context, &parameters, call, request));
        if context.hub.is_clustered() && checked.is_ok() {
            match self.find_wait_of_request(context, call, &parameters, request) {
                Ok(None) => {}
                Ok(Some(behind)) => return Handled::Behind(behind),
                Err(error) => checked = Err(error),
            }
        }
        let result = match (checked, call.action()) {
            (Err(error), _) => Err(error),
            (Ok(()), Action::Execute(execute)) => {
                execute(&self.settings, context, &parameters, &mut self.json)
            }
            (Ok(()), Action::Read) => {
                let read = ReadCall { request, parameters: &parameters, options };
                match self.read(context, &read, out) {
                    Ok(None) => Ok(Executed::Done),
                    Ok(Some(handled)) => return handled,
                    Err(error) => Err(error),
                }
            }
        };
        match result {
            Ok(Executed::Done) => {
                let inserted = self.insertions.json_bytes();
                self.writer.push_json(out, options, &self.json, inserted);
                if inserted > 0 {
                    let end = if options.callback.is_some() { b");".len() } else { 0 };
                    self.insertions.place_json(out.len() - end - self.json.len());
                }
                self.record(call.into(), 200);
                Handled::Responded(self.writer.persistence(options.persistence))
            }
            Ok(Executed::Behind(behind)) => Handled::Behind(behind),
            Ok(Executed::Proposed) => Handled::Proposed(Responder::of_request(call, options)),
            Err(error) => self.fail_call(context, call, error, options, out),
        }
    }

    /// Responds to a call that failed, or makes it wait for the end of its session.
    #[cold]
    fn fail_call(
        &mut self,
        context: &Context<'_>,
        call: Call,
        error: Error,
        options: ResponseOptions<'_>,
        out: &mut Vec<u8>,
    ) -> Handled {
        match context.end_waiting(error) {
            Error::ConnectionEnding(_) if context.hub.is_clustered() => {
                Handled::Behind(Behind::End)
            }
            Error::ConnectionEnding(session) => {
                Handled::Proposed(Responder::of_request(call, options).awaiting_end(session))
            }
            error => self.respond_error(call.into(), error, options, out),
        }
    }

    /// Checks that the page may make the call and that its user means it, that the body has a known
    /// type, and that the address is below the rate limit.
    fn check(
        &mut self,
        context: &Context<'_>,
        parameters: &Parameters<'_>,
        call: Call,
        request: &Request<'_>,
    ) -> Result<(), Error> {
        if request.is_prefetch && call.acts() {
            return Err(Error::Prefetch);
        }
        if call.schema().adds_messages {
            self.config.allow_origin.check_origin(request)?;
        }
        if parameters.body == Body::Multipart {
            return Err(Error::UnsupportedMediaType);
        }
        if self.rate_limit.is_some() && call.is_rate_limited() && context.waited.is_none() {
            let address = self.config.proxies.client_addr(context.source, request);
            self.check_rate(context.now, address)?;
        }
        Ok(())
    }

    /// Counts a call against the limit of its address.
    pub(super) fn check_rate(&mut self, now: Now, address: Option<SourceKey>) -> Result<(), Error> {
        let (Some(limit), Some(address)) = (&mut self.rate_limit, address) else { return Ok(()) };
        let too_many = |seconds| {
            Error::TooManyRequests("too many messages from your address; slow down", seconds)
        };
        limit.try_acquire(now.mono, address).map_err(too_many)
    }

    pub(super) fn response_options<'r>(&self, request: &Request<'r>) -> ResponseOptions<'r> {
        ResponseOptions {
            callback: None,
            cors_grant: self.writer.allow_origin.cors_grant(request.origin),
            persistence: request.persistence,
            is_head: request.method == Method::Head,
        }
    }

    /// Responds with an error. After a failed handshake the client is closed: the next bytes may be
    /// no HTTP.
    pub(super) fn respond_error(
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

    fn push_error(&mut self, error: Error, options: ResponseOptions<'_>, out: &mut Vec<u8>) {
        self.json.clear();
        json::push_error(&mut self.json, error);
        self.writer.push_error(out, options, error, &self.json);
    }

    /// Counts and logs a response. The log has nothing else of a request: it may have secrets.
    #[inline]
    pub(super) fn record(&mut self, kind: RequestKind, status: u16) {
        self.requests.count(kind, status);
        if log::log_enabled!(log::Level::Debug) {
            log_response(kind, status);
        }
    }

    /// Counts and logs an error.
    pub(super) fn record_error(&mut self, kind: RequestKind, error: Error) {
        let (name, status) = error.name_and_status();
        self.requests.count(kind, status);
        log::debug!("{} {status} {name}", kind.name());
    }
}

/// Logs a response. A function of its own, so that its caller is small enough to be inlined.
#[cold]
fn log_response(kind: RequestKind, status: u16) {
    log::debug!("{} {status}", kind.name());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::client_addr::TrustedProxies;
    use super::super::cors::AllowOrigin;
    use super::super::shared_reply::ReplySlice;
    use super::*;
    use crate::hub::{self, ChannelName, Millis, Mode, ReadRequest, ReadResult, Since};

    fn api(hub: &Hub) -> Api {
        let config = Config {
            max_message: 0,
            max_introduction: 0,
            max_head: 0,
            poll_timeout: Duration::ZERO,
            allow_origin: AllowOrigin::Any,
            demo: false,
            max_rate: 0,
            proxies: TrustedProxies::default(),
            https_port: None,
        };
        Api::new(config, hub, |_| {})
    }

    #[test]
    fn a_frame_may_name_32_channels_however_short_messages_are() {
        let escaped_names_bytes = 32 * 6 * 128;
        assert!(api(&Hub::new(hub::Config::default())).frame_bytes_max() > escaped_names_bytes);
    }

    /// A new channel gets the index of a dropped one.
    #[test]
    fn forgotten_messages_are_not_those_of_the_next_channel() {
        let now = Now { mono: Millis(0), unix_ms: 0 };
        let config = hub::Config { max_channels: 1, history: 0, ..hub::Config::default() };
        let mut hub = Hub::new(config);
        let mut api = api(&hub);
        let mut next_reply = |name, text: &str| {
            api.forget_messages();
            let key = ChannelName::parse(name).unwrap().for_writing().unwrap();
            let targets = [(key, Since::Now)];
            let (epoch, credentials, grace_ms) = (None, None, None);
            let mode = Mode::LongPoll;
            let request =
                ReadRequest { targets: &targets, epoch, credentials, grace_ms, mode, token: 1 };
            assert!(matches!(hub.read(now, &request), Ok(ReadResult::Pending(_))));
            hub.write(now, &targets[0].0, text, None).unwrap();
            let mut replies = Vec::new();
            hub.deliver(now, |wake| {
                let reply = api.share_reply(&wake);
                let messages: Vec<_> = reply.slices()[0].retained().map(<[u8]>::to_vec).collect();
                replies.push((wake.channel, String::from_utf8(messages.concat()).unwrap()));
            });
            replies.remove(0)
        };
        let (first, other) = (next_reply("first", "one"), next_reply("other", "two"));
        assert_eq!(first.0, other.0, "the index is that of the dropped channel");
        assert!(first.1.contains("one") && other.1.contains("two"), "{first:?} {other:?}");
    }

    #[test]
    fn a_turn_ends_with_small_buffers() {
        let mut api = api(&Hub::new(hub::Config::default()));
        for (capacity, is_kept) in [(KEEP_CAPACITY, true), (KEEP_CAPACITY + 1, false)] {
            (api.json, api.private_buf) =
                (Vec::with_capacity(capacity), Vec::with_capacity(capacity));
            api.end_turn();
            assert_eq!(api.json.capacity() > 0, is_kept, "{capacity}");
            assert_eq!(api.private_buf.capacity() > 0, is_kept, "{capacity}");
        }
    }
}
