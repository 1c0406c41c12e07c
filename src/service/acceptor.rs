//! Who arrives at the doors: taken in, turned away, or shed where there is no descriptor for them.

use std::fmt;
use std::io;
use std::net::IpAddr;

use super::conversation::Conversation;
use super::limits::FILES_RESERVED;
use super::listener::{Listener, ListenerKind};
use crate::api::Error;
use crate::hub::{Key, Millis};
use crate::metrics::RejectReason;

/// Connections accepted in one turn, from all doors: newcomers wait a little where others are being served.
pub const ACCEPTS_A_TURN: usize = 256;

/// How long to leave the doors alone when there are no descriptors. The backlog of the kernel holds who comes.
const ACCEPT_PAUSE_MS: u64 = 100;

/// Clients at once that are there only to read that there is no room, and may take their time. Those beyond are told so too,
/// and closed at once.
pub const REJECTED_CLIENTS_MAX: usize = FILES_RESERVED / 2;

/// Clients at once by the admin door: some scrapers, and an operator who looks. They are not to take the public's room.
pub const ADMIN_CLIENTS_MAX: usize = FILES_RESERVED / 8;

/// What a client is told that is one too many.
const SERVER_FULL: Error =
    Error::OverCapacity("this server has as many clients as it may: try again later");
const ADDRESS_FULL: Error =
    Error::TooManyRequests("your address has as many clients here as it may", 1);

/// The doors, and what is decided about those who come in.
pub(super) struct Acceptor<L: Listener> {
    listeners: Vec<ListenerSlot<L>>,
    max_clients: usize,
    /// Given up for a moment to accept, and close, a client for whom there is no descriptor.
    reserve_fd: Option<L::Reserve>,
    /// Doors are left alone until then.
    paused_until: Option<Millis>,
    /// When to say again that there are no descriptors.
    next_warning: Millis,
}

struct ListenerSlot<L> {
    listener: L,
    /// A connection may be there to accept; cleared when there is none.
    is_readable: bool,
}

impl<L: Listener> Acceptor<L> {
    pub(super) fn new(listeners: Vec<L>, max_clients: usize) -> Self {
        let mut listeners: Vec<_> = listeners
            .into_iter()
            .map(|listener| ListenerSlot { listener, is_readable: false })
            .collect();
        let reserve_fd = listeners.first_mut().and_then(|door| door.listener.reserve_fd());
        Self { listeners, max_clients, reserve_fd, paused_until: None, next_warning: Millis(0) }
    }

    /// Somebody may be at this door.
    pub(super) fn set_ready(&mut self, place: usize) {
        if let Some(door) = self.listeners.get_mut(place) {
            door.is_readable = true;
        }
    }

    /// Whether somebody can be let in without waiting.
    pub(super) fn has_pending(&self) -> bool {
        self.paused_until.is_none() && self.listeners.iter().any(|door| door.is_readable)
    }

    /// When to look at the doors again that were left alone.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.paused_until
    }

    pub(super) fn max_clients(&self) -> usize {
        self.max_clients
    }

    pub(super) fn listeners(&self) -> impl Iterator<Item = &L> {
        self.listeners.iter().map(|door| &door.listener)
    }

    pub(super) fn listeners_mut(&mut self) -> impl Iterator<Item = &mut L> {
        self.listeners.iter_mut().map(|door| &mut door.listener)
    }

    /// Nobody comes in any more.
    pub(super) fn close(&mut self) {
        self.listeners.clear();
        self.paused_until = None;
    }

    /// Lets in who is there, as many as a turn has time for. `watch` has events of a socket told under its key.
    pub(super) fn accept(
        &mut self,
        now: Millis,
        conversation: &mut Conversation<L::Socket>,
        mut watch: impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        if self.paused_until.is_some_and(|at| at > now) {
            return;
        }
        self.paused_until = None;
        // As in most turns.
        if !self.has_pending() {
            return;
        }
        // However many come, whoever looks after the server gets in.
        for (audience, mut budget) in
            [(ListenerKind::Admin, ADMIN_CLIENTS_MAX), (ListenerKind::Public, ACCEPTS_A_TURN)]
        {
            self.accept_from(audience, &mut budget, now, conversation, &mut watch);
        }
    }

    fn accept_from(
        &mut self,
        audience: ListenerKind,
        budget: &mut usize,
        now: Millis,
        conversation: &mut Conversation<L::Socket>,
        watch: &mut impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        for place in 0..self.listeners.len() {
            if self.listeners[place].listener.audience() != audience {
                continue;
            }
            while self.listeners[place].is_readable && *budget > 0 && self.paused_until.is_none() {
                match self.listeners[place].listener.accept() {
                    Ok((socket, address)) => {
                        self.admit(conversation, audience, (socket, address), watch);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.listeners[place].is_readable = false;
                    }
                    Err(error) if is_out_of_room(&error) => {
                        self.shed(conversation, place, now, &error);
                    }
                    // The one that was to be accepted is gone; others may be there.
                    Err(_) => {}
                }
                *budget -= 1;
            }
        }
    }

    /// Takes a client in, if there is room; else tells it so, if there is room for that.
    fn admit(
        &mut self,
        conversation: &mut Conversation<L::Socket>,
        audience: ListenerKind,
        (socket, address): (L::Socket, Option<IpAddr>),
        watch: &mut impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) {
        let now = conversation.io.now.mono;
        if audience == ListenerKind::Admin {
            if conversation.io.clients.admin_count() < ADMIN_CLIENTS_MAX {
                let key = conversation.admit_admin(socket);
                self.register(conversation, key, now, watch);
            }
            return;
        }
        let has_room = conversation.io.clients.active() < self.max_clients;
        if !has_room {
            conversation.metrics.count_refused(RejectReason::MaxClients);
            if conversation.io.clients.rejected_count() >= REJECTED_CLIENTS_MAX {
                return conversation.reject_and_close(socket, SERVER_FULL);
            }
        }
        let key = conversation.admit(socket, address);
        if self.register(conversation, key, now, watch) == Registered::Closed {
            if has_room {
                conversation.metrics.count_refused(RejectReason::Descriptors);
            }
        } else if !has_room {
            conversation.reject(key, SERVER_FULL);
        } else if conversation.io.clients.exceeds_address_limit(key) {
            conversation.metrics.count_refused(RejectReason::MaxPerAddress);
            if conversation.io.clients.rejected_count() < REJECTED_CLIENTS_MAX {
                conversation.reject(key, ADDRESS_FULL);
            } else {
                conversation.respond_and_close(key, ADDRESS_FULL);
            }
        }
    }

    /// Has events told of a client that was just taken in; where that cannot be, it goes.
    fn register(
        &mut self,
        conversation: &mut Conversation<L::Socket>,
        key: Key,
        now: Millis,
        watch: &mut impl FnMut(&mut L::Socket, Key) -> io::Result<()>,
    ) -> Registered {
        let Err(error) = watch(&mut conversation.io.clients.expect_mut(key).socket, key) else {
            return Registered::Yes;
        };
        conversation.close(key);
        self.warn(now, format_args!("cannot watch a new client: {error}"));
        Registered::Closed
    }

    /// Tells the next arrival that there is no descriptor for it, closes it, and leaves the doors alone for a while.
    fn shed(
        &mut self,
        conversation: &mut Conversation<L::Socket>,
        place: usize,
        now: Millis,
        error: &io::Error,
    ) {
        // Most likely EMFILE: retrying at once would spin. The spare descriptor lets one know that it is not wanted.
        self.reserve_fd = None;
        let listener = &mut self.listeners[place].listener;
        if let Ok((socket, _)) = listener.accept()
            && listener.audience() == ListenerKind::Public
        {
            conversation.metrics.count_refused(RejectReason::Descriptors);
            conversation.reject_and_close(socket, SERVER_FULL);
        }
        self.reserve_fd = listener.reserve_fd();
        self.paused_until = Some(now.after(ACCEPT_PAUSE_MS));
        let advice = "raise the limit on open files, or set --max-clients";
        self.warn(now, format_args!("cannot accept more clients ({error}): {advice}"));
    }

    /// Says that there is no room, once a second at most.
    fn warn(&mut self, now: Millis, text: fmt::Arguments<'_>) {
        if now >= self.next_warning {
            self.next_warning = now.after(1_000);
            log::warn!("{text}");
        }
    }
}

/// Whether events of a newcomer will be told.
#[derive(PartialEq, Eq)]
enum Registered {
    Yes,
    Closed,
}

fn is_out_of_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
