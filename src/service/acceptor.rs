//! The acceptor: accepts clients from the listeners, rejects clients above a limit, and sheds load
//! when no file descriptor is left.

use std::fmt;
use std::io;
use std::net::IpAddr;

use super::client_io::ClientIo;
use super::limits::{ADMIN_CLIENTS_MAX, AcceptLimits};
use super::listener::{Listener, ListenerKind};
use crate::api::Error;
use crate::hub::{Key, Millis};
use crate::metrics::RejectReason;

/// Clients accepted per turn from all public listeners. Prevents many new clients from delaying the
/// others.
pub const ACCEPTS_A_TURN: usize = 256;

/// Time for which no client is accepted after descriptors ran out. New clients wait in the
/// kernel's backlog.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Error for a client above `--max-clients`.
const SERVER_FULL: Error = Error::OverCapacity("client limit reached; retry later");

/// Error for a client above `--max-clients-per-address`.
const ADDRESS_FULL: Error =
    Error::TooManyRequests("too many connections from your address; close some or retry later", 1);

/// The listeners, and the decisions about new clients.
pub(super) struct Acceptor<L: Listener> {
    listeners: Vec<ListenerSlot<L>>,
    limits: AcceptLimits,
    /// A descriptor in reserve. It is closed for a moment to accept, and close, a client for which
    /// no other descriptor is left.
    reserve_fd: Option<L::Reserve>,
    /// Time before which no client is accepted; `None` while accepting is not paused.
    paused_until: Option<Millis>,
    /// Time before which no further warning is logged.
    next_warning: Millis,
}

struct ListenerSlot<L> {
    listener: L,
    /// A client may be waiting. Cleared when `accept` finds none.
    is_readable: bool,
}

impl<L: Listener> Acceptor<L> {
    pub(super) fn new(listeners: Vec<L>, limits: AcceptLimits) -> Self {
        let mut listeners: Vec<_> = listeners
            .into_iter()
            .map(|listener| ListenerSlot { listener, is_readable: false })
            .collect();
        let reserve_fd = listeners.first_mut().and_then(|slot| slot.listener.reserve_fd());
        Self { listeners, limits, reserve_fd, paused_until: None, next_warning: Millis(0) }
    }

    /// Notes that a listener may have clients to accept.
    pub(super) fn set_ready(&mut self, index: usize) {
        if let Some(slot) = self.listeners.get_mut(index) {
            slot.is_readable = true;
        }
    }

    /// Returns whether a client can be accepted at once.
    pub(super) fn has_pending(&self) -> bool {
        self.paused_until.is_none() && self.listeners.iter().any(|slot| slot.is_readable)
    }

    /// Returns the end of the pause, if there is one.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.paused_until
    }

    pub(super) fn max_clients(&self) -> usize {
        self.limits.clients
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = &L> {
        self.listeners.iter().map(|slot| &slot.listener)
    }

    pub(super) fn listeners_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.listeners.iter_mut().map(|slot| &mut slot.listener)
    }

    /// Closes the listeners.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
        self.paused_until = None;
    }

    /// Accepts waiting clients, up to the limits of a turn. `register` registers a socket with the
    /// poll under the client's key.
    pub(super) fn accept(
        &mut self,
        io: &mut ClientIo<L::Socket>,
        mut register: impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        if self.paused_until.is_some_and(|at| at > io.now.mono) {
            return;
        }
        self.paused_until = None;
        // The usual case.
        if !self.has_pending() {
            return;
        }
        // The admin listener has attempts of its own, so that many public clients do not shut the
        // operator out.
        self.accept_from(ListenerKind::Admin, ADMIN_CLIENTS_MAX, io, &mut register);
        self.accept_from(ListenerKind::Public, ACCEPTS_A_TURN, io, &mut register);
    }

    fn accept_from(
        &mut self,
        kind: ListenerKind,
        mut attempts: usize,
        io: &mut ClientIo<L::Socket>,
        register: &mut impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        for index in 0..self.listeners.len() {
            if self.listeners[index].listener.kind() != kind {
                continue;
            }
            while self.listeners[index].is_readable && attempts > 0 && self.paused_until.is_none() {
                attempts -= 1;
                match self.listeners[index].listener.accept() {
                    Ok((socket, _)) if kind == ListenerKind::Admin => {
                        self.admit_admin(io, socket, register);
                    }
                    Ok((socket, address)) => self.admit(io, socket, address, register),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.listeners[index].is_readable = false;
                    }
                    Err(error) if is_out_of_fds(&error) => self.shed(io, index, &error),
                    // This client has disconnected. Others may be waiting.
                    Err(_) => {}
                }
            }
        }
    }

    fn admit_admin(
        &mut self,
        io: &mut ClientIo<L::Socket>,
        socket: L::Socket,
        register: &mut impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        if io.clients.admin_count() < ADMIN_CLIENTS_MAX {
            let key = io.admit_admin(socket);
            self.register(io, key, register);
        }
    }

    /// Adds a client, or rejects it if a limit is reached: sends an error, and lets the client
    /// linger unless too many rejected clients do.
    fn admit(
        &mut self,
        io: &mut ClientIo<L::Socket>,
        socket: L::Socket,
        address: Option<IpAddr>,
        register: &mut impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        let has_room = io.clients.active() < self.limits.clients;
        if !has_room {
            io.metrics.count_rejected(RejectReason::MaxClients);
            if io.clients.rejected_count() >= self.limits.rejected {
                return io.reject_and_close(socket, SERVER_FULL);
            }
        }
        let key = io.admit(socket, address);
        if self.register(io, key, register) == Registered::Closed {
            if has_room {
                io.metrics.count_rejected(RejectReason::Descriptors);
            }
        } else if !has_room {
            io.reject(key, SERVER_FULL);
        } else if io.exceeds_handshake_limit(key) {
            io.clients.close(key);
        } else if io.clients.exceeds_address_limit(key) {
            io.metrics.count_rejected(RejectReason::MaxPerAddress);
            if io.clients.rejected_count() < self.limits.rejected {
                io.reject(key, ADDRESS_FULL);
            } else {
                io.respond_and_close(key, ADDRESS_FULL);
            }
        }
    }

    /// Registers a new client's socket with the poll, or closes the client if that fails.
    fn register(
        &mut self,
        io: &mut ClientIo<L::Socket>,
        key: Key,
        register: &mut impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) -> Registered {
        let Err(error) = register(&mut io.clients.expect_mut(key).socket, key) else {
            return Registered::Yes;
        };
        io.clients.close(key);
        self.warn(io.now.mono, format_args!("cannot register new client: {error}"));
        Registered::Closed
    }

    /// Sends an error to the next client, for which no descriptor is left, closes the client, and
    /// pauses accepting.
    fn shed(&mut self, io: &mut ClientIo<L::Socket>, index: usize, error: &io::Error) {
        // Most likely EMFILE: an attempt without a pause would only fail again. The reserve
        // descriptor allows sending the error to one client.
        self.reserve_fd = None;
        let listener = &mut self.listeners[index].listener;
        if let Ok((socket, _)) = listener.accept()
            && listener.kind() == ListenerKind::Public
        {
            io.metrics.count_rejected(RejectReason::Descriptors);
            io.reject_and_close(socket, SERVER_FULL);
        }
        self.reserve_fd = listener.reserve_fd();
        self.paused_until = Some(io.now.mono.after(ACCEPT_PAUSE_MS));
        let advice = "raise the limit on open files or set --max-clients";
        self.warn(io.now.mono, format_args!("cannot accept more clients: {error}; {advice}"));
    }

    /// Logs a warning, at most one per second.
    fn warn(&mut self, now: Millis, text: fmt::Arguments<'_>) {
        if now >= self.next_warning {
            self.next_warning = now.after(1_000);
            log::warn!("{text}");
        }
    }
}

/// Result of registering a new client's socket with the poll.
#[derive(PartialEq, Eq)]
enum Registered {
    Yes,
    Closed,
}

/// Returns whether `accept` failed because descriptors or kernel memory ran out. The numbers are
/// those of Linux.
fn is_out_of_fds(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}
