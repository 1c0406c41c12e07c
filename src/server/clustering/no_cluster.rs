//! Stands in for the cluster in a build that has none. No type here has a value, so the compiler
//! leaves out the code of the server that needs one.

use mio::Registry;
use mio::event::Event;

use super::checked::CheckedCluster;
use crate::hub::Millis;
use crate::options::Options;
use crate::sandbox::OutgoingPorts;
use crate::server::event_source::EventSource;
use crate::server::listener::OsListener;
use crate::server::start_error::StartError;
use crate::service::Service;

/// No variables are read for a cluster.
pub const VARIABLES: [&str; 0] = [];

/// The sockets of a cluster's log.
pub(in crate::server) enum ClusterSockets {}

/// What the successor of a process continues the log of a cluster with.
pub(in crate::server) enum ClusterLogState {}

impl ClusterLogState {
    pub(in crate::server) fn decode(_: &[u8]) -> Option<Self> {
        None
    }
}

impl ClusterSockets {
    #[expect(clippy::unnecessary_wraps, reason = "the other build has errors")]
    pub(in crate::server) fn start(
        _: &Options,
        _: &Registry,
        _: fn(&mut [u8]),
        _: Option<&ClusterLogState>,
        _: &mut Service<OsListener>,
    ) -> Result<Option<Self>, StartError> {
        Ok(None)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the other build has errors")]
    pub(in crate::server) fn check(_: &Options) -> Result<Option<CheckedCluster>, StartError> {
        Ok(None)
    }

    pub(in crate::server) fn outgoing_ports(&self) -> OutgoingPorts {
        match *self {}
    }

    pub(in crate::server) fn begin_turn(&self, _: Millis) {
        match *self {}
    }

    pub(in crate::server) fn on_event(&self, _: EventSource, _: &Event) {
        match *self {}
    }

    pub(in crate::server) fn end_turn(&self) {
        match *self {}
    }

    pub(in crate::server) fn exchange(&self) {
        match *self {}
    }

    pub(in crate::server) fn next_deadline(&self) -> Option<Millis> {
        match *self {}
    }
}
