//! The process that this one takes over from.

use std::collections::VecDeque;
use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::stdio;

use super::protocol::{Message, UPGRADE_ENV, UpgradeSocket, malformed};
use crate::hub::{Config, Hub, Now};
use crate::options::{ListenAddr, NAME_AND_VERSION, TLS_PREFIX};
use crate::server::clustering::ClusterLogState;
use crate::service::ListenerKind;
use crate::snapshot::{self, LoadError};

/// The process that this one takes over from.
pub(in crate::server) struct Predecessor {
    socket: UpgradeSocket,
    /// Replaces standard input, which is the socket too, once this process may serve. Until then,
    /// the socket stays open if the start fails: the predecessor kills a process that has closed
    /// it, which may not have said yet why it fails.
    null: File,
    /// Listeners that it has sent and this process has not taken yet.
    listeners: Vec<InheritedListener>,
    /// What this process continues the log of the cluster with.
    cluster_log: Option<ClusterLogState>,
    /// Keys of the tickets of TLS.
    ticket_keys: Option<Vec<u8>>,
}

/// A listening socket of the predecessor.
struct InheritedListener {
    kind: ListenerKind,
    address: String,
    is_activated: bool,
    fd: OwnedFd,
}

/// A message of the predecessor, with its descriptor.
enum Received {
    Listener(InheritedListener),
    ClusterLog(ClusterLogState),
    TicketKeys(Vec<u8>),
    State,
    Client(ReceivedClient),
    Go,
    Unexpected,
}

/// A client of the predecessor.
pub(super) struct ReceivedClient {
    pub(super) fd: OwnedFd,
    /// What arrived of its next request.
    pub(super) input: Vec<u8>,
    /// What its socket has exported, if it speaks TLS.
    pub(super) tls: Option<Vec<u8>>,
}

impl Received {
    fn from_message(message: Message<'_>, fds: &mut VecDeque<OwnedFd>) -> Self {
        match message {
            Message::State => Self::State,
            Message::Go => Self::Go,
            Message::Listener { is_public, address, is_activated } => {
                let kind = if is_public { ListenerKind::Public } else { ListenerKind::Admin };
                let address = address.to_owned();
                fds.pop_front().map_or(Self::Unexpected, |fd| {
                    Self::Listener(InheritedListener { kind, address, is_activated, fd })
                })
            }
            Message::Client { bytes, tls } => fds.pop_front().map_or(Self::Unexpected, |fd| {
                let (input, tls) = (bytes.to_vec(), tls.map(|state| state.to_vec()));
                Self::Client(ReceivedClient { fd, input, tls })
            }),
            Message::TicketKeys { bytes } => Self::TicketKeys(bytes.to_vec()),
            Message::ClusterLog { bytes } => {
                ClusterLogState::decode(bytes).map_or(Self::Unexpected, Self::ClusterLog)
            }
            Message::Hello { .. } | Message::Ready => Self::Unexpected,
        }
    }
}

impl Predecessor {
    /// Returns the predecessor of this process. `None` if it was not started by one.
    ///
    /// # Errors
    ///
    /// The error of preparing the socket to it, which is standard input.
    pub(in crate::server) fn from_env() -> io::Result<Option<Self>> {
        if env::var_os(UPGRADE_ENV).is_none() {
            return Ok(None);
        }
        let socket = UnixStream::from(stdio::stdin().try_clone_to_owned()?);
        let socket = UpgradeSocket::with_timeouts(socket)?;
        let (null, listeners) = (File::open("/dev/null")?, Vec::new());
        Ok(Some(Self { socket, null, listeners, cluster_log: None, ticket_keys: None }))
    }

    /// Says hello, then receives the listeners and the hub. `unix_ms` is the present time.
    ///
    /// # Errors
    ///
    /// The socket's error, or `InvalidData` for what this version does not understand.
    pub(in crate::server) fn receive_state(
        &mut self,
        config: &Config,
        unix_ms: u64,
    ) -> io::Result<(Hub, Now)> {
        self.socket.send(&Message::Hello { version: NAME_AND_VERSION }, None)?;
        loop {
            match self.socket.recv(Received::from_message)? {
                Received::Listener(listener) => self.listeners.push(listener),
                Received::ClusterLog(state) => self.cluster_log = Some(state),
                Received::TicketKeys(keys) => self.ticket_keys = Some(keys),
                Received::State => break,
                Received::Client(_) | Received::Go | Received::Unexpected => {
                    return Err(malformed());
                }
            }
        }
        snapshot::read(config, unix_ms, &mut self.socket).map_err(|error| match error {
            LoadError::Io(error) => error,
            LoadError::Truncated => io::ErrorKind::UnexpectedEof.into(),
            error => io::Error::other(error.to_string()),
        })
    }

    /// Takes what this process continues the log of the cluster with, if the predecessor was in
    /// one.
    pub(in crate::server) fn take_cluster_log(&mut self) -> Option<ClusterLogState> {
        self.cluster_log.take()
    }

    /// Takes the keys of the tickets of TLS, if the predecessor had certificates.
    pub(in crate::server) fn take_ticket_keys(&mut self) -> Option<Vec<u8>> {
        self.ticket_keys.take()
    }

    /// Takes the predecessor's listener for this address, if it had one.
    pub(in crate::server) fn take_listener(
        &mut self,
        kind: ListenerKind,
        address: &ListenAddr,
    ) -> Option<OwnedFd> {
        let address = address.to_string();
        let index =
            self.listeners.iter().position(|it| it.kind == kind && it.address == address)?;
        Some(self.listeners.swap_remove(index).fd)
    }

    /// Takes the listeners of socket activation, passed to the predecessor or to one before it:
    /// kind, whether the clients speak TLS, and descriptor.
    pub(in crate::server) fn take_activated(&mut self) -> Vec<(ListenerKind, bool, OwnedFd)> {
        let activated = self.listeners.extract_if(.., |listener| listener.is_activated);
        let is_tls = |listener: &InheritedListener| listener.address.starts_with(TLS_PREFIX);
        activated.map(|listener| (listener.kind, is_tls(&listener), listener.fd)).collect()
    }

    /// Reports that this process can serve, and waits until it may. If the predecessor has exited,
    /// this process may serve at once.
    ///
    /// # Errors
    ///
    /// The socket's error, or `InvalidData` for another message.
    pub(super) fn wait_for_go(&mut self) -> io::Result<()> {
        if self.socket.is_closed() {
            return Ok(stdio::dup2_stdin(&self.null)?);
        }
        let result = self
            .socket
            .send(&Message::Ready, None)
            .and_then(|()| self.socket.recv(Received::from_message));
        match result {
            Ok(Received::Go) => {}
            Ok(_) => return Err(malformed()),
            Err(error) if is_disconnected(&error) => {
                log::warn!("old process exited during the takeover");
            }
            Err(error) => return Err(error),
        }
        self.listeners.clear();
        stdio::dup2_stdin(&self.null)?;
        self.socket.set_nonblocking()
    }

    /// Receives the clients that have arrived, each with what arrived of its next request.
    pub(super) fn receive_clients(
        &mut self,
        mut adopt: impl FnMut(ReceivedClient),
    ) -> TransferStatus {
        loop {
            while let Ok(Some(received)) = self.socket.try_recv(Received::from_message) {
                if let Received::Client(client) = received {
                    adopt(client);
                }
            }
            match self.socket.fill() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return TransferStatus::More;
                }
                Ok(()) if !self.socket.is_closed() => {}
                _ => return TransferStatus::Done,
            }
        }
    }
}

/// Progress of the transfer of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransferStatus {
    /// The predecessor still has clients.
    More,
    /// The predecessor has closed its end.
    Done,
}

/// Returns whether the other process has exited.
pub(in crate::server) fn is_disconnected(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | BrokenPipe | ConnectionReset)
}

impl AsFd for Predecessor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
