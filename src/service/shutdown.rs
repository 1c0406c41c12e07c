//! The end of the service: a stop, or a drain while another process serves.

use super::client::State;
use super::limits::{HANDSHAKE_DRAIN_MS, SHUTDOWN_TIMEOUT_MS};
use super::listener::Listener;
use super::phase::{Drain, Phase};
use super::service::Service;
use crate::api;
use crate::hub::Key;

impl<L: Listener> Service<L> {
    /// Stops the service: closes the listeners, completes all pending reads, and closes each client
    /// once its response is sent. Takes [`SHUTDOWN_TIMEOUT_MS`] at most.
    pub fn shut_down(&mut self) {
        self.phase = Phase::Stopping { deadline: self.io.now.mono.after(SHUTDOWN_TIMEOUT_MS) };
        self.acceptor.close();
        self.io.api.set_phase(api::Phase::Stopping);
        self.hub.complete_all_empty(self.io.now);
        self.deliver();
        for key in self.io.clients.keys() {
            let client = self.io.clients.expect_mut(key);
            match client.state() {
                State::Reading => self.close(key),
                State::Writing(_) => client.close_after_response(),
                State::Committing
                | State::LongPolling { .. }
                | State::Streaming(_)
                | State::Lingering
                | State::Closing => {}
            }
        }
        self.io.clients.reap();
        self.leave_cluster();
    }

    /// Starts to drain: another process has the listeners and the hub from now on. Pending reads
    /// are completed empty over `spread_ms`, so that their clients do not all return at once.
    /// [`Service::transfer_clients`] hands over the clients as they become idle.
    pub fn start_draining(&mut self, spread_ms: u64) {
        let now = self.io.now;
        self.acceptor.close();
        self.io.api.set_phase(api::Phase::Draining);
        self.hub.detach(now);
        let clients = &self.io.clients;
        let has_read = |key: &Key| clients.reader(*key).is_some();
        let pending = clients.keys().into_iter().filter(has_read).collect();
        self.phase = Phase::Draining(Drain::new(now.mono, spread_ms, pending));
        if self.io.clients.handshake_count() > 0 {
            self.limit_handshakes();
        }
    }

    /// Lets no handshake hold up the end of a drain for as long as a request may take.
    fn limit_handshakes(&mut self) {
        let latest = self.io.now.mono.after(HANDSHAKE_DRAIN_MS);
        for key in self.io.clients.keys() {
            let client = self.io.clients.expect_mut(key);
            if client.is_handshaking && client.deadline > latest {
                self.io.clients.set_deadline(key, latest);
            }
        }
    }

    /// Completes the pending reads that are due while the service drains.
    pub(super) fn complete_due_reads(&mut self) {
        let Phase::Draining(drain) = &mut self.phase else { return };
        for key in drain.take_due(self.io.now.mono) {
            if let Some(reader) = self.io.clients.reader(key) {
                self.hub.complete_empty(self.io.now, reader);
            }
        }
    }

    /// Returns whether another process serves.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.phase.is_draining()
    }

    /// Returns whether the service stops or drains.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        !matches!(self.phase, Phase::Serving)
    }

    /// Returns whether the service has stopped or drained, and nothing is left to do. Call it after
    /// the end of a turn.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let now = self.io.now.mono;
        match &self.phase {
            Phase::Serving => false,
            Phase::Draining(drain) => now >= drain.deadline || self.io.clients.is_empty(),
            Phase::Stopping { deadline } => {
                now >= *deadline || (self.is_log_idle() && !self.is_sending())
            }
        }
    }

    /// Returns whether a response is still being sent.
    fn is_sending(&self) -> bool {
        self.io.clients.iter().any(|client| matches!(client.state(), State::Writing(_)))
    }
}
