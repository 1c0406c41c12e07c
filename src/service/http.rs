//! The requests of one client: parsed one after the other, and handled by the API.

use super::client::{AfterResponse, ReadBuffer};
use super::limits::RESPONSE_BYTES_PER_TURN;
use super::listener::Listener;
use super::service::Service;
use crate::api::{Context, Handled, RequestSource, Responder};
use crate::http::{self, Parsed, Persistence, Progress, Request};
use crate::hub::Key;

/// Reason why no further request of a client is handled for now.
pub(super) enum Pause {
    /// All complete requests were handled.
    NeedData,
    /// A read is pending. Requests after it are buffered.
    Blocked,
    /// Calls wait for the log. Requests after them are buffered.
    Waiting,
    /// The client has used its share of the turn's budget.
    BudgetSpent,
    /// The client is closed once its responses are sent.
    Closing(AfterResponse),
}

impl<L: Listener> Service<L> {
    /// Handles the requests at the start of `bytes`, one after the other, and appends their
    /// responses. Returns the number of bytes handled.
    pub(super) fn handle_requests(
        &mut self,
        key: Key,
        bytes: &mut [u8],
        progress: &mut Progress,
    ) -> (usize, Pause) {
        let client = self.io.clients.expect_mut(key);
        let source = client.request_source();
        let mut handled = 0;
        loop {
            if *progress == Progress::default() {
                handled += http::leading_blank_lines(&bytes[handled..]);
            }
            let rest = &mut bytes[handled..];
            if rest.is_empty() {
                return (handled, Pause::NeedData);
            }
            let (length, outcome) =
                match self.handle_next_request(key, source, rest, progress, false) {
                    Ok(next) => next,
                    Err(pause) => return (handled, pause),
                };
            handled += length;
            match outcome {
                Handled::Behind(behind) => {
                    self.io.clients.budget.postpone();
                    self.io.clients.expect_mut(key).start_commit();
                    self.add_behind(key, behind);
                    return (handled - length, Pause::Waiting);
                }
                Handled::Proposed(responder) => {
                    let rest = &mut bytes[handled..];
                    handled += self.handle_after_proposal(key, source, responder, rest, progress);
                    return (handled, Pause::Waiting);
                }
                Handled::Held => unreachable!("no call waits yet"),
                Handled::LongPoll { reader, format, wait_ms } => {
                    self.io.clients.expect_mut(key).start_long_poll(reader, format);
                    self.io.clients.set_deadline(key, self.io.now.mono.after(wait_ms));
                    return (handled, Pause::Blocked);
                }
                Handled::Stream { reader, stream } => {
                    self.start_stream(key, reader, stream);
                    let (frames, pause) = self.handle_frames(key, &mut bytes[handled..]);
                    return (handled + frames, pause);
                }
                Handled::Responded(Persistence::Close) => {
                    let client = self.io.clients.expect_mut(key);
                    let may_send = handled < bytes.len() || client.is_readable;
                    let after = if may_send { AfterResponse::Linger } else { AfterResponse::Close };
                    return (handled, Pause::Closing(after));
                }
                Handled::Responded(_) if self.is_budget_spent() => {
                    return (handled, Pause::BudgetSpent);
                }
                Handled::Responded(_) => {}
            }
        }
    }

    /// Adds a call that waits for the log, and handles the requests after it: further calls for the
    /// log, up to the first other request. Returns the number of bytes handled.
    #[cold]
    fn handle_after_proposal(
        &mut self,
        key: Key,
        source: RequestSource,
        responder: Responder,
        bytes: &mut [u8],
        progress: &mut Progress,
    ) -> usize {
        self.io.clients.expect_mut(key).start_commit();
        let (mut handled, mut responder) = (0, responder);
        loop {
            // A later call would wait for a later record than the end of a session.
            let is_last =
                responder.persistence() == Persistence::Close || responder.ending().is_some();
            self.add_waiting_call(key, responder);
            if is_last || self.is_budget_spent() {
                return handled;
            }
            handled += http::leading_blank_lines(&bytes[handled..]);
            let rest = &mut bytes[handled..];
            if rest.is_empty() {
                return handled;
            }
            let unsent = self.io.response.len();
            match self.handle_next_request(key, source, rest, progress, true) {
                Ok((length, Handled::Proposed(next))) => {
                    handled += length;
                    responder = next;
                }
                Ok((length, Handled::Responded(persistence))) => {
                    self.add_waiting_response(key, unsent, persistence);
                    return handled + length;
                }
                _ => return handled,
            }
        }
    }

    /// Handles the request at the start of `bytes` and returns its length.
    #[expect(clippy::inline_always, reason = "a step of each request, called from two places")]
    #[inline(always)]
    fn handle_next_request(
        &mut self,
        key: Key,
        source: RequestSource,
        bytes: &mut [u8],
        progress: &mut Progress,
        is_waiting: bool,
    ) -> Result<(usize, Handled), Pause> {
        let limits = &self.io.request_limits;
        let complete = if *progress == Progress::default() {
            http::parse_complete(bytes, limits)
        } else {
            None
        };
        let mut unparsed = None;
        let (request, length) = match complete {
            Some(complete) => complete,
            // The other parser may change the bytes, which are parsed again if they are held.
            None if is_waiting => return Err(Pause::Waiting),
            None => {
                if self.hub.is_clustered() {
                    unparsed = Some(ReadBuffer { bytes: bytes.to_vec(), progress: *progress });
                }
                match http::parse(bytes, progress, limits) {
                    Ok(Parsed::Complete(request, length)) => (request, length),
                    Ok(Parsed::Incomplete { wants_continue }) => {
                        if wants_continue {
                            self.io.response.extend_from_slice(http::CONTINUE);
                        }
                        return Err(Pause::NeedData);
                    }
                    Err(error) => {
                        self.io.push_error(key, error.into());
                        return Err(Pause::Closing(AfterResponse::Linger));
                    }
                }
            }
        };
        let (unsent, appended) = (self.io.response.len(), self.hub.appended_bytes());
        let outcome = self.handle_request(key, source, &request, is_waiting);
        if let (Handled::Behind(_), Some(unparsed)) = (&outcome, &unparsed) {
            bytes.copy_from_slice(&unparsed.bytes);
            *progress = unparsed.progress;
        }
        let encoded = (self.hub.appended_bytes() - appended) as usize;
        // The bytes of a request may have come in earlier turns.
        let cost = length + encoded + self.io.response.len() - unsent;
        self.io.clients.budget.charge_request(cost);
        Ok((length, outcome))
    }

    fn handle_request(
        &mut self,
        key: Key,
        source: RequestSource,
        request: &Request<'_>,
        is_waiting: bool,
    ) -> Handled {
        let Self { hub, io, commits, .. } = self;
        let (now, token) = (io.now, key.to_bits());
        let waited = if hub.is_clustered() {
            commits.begin_call(now.mono, io.clients.expect_mut(key).waited.take())
        } else {
            None
        };
        let mut context = Context { hub, now, source, token, is_waiting, waited };
        if !source.is_admin {
            return io.api.handle(&mut context, request, &mut io.response);
        }
        let handled = io.api.handle_operator_call(&mut context, request, &mut io.response);
        handled.unwrap_or_else(|| self.respond_admin(request))
    }

    /// Responds to a request of the admin listener that is no call.
    #[cold]
    fn respond_admin(&mut self, request: &Request<'_>) -> Handled {
        let Self { hub, io, commits, .. } = self;
        let log = commits.gauges(hub, io.now.mono);
        let (active, metrics) = (io.clients.active(), &mut io.metrics);
        let write_page = |api: &_, page: &mut _| metrics.write(hub, api, active, &log, page);
        let takes_changes = commits.takes_changes(io.now.mono) && hub.is_joined();
        let (api, out) = (&mut io.api, &mut io.response);
        Handled::Responded(api.handle_admin(request, takes_changes, write_page, out))
    }

    /// Returns whether the client whose requests are handled has used its share of the turn's
    /// budget.
    pub(super) fn is_budget_spent(&self) -> bool {
        self.io.response.len() >= RESPONSE_BYTES_PER_TURN
            || self.io.api.insertion_count() > 0
            || !self.io.clients.budget.has_client_budget()
    }
}
