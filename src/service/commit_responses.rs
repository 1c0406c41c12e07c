//! Responses to calls that wait for the log: those of a client in their order, sent together.

use super::client::{AfterResponse, State};
use super::commits::{WaitingCall, WaitingResponse, take_reads};
use super::http::Pause;
use super::listener::Listener;
use super::service::Service;
use super::waited::Waited;
use crate::api::{Behind, Error, Responder};
use crate::http::Persistence;
use crate::hub::{Key, Millis};
use crate::metrics::LogRefusal;

const FULL: Error = Error::OverCapacity("the log is full; retry later");
const BEHIND: Error = Error::OverCapacity("the log cannot be written for now; retry later");

impl<L: Listener> Service<L> {
    /// Answers calls that the log did not take, with an error. Reads that wait until this process
    /// holds their sessions wait for a barrier instead.
    pub(super) fn refuse_calls(&mut self, mut calls: Vec<WaitingCall>, reason: LogRefusal) {
        let holds = take_reads(&mut calls, |behind| behind == Behind::Hold);
        self.io.metrics.count_log_refusals(reason, calls.len());
        let error = match reason {
            LogRefusal::Full => FULL,
            LogRefusal::Behind => BEHIND,
            LogRefusal::Unknown => Error::OutcomeUnknown,
        };
        let mut responses = Responses::default();
        for call in calls {
            responses.begin(self, call.client);
            match call.response {
                WaitingResponse::Of(responder) => {
                    let out = &mut self.io.response;
                    responses.persistence = self.io.api.respond_refused(&responder, error, out);
                }
                WaitingResponse::Ending(session, responder) => {
                    responses.persistence = self.respond_ending(session, &responder);
                }
                WaitingResponse::Ready(bytes, persistence) => {
                    self.io.response.extend_from_slice(&bytes);
                    responses.persistence = persistence;
                }
                WaitingResponse::Retry(waited, since) => {
                    self.mark_retry(call.client, waited, since);
                }
            }
        }
        let next = self.commits.waiting.first().map(|call| call.client);
        responses.end(self, next);
        self.await_barrier(holds);
    }

    /// Appends the response to a call that waited for the end of its session.
    fn respond_ending(&mut self, session: u64, responder: &Responder) -> Persistence {
        let lives_on = self.hub.has_session(session);
        let error = if lives_on { BEHIND } else { Error::ConnectionEnded };
        self.io.api.respond_refused(responder, error, &mut self.io.response)
    }

    /// Makes the call again that has waited since this process was behind. It came at `called_at`.
    pub(super) fn retry(&mut self, key: Key, waited: Behind, called_at: Millis) {
        self.mark_retry(key, waited, called_at);
        self.end_wait(key, Persistence::Persistent, true);
    }

    fn mark_retry(&mut self, key: Key, waited: Behind, called_at: Millis) {
        let now = self.io.now.mono;
        if let Some(client) = self.io.clients.get_mut(key) {
            client.waited = Some(Waited::new(waited, called_at, now));
        }
    }

    /// Sends the responses to a client whose calls have waited for the log. `is_done` is true if no
    /// other call of it waits.
    fn end_wait(&mut self, key: Key, persistence: Persistence, is_done: bool) {
        let Some(client) = self.io.clients.get_mut(key) else {
            return self.io.response.clear();
        };
        match client.state() {
            State::Committing if is_done => {
                let may_send = client.has_input();
                client.end_commit();
                let pause = match persistence {
                    Persistence::Close if may_send => Pause::Closing(AfterResponse::Linger),
                    Persistence::Close => Pause::Closing(AfterResponse::Close),
                    Persistence::Persistent | Persistence::PersistentIfAnnounced => {
                        Pause::BudgetSpent
                    }
                };
                self.flush_responses(key, &pause);
            }
            State::Committing => self.flush_responses(key, &Pause::Waiting),
            State::Streaming(_) => {
                if is_done
                    && let Some((_, stream)) = self.io.clients.stream_mut(key)
                    && let Some(wait) = &mut stream.log_wait
                {
                    wait.is_over = true;
                }
                self.flush_responses(key, &Pause::BudgetSpent);
            }
            _ => self.io.response.clear(),
        }
        self.io.clients.update_memory(key);
    }
}

/// Responses to one client after the other.
pub(super) struct Responses {
    client: Option<Key>,
    pub(super) persistence: Persistence,
}

impl Default for Responses {
    fn default() -> Self {
        Self { client: None, persistence: Persistence::Persistent }
    }
}

impl Responses {
    /// Appends the responses to calls before the command with this index that have no command of
    /// their own. Returns their number.
    pub(super) fn push_due<L: Listener>(
        &mut self,
        service: &mut Service<L>,
        calls: &[WaitingCall],
        index: u32,
    ) -> usize {
        let mut count = 0;
        for call in calls.iter().take_while(|call| call.command <= index) {
            match &call.response {
                WaitingResponse::Of(_) => break,
                WaitingResponse::Ending(session, responder) => {
                    self.begin(service, call.client);
                    self.persistence = service.respond_ending(*session, responder);
                }
                WaitingResponse::Ready(bytes, persistence) => {
                    self.begin(service, call.client);
                    service.io.response.extend_from_slice(bytes);
                    self.persistence = *persistence;
                }
                WaitingResponse::Retry(waited, since) => {
                    self.begin(service, call.client);
                    service.mark_retry(call.client, *waited, *since);
                }
            }
            count += 1;
        }
        count
    }

    /// Begins with the next response, to `client`. Sends those to another client.
    pub(super) fn begin<L: Listener>(&mut self, service: &mut Service<L>, client: Key) {
        if self.client != Some(client) {
            self.end(service, Some(client));
            self.client = Some(client);
        }
    }

    /// Sends the last responses. `next` is the client of the next one.
    pub(super) fn end<L: Listener>(&mut self, service: &mut Service<L>, next: Option<Key>) {
        if let Some(client) = self.client.take() {
            service.end_wait(client, self.persistence, next != Some(client));
        }
    }
}
