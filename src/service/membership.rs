//! This process as a node of a cluster: it joins, and shows that it lives.

use super::listener::Listener;
use super::service::Service;
use crate::hub::{HEARTBEAT_MS, SharedSettings};
use crate::log::Log;

impl<L: Listener> Service<L> {
    /// Makes this process a node of the cluster whose log this is. `node` is its number. Until it
    /// has joined, calls fail.
    pub fn set_shared_log(&mut self, log: Box<dyn Log>, node: u64) {
        self.hub.begin_clustering(self.io.now, node);
        self.commits.log = Some(log);
    }

    /// Joins the cluster, or proposes a heartbeat that is due.
    pub(super) fn keep_membership(&mut self) {
        let Self { hub, io, commits, .. } = self;
        let is_early = commits.heartbeat_at > io.now.mono && !hub.was_buried();
        if !hub.is_clustered() || is_early || commits.has_failed {
            return;
        }
        commits.heartbeat_at = io.now.mono.after(HEARTBEAT_MS);
        let is_idle = !commits.has_record() && hub.proposed() == 0;
        match hub.is_joined() {
            true => hub.propose_heartbeat(commits.position),
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

    /// Stops, since the nodes of the cluster have other settings than this process.
    pub(super) fn on_mismatch(&mut self, shared: SharedSettings) {
        let own = self.hub.shared_settings();
        for (option, own, shared) in [
            ("--history", own.history, shared.history),
            ("--retention in ms", own.retention_ms, shared.retention_ms),
            ("--connection-timeout in ms", own.session_timeout_ms, shared.session_timeout_ms),
        ] {
            if own != shared {
                log::error!("cannot join the cluster: {option} is {own} here and {shared} there");
            }
        }
        self.commits.has_failed = true;
    }
}
