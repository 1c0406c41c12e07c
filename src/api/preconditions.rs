//! Calls for which this process may be behind its cluster.
//!
//! A call that was acknowledged by another node may not be applied here yet. So a call that is
//! answered at once from shared state first waits until everything is applied that was in the log
//! when it came (a barrier read). So does a call that removes a message or sends a session away, or
//! that adds to a room. A read that waits needs no barrier: it gets what comes. A read
//! with the credentials of a session that only other nodes hold first makes this node hold it. A
//! long poll does so too if other nodes hold the session as well: it may supersede one there. A
//! long poll waits for a barrier if this node may have been taken for dead: the session may have
//! ended.

use super::api::Api;
use super::behind::Behind;
use super::calls::{Call, Context};
use super::error::Error;
use super::params::Parameters;
use super::read_params::ReadParams;
use super::transport::Transport;
use crate::http::Request;
use crate::hub::{self, Credentials, Mode, Standing};

impl Context<'_> {
    /// Checks that this process is in its cluster, if there is one. Before, it knows little.
    ///
    /// # Errors
    ///
    /// [`Error::OverCapacity`].
    pub(super) fn check_joined(&self, call: Call) -> Result<(), Error> {
        if self.hub.is_joined() || call == Call::Create {
            return Ok(());
        }
        Err(Error::OverCapacity("this node is joining its cluster; retry later"))
    }

    /// Returns whether a read that would be answered at once first waits for a barrier.
    #[inline]
    pub(super) fn may_be_behind(&self) -> bool {
        self.hub.is_clustered() && self.waited.is_none()
    }

    /// Returns the error of a call. It is another one if the call would wait for the end of its
    /// session although it has waited, and the log has not responded, or does so too slowly.
    #[cold]
    pub(super) fn end_waiting(&self, error: Error) -> Error {
        let hub = &self.hub;
        let in_vain = || self.waited == Some(Behind::End) || hub.is_behind() || !hub.is_log_good();
        match error {
            Error::ConnectionEnding(_) if self.waited.is_some() && in_vain() => {
                hub::Error::LogBehind.into()
            }
            error => error,
        }
    }
}

impl Api {
    /// Returns what a request of a cluster has to wait for before its call is made.
    ///
    /// # Errors
    ///
    /// Those of [`Context::check_joined`].
    #[cold]
    pub(super) fn find_wait_of_request(
        &self,
        context: &mut Context<'_>,
        call: Call,
        parameters: &Parameters<'_>,
        request: &Request<'_>,
    ) -> Result<Option<Behind>, Error> {
        context.check_joined(call)?;
        let mode = match Transport::from_request(request) {
            // The read itself fails.
            Err(_) => return Ok(None),
            Ok(Some(_)) => Mode::Stream,
            Ok(None) if parameters.timeout.as_deref() == Some("0") => Mode::Immediate,
            Ok(None) => Mode::LongPoll,
        };
        let is_anonymous = parameters.connection.is_none() && parameters.auth.is_none();
        if call == Call::Read && mode != Mode::Stream && is_anonymous {
            // As below, and for most calls.
            return Ok(None);
        }
        Ok(self.find_wait(context, call, parameters, mode))
    }

    /// Returns what a call has to wait for before it is made. `mode` is that of a read. A
    /// call with bad parameters waits for nothing: it fails.
    pub(super) fn find_wait(
        &self,
        context: &mut Context<'_>,
        call: Call,
        parameters: &Parameters<'_>,
        mode: Mode,
    ) -> Option<Behind> {
        let behind = self.choose_wait(context, call, parameters, mode);
        if behind == Some(Behind::Barrier)
            && let Ok(Some(credentials)) = parameters.credentials()
        {
            // The call has come in time, however long it waits.
            context.hub.hear_call(context.now, credentials);
        }
        behind
    }

    fn choose_wait(
        &self,
        context: &mut Context<'_>,
        call: Call,
        parameters: &Parameters<'_>,
        mode: Mode,
    ) -> Option<Behind> {
        if context.waited == Some(Behind::Hold) || !context.hub.is_clustered() {
            return None;
        }
        // A call waits for the end of its session only after all else.
        let has_waited = matches!(context.waited, Some(Behind::Barrier | Behind::End));
        let barrier = (!has_waited).then_some(Behind::Barrier);
        if matches!(call, Call::Remove | Call::Kick) {
            return barrier;
        }
        let credentials = parameters.credentials().ok()?;
        let standing =
            credentials.map(|credentials| context.hub.standing(context.now, credentials));
        let names_room = || parameters.channels.iter().any(|name| name.starts_with("~c"));
        match (call, standing, credentials) {
            (Call::Create | Call::Health, ..) => None,
            (Call::Members, ..) | (_, Some(Standing::Unknown), _) => barrier,
            // Another node may have sent the address away.
            (Call::Write | Call::Introduce | Call::Goodbye, ..) if names_room() => barrier,
            (Call::Write | Call::Introduce | Call::Goodbye | Call::Remove | Call::Kick, ..) => None,
            (Call::Read, Some(Standing::Elsewhere), Some(credentials)) => {
                self.hold(context, parameters, credentials, mode).or(barrier)
            }
            // The read itself finds out whether it is answered at once.
            (Call::Read, None | Some(Standing::Held), _) if mode != Mode::Stream => None,
            (Call::Read, ..) => {
                let params = ReadParams::parse(parameters, self.poll_timeout_ms).ok()?;
                let request = params.request(mode, context.token);
                let is_answered_at_once = mode != Mode::LongPoll
                    || context.hub.has_news(context.now, &request)
                    || (barrier.is_some() && !request.has_ids());
                match (standing, credentials) {
                    _ if is_answered_at_once => barrier,
                    (Some(Standing::Unsure), _) => barrier,
                    // The poll supersedes one at another node, which reads of it in the log.
                    (Some(Standing::Shared), Some(credentials)) => {
                        self.hold(context, parameters, credentials, mode)
                    }
                    _ => None,
                }
            }
        }
    }

    /// Makes this node hold the session of a read. If the log does not respond as usual, the read
    /// waits for a barrier instead: for no longer than a second if there is no response.
    fn hold(
        &self,
        context: &mut Context<'_>,
        parameters: &Parameters<'_>,
        credentials: Credentials<'_>,
        mode: Mode,
    ) -> Option<Behind> {
        let is_log_good = context.hub.is_log_good();
        if !is_log_good && context.waited.is_none() {
            return Some(Behind::Barrier);
        }
        let params = ReadParams::parse(parameters, self.poll_timeout_ms).ok()?;
        let names = params.targets.as_slice().iter().map(|(channel, _)| channel.as_str());
        let polls: Vec<&str> = names.filter(|_| mode == Mode::LongPoll).collect();
        match context.hub.propose_hold(context.now, credentials, &polls) {
            Ok(()) => is_log_good.then_some(Behind::Hold),
            // The read itself tells of a wrong secret.
            Err(_) => None,
        }
    }
}
