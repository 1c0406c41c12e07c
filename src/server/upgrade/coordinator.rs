//! The server's part in upgrades, old process and new.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry};

use super::predecessor::{Predecessor, ReceivedClient, TransferStatus};
use super::successor::{Continued, DRAIN_SPREAD_MS, Successor, TransferredListener};
use crate::hub::Millis;
use crate::server::clustering::ClusterSockets;
use crate::server::event_source::EventSource;
use crate::server::journaling::{self, JournalHandle};
use crate::server::listener::OsListener;
use crate::server::os_socket::OsSocket;
use crate::server::start_error::StartError;
use crate::server::systemd::{Notification, Systemd};
use crate::server::tls::{ClientSocket, ServerTls};
use crate::service::{Listener, Service, Socket, Transfer};

/// Time in which the successor must say hello. It is killed after that.
const START_TIMEOUT_MS: u64 = 10_000;

/// Status for systemd after a failed upgrade.
const TAKEOVER_FAILED: &str = "upgrade failed; the old process is still serving (see log)";

/// Upgrades of the server: the predecessor, while it has clients to transfer, and the successor,
/// once it was started.
pub(in crate::server) struct UpgradeCoordinator {
    predecessor: Option<Predecessor>,
    successor: Option<PendingUpgrade>,
}

/// An upgrade that was started.
struct PendingUpgrade {
    successor: Successor,
    /// Deadline of its hello, and of the moment at which the log can be handed over.
    deadline: Millis,
    /// It has said hello, or has exited.
    is_readable: bool,
}

impl UpgradeCoordinator {
    /// Begins with the process that this one takes over from, if there is one.
    pub(in crate::server) fn new(predecessor: Option<Predecessor>) -> Self {
        Self { predecessor, successor: None }
    }

    /// Returns whether the predecessor may still transfer clients.
    pub(in crate::server) fn has_predecessor(&self) -> bool {
        self.predecessor.is_some()
    }

    /// Waits until this process may serve. Returns at once without a predecessor.
    ///
    /// # Errors
    ///
    /// The error of the socket to the predecessor, or of registering it.
    pub(in crate::server) fn wait_for_go(&mut self, registry: &Registry) -> io::Result<()> {
        let Some(predecessor) = &mut self.predecessor else { return Ok(()) };
        predecessor.wait_for_go()?;
        register(registry, predecessor, EventSource::Predecessor)
    }

    /// Adopts the clients that the predecessor has transferred.
    pub(in crate::server) fn adopt_clients(
        &mut self,
        service: &mut Service<OsListener>,
        registry: &Registry,
        tls: Option<&ServerTls>,
    ) {
        let Some(predecessor) = &mut self.predecessor else { return };
        let status = predecessor.receive_clients(|ReceivedClient { fd, input, tls: state }| {
            let (socket, address) = match OsSocket::from_fd(fd) {
                Ok(client) => client,
                // The peer has closed the connection meanwhile.
                Err(error) => return log::debug!("transferred client is gone: {error}"),
            };
            let socket = match state {
                None => Some(ClientSocket::plain(socket)),
                Some(state) => tls.and_then(|tls| tls.adopt(socket, &state)),
            };
            let Some(socket) = socket else {
                return log::warn!("cannot continue TLS of a transferred client");
            };
            service.adopt_client(socket, address, input, |socket, key| {
                socket.inner_mut().register(registry, EventSource::Client(key).token())
            });
        });
        if status == TransferStatus::Done {
            self.predecessor = None;
            log::info!("upgrade finished: old process exited");
        }
    }

    /// Starts the successor. This process serves until that says hello.
    pub(in crate::server) fn start(&mut self, now: Millis, registry: &Registry, systemd: &Systemd) {
        systemd.notify(Notification::Reloading);
        let obstacle = match (&self.successor, &self.predecessor) {
            (Some(_), _) => Some("an upgrade is already in progress"),
            (_, Some(_)) => Some("the previous upgrade is not finished; retry in a moment"),
            _ => None,
        };
        if let Some(obstacle) = obstacle {
            log::warn!("ignoring SIGUSR2: {obstacle}");
            return systemd.notify(Notification::Ready(obstacle));
        }
        let started = Successor::start().and_then(|successor| {
            register(registry, &successor, EventSource::Successor)?;
            Ok(successor)
        });
        match started {
            Ok(successor) => {
                log::info!("upgrade started successor={}", successor.id());
                let deadline = now.after(START_TIMEOUT_MS);
                self.successor = Some(PendingUpgrade { successor, deadline, is_readable: false });
            }
            Err(error) => {
                log::error!("upgrade failed: cannot start the new process: {error}");
                systemd.notify(Notification::Ready(TAKEOVER_FAILED));
            }
        }
    }

    /// Notes that the socket of the successor is readable: it has said hello, or has exited.
    pub(in crate::server) fn note_readable(&mut self, service: &Service<OsListener>) {
        if let Some(pending) = &mut self.successor
            && !mem::replace(&mut pending.is_readable, true)
            && !service.is_log_reachable()
        {
            log::info!("upgrade waits for Redis successor={}", pending.successor.id());
        }
    }

    /// Returns whether to hand over to the successor. In a cluster, that waits until Redis can be
    /// reached, since this process does nothing else meanwhile.
    pub(in crate::server) fn may_hand_over(&self, service: &Service<OsListener>) -> bool {
        self.successor.as_ref().is_some_and(|pending| pending.is_readable)
            && service.is_log_reachable()
            && !service.is_draining()
    }

    /// Hands over to the successor.
    pub(in crate::server) fn hand_over(
        &mut self,
        service: &mut Service<OsListener>,
        journal: Option<&JournalHandle>,
        cluster: Option<&ClusterSockets>,
        tls: Option<&ServerTls>,
        systemd: &Systemd,
    ) {
        let Some(PendingUpgrade { successor, .. }) = &mut self.successor else { return };
        if journal.is_some() && !journaling::drain(service, || {}) {
            return self.abort("the journal is too slow, or has failed", systemd);
        }
        if let Some(cluster) = cluster
            && !journaling::drain(service, || cluster.exchange())
        {
            return self.abort("Redis is too slow", systemd);
        }
        let cluster_log = service.shared_log_state();
        if cluster.is_some() && cluster_log.is_none() {
            return self.abort("this node is not in its cluster", systemd);
        }
        let to_transfer = |listener| TransferredListener {
            kind: Listener::kind(listener),
            address: OsListener::address(listener),
            is_activated: listener.is_activated(),
            fd: listener.as_fd(),
        };
        let listeners: Vec<_> = service.listeners().map(to_transfer).collect();
        let (hub, now) = service.hub();
        let continued = Continued {
            cluster_log: cluster_log.as_deref(),
            ticket_keys: tls.map(ServerTls::ticket_keys),
        };
        let mut result = successor.send_state(&listeners, &continued, hub, now);
        if result.is_ok() {
            // The successor opens the journal when it may serve. The log of a cluster has no owner.
            if journal.is_some() {
                service.release_log();
            }
            result = successor.send_go();
            if result.is_err()
                && let Some(journal) = journal
                && let Err(StartError(line)) = journaling::reopen(journal, service)
            {
                service.fail_log();
                log::error!("{line}");
            }
        }
        match result {
            Ok(()) => {
                service.release_log();
                service.listeners_mut().for_each(OsListener::mark_transferred);
                service.start_draining(DRAIN_SPREAD_MS);
                systemd.notify(Notification::MainPid(successor.id()));
            }
            Err(error) => self.abort(&error.to_string(), systemd),
        }
    }

    /// Makes progress with an upgrade, once per turn: transfers clients while the service drains,
    /// and aborts the upgrade if the successor takes too long to start.
    pub(in crate::server) fn drive(
        &mut self,
        service: &mut Service<OsListener>,
        systemd: &Systemd,
    ) {
        let Some(PendingUpgrade { successor, deadline, is_readable }) = &mut self.successor else {
            return;
        };
        if !service.is_draining() {
            // The hand-over, which would notice that, waits for Redis.
            if *is_readable && successor.has_exited() {
                self.abort("the new process has ended", systemd);
            } else if service.hub().1.mono >= *deadline {
                let reason = match is_readable {
                    true => "Redis cannot be reached",
                    false => "the new process takes too long to start",
                };
                self.abort(reason, systemd);
            }
            return;
        }
        service.transfer_clients(|socket: &mut ClientSocket, input| {
            let tls = socket.export();
            if socket.is_tls() && tls.is_none() {
                return Transfer::Later;
            }
            let fd = socket.inner().as_fd();
            if let Err(error) = successor.send_client(fd, input, tls.as_deref()) {
                log::warn!("client transfer failed: {error}");
            }
            Transfer::Done
        });
    }

    /// Deadline of the successor's hello.
    pub(in crate::server) fn next_deadline(&self) -> Option<Millis> {
        self.successor.as_ref().map(|pending| pending.deadline)
    }

    /// Kills a successor that does not serve yet: this process stops.
    pub(in crate::server) fn cancel(&mut self) {
        if let Some(PendingUpgrade { successor, .. }) = self.successor.take() {
            successor.kill();
        }
    }

    fn abort(&mut self, reason: &str, systemd: &Systemd) {
        if let Some(PendingUpgrade { successor, .. }) = self.successor.take() {
            log::error!("upgrade failed successor={}: {reason}", successor.id());
            successor.kill();
            systemd.notify(Notification::Ready(TAKEOVER_FAILED));
        }
    }
}

fn register(registry: &Registry, file: &impl AsFd, source: EventSource) -> io::Result<()> {
    let fd = file.as_fd().as_raw_fd();
    registry.register(&mut SourceFd(&fd), source.token(), Interest::READABLE)
}
