//! A state that comes from the log replaces that of this process.
//!
//! So a node begins, unless it is the first one; so does one that was too slow for the log, and one
//! that has another state than the others. What it had is dropped, and so are the reads that wait:
//! their clients come back. It joins the cluster again, under another number.

use std::mem;

use super::client::State;
use super::listener::Listener;
use super::service::Service;
use crate::hub::{Corrupt, Hub, Millis, Recovery};
use crate::metrics::LogRefusal;

/// Time until a state may be found wrong that was loaded for that reason. Else two processes that
/// compute different things from the same records would drop their clients all the time.
const RELOAD_MIN_MS: u64 = 60_000;

impl<L: Listener> Service<L> {
    /// Drops the shared state, and loads it again from the log. The reads that wait end empty.
    /// Calls fail until the state is there.
    pub fn reload(&mut self) {
        if let Some(log) = &mut self.commits.log {
            log.reload();
        }
    }

    /// Loads the state again if it differs from that of another node.
    pub(super) fn check_divergence(&mut self) {
        let Self { hub, io, commits, .. } = self;
        if !hub.has_diverged() || commits.reload_after > io.now.mono {
            return;
        }
        log::error!(
            "cluster: this node and another one have different states after the same records; \
             loading the state again"
        );
        commits.reload_after = io.now.mono.after(RELOAD_MIN_MS);
        self.reload();
    }

    /// Begins to load a state.
    pub(super) fn begin_load(&mut self, log_time_ahead_ms: i64) {
        if self.hub.is_joined() {
            log::warn!("cluster: loading the state again; all reads end");
            self.io.metrics.count_log_reload();
        }
        self.end_reads();
        self.refuse_all();
        let Self { hub, io, commits, .. } = self;
        let log = commits.log.as_mut().expect("a state comes from the log");
        log.abandon_snapshot();
        commits.is_saving = false;
        let node = log.renew_node();
        let config = hub.config().clone();
        commits.loading =
            Some(Box::new(Recovery::of_node(config.clone(), io.now, node, log_time_ahead_ms)));
        *hub = Hub::new(config);
        hub.begin_clustering(io.now, node);
    }

    /// Loads a piece of the state.
    pub(super) fn load_piece(&mut self, piece: &[u8]) {
        let Some(loading) = &mut self.commits.loading else { return };
        match loading.load_piece(piece) {
            Ok(()) => loading.enforce_memory_limit(),
            Err(corrupt) => self.fail_load(corrupt),
        }
    }

    /// Serves the state that is complete. `position` is that of the last record before those that
    /// follow.
    pub(super) fn finish_load(&mut self, position: u64) {
        let Some(loading) = self.commits.loading.take() else { return };
        match loading.finish_node(self.io.now) {
            Ok(hub) => {
                let gauges = hub.gauges();
                log::info!(
                    "loaded state position={position} channels={} connections={}",
                    gauges.channels,
                    gauges.sessions
                );
                self.io.api.set_epoch(hub.epoch());
                self.hub = hub;
                self.commits.position = position;
            }
            Err(corrupt) => self.fail_load(corrupt),
        }
    }

    fn fail_load(&mut self, Corrupt(fault): Corrupt) {
        log::error!("the state in Redis is of no version: {fault}; stopping");
        self.commits.loading = None;
        self.commits.has_failed = true;
    }

    /// Ends all reads, and sends their responses.
    fn end_reads(&mut self) {
        self.hub.complete_all_empty(self.io.now);
        self.deliver();
        for key in self.io.clients.keys() {
            // Its reader waits until the client has taken what it was sent.
            if matches!(self.io.clients.expect_mut(key).state(), State::Streaming(_)) {
                self.close(key);
            }
        }
        self.io.clients.reap();
    }

    /// Answers all calls that wait for the log.
    fn refuse_all(&mut self) {
        let is_withdrawn = self.commits.log.as_mut().is_some_and(|log| log.withdraw());
        let reason = if is_withdrawn { LogRefusal::Behind } else { LogRefusal::Unknown };
        if let Some(applying) = self.commits.applying.take() {
            let waiting = applying.waiting.into_iter().skip(applying.answered);
            self.refuse_calls(waiting.collect(), LogRefusal::Unknown);
        }
        if let Some(record) = &mut self.commits.record {
            let waiting = mem::take(&mut record.waiting);
            self.refuse_calls(waiting, reason);
        }
        self.commits.record = None;
        self.commits.delay.end();
        self.refuse_proposals(LogRefusal::Behind);
        // It joins the cluster as soon as it has the state.
        self.commits.heartbeat_at = Millis(0);
    }
}
