//! This process as a node of a cluster: it joins, and shows that it lives.

use super::listener::Listener;
use super::phase::Phase;
use super::service::Service;
use crate::hub::{HEARTBEAT_MS, Hub, SharedSettings};
use crate::log::{Event, Log};

/// Bytes of commands at which a record is complete: Redis and all nodes take it as a whole.
const RECORD_BYTES_MAX: usize = 1 << 20;

impl<L: Listener> Service<L> {
    /// Makes this process a node of the cluster whose log this is. `node` is its number. Until it
    /// has joined, calls fail.
    pub fn set_shared_log(&mut self, log: Box<dyn Log>, node: u64) {
        self.hub.begin_clustering(self.io.now, node);
        self.commits.record_bytes_max = RECORD_BYTES_MAX;
        self.commits.log = Some(log);
    }

    /// Makes this process the node of the cluster that its predecessor was, whose hub this is.
    /// `position` is that of the last record that the predecessor has applied.
    ///
    /// # Errors
    ///
    /// The options that differ from those of the cluster, since the nodes share them.
    pub fn resume_shared_log(&mut self, log: Box<dyn Log>, position: u64) -> Result<(), String> {
        if let Some(shared) = self.hub.settings_mismatch() {
            return Err(describe_mismatch(self.hub.shared_settings(), shared));
        }
        self.hub.begin_logging();
        self.commits.record_bytes_max = RECORD_BYTES_MAX;
        self.commits.position = position;
        self.commits.log = Some(log);
        // The first heartbeat tells the hash of this state.
        self.hub.end_record(position);
        Ok(())
    }

    /// Returns what the successor of this process continues the log of a cluster with. Nothing may
    /// wait for the log. `None` without a cluster, or before this process is in it.
    #[must_use]
    pub fn shared_log_state(&self) -> Option<Vec<u8>> {
        let log = self.commits.log.as_ref().filter(|_| self.hub.is_joined())?;
        log.state()
    }

    /// Returns whether the log can be reached, as far as is known: what waits for it will not have
    /// to wait long.
    #[must_use]
    pub fn is_log_reachable(&self) -> bool {
        self.commits.log.as_ref().is_none_or(|log| log.is_reachable())
    }

    /// Proposes that this node leaves the cluster, so that another one holds its sessions at once.
    /// Without another one, the next process that starts inherits them.
    pub(super) fn leave_cluster(&mut self) {
        if self.hub.is_clustered() && self.hub.is_joined() && self.hub.has_heir() {
            self.hub.propose_part();
        }
    }

    /// Returns whether this process has joined its cluster, if there is one.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.hub.is_joined()
    }

    /// Begins the part of a turn that drives the log of a cluster.
    pub(super) fn begin_cluster_turn(&mut self) {
        let Self { io, commits, .. } = self;
        if let Some(log) = &mut commits.log {
            log.begin_turn(io.now.mono.0);
        }
        commits.barriers.note_turn(io.now.mono);
        self.keep_membership();
        self.begin_barrier();
    }

    /// Ends the part of a turn that drives the log of a cluster: all of its events are handled that
    /// this turn has budget for.
    pub(super) fn end_cluster_turn(&mut self) {
        self.check_divergence();
        self.tell_members();
        if self.hub.was_buried() {
            // Its sessions time out at another node until it holds them again.
            self.keep_membership();
        }
        self.end_late_waits();
    }

    /// Joins the cluster, or proposes a heartbeat that is due.
    fn keep_membership(&mut self) {
        let Self { hub, io, commits, phase, .. } = self;
        let is_away = !matches!(phase, Phase::Serving) || commits.loading.is_some();
        let is_early = commits.heartbeat_at > io.now.mono && !hub.was_buried();
        if is_early {
            return;
        }
        commits.heartbeat_at = io.now.mono.after(HEARTBEAT_MS);
        if is_away || commits.has_failed {
            return;
        }
        let is_idle = !commits.has_record() && hub.proposed() == 0;
        match hub.is_joined() {
            true => commits.is_heartbeat_late = !hub.propose_heartbeat(commits.position),
            false if is_idle => {
                if hub.was_buried() {
                    log::warn!("cluster: the other nodes took this one for dead; joining again");
                    let log = commits.log.as_mut().expect("a cluster has a log");
                    hub.renew_node(log.renew_node());
                }
                self.begin_join();
            }
            false => {}
        }
    }

    /// Handles an event that only the log of a cluster has.
    pub(super) fn on_shared_event(&mut self, event: Event) {
        if !self.hub.is_clustered() {
            return;
        }
        match event {
            Event::Outcome(_) => unreachable!("every log has outcomes"),
            Event::Record(record) => self.begin_shared_record(&record),
            Event::Barrier => self.end_barrier(),
            Event::SnapshotBegins { log_time_ahead_ms } => self.begin_load(log_time_ahead_ms),
            Event::SnapshotPiece(piece) => self.load_piece(&piece),
            Event::SnapshotEnds { position } => self.finish_load(position),
            Event::Unusable => self.commits.has_failed = true,
        }
    }

    /// Tells the log the nodes, if it waits for them. All records have been applied.
    fn tell_members(&mut self) {
        let Self { hub, io, commits, .. } = self;
        if let Some(log) = commits.log.as_mut().filter(|log| log.wants_members())
            && commits.applying.is_none()
        {
            log.set_members(hub.node_numbers(), Hub::renumbering(io.api.draw_epoch()));
        }
    }

    /// Stops, since the nodes of the cluster have other settings than this process.
    pub(super) fn on_mismatch(&mut self, shared: SharedSettings) {
        log::error!("{}", describe_mismatch(self.hub.shared_settings(), shared));
        self.commits.has_failed = true;
    }
}

/// Returns why a process with settings of its own cannot be a node of a cluster with these.
fn describe_mismatch(own: SharedSettings, shared: SharedSettings) -> String {
    let options = [
        ("--history", own.history, shared.history),
        ("--retention in ms", own.retention_ms, shared.retention_ms),
        ("--connection-timeout in ms", own.session_timeout_ms, shared.session_timeout_ms),
    ];
    let differing = options.into_iter().filter(|(_, own, shared)| own != shared);
    let differences: Vec<_> = differing
        .map(|(option, own, shared)| format!("{option} is {own} here and {shared} there"))
        .collect();
    format!("cannot join the cluster: {}", differences.join(", "))
}
