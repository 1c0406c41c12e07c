//! The connections to the Redis that the nodes of a cluster share.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;

use mio::Registry;
use mio::event::Event;

use super::checked::CheckedCluster;
use crate::cluster::{ClusterLog, ClusterLogState, Connection, Event as ConnectionEvent, Keys};
use crate::hub::Millis;
use crate::options::Options;
use crate::sandbox::OutgoingPorts;
use crate::server::event_source::EventSource;
use crate::server::listener::OsListener;
use crate::server::redis::{
    PASSWORD_ENV, PASSWORD_FILE_ENV, RedisSocket, RedisTarget, cluster_url,
};
use crate::server::start_error::StartError;
use crate::service::Service;

/// Names of the environment variables that are read for a cluster, besides those of options.
pub const VARIABLES: [&str; 2] = [PASSWORD_ENV, PASSWORD_FILE_ENV];

/// Longest time between a command and its reply, in milliseconds. Short enough that this process
/// can connect again before the other nodes take it for dead, some 3 s after its last record.
const REPLY_MS: u64 = 2_000;

/// The same for the connection that waits for records, which Redis lets wait for up to 1 s.
const PAGE_REPLY_MS: u64 = 3_000;

/// The sockets of a cluster's log.
pub(in crate::server) struct ClusterSockets {
    commands: Rc<RefCell<RedisSocket>>,
    follower: Rc<RefCell<RedisSocket>>,
    target: Rc<RedisTarget>,
}

/// A socket, as the log has it.
struct SharedSocket(Rc<RefCell<RedisSocket>>);

impl ClusterSockets {
    /// Makes the service a node of the cluster, if the options name one. `predecessor` is what the
    /// process that this one takes over from had of the log.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the URL is wrong, its host is unknown, the file of `--cluster-ca` is of no
    /// use, or the nodes have other settings than this process, which would take over from one.
    pub(in crate::server) fn start(
        options: &Options,
        registry: &Registry,
        random: fn(&mut [u8]),
        predecessor: Option<&ClusterLogState>,
        service: &mut Service<OsListener>,
    ) -> Result<Option<Self>, StartError> {
        let Some(url) = options.cluster.as_deref() else { return Ok(None) };
        let ca = options.cluster_ca.as_deref();
        let (sockets, log) = Self::new(url, ca, registry, random, predecessor)?;
        if let Some(state) = predecessor {
            service.resume_shared_log(Box::new(log), state.position()).map_err(StartError)?;
        } else {
            let node = log.node();
            service.set_shared_log(Box::new(log), node);
        }
        Ok(Some(sockets))
    }

    /// Looks up the host of the options' cluster as a start does, without a connection. Returns the
    /// ports to which the server would connect. `None` without a cluster.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the URL is wrong or its host is unknown.
    pub(in crate::server) fn check(
        options: &Options,
    ) -> Result<Option<CheckedCluster>, StartError> {
        let Some(url) = options.cluster.as_deref() else { return Ok(None) };
        let url = cluster_url(url).map_err(StartError)?;
        let ca = options.cluster_ca.as_deref();
        let target = RedisTarget::resolve(url, ca).map_err(StartError)?;
        let (outgoing, certificates) = (ports(&target), target.check_tls());
        Ok(Some(CheckedCluster { outgoing, certificates }))
    }

    /// Looks up the host of a cluster, and makes its log. The connections begin to connect in the
    /// first turn.
    fn new(
        url: &str,
        ca: Option<&Path>,
        registry: &Registry,
        random: fn(&mut [u8]),
        predecessor: Option<&ClusterLogState>,
    ) -> Result<(Self, ClusterLog), StartError> {
        let url = cluster_url(url).map_err(StartError)?;
        let keys = Keys::new(url.prefix());
        let target = Rc::new(RedisTarget::resolve(url, ca).map_err(StartError)?);
        let connect = |source: EventSource, reply_ms| -> io::Result<_> {
            let socket = RedisSocket::new(Rc::clone(&target), registry, source.token(), reply_ms)?;
            Ok(Rc::new(RefCell::new(socket)))
        };
        let failed = |error: io::Error| StartError(format!("cannot start: {error}"));
        let commands = connect(EventSource::ClusterCommands, REPLY_MS).map_err(failed)?;
        let follower = connect(EventSource::ClusterFollower, PAGE_REPLY_MS).map_err(failed)?;
        let shared = |socket: &Rc<_>| Box::new(SharedSocket(Rc::clone(socket)));
        let mut log = ClusterLog::new(shared(&commands), shared(&follower), keys, random);
        if let Some(state) = predecessor {
            log.resume(state);
        }
        Ok((Self { commands, follower, target }, log))
    }

    /// Ports to which the sockets connect.
    pub(in crate::server) fn outgoing_ports(&self) -> OutgoingPorts {
        ports(&self.target)
    }

    /// Begins a turn of the loop.
    pub(in crate::server) fn begin_turn(&self, now: Millis) {
        self.commands.borrow_mut().begin_turn(now);
        self.follower.borrow_mut().begin_turn(now);
    }

    /// Handles an event of the connection for commands, or of the other one.
    pub(in crate::server) fn on_event(&self, source: EventSource, event: &Event) {
        let socket = match source {
            EventSource::ClusterCommands => &self.commands,
            _ => &self.follower,
        };
        socket.borrow_mut().on_event(event);
    }

    /// Ends a turn of the loop: sends the commands of the turn.
    pub(in crate::server) fn end_turn(&self) {
        self.commands.borrow_mut().end_turn();
        self.follower.borrow_mut().end_turn();
    }

    /// Sends and receives outside of a turn, whatever the poll has to say.
    pub(in crate::server) fn exchange(&self) {
        self.commands.borrow_mut().exchange();
        self.follower.borrow_mut().exchange();
    }

    /// Returns the time of the next turn, if no event comes before.
    pub(in crate::server) fn next_deadline(&self) -> Option<Millis> {
        let (commands, follower) = (self.commands.borrow(), self.follower.borrow());
        Millis::earliest([commands.next_deadline(), follower.next_deadline()])
    }
}

fn ports(target: &RedisTarget) -> OutgoingPorts {
    match target.master() {
        Some(_) => OutgoingPorts::Any,
        None => OutgoingPorts::Only(target.ports()),
    }
}

impl Connection for SharedSocket {
    fn send(&mut self, args: &[&[u8]]) {
        self.0.borrow_mut().send(args);
    }

    fn poll(&mut self) -> Option<ConnectionEvent> {
        self.0.borrow_mut().poll()
    }

    fn reset(&mut self) {
        self.0.borrow_mut().reset();
    }

    fn buffered_bytes(&self) -> usize {
        self.0.borrow().buffered_bytes()
    }
}
